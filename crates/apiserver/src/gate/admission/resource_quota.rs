//! What is written is charged to the quotas of its namespace, or refused. Upstream: apiserver
//! pkg/admission/plugin/resourcequota.
//!
//! The charge and the object are one transaction: a quota is never exceeded, and never charged for what wasn't written. Who
//! writes in a namespace that has quotas waits for its turn, so that they don't fail each other.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use apimachinery::{Object, Status, Value};
use parking_lot::Mutex;
use rules::quota::{Quota, Request, Resource, check, is_terminating};

use super::Write;
use crate::registry::{Call, Charge, Operation};

#[derive(Default)]
pub(super) struct ResourceQuota {
    /// Who writes in which namespace.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl ResourceQuota {
    /// What is to be written with the object.
    pub(super) async fn charge(
        &self,
        call: &Call<'_>,
        write: &Write<'_>,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Charge>, Status> {
        let quotas = || write.objects.list("", "resourcequotas", write.namespace);
        if write.namespace.is_empty() || !concerns(write, new, old) || quotas().is_empty() {
            return Ok(None);
        }
        let turn = self.turn(write.namespace).lock_owned().await;
        call.registry.fresh().await?;
        let objects: Vec<Arc<Object>> = quotas();
        let quotas: Vec<Quota> = objects.iter().map(|object| Quota::read(&object.to_value())).collect();
        let request = Request {
            resource: Resource::new(write.group, write.resource),
            new,
            old,
            enforced: write.subresource != "status",
            now: write.env.now(),
        };
        let charges = check(&quotas, &request).map_err(|why| write.forbidden(Some(new), &why))?;
        if charges.is_empty() || call.dry_run {
            return Ok(None);
        }
        let writes = charges.into_iter().map(|(place, used)| {
            let quota = objects[place].clone();
            let mut value = quota.to_value();
            value.set(&["status", "used"], used.to_value());
            (quota, value)
        });
        Ok(Some(Charge { writes: writes.collect(), _turn: turn }))
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(namespace.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// Whether a write of this kind can change what is used. Upstream: each evaluator's Handles.
fn concerns(write: &Write<'_>, new: &Value, old: Option<&Value>) -> bool {
    let creates = write.operation == Operation::Create && write.subresource.is_empty();
    let updates = write.operation == Operation::Update;
    let differ = |paths: &[&[&str]]| old.is_some_and(|old| paths.iter().any(|path| old.at(path) != new.at(path)));
    match (write.group, write.resource, write.subresource) {
        ("" | "events.k8s.io", "events", _) => false,
        ("", "pods", "resize") => updates,
        ("", "pods", "") => creates || updates && old.is_some_and(|old| is_terminating(old) != is_terminating(new)),
        ("", "services" | "persistentvolumeclaims", "") | ("resource.k8s.io", "resourceclaims", "") => {
            creates || updates
        }
        ("", "persistentvolumeclaims", "status") => {
            updates
                && differ(&[
                    &["status", "allocatedResources"],
                    &["status", "currentVolumeAttributesClassName"],
                    &["status", "modifyVolumeStatus"],
                ])
        }
        _ => creates,
    }
}
