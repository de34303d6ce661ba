//! The table of built-in kinds, and how one is found in it.

mod aggregation;
mod apps;
mod cluster;
mod core;
mod extension;
mod policy;
mod resource;
mod reviews;
mod storage;

use std::sync::LazyLock;

use apimachinery::schema::Type;
use apimachinery::{GroupVersionKind, GroupVersionResource};

use crate::kind::Kind;
use crate::tables;

/// Makes a row of a group version: `row!("io.k8s.api.core.v1", "", "v1", "Pod", "pods")`.
macro_rules! row {
    ($package:literal, $group:literal, $version:literal, $kind:literal, $resource:literal) => {
        $crate::kind::Kind::new(
            $group,
            $version,
            $kind,
            concat!($kind, "List"),
            $resource,
            concat!($package, ".", $kind),
        )
    };
}
pub(crate) use row;

/// An API group and its versions, the preferred one first.
#[derive(Debug)]
pub struct Group {
    pub name: &'static str,
    pub versions: &'static [Version],
}

/// One version of a group.
#[derive(Debug)]
pub struct Version {
    pub name: &'static str,
    /// The prefix of its types' names.
    pub package: &'static str,
}

macro_rules! groups {
    ($($name:literal: $($version:literal $package:literal),+;)*) => {
        &[$(Group { name: $name, versions: &[$(Version { name: $version, package: $package }),+] }),*]
    };
}

/// By upstream's priority.
static GROUPS: &[Group] = groups! {
    "": "v1" "io.k8s.api.core.v1";
    "apiregistration.k8s.io": "v1" "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1";
    "apps": "v1" "io.k8s.api.apps.v1";
    "events.k8s.io": "v1" "io.k8s.api.events.v1";
    "authentication.k8s.io": "v1" "io.k8s.api.authentication.v1";
    "authorization.k8s.io": "v1" "io.k8s.api.authorization.v1";
    "autoscaling": "v2" "io.k8s.api.autoscaling.v2", "v1" "io.k8s.api.autoscaling.v1";
    "batch": "v1" "io.k8s.api.batch.v1";
    "certificates.k8s.io": "v1" "io.k8s.api.certificates.v1";
    "networking.k8s.io": "v1" "io.k8s.api.networking.v1";
    "policy": "v1" "io.k8s.api.policy.v1";
    "rbac.authorization.k8s.io": "v1" "io.k8s.api.rbac.v1";
    "storage.k8s.io": "v1" "io.k8s.api.storage.v1";
    "admissionregistration.k8s.io": "v1" "io.k8s.api.admissionregistration.v1";
    "apiextensions.k8s.io": "v1" "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
    "scheduling.k8s.io": "v1" "io.k8s.api.scheduling.v1";
    "coordination.k8s.io": "v1" "io.k8s.api.coordination.v1";
    "node.k8s.io": "v1" "io.k8s.api.node.v1";
    "discovery.k8s.io": "v1" "io.k8s.api.discovery.v1";
    "resource.k8s.io": "v1" "io.k8s.api.resource.v1";
    "flowcontrol.apiserver.k8s.io": "v1" "io.k8s.api.flowcontrol.v1";
    "metrics.k8s.io": "v1beta1" "io.k8s.metrics.pkg.apis.metrics.v1beta1";
};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Kinds that every group version has: options, answers and what is sent about objects.
const META_KINDS: &[&str] = &[
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "PatchOptions",
    "Status",
    "Table",
    "TableOptions",
    "UpdateOptions",
    "WatchEvent",
];

static KINDS: LazyLock<Vec<&'static Kind>> = LazyLock::new(|| {
    let tables = [
        core::KINDS,
        extension::KINDS,
        aggregation::KINDS,
        apps::KINDS,
        cluster::KINDS,
        policy::KINDS,
        storage::KINDS,
        resource::KINDS,
        reviews::KINDS,
    ];
    let mut kinds: Vec<&Kind> = tables.into_iter().flatten().collect();
    kinds.sort_by_key(|kind| {
        let group = GROUPS.iter().position(|group| group.name == kind.group);
        let version =
            GROUPS[group.unwrap_or_default()].versions.iter().position(|version| version.name == kind.version);
        (group, version, kind.resource)
    });
    kinds
});

/// Every row: groups by priority, their versions by priority, resources by name.
pub fn kinds() -> &'static [&'static Kind] {
    &KINDS
}

/// Every group by priority.
pub fn groups() -> &'static [Group] {
    GROUPS
}

/// The row of a kind in one version.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    let same = |row: &&&Kind| row.kind == kind && row.group == group && row.version == version;
    KINDS.iter().find(same).copied()
}

/// The row of a kind in one version.
pub fn by_gvk(gvk: &GroupVersionKind) -> Option<&'static Kind> {
    kind(&gvk.group, &gvk.version, &gvk.kind)
}

/// The row of a resource in one version.
pub fn by_gvr(gvr: &GroupVersionResource) -> Option<&'static Kind> {
    resource(&gvr.group, &gvr.version, &gvr.resource)
}

/// The row of a resource in one version.
pub fn resource(group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
    let same = |row: &&&Kind| row.resource == resource && row.group == group && row.version == version;
    KINDS.iter().find(same).copied()
}

/// Rows by what a person types: plural, singular or short name, or the kind; of several versions the preferred one first.
pub fn named(name: &str) -> impl Iterator<Item = &'static Kind> {
    let name = name.to_ascii_lowercase();
    KINDS.iter().copied().filter(move |row| {
        row.resource == name || row.short_names.contains(&name.as_str()) || row.kind.eq_ignore_ascii_case(&name)
    })
}

/// The type of any kind that is sent or received in a group version: rows, lists, subresources' bodies, options, Status.
pub fn type_of(group: &str, version: &str, kind: &str) -> Option<Type<'static>> {
    let found = GROUPS.iter().find(|known| known.name == group);
    let found = found.and_then(|known| known.versions.iter().find(|known| known.name == version));
    if META_KINDS.contains(&kind) && (found.is_some() || group == "meta.k8s.io") {
        return tables::type_named(&format!("{META}.{kind}"));
    }
    let package = match (group, kind) {
        ("", "List") if version == "v1" => META,
        _ => found?.package,
    };
    tables::type_named(&format!("{package}.{kind}"))
}

#[cfg(test)]
mod tests;
