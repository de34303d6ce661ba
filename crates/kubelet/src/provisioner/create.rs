//! From a claim to its volume. Upstream: sig-storage-lib-external-provisioner provisionClaimOperation.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};
use client::{Controller, ReconcileContext, ReconcileError, Requeue, Watch, resources};
use serde_json::json;

use super::{FINALIZER, HOSTNAME, PROVISIONED_BY, PROVISIONER, Shared, name_of};

/// Who is to make the volume, as the binder writes it.
const ASKED: [&str; 2] = ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// The node that the scheduler chose.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

pub(super) struct Create(pub(super) Arc<Shared>);

impl Controller for Create {
    fn name(&self) -> &'static str {
        "local-provisioner"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_class = self.0.claims.clone();
        // A class that comes later may be the one that claims wait for.
        let claims_of = move |event: &client::Event| {
            let class = event.object().name().to_owned();
            let claims = of_class.list("").into_iter();
            claims.filter(|claim| class_of(&claim.to_value()) == class).map(|claim| claim.key().clone()).collect()
        };
        vec![Watch::objects(self.0.claims.clone()), Watch::new(self.0.classes.clone(), claims_of)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.0.claims.get(key) else { return Ok(Requeue::No) };
        let claim = object.to_value();
        if !wants(&object, &claim) {
            return Ok(Requeue::No);
        }
        let Some(class) = self.0.classes.get(&ObjectKey::cluster(class_of(&claim))) else { return Ok(Requeue::No) };
        let class = class.to_value();
        if class.str_at(&["provisioner"]) != Some(PROVISIONER) {
            return Ok(Requeue::No);
        }
        let late = class.str_at(&["volumeBindingMode"]) == Some("WaitForFirstConsumer");
        match claim.str_at(&["metadata", "annotations", SELECTED_NODE]) {
            Some(node) if node == self.0.node => {}
            None if !late => {}
            _ => return Ok(Requeue::No),
        }
        let name = name_of(object.uid());
        let failed = |why: &str| {
            let message = format!("failed to provision volume with StorageClass {:?}: {why}", class_of(&claim));
            self.0.recorder.warning(&object, "ProvisioningFailed", message);
        };
        if let Err(why) = fits(&claim, &class) {
            // Nothing but another claim, or another class, mends it, and both are told by their watches.
            failed(&why);
            return Ok(Requeue::No);
        }
        if self.0.volumes.get(&ObjectKey::cluster(&*name)).is_some() {
            return Ok(Requeue::No);
        }
        let about = format!("External provisioner is provisioning volume for claim {:?}", key.to_string());
        self.0.recorder.normal(&object, "Provisioning", about);
        if let Err(error) = self.make_folder(key, &name).await {
            failed(&error.to_string());
            return Err(error.into());
        }
        ctx.env().failpoint("provisioner.folder-made")?;
        let path = self.0.folders.path(&name);
        let volume = volume(&name, &claim, &class, &self.0.node, &path.to_string_lossy());
        match ctx.client().create(&resources::PERSISTENT_VOLUMES, &volume).await {
            Ok(_) => {}
            // It was made before a crash, or another node was first: then this folder is not the one.
            Err(error) if error.is_already_exists() => {
                let there = ctx.client().get(&resources::PERSISTENT_VOLUMES, &ObjectKey::cluster(&*name)).await?;
                if there.to_value().at(&["spec", "nodeAffinity"]) != volume.at(&["spec", "nodeAffinity"]) {
                    self.0.folders.remove_empty(&name);
                }
            }
            Err(error) => {
                failed(&error.to_string());
                return Err(error.into());
            }
        }
        self.0.recorder.normal(&object, "ProvisioningSucceeded", format!("Successfully provisioned volume {name}"));
        Ok(Requeue::No)
    }
}

impl Create {
    async fn make_folder(&self, key: &ObjectKey, name: &str) -> std::io::Result<()> {
        let (folders, key, name) = (self.0.folders.clone(), key.clone(), name.to_owned());
        let make = move || {
            folders.make(&name)?;
            folders.link(&key.namespace, &key.name, &name)
        };
        tokio::task::spawn_blocking(make).await?
    }
}

/// Whether the claim waits for a volume of this provisioner's.
fn wants(object: &Object, claim: &Value) -> bool {
    let asked = ASKED.iter().find_map(|annotation| claim.str_at(&["metadata", "annotations", annotation]));
    let bound = claim.str_at(&["spec", "volumeName"]).is_some_and(|volume| !volume.is_empty());
    asked == Some(PROVISIONER) && !bound && !object.is_deleting()
}

/// The name of the claim's class.
fn class_of(claim: &Value) -> &str {
    let old = claim.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    old.or(claim.str_at(&["spec", "storageClassName"])).unwrap_or_default()
}

/// Whether a folder of one node can be what is asked for; else why not.
fn fits(claim: &Value, class: &Value) -> Result<(), String> {
    if let Some(name) = class.get("parameters").and_then(Value::as_object).and_then(|all| all.keys().next()) {
        return Err(format!("the class has the parameter {name:?}, and {PROVISIONER} knows none"));
    }
    if claim.str_at(&["spec", "volumeMode"]) == Some("Block") {
        return Err(format!("{PROVISIONER} makes folders: it has no volumes with volumeMode Block"));
    }
    for kind in ["dataSource", "dataSourceRef"] {
        if claim.at(&["spec", kind]).is_some_and(|source| !source.is_null()) {
            return Err(format!("{PROVISIONER} makes empty folders: it can't fill one from a {kind}"));
        }
    }
    if !claim.at(&["spec", "selector"]).is_none_or(Value::is_null) {
        return Err("claim Selector is not supported".to_owned());
    }
    let modes = claim.items_at(&["spec", "accessModes"]).iter().filter_map(Value::as_str);
    match modes.into_iter().find(|mode| !matches!(*mode, "ReadWriteOnce" | "ReadWriteOncePod")) {
        Some(mode) => Err(format!(
            "the access mode {mode} is for volumes of several nodes; a folder of one node can be ReadWriteOnce or ReadWriteOncePod"
        )),
        None => Ok(()),
    }
}

fn volume(name: &str, claim: &Value, class: &Value, node: &str, path: &str) -> Value {
    let text = |of: &Value, path: &[&str]| of.str_at(path).unwrap_or_default().to_owned();
    let policy = class.str_at(&["reclaimPolicy"]).unwrap_or("Delete");
    let term = json!({"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [node]}]});
    let mut volume: Value = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": text(claim, &["metadata", "namespace"]),
                "name": text(claim, &["metadata", "name"]),
                "uid": text(claim, &["metadata", "uid"]),
            },
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": text(class, &["metadata", "name"]),
            "volumeMode": claim.str_at(&["spec", "volumeMode"]).unwrap_or("Filesystem"),
        },
    })
    .into();
    if policy == "Delete" {
        volume.set(&["metadata", "finalizers"], vec![Value::from(FINALIZER)]);
    }
    let taken = [(claim.at(&["spec", "accessModes"]), "accessModes"), (class.at(&["mountOptions"]), "mountOptions")];
    for (value, member) in taken {
        if let Some(value) = value {
            volume.set(&["spec", member], value);
        }
    }
    if let Some(size) = claim.at(&["spec", "resources", "requests", "storage"]) {
        volume.set(&["spec", "capacity", "storage"], size);
    }
    volume
}
