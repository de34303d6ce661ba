//! Quotas are charged in the transaction of what they are charged for.

use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use store::{Action, Compare, Op, Txn};
use tokio::sync::OwnedMutexGuard;

use super::{Call, Operation, cache_key, store_failure};
use crate::strategy::Together;

/// How often quotas are charged anew when others write them.
const ATTEMPTS: usize = 16;

/// Quotas as they were, and as they are to be; nobody else charges them before this is dropped.
pub(crate) struct Charge {
    pub writes: Vec<(Arc<Object>, Value)>,
    pub _turn: OwnedMutexGuard<()>,
}

impl Call<'_> {
    /// Adds the quotas' charge to what is written together with the object; the result is to be kept until that is done.
    ///
    /// A transaction writes one object of a kind. Where several quotas count the object, the others are charged just before; the
    /// quota controller, which looks at charged quotas again, gives back what was charged for nothing.
    pub(super) async fn charge(
        &self,
        operation: Operation,
        new: &Value,
        old: Option<&Value>,
        together: &mut Together,
    ) -> Result<Option<Charge>, Status> {
        for _ in 0..ATTEMPTS {
            let Some(charge) = self.admission.charge(self, operation, new, old).await? else { return Ok(None) };
            let Some(quotas) = self.registry.storage("", "resourcequotas") else { return Ok(None) };
            let mut writes = Vec::with_capacity(charge.writes.len());
            for (quota, value) in &charge.writes {
                let object = quotas.encode(value)?;
                let key = quotas.store_key(&cache_key(quota.namespace(), quota.name()));
                let action = Action::Put { value: object.body().clone(), ttl: None };
                let compare = Compare { key: key.clone().into(), mod_revision: quota.revision() };
                writes.push((compare, Op { key: key.into(), action, tag: Some(Arc::new(object)) }));
            }
            let last = (self.storage().prefix != quotas.prefix).then(|| writes.pop()).flatten();
            if self.charge_before(writes).await? {
                let (compares, ops): (Vec<_>, Vec<_>) = last.into_iter().unzip();
                together.compares.extend(compares);
                together.ops.extend(ops);
                return Ok(Some(charge));
            }
        }
        Err(Status::conflict(&self.resource.group_resource(), self.name, "quotas change too fast"))
    }

    /// Whether all were written.
    async fn charge_before(&self, writes: Vec<(Compare, Op)>) -> Result<bool, Status> {
        for (compare, op) in writes {
            match self.registry.store.commit(Txn { compares: vec![compare], ops: vec![op] }).await {
                Ok(_) => {}
                Err(store::Error::Conflict(_)) => return Ok(false),
                Err(other) => return Err(store_failure(other)),
            }
        }
        Ok(true)
    }
}
