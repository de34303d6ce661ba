//! `/containerLogs`. Upstream: kubelet GetKubeletContainerLogs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::query::Query;
use super::{Body, Refusal, find_pod};
use crate::context::Context;
use crate::logs::{self, LogOptions};
use crate::spec;

pub(super) async fn serve(
    ctx: &Arc<Context>,
    namespace: &str,
    name: &str,
    container: &str,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let (_, pod) = find_pod(ctx, namespace, name)?;
    if spec::find_container(&pod, container).is_none() {
        return Err(Refusal::not_found(format!("container {container:?} not found in pod {name:?}")));
    }
    let options = options(ctx, query)?;
    let (id, path) = locate(ctx, &pod, container, query.flag("previous")).await?;
    let ended = Box::pin(ended(ctx.clone(), spec::uid(&pod).to_owned(), id));
    let log = logs::read(&path, options, ended)
        .await
        .map_err(|error| Refusal::internal(format!("failed to open log file {:?}: {error}", path.display())))?;
    let body = StreamBody::new(log.map(|part| part.map(Frame::data)));
    let mut answer = Response::new(BodyExt::boxed_unsync(body));
    let plain = header::HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(answer)
}

fn options(ctx: &Context, query: &Query) -> Result<LogOptions, Refusal> {
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("{name} must be a number that is not negative"),
            )),
        },
    };
    let tail_lines = match query.get("tailLines") {
        Some("all") => None,
        _ => number("tailLines")?,
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => ctx.env.now().checked_sub(Duration::from_secs(seconds)).ok(),
        (None, Some(time)) => Some(
            apimachinery::parse_time(time).ok_or_else(|| Refusal::bad_request("unable to decode query: sinceTime"))?,
        ),
        (None, None) => None,
    };
    let stream = match query.get("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some("stdout".to_owned()),
        Some("Stderr") => Some("stderr".to_owned()),
        Some(other) => return Err(Refusal::bad_request(format!("unknown log stream: {other}"))),
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        since,
        tail_lines,
        limit_bytes: number("limitBytes")?,
        stream,
    })
}

/// The instance whose log is meant, and its file; errors in upstream's words.
async fn locate(ctx: &Context, pod: &Pod, container: &str, previous: bool) -> Result<(String, PathBuf), Refusal> {
    let state = ctx.runtime.pod(spec::uid(pod)).await;
    let state = state.map_err(|status| Refusal::internal(crate::error::rpc_text(&status)))?;
    let name = spec::name(pod);
    let mut instances = state.containers.iter().filter(|instance| instance.name() == container);
    let newest = instances.next();
    let wanted = if previous {
        // While the newest one waits to be replaced, it is itself the previous one for whoever looks at the status.
        let waits = newest.is_some_and(|c| c.is_exited()) && status(pod, container).is_some_and(is_waiting);
        let found = if waits { newest } else { instances.next() };
        let missing =
            || Refusal::bad_request(format!("previous terminated container {container:?} in pod {name:?} not found"));
        found.filter(|instance| instance.is_exited()).ok_or_else(missing)?
    } else {
        match newest {
            Some(instance) => instance,
            None => return Err(Refusal::bad_request(not_started(pod, container))),
        }
    };
    let file = PathBuf::from(&wanted.status.log_path);
    Ok((wanted.id().to_owned(), file))
}

fn not_started(pod: &Pod, container: &str) -> String {
    let name = spec::name(pod);
    let state = status(pod, container).and_then(|status| status.state.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or("ContainerCreating");
    let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    match reason {
        "ErrImagePull" => format!("container {container:?} in pod {name:?} is waiting to start: image can't be pulled"),
        "ImagePullBackOff" => {
            format!("container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image")
        }
        _ if message.is_empty() => format!("container {container:?} in pod {name:?} is waiting to start: {reason}"),
        _ => format!("container {container:?} in pod {name:?} is waiting to start: {reason}: {message}"),
    }
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    rules::container_status(pod, container)
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

/// Ready when the instance does not run any more.
async fn ended(ctx: Arc<Context>, uid: String, id: String) {
    let mut changes = ctx.changes.subscribe();
    loop {
        let state = ctx.runtime.pod(&uid).await.unwrap_or_default();
        let runs = state.containers.iter().any(|container| container.id() == id && !container.is_exited());
        if !runs {
            return;
        }
        loop {
            match changes.recv().await {
                Ok(changed) if changed.as_deref().is_none_or(|changed| changed == uid) => break,
                Ok(_) => {}
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}
