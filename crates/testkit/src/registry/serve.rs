//! The HTTP side of the registry: OCI distribution-spec 1.1, as far as clients use it.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Auth, Content, Fault, State};
use crate::image::digest;

type Body = BoxBody<Bytes, std::io::Error>;

const TOKEN: &str = "a-token-of-the-test-registry";

/// Serves one connection to its end.
pub(crate) async fn connection(state: Arc<State>, stream: TcpStream, tls: Option<tokio_rustls::TlsAcceptor>) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(handle(&state, request).await) }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A connection that breaks is the client's to notice.
    let _ = match tls {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

async fn handle(state: &State, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    state.content.lock().requests.push(format!("{} {path}", parts.method));
    let authorization =
        parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if path == "/token" {
        return token(state, authorization);
    }
    if let Some(refusal) = refuse(state, authorization) {
        return refusal;
    }
    let Ok(body) = body.collect().await else { return error(StatusCode::BAD_REQUEST, "UNKNOWN", "broken body") };
    let body = body.to_bytes();
    let mut content = state.content.lock();
    let rest = path.strip_prefix("/v2/").unwrap_or_default().to_owned();
    if rest.is_empty() {
        return empty(StatusCode::OK);
    }
    if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
        return upload(&mut content, &parts, repository, id, &body);
    }
    if let Some((_, name)) = rest.split_once("/blobs/") {
        return blob(&mut content, &parts.method, name);
    }
    match rest.split_once("/manifests/") {
        Some((repository, name)) if parts.method == Method::PUT => {
            let digest = content.put_manifest(repository, name, body.to_vec());
            Response::builder()
                .status(StatusCode::CREATED)
                .header(header::LOCATION, format!("/v2/{repository}/manifests/{digest}"))
                .header("Docker-Content-Digest", digest)
                .body(full(Bytes::new()))
                .expect("fixed headers are valid")
        }
        Some((repository, name)) => manifest(&mut content, &parts.method, repository, name),
        None => error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry"),
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

fn refuse(state: &State, authorization: &str) -> Option<Response<Body>> {
    let challenge = match &state.auth {
        Auth::Anyone => return None,
        Auth::Basic { username, password } if authorization == basic(username, password) => return None,
        Auth::Basic { .. } => "Basic realm=\"testkit\"".to_owned(),
        Auth::Token { .. } if authorization == format!("Bearer {TOKEN}") => return None,
        Auth::Token { .. } => format!("Bearer realm=\"http://{}/token\",service=\"testkit\"", state.address),
    };
    let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
    let challenge = challenge.parse().expect("a challenge is plain text");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    Some(response)
}

fn token(state: &State, authorization: &str) -> Response<Body> {
    let allowed = match &state.auth {
        Auth::Token { login: Some((username, password)) } => authorization == basic(username, password),
        _ => true,
    };
    match allowed {
        true => Response::new(full(serde_json::json!({ "token": TOKEN, "expires_in": 300 }).to_string())),
        false => error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "incorrect username or password"),
    }
}

fn blob(content: &mut Content, method: &Method, name: &str) -> Response<Body> {
    let Some(bytes) = content.blobs.get(name).cloned() else {
        return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let fault = content.take_fault(name);
    answer(method, "application/octet-stream", name, bytes, fault)
}

fn manifest(content: &mut Content, method: &Method, repository: &str, name: &str) -> Response<Body> {
    let separator = if name.starts_with("sha256:") { '@' } else { ':' };
    let Some(bytes) = content.manifests.get(&format!("{repository}{separator}{name}")).cloned() else {
        return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    let parsed = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_default();
    let media_type = parsed["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json").to_owned();
    let fault = content.take_fault(name);
    answer(method, &media_type, &digest(&bytes), bytes, fault)
}

fn answer(method: &Method, media_type: &str, digest: &str, mut bytes: Vec<u8>, fault: Option<Fault>) -> Response<Body> {
    let length = bytes.len();
    let body = match fault {
        Some(Fault::Status(code)) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let name = match code {
                403 => "DENIED",
                404 => "NOT_FOUND",
                429 => "TOOMANYREQUESTS",
                _ => "UNKNOWN",
            };
            return error(status, name, "a fault was asked for");
        }
        Some(Fault::Truncate) => {
            bytes.truncate(length / 2);
            let broken = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            let frames = [Ok(Frame::data(Bytes::from(bytes))), broken];
            BodyExt::boxed(StreamBody::new(stream::iter(frames)))
        }
        Some(Fault::Stall) => {
            bytes.truncate(length / 2);
            let half = stream::iter([Ok(Frame::data(Bytes::from(bytes)))]);
            BodyExt::boxed(StreamBody::new(half.chain(stream::pending())))
        }
        Some(Fault::Corrupt) => {
            bytes[length / 2] ^= 1;
            full(bytes)
        }
        None => full(bytes),
    };
    let body = if method == Method::HEAD { full(Bytes::new()) } else { body };
    Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, length)
        .header("Docker-Content-Digest", digest)
        .body(body)
        .expect("fixed headers are valid")
}

/// Monolithic and chunked pushes.
fn upload(
    content: &mut Content,
    parts: &http::request::Parts,
    repository: &str,
    id: &str,
    body: &[u8],
) -> Response<Body> {
    let query = parts.uri.query().unwrap_or_default();
    let wanted =
        query.split('&').find_map(|pair| pair.strip_prefix("digest=")).map(|digest| digest.replace("%3A", ":"));
    match (&parts.method, wanted) {
        (&Method::POST, None) => {
            content.counter += 1;
            let id = content.counter.to_string();
            content.uploads.insert(id.clone(), Vec::new());
            accepted(StatusCode::ACCEPTED, &format!("/v2/{repository}/blobs/uploads/{id}"), 0)
        }
        (&Method::PATCH, _) => {
            let Some(upload) = content.uploads.get_mut(id) else {
                return error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
            };
            upload.extend_from_slice(body);
            let length = upload.len();
            accepted(StatusCode::ACCEPTED, &format!("/v2/{repository}/blobs/uploads/{id}"), length)
        }
        (&Method::POST | &Method::PUT, Some(wanted)) => {
            let mut bytes = content.uploads.remove(id).unwrap_or_default();
            bytes.extend_from_slice(body);
            if digest(&bytes) != wanted {
                return error(
                    StatusCode::BAD_REQUEST,
                    "DIGEST_INVALID",
                    "provided digest did not match uploaded content",
                );
            }
            let length = bytes.len();
            content.blobs.insert(wanted.clone(), bytes);
            accepted(StatusCode::CREATED, &format!("/v2/{repository}/blobs/{wanted}"), length)
        }
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is unsupported"),
    }
}

fn accepted(status: StatusCode, location: &str, length: usize) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::LOCATION, location)
        .header(header::RANGE, format!("0-{}", length.saturating_sub(1)))
        .body(full(Bytes::new()))
        .expect("fixed headers are valid")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    BodyExt::boxed(Full::new(bytes.into()).map_err(|never| match never {}))
}
