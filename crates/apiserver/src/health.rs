//! `/healthz`, `/livez`, `/readyz`: whether the server works, check by check. Upstream: apiserver pkg/server/healthz.

use apimachinery::Status;
use http::StatusCode;

use crate::answer::Answer;
use crate::server::Request;

/// The checks of an endpoint, in the order they are told.
const LIVE: &[&str] = &["ping", "log", "etcd"];
const READY: &[&str] = &["ping", "log", "etcd", "informer-sync", "shutdown"];

/// Answers health requests; `None` for other paths.
pub(crate) async fn answer(request: &Request<'_>, path: &str) -> Option<Answer> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next()?;
    let checks = match endpoint {
        "healthz" | "livez" => LIVE,
        "readyz" => READY,
        _ => return None,
    };
    if let Some(one) = parts.next() {
        if !checks.contains(&one) {
            return Some(Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"));
        }
        return Some(match check(request, one).await {
            Ok(()) => Answer::text(StatusCode::OK, "ok"),
            Err(why) => failed(format!("internal server error: {why}\n")),
        });
    }
    let excluded: Vec<&str> = request.query.all("exclude");
    let (mut lines, mut failures) = (String::new(), Vec::new());
    for name in checks {
        if excluded.contains(name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check(request, name).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(_) => {
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failures.push(*name);
            }
        }
    }
    Some(match failures.is_empty() {
        false => failed(format!("{lines}{endpoint} check failed\n")),
        true if request.query.has("verbose") => {
            Answer::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
        }
        true => Answer::text(StatusCode::OK, "ok"),
    })
}

fn failed(text: String) -> Answer {
    Answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

async fn check(request: &Request<'_>, name: &str) -> Result<(), Status> {
    match name {
        "etcd" => request.inner.registry.fresh().await.map(drop),
        "shutdown" if request.inner.registry.is_stopping() => {
            Err(Status::service_unavailable("process is shutting down"))
        }
        _ => Ok(()),
    }
}
