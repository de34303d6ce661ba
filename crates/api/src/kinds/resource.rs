//! Dynamic resource allocation.

use super::row;
use crate::kind::{AGE, Kind, NAME, at, computed, field, status};

macro_rules! resource {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.resource.v1", "resource.k8s.io", "v1", $kind, $resource)
    };
}

pub(super) static KINDS: &[Kind] = &[
    resource!("DeviceClass", "deviceclasses").cluster().columns(&[NAME, AGE]),
    resource!("ResourceClaim", "resourceclaims")
        .with(&[status(("resource.k8s.io", "v1", "ResourceClaim"))])
        .columns(&[NAME, computed("State"), AGE]),
    resource!("ResourceClaimTemplate", "resourceclaimtemplates").columns(&[NAME, AGE]),
    resource!("ResourceSlice", "resourceslices")
        .cluster()
        .fields(&[field("spec.nodeName", &["spec", "nodeName"]), field("spec.driver", &["spec", "driver"])])
        .columns(&[
            NAME,
            computed("Node"),
            at("Driver", &["spec", "driver"]),
            at("Pool", &["spec", "pool", "name"]),
            AGE,
        ]),
];
