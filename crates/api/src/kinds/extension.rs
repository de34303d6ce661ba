//! Definitions of kinds that are not built in.

use super::row;
use crate::kind::{Kind, status};

pub(super) static KINDS: &[Kind] = &[row!(
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions"
)
.cluster()
.short(&["crd", "crds"])
.categories(&["api-extensions"])
.path("apiextensions.k8s.io/customresourcedefinitions")
.with(&[status(("apiextensions.k8s.io", "v1", "CustomResourceDefinition"))])];
