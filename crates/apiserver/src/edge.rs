//! The HTTP edge: from hyper's requests to ours, and answers to bytes.

use std::sync::Arc;

use apimachinery::Status;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::accept;
use crate::answer::{WireBody, Wish, encode};
use crate::body::MAX_BYTES;
use crate::request::Query;
use crate::server::{Credentials, Inbound, Server};

/// Serves one request of a connection.
pub(crate) async fn serve(server: Server, mut request: Request<Incoming>) -> Response<WireBody> {
    let upgrade = request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, incoming) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let wish = wish(&parts.headers, &target);
    let Some(peer) = parts.extensions.get::<Arc<streams::Peer>>().cloned() else {
        return encode(Status::internal("the connection has no peer").into(), wish);
    };
    let head = parts.method == Method::HEAD;
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let inbound = Inbound {
        method: parts.method,
        target,
        headers: parts.headers,
        body: read(incoming, declared).boxed(),
        credentials: Credentials::Wire(peer),
        upgrade,
    };
    let response = encode(server.handle(inbound).await, wish);
    if head {
        response.map(|_| http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync())
    } else {
        response
    }
}

/// Reads a body, up to the limit.
async fn read(mut incoming: Incoming, declared: Option<usize>) -> Result<Bytes, Status> {
    let too_large = || Status::too_large(format!("limit is {MAX_BYTES}"));
    if declared.is_some_and(|length| length > MAX_BYTES) {
        return Err(too_large());
    }
    // Most bodies are one frame, and stay where they came.
    let (mut first, mut body) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + body.len() + data.len() > MAX_BYTES {
            return Err(too_large());
        }
        if first.is_empty() && body.is_empty() {
            first = data;
            continue;
        }
        body.extend_from_slice(&std::mem::take(&mut first));
        body.extend_from_slice(&data);
    }
    Ok(if body.is_empty() { first } else { body.freeze() })
}

fn wish(headers: &HeaderMap, target: &str) -> Wish {
    // Few ask for it, and every request comes by here.
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let query = Query::parse(if query.contains("pretty") || query.contains('%') { query } else { "" });
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    // People who look at answers with their own eyes. Upstream: isPrettyPrint.
    let by_hand = ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name));
    let pretty = match query.has("pretty") {
        true => query.flag("pretty").unwrap_or_default(),
        false => by_hand,
    };
    let encodings = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let gzip = encodings.split(',').any(|one| one.split(';').next().is_some_and(|name| name.trim() == "gzip"));
    Wish { encoding: accept::encoding(headers), pretty, gzip }
}
