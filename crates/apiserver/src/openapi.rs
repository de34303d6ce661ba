//! OpenAPI: of v3 an index whose URLs carry a hash, and documents that may be kept for ever under them; of v2 one document.
//!
//! Nothing of it stays in memory but the hashes: clients keep the documents, and making one takes milliseconds.

use std::sync::Arc;

use api::openapi::Form;
use apimachinery::Status;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::accept;
use crate::answer::{Answer, Content};
use crate::discovery::hex;
use crate::extension;
use crate::registry::Registry;
use crate::request::Query;
use crate::server::GIT_VERSION;

#[derive(Default)]
pub(crate) struct OpenApi {
    documents: OnceCell<Arc<[Document]>>,
    /// Those of custom resources, and of which set of them.
    customs: Mutex<(u64, Arc<[Document]>)>,
    /// The hash of the v2 document, and the set of custom resources in it.
    v2: Mutex<Option<(u64, String)>>,
}

/// What the v2 document is called as a protobuf message, and was called when a media type could hold an `@`.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const OLD_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

struct Document {
    /// `apis/apps/v1`
    root: String,
    group: &'static str,
    version: &'static str,
    hash: String,
}

impl OpenApi {
    pub(crate) fn new() -> OpenApi {
        OpenApi::default()
    }

    /// Answers requests for schemas; `None` for other paths.
    pub(crate) async fn answer(
        &self,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
        registry: &Arc<Registry>,
    ) -> Option<Result<Answer, Status>> {
        if path == "/openapi/v2" {
            return Some(self.v2(headers, registry).await);
        }
        let rest = path.strip_prefix("/openapi/v3")?;
        let documents = match self.documents.get_or_try_init(|| busy(documents)).await {
            Ok(documents) => documents,
            Err(status) => return Some(Err(status)),
        };
        let customs = match self.customs(registry).await {
            Ok(customs) => customs,
            Err(status) => return Some(Err(status)),
        };
        if rest.is_empty() {
            return Some(Ok(Answer::json(StatusCode::OK, index(documents.iter().chain(&*customs)))));
        }
        let root = rest.trim_start_matches('/');
        let document = documents.iter().chain(&*customs).find(|document| document.root == root)?;
        Some(document.answer(query.get("hash"), headers, registry).await)
    }

    /// The documents of custom resources, with their hashes.
    async fn customs(&self, registry: &Arc<Registry>) -> Result<Arc<[Document]>, Status> {
        let epoch = registry.customs().epoch;
        {
            let known = self.customs.lock();
            if known.0 == epoch {
                return Ok(known.1.clone());
            }
        }
        let customs = registry.clone();
        let made = busy(move || custom_documents(&customs)).await?;
        *self.customs.lock() = (epoch, made.clone());
        Ok(made)
    }

    /// The v2 document. Upstream: kube-openapi pkg/handler.
    async fn v2(&self, headers: &HeaderMap, registry: &Arc<Registry>) -> Result<Answer, Status> {
        let clauses = accept::clauses(headers);
        let form = |media: &str| match media {
            "application/json" | "application/*" | "*/*" => Some(Form::Json),
            PROTOBUF | OLD_PROTOBUF => Some(Form::Protobuf),
            _ => None,
        };
        let Some(form) = clauses.iter().find_map(|clause| form(&clause.media)) else {
            return Ok(Answer::new(StatusCode::NOT_ACCEPTABLE, Content::Bytes(Bytes::new())).with(VARY, "Accept"));
        };
        let epoch = registry.customs().epoch;
        let document = |form| {
            let registry = registry.clone();
            move || api::openapi::v2_with(form, GIT_VERSION, &extension::published(&registry, None, true))
        };
        let known = self.v2.lock().clone().filter(|(of, _)| *of == epoch);
        let (_, hash) = match known {
            Some(known) => known,
            None => {
                let document = document(Form::Json);
                let made = (epoch, busy(move || hash(&document())).await?);
                self.v2.lock().insert(made).clone()
            }
        };
        // Both forms say the same, and clients keep them apart by what they accept.
        let etag = format!("\"{hash}\"");
        let answer = if headers.get(IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()) == Some(&etag) {
            Answer::new(StatusCode::NOT_MODIFIED, Content::Bytes(Bytes::new()))
        } else {
            let document = busy(document(form)).await?;
            let media = if form == Form::Json { "application/json" } else { PROTOBUF };
            Answer::json(StatusCode::OK, document).with(CONTENT_TYPE, media)
        };
        Ok(answer.with(ETAG, &etag).with(VARY, "Accept"))
    }
}

impl Document {
    async fn answer(&self, asked: &str, headers: &HeaderMap, registry: &Arc<Registry>) -> Result<Answer, Status> {
        let hash = &self.hash;
        if !asked.is_empty() && asked != hash {
            // The client's index is old; it may keep what the new URL says.
            let answer = Answer::text(StatusCode::MOVED_PERMANENTLY, Bytes::new());
            return Ok(answer.with(http::header::LOCATION, &format!("/openapi/v3/{}?hash={hash}", self.root)));
        }
        let etag = format!("\"{hash}\"");
        let known = headers.get(IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()) == Some(&etag);
        let answer = if known {
            Answer::json(StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            let (group, version, registry) = (self.group, self.version, registry.clone());
            Answer::json(StatusCode::OK, busy(move || render(group, version, &registry)).await?)
        };
        let answer = answer.with(ETAG, &etag).with(VARY, "Accept");
        Ok(match asked.is_empty() {
            true => answer,
            false => answer.with(CACHE_CONTROL, "public, immutable").with(EXPIRES, "Thu, 31 Dec 2099 23:59:59 GMT"),
        })
    }
}

/// Makes every document once for its hash.
fn documents() -> Arc<[Document]> {
    let mut documents: Vec<Document> = Vec::new();
    for kind in api::kinds() {
        let root = api::openapi::root(kind.group, kind.version);
        if documents.iter().any(|document| document.root == root) {
            continue;
        }
        let hash = hash(&api::openapi::v3(kind.group, kind.version, GIT_VERSION).unwrap_or_default());
        documents.push(Document { root, group: kind.group, version: kind.version, hash });
    }
    documents.into()
}

fn hash(document: &[u8]) -> String {
    hex(&Sha256::digest(document)).to_uppercase()
}

fn custom_documents(registry: &Registry) -> Arc<[Document]> {
    let mut documents: Vec<Document> = Vec::new();
    for shown in registry.customs().all().flat_map(|custom| &custom.resources) {
        let (group, version) = (shown.kind.group, shown.kind.version);
        let root = api::openapi::root(group, version);
        if !documents.iter().any(|document| document.root == root) {
            documents.push(Document { root, group, version, hash: hash(&render(group, version, registry)) });
        }
    }
    documents.into()
}

fn render(group: &str, version: &str, registry: &Registry) -> Vec<u8> {
    api::openapi::v3(group, version, GIT_VERSION).unwrap_or_else(|| {
        let published = extension::published(registry, Some((group, version)), false);
        api::openapi::v3_with(group, version, &published, GIT_VERSION)
    })
}

fn index<'d>(documents: impl Iterator<Item = &'d Document>) -> Vec<u8> {
    let entry = |document: &Document| {
        let url = format!("/openapi/v3/{}?hash={}", document.root, document.hash);
        (document.root.clone(), json!({ "serverRelativeURL": url }))
    };
    let paths: serde_json::Map<String, serde_json::Value> = documents.map(entry).collect();
    json!({ "paths": paths }).to_string().into_bytes()
}

/// Runs what takes milliseconds where no request waits for it.
async fn busy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(Status::internal)
}
