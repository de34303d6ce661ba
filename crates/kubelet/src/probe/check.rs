//! One probe, once. Upstream: pkg/kubelet/prober/prober.go, pkg/probe.

use std::net::IpAddr;
use std::time::Duration;

use env::Env;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::{grpc, http};
use crate::context::Context;
use crate::error::rpc_text;
use crate::expansion::expand;

/// What one probe found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Success,
    /// As good as a success, but worth telling.
    Warning(String),
    Failure(String),
    /// It could not be carried out.
    Error(String),
}

/// How much of an answer is told.
const LONGEST: usize = 10 * 1024;

pub(super) async fn check(
    ctx: &Context,
    container: &Container,
    probe: &Probe,
    id: &str,
    ip: Option<IpAddr>,
    limit: Duration,
) -> Checked {
    let host = |given: Option<&String>| {
        given.filter(|host| !host.is_empty()).cloned().or_else(|| ip.map(|ip| ip.to_string())).unwrap_or_default()
    };
    if let Some(exec) = &probe.exec {
        let fixed = |name: &str| {
            let variable = container.env.iter().flatten().find(|variable| variable.name == name)?;
            if variable.value_from.is_some() { None } else { Some(variable.value.clone().unwrap_or_default()) }
        };
        let command = exec.command.iter().flatten().map(|word| expand(word, fixed)).collect();
        return in_container(ctx, id, command, limit).await;
    }
    if let Some(get) = &probe.http_get {
        let port = match resolve_port(&get.port, container) {
            Ok(port) => port,
            Err(message) => return Checked::Error(message),
        };
        let target = http::Target::new(get, &host(get.host.as_ref()), port);
        return over_http(ctx, &target, limit).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        return match resolve_port(&socket.port, container) {
            Ok(port) => match tcp(&ctx.env, &host(socket.host.as_ref()), port, limit).await {
                Ok(()) => Checked::Success,
                Err(message) => Checked::Failure(message),
            },
            Err(message) => Checked::Error(message),
        };
    }
    if let Some(call) = &probe.grpc {
        let service = call.service.clone().unwrap_or_default();
        return match grpc::check(&ctx.env, &host(None), call.port, service, limit).await {
            Ok(()) => Checked::Success,
            Err(message) => Checked::Failure(message),
        };
    }
    Checked::Error("missing probe handler".to_owned())
}

async fn in_container(ctx: &Context, id: &str, command: Vec<String>, limit: Duration) -> Checked {
    let shown = command.join(" ");
    match ctx.runtime.exec_sync(id, command, Some(limit)).await {
        Ok(answer) if answer.exit_code == 0 => Checked::Success,
        Ok(mut answer) => {
            answer.stdout.append(&mut answer.stderr);
            answer.stdout.truncate(LONGEST);
            Checked::Failure(String::from_utf8_lossy(&answer.stdout).into_owned())
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
            Checked::Failure(format!("command timed out: {shown:?} timed out after {}s", limit.as_secs()))
        }
        Err(status) => Checked::Error(rpc_text(&status)),
    }
}

async fn over_http(ctx: &Context, target: &http::Target, limit: Duration) -> Checked {
    match http::get(&ctx.env, target, "kube-probe/1.35", limit).await {
        Ok(answer) if (300..400).contains(&answer.code) => {
            Checked::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
        }
        Ok(answer) if (200..300).contains(&answer.code) => Checked::Success,
        Ok(answer) => Checked::Failure(format!("HTTP probe failed with statuscode: {}", answer.code)),
        Err(message) => Checked::Failure(message),
    }
}

/// The number of a port, which may be named after one of the container's.
pub(crate) fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let valid = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    valid.ok_or_else(|| match (port, number) {
        (IntOrString::String(name), None) => format!("port {name} not found"),
        _ => format!("invalid port number: {}", number.unwrap_or_default()),
    })
}

/// Whether something listens.
pub(crate) async fn tcp(env: &Env, host: &str, port: u16, limit: Duration) -> Result<(), String> {
    connect(env, host, port, limit).await.map(drop)
}

/// A connection; errors in upstream's words.
pub(super) async fn connect(env: &Env, host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match env.timeout(limit, TcpStream::connect((host, port))).await {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(error)) => Err(format!("dial tcp {shown}: {}", reason(&error))),
        None => Err(format!("dial tcp {shown}: i/o timeout")),
    }
}

fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_resolved() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        let check = |port: IntOrString, expect: Result<u16, &str>| {
            assert_eq!(resolve_port(&port, &container), expect.map_err(str::to_owned), "{port:?}");
        };
        check(IntOrString::Int(80), Ok(80));
        check(IntOrString::String("web".into()), Ok(8080));
        check(IntOrString::String("81".into()), Ok(81));
        check(IntOrString::String("none".into()), Err("port none not found"));
        check(IntOrString::Int(0), Err("invalid port number: 0"));
    }

    #[tokio::test]
    async fn listeners_are_found() {
        let env = Env::system();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(tcp(&env, "127.0.0.1", port, Duration::from_secs(5)).await, Ok(()));
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(tcp(&env, "127.0.0.1", port, Duration::from_secs(5)).await, Err(refused));
    }
}
