//! Discovery: which groups, versions and resources are served; plain for old clients, aggregated for those that ask for it.
//!
//! Everything is rendered once for each set of custom resources. Upstream: apiserver pkg/endpoints/discovery.

mod custom;

use std::sync::Arc;

use apimachinery::Status;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use parking_lot::RwLock;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::accept::{self, Clause, Encoding};
use crate::answer::Answer;
use crate::config::Settings;
use crate::registry::{Customs, Registry};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Documents, rendered when what is served has changed.
pub(crate) struct Discovery {
    rendered: RwLock<Arc<Rendered>>,
}

/// The documents of one set of resources.
struct Rendered {
    /// Of the custom resources in them.
    epoch: u64,
    /// `/api` and `/apis`, aggregated.
    aggregated: Vec<Aggregated>,
    group_list: Bytes,
    /// `/apis/{group}`, `/api/v1` and `/apis/{group}/{version}`, by path.
    documents: Vec<(String, Bytes)>,
}

struct Aggregated {
    path: &'static str,
    body: Bytes,
    etag: String,
}

impl Discovery {
    pub(crate) fn new() -> Discovery {
        Discovery { rendered: RwLock::new(Arc::new(Rendered::new(&Customs::default()))) }
    }

    /// The paths that are answered.
    pub(crate) fn paths(&self, registry: &Registry) -> Vec<String> {
        let rendered = self.rendered(registry);
        let fixed = ["/api", "/apis"].map(str::to_owned);
        fixed.into_iter().chain(rendered.documents.iter().map(|(path, _)| path.clone())).collect()
    }

    /// Answers discovery requests; `None` for other paths.
    pub(crate) fn answer(
        &self,
        path: &str,
        headers: &HeaderMap,
        settings: &Settings,
        registry: &Registry,
    ) -> Option<Result<Answer, Status>> {
        if path != "/api" && !path.starts_with("/api/") && !path.starts_with("/apis") {
            return None;
        }
        self.rendered(registry).answer(path, headers, settings)
    }

    fn rendered(&self, registry: &Registry) -> Arc<Rendered> {
        let customs = registry.customs();
        let known = self.rendered.read().clone();
        if known.epoch == customs.epoch {
            return known;
        }
        let rendered = Arc::new(Rendered::new(&customs));
        *self.rendered.write() = rendered.clone();
        rendered
    }
}

impl Rendered {
    fn new(customs: &Customs) -> Rendered {
        let custom = custom::groups(customs);
        let mut aggregated = Vec::new();
        for path in ["/api", "/apis"] {
            let mut document = aggregate(path);
            if path == "/apis"
                && let Some(items) = document["items"].as_array_mut()
            {
                items.extend(custom.iter().map(custom::Group::aggregated));
            }
            let body = Bytes::from(document.to_string());
            let etag = format!("\"{}\"", hex(&Sha256::digest(&body)).to_uppercase());
            aggregated.push(Aggregated { path, body, etag });
        }
        let served = || {
            api::groups()
                .iter()
                .filter(|group| group.versions.iter().any(|version| is_served(group.name, version.name)))
        };
        let mut documents = Vec::new();
        for group in served() {
            if !group.name.is_empty() {
                documents.push((format!("/apis/{}", group.name), as_document(group_document(group))));
            }
            for version in group.versions {
                let path = format!("/{}", api::openapi::root(group.name, version.name));
                documents.push((path, Bytes::from(resource_list(group.name, version.name).to_string())));
            }
        }
        let mut groups: Vec<Value> = served().filter(|group| !group.name.is_empty()).map(group_document).collect();
        for group in &custom {
            groups.push(group.document());
            documents.push((format!("/apis/{}", group.name), as_document(group.document())));
            for version in &group.versions {
                let path = format!("/apis/{}/{}", group.name, version.name);
                documents.push((path, Bytes::from(group.resource_list(version).to_string())));
            }
        }
        let group_list = json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }).to_string().into();
        Rendered { epoch: customs.epoch, aggregated, group_list, documents }
    }

    fn answer(&self, path: &str, headers: &HeaderMap, settings: &Settings) -> Option<Result<Answer, Status>> {
        if !matches!(path, "/api" | "/apis") {
            let (_, body) = self.documents.iter().find(|(known, _)| known == path)?;
            return Some(plain(headers, body.clone()));
        }
        for clause in accept::clauses(headers) {
            if is_aggregated(&clause) {
                let found = self.aggregated.iter().find(|document| document.path == path)?;
                return Some(Ok(found.answer(headers)));
            }
            if is_plain(&clause) {
                break;
            }
        }
        let body = match path {
            "/api" => Bytes::from(versions(settings).to_string()),
            _ => self.group_list.clone(),
        };
        Some(plain(headers, body).map(|answer| answer.with(VARY, "Accept")))
    }
}

/// A group as a document of its own.
fn as_document(mut group: Value) -> Bytes {
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    group.to_string().into()
}

impl Aggregated {
    fn answer(&self, headers: &HeaderMap) -> Answer {
        let known = headers.get(IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
        let answer = match known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == self.etag)) {
            true => Answer::json(StatusCode::NOT_MODIFIED, Bytes::new()),
            false => Answer::json(StatusCode::OK, self.body.clone()),
        };
        let answer = answer.with(CONTENT_TYPE, AGGREGATED).with(ETAG, &self.etag).with(VARY, "Accept");
        answer.with(CACHE_CONTROL, "public")
    }
}

/// Whether the clause names the aggregated form, in its only version that is still served.
fn is_aggregated(clause: &Clause) -> bool {
    clause.media == "application/json"
        && clause.param("g") == "apidiscovery.k8s.io"
        && clause.param("as") == "APIGroupDiscoveryList"
        && clause.param("v") == "v2"
}

fn is_plain(clause: &Clause) -> bool {
    clause.param("as").is_empty() && matches!(&*clause.media, "application/json" | "application/*" | "*/*")
}

fn plain(headers: &HeaderMap, body: Bytes) -> Result<Answer, Status> {
    accept::route(headers, accept::OBJECTS)?;
    let known = |clause: &Clause| is_plain(clause) || clause.media == "application/yaml" || is_aggregated(clause);
    if !accept::clauses(headers).iter().any(known) {
        return Err(accept::not_acceptable());
    }
    if accept::encoding(headers) == Encoding::Yaml
        && let Ok(value) = serde_json::from_slice::<Value>(&body)
        && let Ok(yaml) = serde_yaml_ng::to_string(&value)
    {
        return Ok(Answer::json(StatusCode::OK, yaml.into_bytes()).with(CONTENT_TYPE, "application/yaml"));
    }
    Ok(Answer::json(StatusCode::OK, body))
}

fn is_served(group: &str, version: &str) -> bool {
    api::kinds().iter().any(|kind| kind.group == group && kind.version == version)
}

fn versions(settings: &Settings) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": settings.advertised() }],
    })
}

fn group_document(group: &api::Group) -> Value {
    let version = |version: &api::Version| json!({ "groupVersion": format!("{}/{}", group.name, version.name), "version": version.name });
    let served = group.versions.iter().filter(|version| is_served(group.name, version.name));
    let versions: Vec<Value> = served.map(version).collect();
    json!({ "name": group.name, "preferredVersion": versions.first(), "versions": versions })
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for kind in api::kinds().iter().filter(|kind| kind.group == group && kind.version == version) {
        let mut entry = json!({
            "name": kind.resource,
            "singularName": kind.singular(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        add_names(&mut entry, kind.short_names, kind.categories);
        if let Some(storage) = kind.storage {
            entry["storageVersionHash"] = storage_hash(storage.group, storage.version, kind.kind).into();
        }
        resources.push(entry);
        resources.extend(kind.subresources.iter().map(|subresource| subresource_entry(kind, subresource)));
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources })
}

/// A subresource in the plain list; its group and version stand there where they are not those of the list.
fn subresource_entry(kind: &api::Kind, subresource: &api::Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", kind.resource, subresource.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": subresource.kind,
        "verbs": subresource.verbs,
    });
    if (subresource.group, subresource.version) != (kind.group, kind.version) {
        entry["group"] = subresource.group.into();
        entry["version"] = subresource.version.into();
    }
    entry
}

/// Other names of the resource, where it has any.
fn add_names<T: Clone + Into<Value>>(entry: &mut Value, short_names: &[T], categories: &[T]) {
    for (key, names) in [("shortNames", short_names), ("categories", categories)] {
        if !names.is_empty() {
            entry[key] = names.into();
        }
    }
}

/// What tells clients that the stored version has changed.
fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    STANDARD.encode(&Sha256::digest(format!("{group}/{version}/{kind}").as_bytes())[..8])
}

fn aggregate(path: &str) -> Value {
    let groups = api::groups().iter().filter(|group| group.name.is_empty() == (path == "/api"));
    let item = |group: &api::Group| {
        let served = group.versions.iter().filter(|version| is_served(group.name, version.name));
        let versions: Vec<Value> = served
            .map(|version| {
                json!({ "version": version.name, "resources": aggregated_resources(group.name, version.name), "freshness": "Current" })
            })
            .collect();
        let metadata = match group.name {
            "" => json!({}),
            name => json!({ "name": name }),
        };
        (!versions.is_empty()).then(|| json!({ "metadata": metadata, "versions": versions }))
    };
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": groups.filter_map(item).collect::<Vec<_>>(),
    })
}

fn aggregated_resources(group: &str, version: &str) -> Vec<Value> {
    let kinds = api::kinds().iter().filter(|kind| kind.group == group && kind.version == version);
    // The group and version that stand above are left out.
    let response =
        |kind_group: &str, kind_version: &str, kind: &str| match (kind_group, kind_version) == (group, version) {
            true => json!({ "group": "", "version": "", "kind": kind }),
            false => json!({ "group": kind_group, "version": kind_version, "kind": kind }),
        };
    let resource = |kind: &&api::Kind| {
        let mut entry = json!({
            "resource": kind.resource,
            "responseKind": response(kind.group, kind.version, kind.kind),
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": kind.singular(),
            "verbs": kind.verbs,
        });
        add_names(&mut entry, kind.short_names, kind.categories);
        let subresource = |subresource: &api::Subresource| {
            json!({
                "subresource": subresource.name,
                "responseKind": response(subresource.group, subresource.version, subresource.kind),
                "verbs": subresource.verbs,
            })
        };
        if !kind.subresources.is_empty() {
            entry["subresources"] = kind.subresources.iter().map(subresource).collect();
        }
        entry
    };
    kinds.map(resource).collect()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
