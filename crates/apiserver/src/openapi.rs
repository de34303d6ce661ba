//! OpenAPI v3: an index whose URLs carry a hash, and documents that may be kept for ever under them.
//!
//! Nothing of it stays in memory but the hashes: clients keep the documents, and making one takes milliseconds.

use std::sync::Arc;

use apimachinery::Status;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::answer::Answer;
use crate::discovery::hex;
use crate::request::Query;
use crate::server::GIT_VERSION;

#[derive(Default)]
pub(crate) struct OpenApi {
    documents: OnceCell<Arc<[Document]>>,
}

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
    ) -> Option<Result<Answer, Status>> {
        let rest = path.strip_prefix("/openapi/v3")?;
        let documents = match self.documents.get_or_try_init(|| busy(documents)).await {
            Ok(documents) => documents,
            Err(status) => return Some(Err(status)),
        };
        if rest.is_empty() {
            return Some(Ok(Answer::json(StatusCode::OK, index(documents))));
        }
        let root = rest.trim_start_matches('/');
        let document = documents.iter().find(|document| document.root == root)?;
        Some(document.answer(query.get("hash"), headers).await)
    }
}

impl Document {
    async fn answer(&self, asked: &str, headers: &HeaderMap) -> Result<Answer, Status> {
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
            let (group, version) = (self.group, self.version);
            Answer::json(StatusCode::OK, busy(move || render(group, version)).await?)
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
        let hash = hex(&Sha256::digest(render(kind.group, kind.version))).to_uppercase();
        documents.push(Document { root, group: kind.group, version: kind.version, hash });
    }
    documents.into()
}

fn render(group: &str, version: &str) -> Vec<u8> {
    api::openapi::v3(group, version, GIT_VERSION).unwrap_or_default()
}

fn index(documents: &[Document]) -> Vec<u8> {
    let entry = |document: &Document| {
        let url = format!("/openapi/v3/{}?hash={}", document.root, document.hash);
        (document.root.clone(), json!({ "serverRelativeURL": url }))
    };
    let paths: serde_json::Map<String, serde_json::Value> = documents.iter().map(entry).collect();
    json!({ "paths": paths }).to_string().into_bytes()
}

/// Runs what takes milliseconds where no request waits for it.
async fn busy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(Status::internal)
}
