//! Storage classes and drivers.

use super::row;
use crate::kind::{AGE, Cell, Column, Kind, NAME, at, computed, status};

macro_rules! storage {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.storage.v1", "storage.k8s.io", "v1", $kind, $resource)
    };
}

pub(super) static KINDS: &[Kind] = &[
    storage!("CSIDriver", "csidrivers").cluster().columns(&[
        NAME,
        Column::new("AttachRequired", "boolean", Cell::At(&["spec", "attachRequired"])),
        Column::new("PodInfoOnMount", "boolean", Cell::At(&["spec", "podInfoOnMount"])),
        Column::new("StorageCapacity", "boolean", Cell::At(&["spec", "storageCapacity"])),
        computed("TokenRequests"),
        Column::new("RequiresRepublish", "boolean", Cell::At(&["spec", "requiresRepublish"])),
        computed("Modes"),
        AGE,
    ]),
    storage!("CSINode", "csinodes").cluster().columns(&[
        NAME,
        Column::new("Drivers", "integer", Cell::Count(&["spec", "drivers"])),
        AGE,
    ]),
    storage!("CSIStorageCapacity", "csistoragecapacities").columns(&[
        NAME,
        at("StorageClassName", &["storageClassName"]),
        computed("Capacity"),
        AGE,
    ]),
    storage!("StorageClass", "storageclasses").cluster().short(&["sc"]).columns(&[
        Column { format: "name", ..computed("Name") },
        at("Provisioner", &["provisioner"]),
        at("ReclaimPolicy", &["reclaimPolicy"]),
        at("VolumeBindingMode", &["volumeBindingMode"]),
        computed("AllowVolumeExpansion"),
        AGE,
    ]),
    storage!("VolumeAttachment", "volumeattachments")
        .cluster()
        .with(&[status(("storage.k8s.io", "v1", "VolumeAttachment"))])
        .columns(&[
            NAME,
            Column { format: "name", ..at("Attacher", &["spec", "attacher"]) },
            at("PV", &["spec", "source", "persistentVolumeName"]),
            at("Node", &["spec", "nodeName"]),
            Column::new("Attached", "boolean", Cell::At(&["status", "attached"])),
            AGE,
        ]),
    storage!("VolumeAttributesClass", "volumeattributesclasses").cluster().short(&["vac"]).columns(&[
        NAME,
        at("DriverName", &["driverName"]),
        AGE,
    ]),
];
