//! `metadata.managedFields` of writes: who wrote, in which version, and what the write doesn't reach.

use std::sync::{Arc, LazyLock};

use api::Kind;
use apimachinery::fields::{
    Applied, ApplyError, FieldManager, FieldSet, ManagedFields, Reset, TypeErrors, Versions, conflict_status,
};
use apimachinery::schema::Type;
use apimachinery::{Object, Reason, Status, Value};

use super::{Call, Registry, Storage, timestamp};
use crate::body::Expected;

const TEMPLATE_GENERATION: [&str; 3] = ["metadata", "annotations", "deprecated.daemonset.template.generation"];
const MANAGED: [&str; 2] = ["metadata", "managedFields"];

/// The managers after a write, as canonical JSON.
pub(super) struct Managed {
    pub json: Vec<u8>,
    /// Nothing but times differs from before.
    pub only_times: bool,
}

/// The other versions of a storage in the same group: upstream never converts between groups.
struct Served<'a> {
    registry: &'a Registry,
    /// Those of a definition.
    customs: Vec<Arc<super::Resource>>,
    storage: &'a Storage,
    group: &'a str,
}

impl Served<'_> {
    fn find(&self, version: &str) -> Option<&Arc<super::Resource>> {
        let mut resources = self.registry.resources.iter().chain(&self.customs);
        resources.find(|resource| {
            std::ptr::eq(&*resource.storage, self.storage)
                && resource.kind.group == self.group
                && resource.api_version() == version
        })
    }
}

impl Versions for Served<'_> {
    fn convert(&self, value: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.find(from)?, self.find(to)?);
        let mut value = value.clone();
        from.to_storage(&mut value);
        to.to_served(&mut value);
        Some(value)
    }

    fn ty(&self, version: &str) -> Option<Type<'_>> {
        self.find(version).map(|resource| resource.schema())
    }
}

impl Call<'_> {
    /// Calls `with` with the field manager of this write.
    fn managing<T>(&self, with: impl FnOnce(&FieldManager<'_>) -> T) -> T {
        let now = timestamp(self.registry.env.now());
        let kind = self.resource.kind;
        let customs = match self.resource.as_custom() {
            None => Vec::new(),
            Some(_) => {
                let customs = self.registry.customs();
                customs.get(kind.group, kind.resource).map(|custom| custom.resources.clone()).unwrap_or_default()
            }
        };
        with(&FieldManager {
            name: self.manager,
            subresource: self.subresource,
            version: self.resource.api_version(),
            ty: self.resource.schema(),
            now: &now,
            reset: reset(self.resource.kind, self.subresource),
            versions: &Served {
                registry: self.registry,
                customs,
                storage: self.storage(),
                group: self.resource.kind.group,
            },
        })
    }

    /// The managers of a new object, in its stored form; takes what the client says of them out of it.
    pub(super) fn managed_by_creation(&self, new: &mut Value) -> Vec<u8> {
        let asked = new.remove(&MANAGED).filter(|_| self.subresource.is_empty());
        let asked = asked.and_then(|asked| ManagedFields::parse(&asked).ok()).unwrap_or_default();
        let empty = self.empty();
        let shown = self.shown(new);
        let new = shown.as_ref().unwrap_or(new);
        let managed = self.managing(|manager| -> Result<ManagedFields, TypeErrors> {
            let comparison = manager.compare(&empty, new)?;
            manager.update((&empty, new), comparison, asked, true)
        });
        managed.unwrap_or_default().to_json()
    }

    /// The managers after `old` has become `new`, both in the stored form; takes what the client says of them out of `new`.
    pub(super) fn managed_by_update(&self, old: &Value, new: &mut Value, current: &Object) -> Managed {
        let asked = new.remove(&MANAGED).filter(|_| self.subresource.is_empty());
        let forgets = asked.as_ref().is_some_and(ManagedFields::is_reset);
        // Most clients send back what they got.
        let asked = asked.filter(|asked| asked.to_json() != current.managed_fields());
        let asked = asked.and_then(|asked| ManagedFields::parse(&asked).ok()).filter(|asked| !asked.is_empty());
        let (shown_old, shown_new) = (self.shown(old), self.shown(new));
        let pair = (shown_old.as_ref().unwrap_or(old), shown_new.as_ref().unwrap_or(new));
        let kept = || Managed { json: current.managed_fields().to_vec(), only_times: false };
        self.managing(|manager| {
            let Ok(comparison) = manager.compare(pair.0, pair.1) else {
                return Managed { json: Vec::new(), only_times: false };
            };
            let unchanged = comparison.is_same();
            if unchanged && asked.is_none() && !forgets {
                return kept();
            }
            let before = || ManagedFields::stored(current.managed_fields());
            let managed = match asked {
                _ if forgets => ManagedFields::default(),
                Some(asked) => asked,
                None if current.managed_fields().is_empty() => return kept(),
                None => before(),
            };
            let managed = manager.update(pair, comparison, managed, false).unwrap_or_default();
            // Where a field has changed, so has the object.
            Managed { json: managed.to_json(), only_times: unchanged && managed.is_same_but_times(&before()) }
        })
    }

    /// Applies a configuration to an object in its stored form, or to none. The result is in the stored form and defaulted.
    pub(super) fn applied(
        &self,
        current: Option<(&Value, &Object)>,
        config: &Value,
        force: bool,
    ) -> Result<(Value, Managed), Status> {
        check_config(config, self.resource.api_version(), self.resource.kind.kind)?;
        let empty = self.empty();
        let shown = current.and_then(|(old, _)| self.shown(old));
        let live = shown.as_ref().or(current.map(|(old, _)| old)).unwrap_or(&empty);
        let before = current.map(|(_, object)| ManagedFields::stored(object.managed_fields())).unwrap_or_default();
        let applied = self.managing(|manager| manager.apply(live, &empty, config, before.clone(), force));
        let Applied { value, managed } = applied.map_err(|error| refused_config(error, config, live))?;
        let only_times = managed.is_same_but_times(&before);
        let managed = Managed { json: managed.to_json(), only_times };
        let resource = self.resource;
        let value = match (value, current) {
            (None, Some((old, _))) => return Ok((old.clone(), managed)),
            (value, _) => value.unwrap_or_else(|| empty.clone()),
        };
        let decoded = resource.canonical(value).map_err(|error| {
            let kind = shown_kind(config);
            let why = format!("unable to convert unstructured object to {kind}: {error}");
            failed(format!("failed to convert new object ({}) to proper version: {why}", named(config)))
        })?;
        let mut value = decoded.value;
        value.set(&["apiVersion"], resource.api_version());
        value.set(&["kind"], resource.kind.kind);
        resource.to_storage(&mut value);
        resource.storage.default(&mut value);
        Ok((value, managed))
    }

    /// An object as this version shows it; `None` if that is how it is.
    fn shown(&self, value: &Value) -> Option<Value> {
        // Upstream's conversion tells of a generation of templates that nobody has counted yet.
        let uncounted = self.resource.kind.kind == "DaemonSet" && value.at(&TEMPLATE_GENERATION).is_none();
        (uncounted || !self.resource.is_stored_form()).then(|| {
            let mut value = value.clone();
            self.resource.to_served(&mut value);
            if uncounted {
                value.set(&TEMPLATE_GENERATION, "0");
            }
            value
        })
    }

    /// An object of which nothing is set, as Go writes it.
    fn empty(&self) -> Value {
        let mut empty = self.resource.schema().zero();
        empty.set(&["apiVersion"], self.resource.api_version());
        empty.set(&["kind"], self.resource.kind.kind);
        empty
    }
}

/// The managers of what is created and not kept, such as a review: a value for `metadata.managedFields`, or null.
pub(crate) fn managed_once(kind: Expected<'_>, new: &Value, name: &str, subresource: &str, now: &str) -> Value {
    let (ty, version) = (kind.schema, kind.api_version());
    let mut empty = ty.zero();
    empty.set(&["apiVersion"], version.as_str());
    empty.set(&["kind"], kind.kind);
    let manager =
        FieldManager { name, subresource, version: &version, ty, now, reset: &Reset::Nothing, versions: &NoOther };
    let comparison = manager.compare(&empty, new);
    let managed =
        comparison.and_then(|comparison| manager.update((&empty, new), comparison, ManagedFields::default(), true));
    Value::parse(&managed.unwrap_or_default().to_json()).unwrap_or_default()
}

/// There is one version of it.
pub(crate) struct NoOther;

impl Versions for NoOther {
    fn convert(&self, _value: &Value, _from: &str, _to: &str) -> Option<Value> {
        None
    }

    fn ty(&self, _version: &str) -> Option<Type<'_>> {
        None
    }
}

/// A configuration says what it is, and nothing of managers.
pub(crate) fn check_config(config: &Value, version: &str, kind: &str) -> Result<(), Status> {
    let text = |key: &str| config.str_at(&[key]).unwrap_or_default();
    if text("apiVersion") != version || text("kind") != kind {
        return Err(Status::bad_request(format!("invalid object type: {}", shown_kind(config))));
    }
    if config.at(&MANAGED).is_some_and(|managed| !managed.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// The answer to a configuration that was not applied.
pub(crate) fn refused_config(error: ApplyError, config: &Value, live: &Value) -> Status {
    match error {
        ApplyError::Conflicts(conflicts) => conflict_status(&conflicts),
        ApplyError::Config(errors) => {
            failed(format!("failed to create typed patch object ({}): {errors}", named(config)))
        }
        ApplyError::Live(errors) => failed(format!("failed to create typed live object ({}): {errors}", named(live))),
        ApplyError::Merge(errors) => failed(format!("failed to merge config: {errors}")),
    }
}

/// An error without a reason of its own.
fn failed(message: String) -> Status {
    Status::new(500, Reason::Unknown, message)
}

/// An object as upstream's messages name it.
fn named(object: &Value) -> String {
    let text = |key: &str| object.str_at(&["metadata", key]).unwrap_or_default();
    format!("{}/{}; {}", text("namespace"), text("name"), shown_kind(object))
}

fn shown_kind(object: &Value) -> String {
    let version = object.str_at(&["apiVersion"]).unwrap_or_default();
    let kind = object.str_at(&["kind"]).unwrap_or_default();
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={kind}")
}

/// What a write of a kind or subresource does not reach. Upstream: GetResetFields of the strategies.
fn reset(kind: &Kind, subresource: &str) -> &'static Reset {
    static NOTHING: Reset = Reset::Nothing;
    static STATUS: LazyLock<Reset> = LazyLock::new(|| of(&[&["status"]]));
    static SPEC: LazyLock<Reset> = LazyLock::new(|| of(&[&["spec"]]));
    static SPEC_AND_LABELS: LazyLock<Reset> = LazyLock::new(|| of(&[&["spec"], &["metadata", "labels"]]));
    static SPEC_AND_METADATA: LazyLock<Reset> = LazyLock::new(|| of(&[&["spec"], &["metadata"]]));
    static POD_STATUS: LazyLock<Reset> =
        LazyLock::new(|| of(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]));
    static EPHEMERAL: Reset = Reset::AllBut(&[&[Some("spec"), Some("ephemeralContainers")]]);
    static RESIZE: Reset = Reset::AllBut(&[
        &[Some("spec"), Some("containers"), None, Some("resources")],
        &[Some("spec"), Some("containers"), None, Some("resizePolicy")],
        &[Some("spec"), Some("initContainers"), None, Some("resources")],
        &[Some("spec"), Some("initContainers"), None, Some("resizePolicy")],
    ]);
    match (kind.resource, subresource) {
        (_, "") if kind.subresource("status").is_some() => &STATUS,
        ("pods", "status") => &POD_STATUS,
        ("pods", "ephemeralcontainers") => &EPHEMERAL,
        ("pods", "resize") => &RESIZE,
        ("deployments", "status") => &SPEC_AND_LABELS,
        ("flowschemas" | "prioritylevelconfigurations" | "resourceclaims" | "volumeattachments", "status") => {
            &SPEC_AND_METADATA
        }
        ("namespaces", "finalize") => &STATUS,
        (_, "status" | "approval") => &SPEC,
        _ => &NOTHING,
    }
}

fn of(paths: &[&[&'static str]]) -> Reset {
    Reset::Fields(FieldSet::of_fields(paths))
}
