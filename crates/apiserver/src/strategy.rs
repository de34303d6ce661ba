//! What a schema cannot say about a kind: one [`Strategy`] per file here, one line in [`all`].
//!
//! The registry calls a strategy in this order: `default`, (mutating admission), `prepare_create` or `prepare_update`,
//! `validate` or `validate_update`, `warnings`, (validating admission), `allocate`, then the commit. A strategy gets and edits
//! [`Value`]s in the kind's storage version; it never commits anything itself.

pub(crate) mod api_service;
mod certificate_signing_request;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi;
pub(crate) mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device;
mod endpoint_slice;
mod endpoints;
mod event;
mod field;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_claim;
mod resource_quota;
mod runtime_class;
mod secret;
pub(crate) mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage_class;
#[cfg(test)]
mod tests;
mod validating_admission_policy;
mod workload;

use std::sync::Arc;

use apimachinery::validation::NameFormat;
use apimachinery::{FieldError, Map, Object, ObjectKey, Status, Value};
use env::Env;
use futures_util::future::BoxFuture;

use crate::UserInfo;
use crate::config::Settings;

/// Every strategy, for a cluster with these settings. A kind without one gets [`Plain`].
pub(crate) fn all(settings: &Settings) -> Vec<Box<dyn Strategy>> {
    vec![
        Box::new(api_service::ApiService),
        Box::new(certificate_signing_request::CertificateSigningRequest),
        Box::new(config_map::ConfigMap),
        Box::new(controller_revision::ControllerRevision),
        Box::new(cron_job::CronJob),
        Box::new(custom_resource_definition::CustomResourceDefinition),
        Box::new(csi::CsiDriver),
        Box::new(csi::CsiNode),
        Box::new(csi::CsiStorageCapacity),
        Box::new(daemon_set::DaemonSet),
        Box::new(deployment::Deployment),
        Box::new(device::DeviceClass),
        Box::new(endpoint_slice::EndpointSlice),
        Box::new(endpoints::Endpoints),
        Box::new(event::Event),
        Box::new(horizontal_pod_autoscaler::HorizontalPodAutoscaler),
        Box::new(ingress::Ingress),
        Box::new(ingress_class::IngressClass),
        Box::new(ip_address::IpAddress),
        Box::new(job::Job),
        Box::new(lease::Lease),
        Box::new(limit_range::LimitRange),
        Box::new(namespace::Namespace),
        Box::new(network_policy::NetworkPolicy),
        Box::new(node::Node),
        Box::new(persistent_volume::PersistentVolume),
        Box::new(persistent_volume_claim::PersistentVolumeClaim),
        Box::new(pod::Pod),
        Box::new(pod_disruption_budget::PodDisruptionBudget),
        Box::new(pod_template::PodTemplate),
        Box::new(priority_class::PriorityClass),
        Box::new(rbac::Rbac("clusterrolebindings")),
        Box::new(rbac::Rbac("clusterroles")),
        Box::new(rbac::Rbac("rolebindings")),
        Box::new(rbac::Rbac("roles")),
        Box::new(replica_set::ReplicaSet),
        Box::new(replication_controller::ReplicationController),
        Box::new(resource_claim::ResourceClaim { taints: settings.features.device_taints }),
        Box::new(resource_claim::ResourceClaimTemplate { taints: settings.features.device_taints }),
        Box::new(device::ResourceSlice { taints: settings.features.device_taints }),
        Box::new(resource_quota::ResourceQuota),
        Box::new(runtime_class::RuntimeClass),
        Box::new(secret::Secret),
        Box::new(service::Service::new(settings)),
        Box::new(service_account::ServiceAccount),
        Box::new(service_cidr::ServiceCidr),
        Box::new(stateful_set::StatefulSet { max_unavailable: settings.features.max_unavailable_stateful_set }),
        Box::new(storage_class::StorageClass),
        Box::new(validating_admission_policy::ValidatingAdmissionPolicy),
        Box::new(validating_admission_policy::ValidatingAdmissionPolicyBinding),
        Box::new(csi::VolumeAttachment),
        Box::new(storage_class::VolumeAttributesClass),
    ]
}

/// Behaviour of one kind beyond its schema. The defaults of the methods are what a plain kind does.
///
/// `metadata` is the registry's: it checks names, labels, annotations, owners and finalizers, fills in uid, creation time and
/// generation, and keeps what clients may not change. The schema has already checked types, required fields and enums.
pub trait Strategy: Send + Sync {
    /// Group and plural: `("apps", "deployments")`.
    fn resource(&self) -> (&'static str, &'static str);

    /// What names of this kind look like.
    fn name_format(&self) -> NameFormat {
        NameFormat::DnsSubdomain
    }

    /// How long after its last write an object of this kind is forgotten; `None` for ever.
    fn time_to_live(&self) -> Option<std::time::Duration> {
        None
    }

    /// Whether a deletion answers with the deleted object instead of a `Status`.
    fn returns_deleted_object(&self) -> bool {
        false
    }

    /// Whether `metadata.generation` counts the changes of this kind (of everything but `metadata` and `status`).
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether a change of `status` counts too.
    fn counts_status(&self) -> bool {
        false
    }

    /// Whether an update of a missing object creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may leave out `resourceVersion`.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Whether dependents are orphaned when a deletion does not say what becomes of them.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Why the object of this name can never be deleted.
    fn keeps(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// What whoever deletes without saying what becomes of dependents is told.
    fn deletion_warning(&self) -> Option<&'static str> {
        None
    }

    /// Defaults that depend on other fields; the schema's own have been filled in. Also called for bodies read from the store,
    /// so it must change nothing that is complete.
    fn default(&self, _value: &mut Value) {}

    /// Completes a new object and drops what its creator may not set. The registry has removed `status` already when the kind
    /// has that subresource ([`Strategy::keeps_status_on_create`]).
    fn prepare_create(&self, _ctx: &Context<'_>, _new: &mut Value) {}

    /// Whether a creator may set `status` although it is a subresource.
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// Puts back what an update may not change. For updates of the object itself (`ctx.subresource` empty) the registry has
    /// already put back `status` when that is a subresource; for those of a subresource it calls [`Strategy::prepare_subresource`].
    fn prepare_update(&self, _ctx: &Context<'_>, _new: &mut Value, _old: &Value) {}

    /// Keeps from `old` what the subresource does not own. By default everything but `status` is kept, with the labels and
    /// annotations of `metadata` taken from `old` too.
    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
    }

    /// Refuses what the schema cannot: each error with its path.
    fn validate(&self, _ctx: &Context<'_>, _new: &Value, _errors: &mut Vec<FieldError>) {}

    /// Refuses updates. By default what a new object may not be, an old one may not become. `ctx.subresource` says whose
    /// update it is.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
    }

    /// Texts for `Warning` headers.
    fn warnings(&self, _ctx: &Context<'_>, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// The grace period of a deletion, in seconds, of a kind whose deletion has two steps; `None` when it goes at once.
    fn grace_period(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether something besides `metadata.finalizers` still holds an object that is being deleted.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// Whether a deletion looks at more than `metadata`: whether [`Strategy::grace_period`] or [`Strategy::is_held`] are the kind's own.
    fn deletes_in_steps(&self) -> bool {
        false
    }

    /// Edits an object whose deletion begins and must wait.
    fn begin_deletion(&self, _ctx: &Context<'_>, _object: &mut Value) {}

    /// Whether [`Strategy::allocate`] and [`Strategy::release`] do anything.
    fn allocates(&self) -> bool {
        false
    }

    /// Takes addresses, ports and the like for `new`: edits it and returns the operations that must happen with its write.
    /// Called again from the start when one of their compares fails, so it must read what it compares.
    fn allocate<'a>(
        &'a self,
        _ctx: &'a Context<'_>,
        _new: &'a mut Value,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Together, Status>> {
        Box::pin(async { Ok(Together::default()) })
    }

    /// Gives back what [`Strategy::allocate`] took: the operations that must happen with the object's removal.
    fn release<'a>(&'a self, _ctx: &'a Context<'_>, _old: &'a Value) -> BoxFuture<'a, Result<Together, Status>> {
        Box::pin(async { Ok(Together::default()) })
    }
}

/// What a strategy may know about the request it works for.
pub struct Context<'a> {
    pub env: &'a Env,
    /// Who asks.
    pub user: &'a UserInfo,
    pub namespace: &'a str,
    /// The group that the request names; events are in two.
    pub group: &'a str,
    pub version: &'a str,
    /// Empty for the object itself; `status`, `finalize`, `ephemeralcontainers`, `resize`, `approval`, ...
    pub subresource: &'a str,
    /// Nothing will be written.
    pub dry_run: bool,
    /// The newest known objects of other kinds.
    pub objects: &'a dyn Objects,
    /// For what [`Strategy::allocate`] reads.
    pub store: &'a dyn store::Store,
}

/// Reads of the watch cache: fast, never blocking, as new as the events received.
pub trait Objects: Send + Sync {
    /// `namespace` is empty for cluster-scoped kinds.
    fn get(&self, group: &str, resource: &str, key: &ObjectKey) -> Option<Arc<Object>>;

    /// All objects of a namespace, or of all namespaces when `namespace` is empty.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>>;
}

/// Operations of other keys that happen in the same transaction as an object's write: at most one per resource prefix.
#[derive(Clone, Debug, Default)]
pub struct Together {
    pub compares: Vec<store::Compare>,
    pub ops: Vec<store::Op>,
    /// Kept until the write is done: writers that would compare the same key queue up instead of failing each other.
    pub turn: Option<Arc<tokio::sync::OwnedMutexGuard<()>>>,
}

/// The strategy of kinds that have none of their own.
pub struct Plain;

impl Strategy for Plain {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "")
    }
}

/// Makes `new` a copy of `old` with `new`'s `status`.
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    copy_members(new.make_object(), old.as_object(), &["status", "metadata"]);
    if old.get("metadata").is_some() {
        let metadata = new.make_object().entry("metadata").make_object();
        let old = old.get("metadata").and_then(Value::as_object);
        copy_members(metadata, old, &["resourceVersion", "managedFields"]);
    }
}

/// Makes the members of `new` those of `old`, but for the ones named. What is the same already is left alone: mostly everything.
fn copy_members(new: &mut Map, old: Option<&Map>, but: &[&str]) {
    new.retain(|key, _| but.contains(&key) || old.is_some_and(|old| old.contains_key(key)));
    for (key, value) in old.into_iter().flat_map(Map::iter).filter(|(key, _)| !but.contains(key)) {
        if new.get(key) != Some(value) {
            *new.entry(key) = value.clone();
        }
    }
}

/// Puts `old`'s member under `path` back into `new`, or removes it when `old` has none.
pub fn keep(new: &mut Value, old: &Value, path: &[&str]) {
    match old.at(path) {
        same if same == new.at(path) => {}
        Some(value) => new.set(path, value),
        None => drop(new.remove(path)),
    }
}
