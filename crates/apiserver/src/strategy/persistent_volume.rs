//! PersistentVolume. Upstream: pkg/registry/core/persistentvolume, validation.ValidatePersistentVolume.

mod source;
mod spec;

use apimachinery::{FieldError, Value};

pub(super) use source::driver_name;
pub(super) use spec::validate as validate_spec;

use super::field::{Errors, Path, Report, fill, fill_absent, has, immutable, items, text};
use super::persistent_volume_claim::LEGACY_CLASS;
use super::{Context, Strategy, keep};

/// Sources that no node mounts any more.
const GONE: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const LEGACY_MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
/// Sources whose mount options may be an annotation. Upstream: pkg/volume/validation checkMountOption.
const WITH_MOUNT_OPTIONS: [&str; 13] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "gcePersistentDisk",
    "glusterfs",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "quobyte",
    "rbd",
    "vsphereVolume",
];
/// Labels of nodes by their old names, and their new ones.
const RENAMED: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

pub(super) struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "persistentvolumes")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        fill(value.make_object().entry("status"), "phase", "Pending");
        let Some(spec) = value.get_mut("spec") else { return };
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill_absent(spec, "volumeMode", "Filesystem");
        if let Some(host) = spec.get_mut("hostPath").filter(|host| !host.is_null()) {
            fill_absent(host, "type", "");
        }
    }

    fn prepare_create(&self, ctx: &Context<'_>, new: &mut Value) {
        let mut status = Value::object();
        status.set(&["phase"], "Pending");
        status.set(&["lastPhaseTransitionTime"], crate::registry::timestamp(ctx.env.now()));
        new.set(&["status"], status);
    }

    fn prepare_subresource(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
        let phase = ["status", "phase"];
        if new.str_at(&phase) != old.str_at(&phase) {
            let time = ["status", "lastPhaseTransitionTime"];
            if new.at(&time).is_none() || new.at(&time) == old.at(&time) {
                new.set(&time, crate::registry::timestamp(ctx.env.now()));
            }
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        let spec = new.get("spec").unwrap_or(&Value::Null);
        validate_spec(spec, name, false, &Path::new("spec"), errors);
        let options = new.at(&["metadata", "annotations", LEGACY_MOUNT_OPTIONS]).is_some();
        if options && !WITH_MOUNT_OPTIONS.iter().any(|key| has(spec, key)) {
            let path = Path::new("metadata.annotations");
            errors.forbidden(&path.child(LEGACY_MOUNT_OPTIONS), "may not specify mount options for this volume type");
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return;
        }
        self.validate(ctx, new, errors);
        update(new, old, errors);
    }

    /// Upstream: pkg/api/persistentvolume GetWarningsForPersistentVolume.
    fn warnings(&self, _ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut annotation = |key: &str, since: &str, instead: &str| {
            if new.at(&["metadata", "annotations", key]).is_some() {
                let text = format!(
                    "metadata.annotations[{key}]: deprecated since {since}; use \"{instead}\" attribute instead"
                );
                warnings.push(text);
            }
        };
        annotation(LEGACY_CLASS, "v1.8", "storageClassName");
        annotation(LEGACY_MOUNT_OPTIONS, "v1.31", "mountOptions");
        let spec = new.get("spec").unwrap_or(&Value::Null);
        if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
            warnings.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach \
                 is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        let terms = spec.items_at(&["nodeAffinity", "required", "nodeSelectorTerms"]);
        for (i, term) in terms.iter().enumerate() {
            for (j, expression) in items(term, "matchExpressions").iter().enumerate() {
                let renamed = RENAMED.iter().find(|(old, _)| *old == text(expression, "key"));
                if let Some((old, new)) = renamed {
                    let since = if old.starts_with("beta.kubernetes.io/") && !old.ends_with("type") {
                        "v1.14"
                    } else {
                        "v1.17"
                    };
                    let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}].matchExpressions[{j}].key");
                    warnings.push(format!("{path}: {old} is deprecated since {since}; use \"{new}\" instead"));
                }
            }
        }
        let gone = GONE.iter().filter(|(key, ..)| has(spec, key));
        warnings.extend(gone.map(|(_, shown, why)| format!("spec.{shown}: {why}")));
        warnings
    }
}

/// Upstream: ValidatePersistentVolumeUpdate.
fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old) = (new.get("spec").unwrap_or(&Value::Null), old.get("spec").unwrap_or(&Value::Null));
    let (mut sources, before) = (source::of(new), source::of(old));
    let expand = ["csi", "controllerExpandSecretRef"];
    if has(old, "csi") && before.at(&expand).is_none() {
        // It may be added later.
        sources.remove(&expand);
    }
    if sources != before {
        let path = Path::new("spec.persistentvolumesource");
        errors.forbidden(&path, "spec.persistentvolumesource is immutable after creation");
    }
    immutable(errors, &Path::new("volumeMode"), new.get("volumeMode"), old.get("volumeMode"));
    if has(old, "nodeAffinity") && renamed(new, old) != renamed(old, old) {
        let shown = new.get("nodeAffinity").cloned().unwrap_or_default();
        let why = "field is immutable, except for updating from beta label to GA";
        errors.invalid(&Path::new("nodeAffinity"), shown, why);
    }
    let class = "volumeAttributesClassName";
    if has(old, class) && !has(new, class) {
        errors.forbidden(&Path::new("spec.volumeAttributesClassName"), "update from non-nil value to nil is forbidden");
    }
}

/// The node affinity of `spec`, with new names of labels where `old` has the old ones at the same place.
fn renamed(spec: &Value, old: &Value) -> Option<Value> {
    let mut affinity = spec.get("nodeAffinity").filter(|affinity| !affinity.is_null())?.clone();
    let path = ["required", "nodeSelectorTerms"];
    let before = old.get("nodeAffinity").map(|old| old.items_at(&path)).unwrap_or_default();
    let terms = affinity.at_mut(&path).and_then(Value::as_array_mut).into_iter().flatten();
    for (term, before) in terms.zip(before) {
        let expressions = term.get_mut("matchExpressions").and_then(Value::as_array_mut).into_iter().flatten();
        for (expression, before) in expressions.zip(items(before, "matchExpressions")) {
            let new = RENAMED.iter().find(|(old, _)| *old == text(before, "key")).map(|(_, new)| *new);
            if let Some(new) = new.filter(|new| [*new, text(before, "key")].contains(&text(expression, "key"))) {
                expression.set(&["key"], new);
            }
        }
    }
    Some(affinity)
}
