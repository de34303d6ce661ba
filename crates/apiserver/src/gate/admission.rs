//! Admission: what completes writes and refuses some, one plugin per file.
//!
//! Plugins decide on the write and on cached objects alone and never wait; where a cache may be a moment behind a client that
//! has just created a namespace, the [`Chain`] waits for it.

mod certificates;
mod claim_resize;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_topology_labels;
mod priority;
mod resource_quota;
mod role_escalation;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;
pub(crate) mod validating_admission_policy;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{GroupResource, ObjectKey, Status, Value};
use env::Env;
use futures_util::future::BoxFuture;

use super::{Attributes, Gate, node};
use crate::UserInfo;
use crate::registry::{self, Call, Operation, Seen};
use crate::strategy::Objects;

/// How long a namespace, or its default account, may take to appear in the cache.
const APPEARS_WITHIN: Duration = Duration::from_secs(2);

/// A write, as plugins see it.
pub(crate) struct Write<'a> {
    pub operation: Operation,
    pub user: &'a UserInfo,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty for creations whose path has no name.
    pub name: &'a str,
    pub objects: &'a dyn Objects,
    pub gate: &'a Gate,
    pub env: &'a Env,
}

/// One concern of admission. Upstream: `admission.MutationInterface`, `admission.ValidationInterface`.
pub(crate) trait Plugin: Send + Sync {
    /// Completes `new`, or refuses it. Not called for deletions.
    fn admit(&self, _write: &Write<'_>, _new: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses what all plugins have completed, or a deletion (`new` is `None`).
    fn validate(&self, _write: &Write<'_>, _new: Option<&Value>, _old: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// All plugins, in upstream's order.
pub(crate) struct Chain {
    gate: Arc<Gate>,
    plugins: Vec<Box<dyn Plugin>>,
    /// After the plugins, which belong to the server; it needs the whole call.
    policies: validating_admission_policy::ValidatingAdmissionPolicy,
    /// After all others, as it writes.
    quotas: resource_quota::ResourceQuota,
}

impl Chain {
    pub(crate) fn new(gate: Arc<Gate>) -> Chain {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccount),
            Box::new(node_restriction::NodeRestriction),
            Box::new(taint_nodes_by_condition::TaintNodesByCondition),
            Box::new(priority::Priority),
            Box::new(default_toleration_seconds::DefaultTolerationSeconds),
            Box::new(default_storage_class::DefaultStorageClass),
            Box::new(storage_object_in_use_protection::StorageObjectInUseProtection),
            Box::new(claim_resize::PersistentVolumeClaimResize),
            Box::new(runtime_class::RuntimeClass),
            Box::new(certificates::Certificates),
            Box::new(default_ingress_class::DefaultIngressClass),
            Box::new(pod_topology_labels::PodTopologyLabels),
            Box::new(role_escalation::RoleEscalation),
        ];
        Chain { gate, plugins, policies: Default::default(), quotas: Default::default() }
    }

    /// Runs the completing part of all plugins.
    fn admit(&self, write: &Write<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.admit(write, new, old))
    }

    /// Runs the refusing part of all plugins.
    fn validate(&self, write: &Write<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(write, new, old))
    }

    /// Completes or refuses a TokenRequest for the service account `namespace`/`name`, which no [`Call`] is about.
    pub(crate) fn admit_token(
        &self,
        objects: &dyn Objects,
        env: &Env,
        user: &UserInfo,
        (namespace, name): (&str, &str),
        request: &mut Value,
    ) -> Result<(), Status> {
        let write = Write {
            operation: Operation::Create,
            user,
            group: "",
            resource: "serviceaccounts",
            subresource: "token",
            namespace,
            name,
            objects,
            gate: &self.gate,
            env,
        };
        self.admit(&write, request, None)?;
        self.validate(&write, Some(request), None)
    }

    fn write<'a>(&'a self, call: &'a Call<'_>, operation: Operation) -> Write<'a> {
        Write {
            operation,
            user: call.user,
            group: call.resource.kind.group,
            resource: call.resource.kind.resource,
            subresource: call.subresource,
            namespace: call.namespace,
            name: call.name,
            objects: call.registry,
            gate: &self.gate,
            env: &call.registry.env,
        }
    }
}

impl registry::Admission for Chain {
    fn mutate<'a>(
        &'a self,
        call: &'a Call<'_>,
        operation: Operation,
        new: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let write = self.write(call, operation);
            let creates = operation == Operation::Create;
            if creates {
                await_prerequisites(call, &write, new).await;
            }
            // A limit range that was written just before counts, and so does the mark of a namespace whose claims may administer.
            let concerns_claims = write.group == "resource.k8s.io" && !write.namespace.is_empty();
            let looks_around = concerns_claims || creates && limit_ranger::concerns(&write, old);
            if looks_around && call.registry.is_behind() {
                call.registry.fresh().await?;
            }
            self.admit(&write, new, old)
        })
    }

    fn authorize_creation(&self, call: &Call<'_>) -> Result<(), Status> {
        let kind = call.resource.kind;
        self.gate.check(&Attributes {
            version: kind.version,
            namespace: call.namespace,
            name: call.name,
            ..Attributes::resource(call.user, "create", kind.group, kind.resource)
        })
    }

    fn validate<'a>(
        &'a self,
        call: &'a Call<'_>,
        operation: Operation,
        new: Option<Seen<'a>>,
        old: Option<Seen<'a>>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let write = self.write(call, operation);
            Chain::validate(self, &write, new.map(|new| new.value), old.map(|old| old.value))?;
            self.policies.validate(call, &write, new, old)
        })
    }

    fn reads_deleted(&self, call: &Call<'_>) -> bool {
        node::node_of(call.user).is_some() || self.policies.are_bound(call.registry)
    }

    fn charge<'a>(
        &'a self,
        call: &'a Call<'_>,
        operation: Operation,
        new: &'a Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Option<registry::Charge>, Status>> {
        Box::pin(async move { self.quotas.charge(call, &self.write(call, operation), new, old).await })
    }
}

/// Waits until the namespace of a creation is known, and for a pod its default account, which a controller makes; gives up
/// quietly, as a plugin says what is missing.
async fn await_prerequisites(call: &Call<'_>, write: &Write<'_>, new: &Value) {
    let account = new.str_at(&["spec", "serviceAccountName"]).filter(|name| !name.is_empty()).unwrap_or("default");
    let awaits_account = write.is_of("", "pods") && write.subresource.is_empty() && account == "default";
    let complete = || {
        let namespace = || write.objects.get("", "namespaces", &ObjectKey::cluster(write.namespace)).is_some();
        let account =
            || write.objects.get("", "serviceaccounts", &ObjectKey::new(write.namespace, "default")).is_some();
        write.namespace.is_empty() || (namespace() && (!awaits_account || account()))
    };
    if complete() {
        return;
    }
    // A missing namespace is mostly a mistake, and told soon.
    let known = write.objects.get("", "namespaces", &ObjectKey::cluster(write.namespace)).is_some();
    let limit = if known { APPEARS_WITHIN } else { APPEARS_WITHIN / 40 };
    let mut progress = call.registry.progress();
    let appears = async { while !complete() && progress.changed().await.is_ok() {} };
    write.env.timeout(limit, appears).await;
}

impl Write<'_> {
    fn is_of(&self, group: &str, resource: &str) -> bool {
        (self.group, self.resource) == (group, resource)
    }

    /// A refusal as upstream's `admission.NewForbidden` words it.
    fn forbidden(&self, object: Option<&Value>, why: &str) -> Status {
        let own =
            |key: &str| object.and_then(|object| object.str_at(&["metadata", key])).filter(|name| !name.is_empty());
        let name = match self.name {
            "" => own("name").or(own("generateName")).unwrap_or("Unknown"),
            name => name,
        };
        Status::forbidden(&GroupResource::new(self.group, self.resource), name, why)
    }
}

/// Puts `item` at the end of the list under `path`.
fn push(value: &mut Value, path: &[&str], item: Value) {
    match value.at_mut(path).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => value.set(path, vec![item]),
    }
}

#[cfg(test)]
mod tests;
