//! Paths that are no resources: discovery, schemas, health, metrics, the version, the issuer's keys.

use apimachinery::Status;
use http::{Method, StatusCode};

use super::{Inner, Request};
use crate::answer::Answer;
use crate::{accept, health};

/// The release whose API this is.
pub(crate) const GIT_VERSION: &str = "v1.35.4";
/// How long verifiers may keep what they read of the issuer.
const ISSUER_AGE: &str = "public, max-age=3600";

impl Request<'_> {
    /// What is served here and elsewhere.
    fn discovered(&self, path: &str) -> Option<Result<Answer, Status>> {
        let Inner { aggregation, discovery, settings, registry, .. } = &**self.inner;
        if !aggregation.adds_to(path) {
            return discovery.answer(path, self.headers, settings, registry);
        }
        // The answer as a whole is what a client may know already.
        let mut headers = self.headers.clone();
        headers.remove(http::header::IF_NONE_MATCH);
        match discovery.answer(path, &headers, settings, registry).transpose() {
            Ok(own) => aggregation.completed(path, self.headers, own).map(Ok),
            Err(status) => Some(Err(status)),
        }
    }

    /// Answers what is no resource.
    pub(super) async fn other(&self) -> Result<Answer, Status> {
        let path = self.info.path.trim_end_matches('/');
        if !matches!(*self.method, Method::GET | Method::HEAD) {
            return Err(Status::method_not_allowed());
        }
        if let Some(answer) = health::answer(self, path).await {
            return Ok(answer);
        }
        if let Some(answer) = self.discovered(path) {
            return answer;
        }
        if let Some(answer) = self.inner.openapi.answer(path, &self.query, self.headers, &self.inner.registry).await {
            return match path {
                "/openapi/v3" => self.inner.aggregation.complete_index(&self.inner.registry, answer?).await,
                _ => answer,
            };
        }
        match path {
            "" => Ok(Answer::json(StatusCode::OK, self.paths())),
            "/metrics" => {
                let answer = Answer::text(StatusCode::OK, self.inner.metrics.text());
                Ok(answer.with(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
            }
            "/version" => {
                accept::route(self.headers, &["application/json"])?;
                Ok(Answer::json(StatusCode::OK, version()))
            }
            "/.well-known/openid-configuration" => {
                let answer = Answer::json(StatusCode::OK, self.inner.issuer.configuration.clone());
                Ok(answer.with(http::header::CACHE_CONTROL, ISSUER_AGE))
            }
            "/openid/v1/jwks" => {
                let answer = Answer::json(StatusCode::OK, self.inner.issuer.keys.clone());
                let answer = answer.with(http::header::CACHE_CONTROL, ISSUER_AGE);
                Ok(answer.with(http::header::CONTENT_TYPE, "application/jwk-set+json"))
            }
            _ if is_api_path(path) => Err(Status::path_not_found()),
            _ => Ok(page_not_found()),
        }
    }

    /// What `/` lists.
    fn paths(&self) -> Vec<u8> {
        let mut paths = self.inner.discovery.paths(&self.inner.registry);
        paths.extend(
            [
                "/.well-known/openid-configuration",
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/openid/v1/jwks",
                "/readyz",
                "/version",
            ]
            .map(str::to_owned),
        );
        paths.sort_unstable();
        serde_json::json!({ "paths": paths }).to_string().into_bytes()
    }
}

/// What nobody here serves.
pub(super) fn page_not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Whether a path would be a group's or a version's.
fn is_api_path(path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    match parts.next() {
        Some("api") => parts.count() == 1,
        // An unknown group is no path at all; an unknown version of a known one is.
        Some("apis") => {
            let group = parts.next().unwrap_or_default();
            api::groups().iter().any(|known| known.name == group) && parts.count() == 1
        }
        _ => false,
    }
}

fn version() -> Vec<u8> {
    serde_json::json!({
        "major": "1",
        "minor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other }),
        "emulationMajor": "1",
        "emulationMinor": "35",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "34",
    })
    .to_string()
    .into_bytes()
}
