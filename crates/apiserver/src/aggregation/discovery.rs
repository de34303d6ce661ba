//! Discovery of everything together: what is served here and by the servers behind. Upstream: handler_apis.go, handler_discovery.go.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::route::Route;
use super::{Aggregation, Routes, priorities};
use crate::answer::{Answer, Content};
use crate::discovery::hex;

impl Aggregation {
    /// Whether a discovery path says more than this server knows of itself.
    pub(crate) fn adds_to(&self, path: &str) -> bool {
        let routes = self.routes.read();
        match path.strip_prefix("/apis") {
            _ if routes.is_empty() => false,
            Some("") => true,
            Some(group) => routes.keys().any(|(known, _)| group.strip_prefix('/') == Some(known)),
            None => false,
        }
    }

    /// The answer to a discovery request, with what other servers have added; `own` is what this one would say (to a client
    /// who keeps nothing), and `None` for a group that it does not know.
    pub(crate) fn completed(&self, path: &str, headers: &HeaderMap, own: Option<Answer>) -> Option<Answer> {
        let routes = self.routes();
        if let Some(group) = path.strip_prefix("/apis/") {
            let document = own.as_ref().and_then(document).unwrap_or_else(|| json!({ "versions": [] }));
            let mut group = with_versions(group, document, &routes)?;
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            return Some(Answer::json(StatusCode::OK, group.to_string()));
        }
        let own = own?;
        let mut document = document(&own)?;
        let is_aggregated = document["kind"] == "APIGroupDiscoveryList";
        match is_aggregated {
            true => merge_aggregated(document["items"].as_array_mut()?, self, &routes),
            false => merge_plain(document["groups"].as_array_mut()?, &routes),
        }
        let body = Bytes::from(document.to_string());
        let mut answer = Answer::json(StatusCode::OK, body.clone());
        if is_aggregated {
            let etag = format!("\"{}\"", hex(&Sha256::digest(&body)).to_uppercase());
            let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
            if known.split(',').any(|tag| tag.trim() == etag) {
                answer = Answer::json(StatusCode::NOT_MODIFIED, Bytes::new());
            }
            answer = answer.with(ETAG, &etag).with(CACHE_CONTROL, "public");
        }
        if let Some(media) = own.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()) {
            answer = answer.with(CONTENT_TYPE, media);
        }
        Some(answer.with(VARY, "Accept"))
    }
}

fn document(answer: &Answer) -> Option<Json> {
    match &answer.content {
        Content::Bytes(bytes) => serde_json::from_slice(bytes).ok(),
        _ => None,
    }
}

/// An APIGroup with the versions that other servers answer for; `None` if nobody does.
fn with_versions(group: &str, mut document: Json, routes: &Routes) -> Option<Json> {
    let mut versions = document["versions"].as_array().cloned().unwrap_or_default();
    let own = versions.len() as i64;
    let mut ranked: Vec<(i64, Json)> = versions.drain(..).zip(0..).map(|(one, at)| (15 + own - at, one)).collect();
    for ((_, version), route) in routes.iter().filter(|((known, _), _)| known == group) {
        ranked.retain(|(_, one)| one["version"] != version.as_str());
        let entry = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
        ranked.push((route.version_priority, entry));
    }
    ranked.sort_by_key(|(priority, _)| -priority);
    let versions: Vec<Json> = ranked.into_iter().map(|(_, version)| version).collect();
    document["name"] = group.into();
    document["preferredVersion"] = versions.first()?.clone();
    document["versions"] = versions.into();
    Some(document)
}

fn merge_plain(groups: &mut Vec<Json>, routes: &Routes) {
    let names: std::collections::BTreeSet<&str> = routes.keys().map(|(group, _)| group.as_str()).collect();
    for name in names {
        let at = groups.iter().position(|group| group["name"] == name);
        let own = at.map_or_else(|| json!({ "versions": [] }), |at| groups[at].clone());
        let Some(merged) = with_versions(name, own, routes) else { continue };
        match at {
            Some(at) => groups[at] = merged,
            None => groups.push(merged),
        }
    }
    groups.sort_by_key(|group| -priority(group["name"].as_str().unwrap_or_default(), routes));
}

fn merge_aggregated(items: &mut Vec<Json>, aggregation: &Aggregation, routes: &Routes) {
    let discovered = aggregation.discovered.read();
    for ((group, version), route) in routes {
        let fresh = discovered.get(&(group.clone(), version.clone())).cloned();
        let entry = fresh.unwrap_or_else(|| {
            let mut unknown = aggregated(route, &Json::Null);
            unknown["freshness"] = "Stale".into();
            unknown
        });
        let at = items.iter().position(|item| item["metadata"]["name"] == group.as_str()).unwrap_or_else(|| {
            items.push(json!({ "metadata": { "name": group }, "versions": [] }));
            items.len() - 1
        });
        let Some(versions) = items[at]["versions"].as_array_mut() else { continue };
        versions.retain(|one| one["version"] != version.as_str());
        // By priority: before the first version of other servers that is less preferred, after what is served here.
        let preferred = |one: &Json| {
            let key = (group.clone(), one["version"].as_str().unwrap_or_default().to_owned());
            routes.get(&key).is_none_or(|known| known.version_priority >= route.version_priority)
        };
        let place = versions.iter().take_while(|one| preferred(one)).count();
        versions.insert(place, entry);
    }
    items.sort_by_key(|item| -priority(item["metadata"]["name"].as_str().unwrap_or_default(), routes));
}

/// A group is as important as its most important APIService.
fn priority(group: &str, routes: &Routes) -> i64 {
    let told = routes.values().filter(|route| route.group == group).map(|route| route.group_priority).max();
    told.unwrap_or_else(|| priorities::of_group(group))
}

/// An APIResourceList as a version in aggregated discovery. Upstream: endpoints.ConvertGroupVersionIntoToDiscovery.
pub(super) fn aggregated(route: &Route, list: &Json) -> Json {
    let listed = list["resources"].as_array().cloned().unwrap_or_default();
    let mut resources: Vec<Json> = Vec::new();
    let kind_of = |one: &Json| {
        let or = |name: &str, default: &str| {
            one[name].as_str().filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
        };
        json!({ "group": or("group", &route.group), "version": or("version", &route.version), "kind": one["kind"] })
    };
    for one in &listed {
        let name = one["name"].as_str().unwrap_or_default();
        let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let Some((parent, subresource)) = name.split_once('/') else {
            let mut entry = json!({
                "resource": name, "responseKind": kind_of(one), "scope": scope,
                "singularResource": one["singularName"], "verbs": one["verbs"],
            });
            for member in ["shortNames", "categories"] {
                if !one[member].is_null() {
                    entry[member] = one[member].clone();
                }
            }
            resources.push(entry);
            continue;
        };
        let at = resources.iter().position(|resource| resource["resource"] == parent).unwrap_or_else(|| {
            resources.push(json!({ "resource": parent, "scope": scope, "verbs": [] }));
            resources.len() - 1
        });
        let entry = json!({ "subresource": subresource, "responseKind": kind_of(one), "verbs": one["verbs"] });
        match resources[at]["subresources"].as_array_mut() {
            Some(known) => known.push(entry),
            None => resources[at]["subresources"] = json!([entry]),
        }
    }
    json!({ "version": route.version, "resources": resources, "freshness": "Current" })
}
