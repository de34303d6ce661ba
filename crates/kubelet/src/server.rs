//! The kubelet's own server: logs, exec, attach, port-forward, pods and figures. Upstream: pkg/kubelet/server.

mod access;
mod logs;
mod query;
mod stats;
mod streams;

use std::convert::Infallible;
use std::sync::Arc;

use ::streams::{Peer, Server, server_config};
use apimachinery::Object;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use pki::ClientVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::context::Context;
use crate::error::Error;
use access::Access;
use query::Query;

/// A body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// An answer that is text and a code.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: StatusCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

/// The TLS configuration that the server listens with.
pub(crate) fn tls(config: &Config) -> Result<Arc<rustls::ServerConfig>, Error> {
    let authorities: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(config.client_authority.as_bytes()).filter_map(Result::ok).collect();
    let mut tls = (*server_config(&config.certificate, &authorities)?).clone();
    // Exec and its like are upgrades, which HTTP/2 has none of.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// Serves until `shutdown`.
pub(crate) async fn run(
    ctx: Arc<Context>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    verifier: ClientVerifier,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let server = Server::tls(ctx.env.clone(), tls);
    let access = Arc::new(Access::new(ctx.clone(), verifier));
    let service = move |request: Request<Incoming>| {
        let (ctx, access) = (ctx.clone(), access.clone());
        async move {
            match answer(&ctx, &access, request).await {
                Ok(answer) => answer,
                Err(refusal) => text(refusal.code, refusal.message),
            }
        }
    };
    server.run(listener, service, shutdown).await
}

async fn answer(ctx: &Arc<Context>, access: &Access, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<Arc<Peer>>().cloned();
    access.check(&request, peer.as_deref(), &path).await?;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let reads = request.method() == Method::GET;
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] if reads => Ok(text(StatusCode::OK, "ok")),
        ["pods"] if reads => Ok(json(pods(ctx))),
        ["containerLogs", namespace, pod, container] if reads => {
            logs::serve(ctx, namespace, pod, container, &query).await
        }
        ["exec", rest @ ..] => streams::exec(ctx, rest, &query, request).await,
        ["attach", rest @ ..] => streams::attach(ctx, rest, &query, request).await,
        ["portForward", rest @ ..] => streams::port_forward(ctx, rest, &query, request).await,
        ["run", rest @ ..] if request.method() == Method::POST => streams::run(ctx, rest, &query).await,
        ["stats", "summary"] if reads => stats::summary(ctx).await.map(|summary| json(summary.to_string())),
        ["metrics"] if reads => Ok(text(StatusCode::OK, stats::metrics(ctx))),
        ["metrics", "resource"] if reads => stats::resource_metrics(ctx).await.map(|lines| text(StatusCode::OK, lines)),
        _ => Err(Refusal::not_found("404 page not found\n")),
    }
}

/// Every pod of this node, as a `PodList`.
fn pods(ctx: &Context) -> String {
    let mut list = br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#.to_vec();
    for (at, pod) in ctx.pods.list("").iter().enumerate() {
        if at > 0 {
            list.push(b',');
        }
        pod.write_json(&mut list);
    }
    list.extend_from_slice(b"]}");
    String::from_utf8_lossy(&list).into_owned()
}

/// The pod by name, as this node knows it.
fn find_pod(ctx: &Context, namespace: &str, name: &str) -> Result<(Arc<Object>, Pod), Refusal> {
    let missing = || Refusal::not_found(format!("pod does not exist: pod {name:?} not found\n"));
    let object = ctx.pods.get(&apimachinery::ObjectKey::new(namespace, name)).ok_or_else(missing)?;
    let pod = object.view().map_err(|error| Refusal::internal(error.to_string()))?;
    Ok((object, pod))
}

fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut answer = Response::new(full(text.into()));
    *answer.status_mut() = code;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

fn json(text: String) -> Response<Body> {
    let mut answer = Response::new(full(text));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed_unsync()
}
