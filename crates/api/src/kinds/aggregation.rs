//! Group versions that other servers answer for, and the figures that this one answers with until another does.

use super::row;
use crate::kind::{AGE, Kind, NAME, at, computed, status};

const SERVICE: (&str, &str, &str) = ("apiregistration.k8s.io", "v1", "APIService");
const READ: &[&str] = &["get", "list"];

macro_rules! metrics {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.metrics.pkg.apis.metrics.v1beta1", "metrics.k8s.io", "v1beta1", $kind, $resource)
            .virtual_with(READ)
            .columns(&[NAME, computed("cpu"), computed("memory"), at("Window", &["window"])])
    };
}

pub(super) static KINDS: &[Kind] = &[
    row!(
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        "apiservices"
    )
    .cluster()
    .categories(&["api-extensions"])
    .path("apiregistration.k8s.io/apiservices")
    .with(&[status(SERVICE)])
    .columns(&[NAME, computed("Service"), computed("Available"), AGE]),
    metrics!("NodeMetrics", "nodes").cluster(),
    metrics!("PodMetrics", "pods"),
];
