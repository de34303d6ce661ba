//! Volumes, claims and classes. Upstream: printPersistentVolume, printPersistentVolumeClaim, printStorageClass.

use apimachinery::Value;

use super::{Row, or_none};

pub(super) fn cell(row: &Row<'_>, column: &str) -> Option<Value> {
    Some(
        match (row.object.kind(), column) {
            ("PersistentVolume", "Capacity") => row.text(&["spec", "capacity", "storage"]).to_owned(),
            ("PersistentVolume", "Access Modes") => modes(row.value.items_at(&["spec", "accessModes"])),
            ("PersistentVolume" | "PersistentVolumeClaim", "Status") => match row.object.is_deleting() {
                true => "Terminating".to_owned(),
                false => row.text(&["status", "phase"]).to_owned(),
            },
            ("PersistentVolume", "Claim") => match row.value.at(&["spec", "claimRef"]).filter(|claim| !claim.is_null())
            {
                Some(claim) => {
                    let part = |key: &str| claim.str_at(&[key]).unwrap_or_default();
                    format!("{}/{}", part("namespace"), part("name"))
                }
                None => String::new(),
            },
            ("PersistentVolume" | "PersistentVolumeClaim", "StorageClass") => {
                const LEGACY: &[&str] = &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"];
                match row.text(LEGACY) {
                    "" => row.text(&["spec", "storageClassName"]).to_owned(),
                    legacy => legacy.to_owned(),
                }
            }
            ("PersistentVolume" | "PersistentVolumeClaim", "VolumeAttributesClass") => {
                let name = row.text(&["spec", "volumeAttributesClassName"]);
                if name.is_empty() { "<unset>".to_owned() } else { name.to_owned() }
            }
            ("PersistentVolume" | "PersistentVolumeClaim", "VolumeMode") => match row.text(&["spec", "volumeMode"]) {
                "" => "<unset>".to_owned(),
                mode => mode.to_owned(),
            },
            ("PersistentVolumeClaim", "Capacity") if row.text(&["spec", "volumeName"]).is_empty() => String::new(),
            ("PersistentVolumeClaim", "Capacity") => row.text(&["status", "capacity", "storage"]).to_owned(),
            ("PersistentVolumeClaim", "Access Modes") if row.text(&["spec", "volumeName"]).is_empty() => String::new(),
            ("PersistentVolumeClaim", "Access Modes") => modes(row.value.items_at(&["status", "accessModes"])),
            ("StorageClass", "Name") => {
                let annotations =
                    ["storageclass", "storageclass.beta"].map(|part| format!("{part}.kubernetes.io/is-default-class"));
                let is = |key: &String| row.text(&["metadata", "annotations", key]) == "true";
                let name = row.object.name();
                if annotations.iter().any(is) { format!("{name} (default)") } else { name.to_owned() }
            }
            ("StorageClass", "AllowVolumeExpansion") => {
                return Some(row.value.bool_at(&["allowVolumeExpansion"]).unwrap_or_default().into());
            }
            ("CSIDriver", "TokenRequests") => {
                let requests = row.value.items_at(&["spec", "tokenRequests"]).iter();
                let audiences: Vec<&str> = requests.filter_map(|request| request.str_at(&["audience"])).collect();
                if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") }
            }
            ("CSIDriver", "Modes") => {
                let modes = row.value.items_at(&["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str);
                or_none(modes.collect::<Vec<_>>().join(","))
            }
            ("CSIStorageCapacity", "Capacity") => {
                let capacity = row.text(&["capacity"]);
                if capacity.is_empty() { "<unset>".to_owned() } else { capacity.to_owned() }
            }
            _ => return None,
        }
        .into(),
    )
}

/// `RWO,ROX`
fn modes(modes: &[Value]) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |long: &str| modes.iter().any(|mode| mode.as_str() == Some(long));
    short.into_iter().filter(|(long, _)| has(long)).map(|(_, short)| short).collect::<Vec<_>>().join(",")
}
