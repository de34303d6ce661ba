//! Discovery documents of the resources that were named.

use std::collections::BTreeMap;

use serde_json::json;

use super::world::World;
use crate::Body;

/// The answer, if `target` is a discovery path.
pub(super) fn answer(world: &World, target: &str) -> Option<Body> {
    let path = target.split('?').next()?.trim_matches('/');
    let mut parts = path.split('/');
    let document = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        ("api", None, ..) => json!({"kind": "APIVersions", "versions": ["v1"]}),
        ("api", Some(version), None, _) => resources(world, "", version),
        ("apis", None, ..) => groups(world),
        ("apis", Some(group), Some(version), None) => resources(world, group, version),
        _ => return None,
    };
    Some(Body::Bytes(document.to_string().into()))
}

fn groups(world: &World) -> serde_json::Value {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (resource, _) in world.served().filter(|(resource, _)| !resource.group.is_empty()) {
        let versions = groups.entry(&resource.group).or_default();
        if !versions.contains(&&*resource.version) {
            versions.push(&resource.version);
        }
    }
    let groups: Vec<_> = groups
        .iter()
        .map(|(group, versions)| {
            let version = |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
            let all: Vec<_> = versions.iter().map(version).collect();
            json!({"name": group, "versions": all, "preferredVersion": all.first()})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(world: &World, group: &str, version: &str) -> serde_json::Value {
    let here = world.served().filter(|(resource, _)| resource.group == group && resource.version == version);
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let resources: Vec<_> = here
        .map(|(r, kind)| json!({"name": r.plural, "namespaced": r.namespaced, "kind": kind, "verbs": verbs}))
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}
