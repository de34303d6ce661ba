//! Handlers of `postStart` and `preStop`. Upstream: pkg/kubelet/lifecycle/handlers.go.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::Shared;
use crate::error::rpc_text;
use crate::probe::{http, resolve_port, tcp};

/// Why a handler failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HookError(pub(super) String);

impl Shared {
    /// Runs a handler to its end.
    pub(super) async fn run_hook(
        &self,
        container: &Container,
        id: &str,
        handler: &LifecycleHandler,
        ip: Option<IpAddr>,
    ) -> Result<(), HookError> {
        let address = |host: &Option<String>| {
            let host = host.clone().filter(|host| !host.is_empty());
            let host = host.or_else(|| ip.map(|ip| ip.to_string()));
            host.ok_or_else(|| HookError("failed to find networking container: pod has no address".to_owned()))
        };
        if let Some(exec) = &handler.exec {
            let command = exec.command.clone().unwrap_or_default();
            let shown = command.join(" ");
            let answer = self.ctx.runtime.exec_sync(id, command, None).await;
            let answer = answer.map_err(|status| HookError(rpc_text(&status)))?;
            if answer.exit_code != 0 {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                let output = String::from_utf8_lossy(&output);
                return Err(HookError(format!(
                    "Exec lifecycle hook ([{shown}]) for Container {:?} failed - error: command '{shown}' exited with {}: {output}, message: {output:?}",
                    container.name, answer.exit_code
                )));
            }
            return Ok(());
        }
        if let Some(get) = &handler.http_get {
            let port = resolve_port(&get.port, container).map_err(HookError)?;
            let request = http::Target::new(get, &address(&get.host)?, port);
            return http::get(&self.ctx.env, &request, "kube-lifecycle/1.35", Duration::from_secs(60))
                .await
                .and_then(|answer| {
                    if (200..400).contains(&answer.code) { Ok(()) } else { Err(format!("HTTP status {}", answer.code)) }
                })
                .map_err(HookError);
        }
        if let Some(socket) = &handler.tcp_socket {
            let port = resolve_port(&socket.port, container).map_err(HookError)?;
            let host = address(&socket.host)?;
            return tcp(&self.ctx.env, &host, port, Duration::from_secs(30)).await.map_err(HookError);
        }
        if let Some(sleep) = &handler.sleep {
            self.ctx.env.sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        }
        Ok(())
    }
}
