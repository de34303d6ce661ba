//! What controllers read of claims, volumes, classes, and of the pods that use them.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Quantity, Selector, SelectorError, Value};

use client::Resource;

use crate::meta::{created, mentions, parsed};

pub(crate) const STORAGE_CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");
pub(crate) const VOLUME_ATTRIBUTES_CLASSES: Resource =
    Resource::cluster("storage.k8s.io", "v1", "volumeattributesclasses");

/// On a claim: its binding was completed once.
pub(crate) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: nobody chose the other side but the controller.
pub(crate) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a volume or claim of a plugin that a CSI driver took over.
pub(crate) const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// On a claim: who is to make its volume; the second is its old name, which old provisioners read.
pub(crate) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub(crate) const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: the node that its first pod will run on.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Who makes the volumes of the class that every cluster begins with: the nodes themselves.
pub(crate) const LOCAL_PROVISIONER: &str = "oxikube.io/local";
/// Those of upstream's own plugins that no CSI driver took over from and that made or scrubbed volumes.
pub(crate) const HOST_PATH: &str = "kubernetes.io/host-path";
pub(crate) const NFS: &str = "kubernetes.io/nfs";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The index of pods by the claims that they use, `namespace/name`.
pub(crate) const CLAIM_INDEX: &str = "claim";

/// For [`CLAIM_INDEX`].
pub(crate) fn by_claim(pod: &Object) -> Vec<String> {
    claims_of(pod).iter().map(ToString::to_string).collect()
}

/// The claims that the pod's volumes name, those of its ephemeral volumes among them.
pub(crate) fn claims_of(pod: &Object) -> Vec<ObjectKey> {
    if !["\"persistentVolumeClaim\"", "\"ephemeral\""].iter().any(|source| mentions(pod, source)) {
        return Vec::new();
    }
    let value = parsed(pod);
    let claims = value.items_at(&["spec", "volumes"]).iter().filter_map(|volume| claim_of(pod.name(), volume));
    claims.map(|name| ObjectKey::new(pod.namespace(), name)).collect()
}

fn claim_of(pod: &str, volume: &Value) -> Option<String> {
    match volume.str_at(&["persistentVolumeClaim", "claimName"]) {
        Some(name) => Some(name.to_owned()),
        None => is_ephemeral(volume).then(|| ephemeral_claim(pod, volume)),
    }
}

pub(crate) fn is_ephemeral(volume: &Value) -> bool {
    volume.get("ephemeral").is_some_and(|ephemeral| !ephemeral.is_null())
}

/// The name of the claim that is made for an ephemeral volume.
pub(crate) fn ephemeral_claim(pod: &str, volume: &Value) -> String {
    format!("{pod}-{}", volume.str_at(&["name"]).unwrap_or_default())
}

/// Whether the pod uses nothing any more. Upstream: volume util IsPodTerminated.
pub(crate) fn is_terminated(pod: &Value) -> bool {
    let ended = matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
    let statuses = || {
        let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
        lists.into_iter().flat_map(|list| pod.items_at(&["status", list]))
    };
    let running = |status: &Value| {
        let state = |key: &str| status.at(&["state", key]).is_some_and(|state| !state.is_null());
        state("running") || !state("terminated") && !state("waiting")
    };
    ended || pod.at(&["metadata", "deletionTimestamp"]).is_some() && !statuses().any(running)
}

/// The class of a claim or a volume; empty for none.
pub(crate) fn class_of(value: &Value) -> &str {
    let legacy = value.str_at(&["metadata", "annotations", BETA_CLASS]);
    legacy.or(value.str_at(&["spec", "storageClassName"])).unwrap_or_default()
}

/// Upstream's own plugins that CSI drivers took over from: the volume's source, the plugin's name, the driver.
const MIGRATED: [(&str, &str, &str); 7] = [
    ("awsElasticBlockStore", "kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("azureDisk", "kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("azureFile", "kubernetes.io/azure-file", "file.csi.azure.com"),
    ("cinder", "kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("portworxVolume", "kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("vsphereVolume", "kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

/// The CSI driver that took over from one of upstream's own plugins.
pub(crate) fn csi_successor(provisioner: &str) -> Option<&'static str> {
    MIGRATED.into_iter().find(|(_, plugin, _)| *plugin == provisioner).map(|(_, _, driver)| driver)
}

/// The plugin of the volume's source, and the CSI driver that took over from it.
pub(crate) fn migrated_plugin(volume: &Value) -> Option<(&'static str, &'static str)> {
    let spec = volume.get("spec")?;
    let row = MIGRATED.into_iter().find(|(source, ..)| spec.get(source).is_some_and(|source| !source.is_null()))?;
    Some((row.1, row.2))
}

/// An object and its fields.
#[derive(Clone)]
pub(crate) struct Claim {
    pub object: Arc<Object>,
    pub value: Value,
}

impl Claim {
    pub(crate) fn of(object: Arc<Object>) -> Claim {
        Claim { value: object.to_value(), object }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.value.str_at(&["metadata", "annotations", key])
    }

    /// Whether it names a class, if only the empty one.
    pub(crate) fn has_class(&self) -> bool {
        self.annotation(BETA_CLASS).is_some() || self.value.str_at(&["spec", "storageClassName"]).is_some()
    }

    /// Empty when it asks for a volume without a class, or for none.
    pub(crate) fn class(&self) -> &str {
        class_of(&self.value)
    }

    pub(crate) fn volume_name(&self) -> &str {
        self.value.str_at(&["spec", "volumeName"]).unwrap_or_default()
    }

    pub(crate) fn phase(&self) -> &str {
        self.value.str_at(&["status", "phase"]).unwrap_or_default()
    }

    pub(crate) fn is_bind_completed(&self) -> bool {
        self.annotation(BIND_COMPLETED).is_some()
    }

    pub(crate) fn requested(&self) -> Quantity {
        quantity(&self.value, &["spec", "resources", "requests", "storage"])
    }

    pub(crate) fn capacity(&self) -> Quantity {
        quantity(&self.value, &["status", "capacity", "storage"])
    }

    pub(crate) fn attributes_class(&self) -> &str {
        self.value.str_at(&["spec", "volumeAttributesClassName"]).unwrap_or_default()
    }

    pub(crate) fn modes(&self) -> &[Value] {
        self.value.items_at(&["spec", "accessModes"])
    }

    pub(crate) fn volume_mode(&self) -> &str {
        self.value.str_at(&["spec", "volumeMode"]).unwrap_or("Filesystem")
    }

    pub(crate) fn selector(&self) -> Result<Option<Selector>, SelectorError> {
        let selector = self.value.at(&["spec", "selector"]).filter(|selector| !selector.is_null());
        selector.map(|selector| Selector::from_label_selector(Some(selector))).transpose()
    }
}

/// An object and its fields.
#[derive(Clone)]
pub(crate) struct Volume {
    pub object: Arc<Object>,
    pub value: Value,
}

impl Volume {
    pub(crate) fn of(object: Arc<Object>) -> Volume {
        Volume { value: object.to_value(), object }
    }

    pub(crate) fn name(&self) -> &str {
        self.object.name()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.value.str_at(&["metadata", "annotations", key])
    }

    pub(crate) fn class(&self) -> &str {
        class_of(&self.value)
    }

    pub(crate) fn phase(&self) -> &str {
        self.value.str_at(&["status", "phase"]).unwrap_or_default()
    }

    pub(crate) fn reclaim_policy(&self) -> &str {
        self.value.str_at(&["spec", "persistentVolumeReclaimPolicy"]).unwrap_or_default()
    }

    pub(crate) fn capacity(&self) -> Quantity {
        quantity(&self.value, &["spec", "capacity", "storage"])
    }

    pub(crate) fn attributes_class(&self) -> &str {
        self.value.str_at(&["spec", "volumeAttributesClassName"]).unwrap_or_default()
    }

    pub(crate) fn modes(&self) -> &[Value] {
        self.value.items_at(&["spec", "accessModes"])
    }

    pub(crate) fn volume_mode(&self) -> &str {
        self.value.str_at(&["spec", "volumeMode"]).unwrap_or("Filesystem")
    }

    /// The claim that it belongs to or is kept for.
    pub(crate) fn claim_ref(&self) -> Option<ClaimRef<'_>> {
        let reference = self.value.at(&["spec", "claimRef"]).filter(|reference| !reference.is_null())?;
        let text = |key: &str| reference.str_at(&[key]).unwrap_or_default();
        Some(ClaimRef { namespace: text("namespace"), name: text("name"), uid: text("uid") })
    }

    /// Whether it belongs to the claim or is kept for it. Upstream: storage helpers IsVolumeBoundToClaim.
    pub(crate) fn is_for(&self, claim: &Claim) -> bool {
        self.claim_ref().is_some_and(|reference| {
            reference.key() == *claim.object.key() && (reference.uid.is_empty() || reference.uid == claim.object.uid())
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimRef<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty where a person keeps the volume for a claim that need not exist yet.
    pub uid: &'a str,
}

impl ClaimRef<'_> {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace, self.name)
    }
}

/// Of several default classes the newest, of equally old ones the first by name. Upstream: volume util GetDefaultClass.
pub(crate) fn default_class(classes: &[Arc<Object>]) -> Option<&Arc<Object>> {
    let defaults = classes.iter().filter(|class| is_default_class(class));
    defaults.min_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.name().cmp(b.name())))
}

pub(crate) fn is_default_class(class: &Object) -> bool {
    let metadata = crate::meta::metadata(class);
    DEFAULT_CLASS.iter().any(|key| metadata.str_at(&["annotations", key]) == Some("true"))
}

fn quantity(value: &Value, path: &[&str]) -> Quantity {
    value.at(path).and_then(Quantity::from_value).and_then(Result::ok).unwrap_or_default()
}

/// Whether the object is being deleted and only waits for the one who holds `finalizer`.
pub(crate) fn is_deletion_candidate(value: &Value, finalizer: &str) -> bool {
    value.at(&["metadata", "deletionTimestamp"]).is_some() && has_finalizer(value, finalizer)
}

pub(crate) fn needs_finalizer(value: &Value, finalizer: &str) -> bool {
    value.at(&["metadata", "deletionTimestamp"]).is_none() && !has_finalizer(value, finalizer)
}

fn has_finalizer(value: &Value, finalizer: &str) -> bool {
    value.items_at(&["metadata", "finalizers"]).iter().any(|held| held.as_str() == Some(finalizer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Arc<Object> {
        Arc::new(Object::new(&Value::parse(json.as_bytes()).unwrap(), 1).unwrap())
    }

    #[test]
    fn the_newest_default_class_wins() {
        let class = |name: &str, created: &str, annotation: &str| {
            object(&format!(
                r#"{{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{{"name":"{name}","creationTimestamp":"{created}",
                    "annotations":{{{annotation}}}}},"provisioner":"x"}}"#
            ))
        };
        let yes = r#""storageclass.kubernetes.io/is-default-class":"true""#;
        let beta = r#""storageclass.beta.kubernetes.io/is-default-class":"true""#;
        let classes = [
            class("old", "2026-01-01T00:00:00Z", yes),
            class("b", "2026-01-02T00:00:00Z", yes),
            class("a", "2026-01-02T00:00:00Z", beta),
            class("newest", "2026-01-03T00:00:00Z", r#""storageclass.kubernetes.io/is-default-class":"false""#),
        ];
        assert_eq!(default_class(&classes).map(|class| class.name()), Some("a"));
        assert_eq!(default_class(&classes[..1]).map(|class| class.name()), Some("old"));
        assert!(default_class(&classes[3..]).is_none());
    }

    #[test]
    fn pods_name_their_claims() {
        let pod = object(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n"},"spec":{"volumes":[{"name":"a","emptyDir":{}},
                {"name":"b","persistentVolumeClaim":{"claimName":"c"}},{"name":"d","ephemeral":{"volumeClaimTemplate":{}}}]}}"#,
        );
        assert_eq!(by_claim(&pod), ["n/c", "n/p-d"]);
    }

    #[test]
    fn ended_pods_use_nothing() {
        let check = |json: &str, expect: bool| {
            assert_eq!(is_terminated(&Value::parse(json.as_bytes()).unwrap()), expect, "{json}");
        };
        check(r#"{"status":{"phase":"Running"}}"#, false);
        check(r#"{"status":{"phase":"Failed"}}"#, true);
        check(r#"{"metadata":{"deletionTimestamp":"t"},"status":{"phase":"Running"}}"#, true);
        check(
            r#"{"metadata":{"deletionTimestamp":"t"},"status":{"phase":"Running","containerStatuses":[{"state":{"running":{}}}]}}"#,
            false,
        );
        check(
            r#"{"metadata":{"deletionTimestamp":"t"},"status":{"phase":"Running","containerStatuses":[{"state":{"terminated":{}}}]}}"#,
            true,
        );
    }
}
