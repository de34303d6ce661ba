//! Quotas are charged in the transaction of what they are charged for.

use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use store::{Action, Compare, Op};
use tokio::sync::OwnedMutexGuard;

use super::{Call, Operation, cache_key};
use crate::strategy::Together;

/// Quotas as they were, and as they are to be; nobody else charges them before this is dropped.
pub(crate) struct Charge {
    pub writes: Vec<(Arc<Object>, Value)>,
    pub _turn: OwnedMutexGuard<()>,
}

impl Call<'_> {
    /// Adds the quotas' charge to what is written together with the object; the result is to be kept until that is done. Where the
    /// quotas have changed meanwhile nothing is written, and the charge is to be made anew.
    pub(super) async fn charge(
        &self,
        operation: Operation,
        new: &Value,
        old: Option<&Value>,
        together: &mut Together,
    ) -> Result<Option<Charge>, Status> {
        let Some(charge) = self.admission.charge(self, operation, new, old).await? else { return Ok(None) };
        let Some(quotas) = self.registry.storage("", "resourcequotas") else { return Ok(None) };
        let own = (self.storage().prefix == quotas.prefix).then(|| new.str_at(&["metadata", "name"])).flatten();
        for (quota, value) in &charge.writes {
            // A quota that counts quotas and is made once more: it exists, and that is the answer.
            if own == Some(quota.name()) {
                continue;
            }
            let object = quotas.encode(value)?;
            let key = quotas.store_key(&cache_key(quota.namespace(), quota.name()));
            let action = Action::Put { value: object.body().clone(), ttl: None };
            together.compares.push(Compare { key: key.clone().into(), mod_revision: quota.revision() });
            together.ops.push(Op { key: key.into(), action, tag: Some(Arc::new(object)) });
        }
        Ok(Some(charge))
    }
}
