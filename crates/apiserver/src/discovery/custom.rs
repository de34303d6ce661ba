//! Groups of custom resources. Upstream: apiextensions customresource_discovery_controller.go.

use std::sync::Arc;

use api::Kind;
use serde_json::{Value, json};

use super::{add_names, storage_hash, subresource_entry};
use crate::extension::Definition;
use crate::registry::{Customs, Resource};

/// A group and its versions, the preferred one first.
pub(super) struct Group {
    pub name: String,
    pub versions: Vec<Version>,
}

pub(super) struct Version {
    pub name: String,
    /// By the name of the definition.
    resources: Vec<(Arc<Definition>, Arc<Resource>)>,
}

/// Every group that only definitions serve, by name.
pub(super) fn groups(customs: &Customs) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for custom in customs.all() {
        let definition = &custom.definition;
        for resource in &custom.resources {
            let index = groups.iter().position(|group| group.name == definition.group).unwrap_or_else(|| {
                groups.push(Group { name: definition.group.clone(), versions: Vec::new() });
                groups.len() - 1
            });
            let versions = &mut groups[index].versions;
            let name = resource.kind.version;
            let index = versions.iter().position(|version| version.name == name).unwrap_or_else(|| {
                versions.push(Version { name: name.to_owned(), resources: Vec::new() });
                versions.len() - 1
            });
            versions[index].resources.push((definition.clone(), resource.clone()));
        }
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    for group in &mut groups {
        group.versions.sort_by(|a, b| (priority(&b.name), &a.name).cmp(&(priority(&a.name), &b.name)));
    }
    groups
}

/// Stable before beta before alpha, newer before older, and names of other forms last. Upstream: CompareKubeAwareVersionStrings.
fn priority(version: &str) -> (u8, u64, u64) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let major: u64 = rest[..digits].parse().ok()?;
        let (stage, minor) = match &rest[digits..] {
            "" => (3, "0"),
            more => match more.strip_prefix("beta") {
                Some(minor) => (2, minor),
                None => (1, more.strip_prefix("alpha")?),
            },
        };
        Some((stage, major, minor.parse().ok()?))
    };
    parsed().unwrap_or_default()
}

impl Group {
    /// As `/apis` lists it.
    pub(super) fn document(&self) -> Value {
        let version = |version: &Version| json!({ "groupVersion": format!("{}/{}", self.name, version.name), "version": version.name });
        let versions: Vec<Value> = self.versions.iter().map(version).collect();
        json!({ "name": self.name, "preferredVersion": versions.first(), "versions": versions })
    }

    /// As `/apis/{group}/{version}` shows it.
    pub(super) fn resource_list(&self, version: &Version) -> Value {
        let mut resources = Vec::new();
        for (definition, resource) in &version.resources {
            let kind = resource.kind;
            let mut entry = json!({
                "name": kind.resource,
                "singularName": definition.singular,
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": kind.verbs,
            });
            add_names(&mut entry, &definition.short_names, &definition.categories);
            entry["storageVersionHash"] = storage_hash(&self.name, &definition.stored().name, kind.kind).into();
            resources.push(entry);
            resources.extend(kind.subresources.iter().map(|subresource| subresource_entry(kind, subresource)));
        }
        let group_version = format!("{}/{}", self.name, version.name);
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources })
    }

    /// As aggregated discovery lists it.
    pub(super) fn aggregated(&self) -> Value {
        let versions = self.versions.iter().map(|version| {
            let resources = version.resources.iter().map(|(definition, resource)| {
                let kind: &Kind = resource.kind;
                let mut entry = json!({
                    "resource": kind.resource,
                    "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
                    "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                    "singularResource": definition.singular,
                    "verbs": kind.verbs,
                });
                add_names(&mut entry, &definition.short_names, &definition.categories);
                let subresources: Vec<Value> = kind
                    .subresources
                    .iter()
                    .map(|subresource| {
                        json!({
                            "subresource": subresource.name,
                            "responseKind": {
                                "group": subresource.group, "version": subresource.version, "kind": subresource.kind,
                            },
                            "verbs": subresource.verbs,
                        })
                    })
                    .collect();
                if !subresources.is_empty() {
                    entry["subresources"] = subresources.into();
                }
                entry
            });
            json!({ "version": version.name, "resources": resources.collect::<Vec<_>>(), "freshness": "Current" })
        });
        json!({ "metadata": { "name": self.name }, "versions": versions.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions = ["v1alpha1", "foo", "v2", "v1beta2", "v1beta1", "v10", "v1"];
        versions.sort_by_key(|version| Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
