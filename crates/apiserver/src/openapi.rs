//! OpenAPI v3: an index whose URLs carry a hash, and documents that may be kept for ever under them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::answer::Answer;
use crate::discovery::hex;
use crate::request::Query;
use crate::server::GIT_VERSION;

/// Documents are made when first asked for; the index needs all their hashes once.
pub(crate) struct OpenApi {
    documents: BTreeMap<String, Document>,
}

struct Document {
    group: &'static str,
    version: &'static str,
    rendered: OnceLock<(Bytes, String)>,
}

impl OpenApi {
    pub(crate) fn new() -> OpenApi {
        let mut documents = BTreeMap::new();
        for kind in api::kinds() {
            documents.entry(api::openapi::root(kind.group, kind.version)).or_insert_with(|| Document {
                group: kind.group,
                version: kind.version,
                rendered: OnceLock::new(),
            });
        }
        OpenApi { documents }
    }

    /// Answers requests for schemas; `None` for other paths.
    pub(crate) fn answer(&self, path: &str, query: &Query, headers: &HeaderMap) -> Option<Answer> {
        let rest = path.strip_prefix("/openapi/v3")?;
        if rest.is_empty() {
            return Some(Answer::json(StatusCode::OK, self.index()));
        }
        let root = rest.trim_start_matches('/');
        let (body, hash) = self.documents.get(root)?.rendered();
        let asked = query.get("hash");
        if !asked.is_empty() && asked != hash {
            // The client's index is old; it may keep what the new URL says.
            let target = format!("/openapi/v3/{root}?hash={hash}");
            let answer = Answer::text(StatusCode::MOVED_PERMANENTLY, Bytes::new());
            return Some(answer.with(http::header::LOCATION, &target));
        }
        let etag = format!("\"{hash}\"");
        let known = headers.get(IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()) == Some(&etag);
        let code = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let answer = Answer::json(code, if known { Bytes::new() } else { body.clone() })
            .with(CONTENT_TYPE, "application/json")
            .with(ETAG, &etag)
            .with(VARY, "Accept");
        Some(match asked.is_empty() {
            true => answer,
            false => answer.with(CACHE_CONTROL, "public, immutable").with(EXPIRES, "Thu, 31 Dec 2099 23:59:59 GMT"),
        })
    }

    fn index(&self) -> Vec<u8> {
        let entry = |(root, document): (&String, &Document)| {
            let url = format!("/openapi/v3/{root}?hash={}", document.rendered().1);
            (root.clone(), json!({ "serverRelativeURL": url }))
        };
        let paths: serde_json::Map<String, serde_json::Value> = self.documents.iter().map(entry).collect();
        json!({ "paths": paths }).to_string().into_bytes()
    }
}

impl Document {
    fn rendered(&self) -> &(Bytes, String) {
        self.rendered.get_or_init(|| {
            let body = api::openapi::v3(self.group, self.version, GIT_VERSION).unwrap_or_default();
            let hash = hex(&Sha256::digest(&body)).to_uppercase();
            (body.into(), hash)
        })
    }
}
