//! Ending containers. Upstream: kuberuntime_container.go killContainer.

use std::collections::BTreeMap;
use std::time::Duration;

use client::EventType;
use cri::v1::StopPodSandboxRequest;
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use crate::probe::Kind;
use crate::runtime::{self, PodState};
use crate::spec::{find_container, init_containers, spec};

/// Containers always get this long before they are killed, in seconds.
const SHORTEST: i64 = 2;

impl Shared {
    /// Ends one container within `grace` seconds, its `preStop` handler included.
    pub(super) async fn kill(
        &self,
        pod: &Pod,
        container: &runtime::Container,
        message: &str,
        grace: i64,
        turn: impl Future<Output = ()>,
    ) -> Result<(), tonic::Status> {
        let spec = find_container(pod, container.name());
        let message =
            if message.is_empty() { format!("Stopping container {}", container.name()) } else { message.to_owned() };
        if self.memory.lock().announced.insert(container.id().to_owned()) {
            self.event(pod, Some(container.name()), EventType::Normal, "Killing", message);
        }
        let deadline = self.ctx.env.monotonic() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        if grace > 0 {
            if let Some(spec) = &spec {
                self.pre_stop(pod, spec, container, deadline).await;
            }
            let _ = self.ctx.env.timeout(self.until(deadline), turn).await;
        }
        // What is left, rounded up to what the interface can say.
        let left = self.until(deadline).as_millis().div_ceil(1000);
        let left = i64::try_from(left).unwrap_or(i64::MAX).max(SHORTEST);
        self.ctx.runtime.stop_container(container.id(), left).await
    }

    fn until(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.ctx.env.monotonic())
    }

    async fn pre_stop(&self, pod: &Pod, spec: &Container, container: &runtime::Container, deadline: Instant) {
        let Some(handler) = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
        // Asked again with less patience, a handler that has begun is not run twice.
        if !self.memory.lock().hooks.insert(container.id().to_owned()) {
            return;
        }
        let ip = self.address(pod).await;
        let run = Box::pin(self.run_hook(spec, container.id(), handler, ip));
        if let Some(Err(error)) = self.ctx.env.timeout(self.until(deadline), run).await {
            tracing::debug!(container = %spec.name, error = error.0, "preStop handler failed");
            self.event(pod, Some(&spec.name), EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
    }

    /// The grace period after a failed probe: the probe's own, or the pod's.
    pub(super) fn grace_after(&self, pod: &Pod, name: &str, probe: Option<Kind>) -> i64 {
        let of_pod = spec(pod).termination_grace_period_seconds.unwrap_or(30);
        let container = find_container(pod, name);
        let own = container.as_ref().and_then(|container| match probe? {
            Kind::Liveness => container.liveness_probe.as_ref()?.termination_grace_period_seconds,
            Kind::Startup => container.startup_probe.as_ref()?.termination_grace_period_seconds,
            Kind::Readiness => None,
        });
        own.unwrap_or(of_pod).max(1)
    }

    /// Ends everything of the pod: containers together, sidecars after them in reverse order, then the sandboxes.
    pub(super) async fn kill_pod(&self, pod: &Pod, state: &PodState, grace: i64) -> Result<(), tonic::Status> {
        let running: Vec<_> = state.running().collect();
        let ordered: Vec<&str> =
            init_containers(pod).iter().filter(|c| rules::is_sidecar(c)).map(|c| c.name.as_str()).collect();
        // A sidecar's turn comes when everything that was started after it has ended.
        let rank = |name: &str| ordered.iter().position(|sidecar| *sidecar == name).unwrap_or(usize::MAX);
        let left: BTreeMap<String, usize> = running.iter().map(|c| (c.id().to_owned(), rank(c.name()))).collect();
        let left = watch::Sender::new(left);
        let kills = running.iter().map(|container| {
            let (mut rest, own, left) = (left.subscribe(), rank(container.name()), &left);
            let turn = async move {
                if own != usize::MAX {
                    // The sender outlives the kills.
                    let _ = rest.wait_for(|left| left.values().all(|rank| *rank <= own)).await;
                }
            };
            async move {
                let result = self.kill(pod, container, "", grace, turn).await;
                left.send_modify(|left| {
                    left.remove(container.id());
                });
                result
            }
        });
        let mut result = Ok(());
        for killed in join_all(kills).await {
            result = result.and(killed);
        }
        result?;
        for sandbox in &state.sandboxes {
            let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            match self.ctx.runtime.stop_pod_sandbox(request).await {
                Err(status) if status.code() == tonic::Code::NotFound => {}
                answer => drop(answer?),
            }
        }
        Ok(())
    }
}
