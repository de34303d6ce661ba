//! Objects come into namespaces that exist and stay; the three that the system needs are never deleted.

use apimachinery::{GroupResource, ObjectKey, Status, Value};

use super::{Plugin, Write};
use crate::registry::Operation;

pub(super) struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Plugin for NamespaceLifecycle {
    fn admit(&self, write: &Write<'_>, new: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        let exempt = write.namespace.is_empty()
            || write.is_of("", "namespaces")
            || write.is_of("authorization.k8s.io", "localsubjectaccessreviews");
        if exempt || !matches!(write.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let namespace = write.namespace;
        let Some(object) = write.objects.get("", "namespaces", &ObjectKey::cluster(namespace)) else {
            return Err(Status::not_found(&GroupResource::new("", "namespaces"), namespace));
        };
        if write.operation == Operation::Create && object.is_deleting() {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let message = format!("namespace {namespace} is being terminated");
            let refusal = write.forbidden(Some(new), &why);
            return Err(refusal.with_cause("NamespaceTerminating", message, "metadata.namespace"));
        }
        Ok(())
    }

    fn validate(&self, write: &Write<'_>, new: Option<&Value>, _old: Option<&Value>) -> Result<(), Status> {
        let doomed = write.operation == Operation::Delete && write.is_of("", "namespaces");
        if doomed && IMMORTAL.contains(&write.name) {
            return Err(write.forbidden(new, "this namespace may not be deleted"));
        }
        Ok(())
    }
}
