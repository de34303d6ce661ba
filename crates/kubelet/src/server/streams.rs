//! Exec, attach and port-forward: the runtime serves them; the connection is handed through byte by byte.

use std::sync::Arc;

use bytes::Bytes;
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

use super::query::Query;
use super::{Body, Refusal, find_pod, full, text};
use crate::context::Context;
use crate::error::rpc_text;
use crate::spec;

/// The pod that a path names: `<namespace>/<pod>/...` or `<namespace>/<pod>/<uid>/...`, with `rest` parts after it.
fn pod_of<'a>(ctx: &Context, parts: &[&'a str], rest: usize) -> Result<(Pod, Vec<&'a str>), Refusal> {
    let (namespace, name) = match parts {
        [namespace, name, ..] => (*namespace, *name),
        _ => return Err(Refusal::not_found("404 page not found\n")),
    };
    let (_, pod) = find_pod(ctx, namespace, name)?;
    let after = &parts[2..];
    let after = match after.len() {
        n if n == rest => after,
        n if n == rest + 1 && after[0] == spec::uid(&pod) => &after[1..],
        n if n == rest + 1 => return Err(Refusal::not_found("pod does not exist\n")),
        _ => return Err(Refusal::not_found("404 page not found\n")),
    };
    Ok((pod, after.to_vec()))
}

/// The id of the container's newest instance.
async fn container_id(ctx: &Context, pod: &Pod, name: &str) -> Result<String, Refusal> {
    let state = ctx.runtime.pod(spec::uid(pod)).await.map_err(refused)?;
    let found = state.latest(name).map(|container| container.id().to_owned());
    found.ok_or_else(|| Refusal::not_found(format!("container not found ({name:?})")))
}

fn refused(status: tonic::Status) -> Refusal {
    let code = match status.code() {
        tonic::Code::NotFound => StatusCode::NOT_FOUND,
        tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
        tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(code, rpc_text(&status))
}

pub(super) async fn exec(
    ctx: &Arc<Context>,
    parts: &[&str],
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (pod, rest) = pod_of(ctx, parts, 1)?;
    let tty = query.flag("tty");
    let wanted = ExecRequest {
        container_id: container_id(ctx, &pod, rest[0]).await?,
        cmd: query.all("command"),
        tty,
        stdin: query.flag("input") || query.flag("stdin"),
        stdout: query.flag("output") || query.flag("stdout"),
        stderr: (query.flag("error") || query.flag("stderr")) && !tty,
    };
    let answer = ctx.runtime.exec(wanted).await.map_err(refused)?;
    tunnel(ctx, &answer.url, request).await
}

pub(super) async fn attach(
    ctx: &Arc<Context>,
    parts: &[&str],
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (pod, rest) = pod_of(ctx, parts, 1)?;
    // A container has a terminal or not: that is not the client's to say.
    let tty = spec::find_container(&pod, rest[0]).is_some_and(|container| container.tty == Some(true));
    let wanted = AttachRequest {
        container_id: container_id(ctx, &pod, rest[0]).await?,
        stdin: query.flag("input") || query.flag("stdin"),
        tty,
        stdout: query.flag("output") || query.flag("stdout"),
        stderr: (query.flag("error") || query.flag("stderr")) && !tty,
    };
    let answer = ctx.runtime.attach(wanted).await.map_err(refused)?;
    tunnel(ctx, &answer.url, request).await
}

pub(super) async fn port_forward(
    ctx: &Arc<Context>,
    parts: &[&str],
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (pod, _) = pod_of(ctx, parts, 0)?;
    let state = ctx.runtime.pod(spec::uid(&pod)).await.map_err(refused)?;
    let sandbox = state.ready_sandbox().map(|sandbox| sandbox.id.clone());
    let missing = || Refusal::not_found(format!("cannot find sandbox for pod {:?}", spec::name(&pod)));
    let ports = query.all("port").iter().chain(&query.all("ports")).filter_map(|port| port.parse().ok()).collect();
    let wanted = PortForwardRequest { pod_sandbox_id: sandbox.ok_or_else(missing)?, port: ports };
    let answer = ctx.runtime.port_forward(wanted).await.map_err(refused)?;
    tunnel(ctx, &answer.url, request).await
}

/// Runs one command and answers with what it wrote.
pub(super) async fn run(ctx: &Arc<Context>, parts: &[&str], query: &Query) -> Result<Response<Body>, Refusal> {
    let (pod, rest) = pod_of(ctx, parts, 1)?;
    let id = container_id(ctx, &pod, rest[0]).await?;
    let command = query.get("cmd").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let answer = ctx.runtime.exec_sync(&id, command, None).await.map_err(refused)?;
    let output = [answer.stdout, answer.stderr].concat();
    Ok(text(StatusCode::OK, String::from_utf8_lossy(&output).into_owned()))
}

/// Opens `url` as the client asks for, and joins the two connections.
async fn tunnel(ctx: &Arc<Context>, url: &str, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Refusal::new(StatusCode::BAD_GATEWAY, format!("cannot {what} the runtime's streaming server: {error}"))
    };
    let target: Uri = url.parse().map_err(|error| failed("find", &error))?;
    let authority = target.authority().ok_or_else(|| failed("find", &url))?.clone();
    let stream = TcpStream::connect(authority.as_str()).await.map_err(|error| failed("reach", &error))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed("reach", &error))?;
    ctx.env.spawn(async move {
        // It ends with the streams, or by an error that they see too.
        let _ = connection.with_upgrades().await;
    });
    let path = target.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut onward = Request::new(Empty::<Bytes>::new());
    *onward.method_mut() = request.method().clone();
    *onward.uri_mut() = path.parse().map_err(|error| failed("find", &error))?;
    *onward.headers_mut() = passed_on(request.headers());
    let host = header::HeaderValue::from_str(authority.as_str()).map_err(|error| failed("find", &error))?;
    onward.headers_mut().insert(header::HOST, host);
    let mut answer = sender.send_request(onward).await.map_err(|error| failed("ask", &error))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = answer.into_body().collect().await.map_err(|error| failed("hear", &error))?.to_bytes();
        let mut reply = Response::new(full(String::from_utf8_lossy(&body).into_owned()));
        *reply.status_mut() = status;
        return Ok(reply);
    }
    let (inner, outer) = (hyper::upgrade::on(&mut answer), hyper::upgrade::on(&mut request));
    ctx.env.spawn(async move {
        let (Ok(inner), Ok(outer)) = tokio::join!(inner, outer) else { return };
        // Either side's end is the end of both.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(inner), &mut TokioIo::new(outer)).await;
    });
    let mut reply = Response::new(full(String::new()));
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    Ok(reply)
}

/// All headers but credentials.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    headers
}
