//! The node's own object: registration, status and lease. Upstream: kubelet_node_status.go, pkg/kubelet/nodestatus.

mod conditions;
mod lease;
pub(crate) mod machine;
mod report;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{Backoff, EventType, ObjectReference, PatchKind, resources};
use cri::v1::{NetworkConfig, RuntimeConfig, StatusRequest, UpdateRuntimeConfigRequest, VersionRequest};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use crate::context::Context;
use crate::error::rpc_text;
use conditions::Runtime;
use machine::Machine;

/// The status is told this often even if nothing changed (upstream: `nodeStatusReportFrequency`).
const REPORT: Duration = Duration::from_secs(300);
/// The lease is renewed, and the machine and the runtime are looked at, this often.
const TICK: Duration = Duration::from_secs(10);

/// Keeps the node's object and lease current; never ends.
pub(crate) async fn run(ctx: Arc<Context>, machine: Machine, port: u16) {
    let lease = lease::run(ctx.clone());
    let node = Keeper { ctx, machine, port, pod_cidr: String::new(), told: None, pressure: Default::default() };
    tokio::join!(lease, node.run());
}

struct Keeper {
    ctx: Arc<Context>,
    machine: Machine,
    port: u16,
    /// The range that the runtime was told.
    pod_cidr: String,
    /// What was told last, and when.
    told: Option<(Json, tokio::time::Instant)>,
    pressure: conditions::Pressure,
}

impl Keeper {
    async fn run(mut self) {
        let env = self.ctx.env.clone();
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        let _subscription = self.ctx.node.on_event(move |_| wake.notify_one());
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(7));
        self.register().await;
        loop {
            let pause = match self.update().await {
                Ok(()) => {
                    backoff.reset();
                    TICK
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the node's status is not told yet");
                    backoff.next(&env)
                }
            };
            tokio::select! {
                () = env.sleep(pause) => {}
                () = changed.notified() => {}
            }
        }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::cluster(&*self.ctx.config.node_name)
    }

    /// Creates the node's object, or brings the labels of an existing one up to date.
    async fn register(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(7));
        loop {
            match self.try_register().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the node is not registered yet");
                    self.ctx.env.sleep(backoff.next(&self.ctx.env)).await;
                }
            }
        }
    }

    async fn try_register(&mut self) -> Result<(), client::Error> {
        let labels = self.labels();
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.ctx.config.node_name, "labels": labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "spec": {},
        });
        let runtime = self.look().await;
        let status = self.status(None, &runtime).await;
        node["status"] = serde_json::to_value(&status).unwrap_or_default();
        let Ok(body) = Value::from_serialize(&node) else { return Ok(()) };
        match self.ctx.client.create(&resources::NODES, &body).await {
            Ok(_) => {
                tracing::info!(node = %self.ctx.config.node_name, "node registered");
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let known = self.ctx.client.get(&resources::NODES, &self.key()).await?;
                let missing = labels.iter().any(|(key, value)| known.label(key) != Some(value));
                if missing {
                    let mut patch = Value::object();
                    for (key, value) in &labels {
                        patch.set(&["metadata", "labels", key], value);
                    }
                    self.ctx.client.patch(&resources::NODES, &self.key(), PatchKind::Strategic, &patch).await?;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let mut labels = self.ctx.config.labels.clone();
        let (name, arch) = (&self.ctx.config.node_name, self.machine.architecture.as_str());
        for (key, value) in [
            ("beta.kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/os", "linux"),
        ] {
            labels.insert(key.to_owned(), value.to_owned());
        }
        labels
    }

    /// Looks at machine and runtime, and tells what changed.
    async fn update(&mut self) -> Result<(), client::Error> {
        self.tell_pod_cidr().await;
        let runtime = self.look().await;
        let known = self.ctx.node.get(&self.key());
        let Some(known) = known else {
            // Not seen yet, or deleted by somebody: a node that lives exists.
            if self.ctx.node.has_synced() && self.ctx.client.find(&resources::NODES, &self.key()).await?.is_none() {
                self.told = None;
                self.try_register().await?;
            }
            return Ok(());
        };
        let view: Node = known.view().unwrap_or_default();
        let status = self.status(view.status.as_ref(), &runtime).await;
        self.tell(&known, view.status.unwrap_or_default(), status).await
    }

    /// The runtime is told the node's pod range once that is known.
    async fn tell_pod_cidr(&mut self) {
        let node = self.ctx.node.get(&self.key());
        let view: Node = node.and_then(|node| node.view().ok()).unwrap_or_default();
        let spec = view.spec.unwrap_or_default();
        let all = spec.pod_cidrs.filter(|all| !all.is_empty()).or_else(|| spec.pod_cidr.map(|one| vec![one]));
        let pod_cidr = all.unwrap_or_default().join(",");
        if pod_cidr.is_empty() || pod_cidr == self.pod_cidr {
            return;
        }
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.clone() });
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        match self.ctx.runtime.update_runtime_config(request).await {
            Ok(_) => self.pod_cidr = pod_cidr,
            Err(status) => tracing::warn!(%status, pod_cidr, "the runtime does not take the pod range"),
        }
    }

    /// Asks the runtime how it is, and lets pods know whether they can have a network.
    async fn look(&mut self) -> Runtime {
        if self.ctx.runtime_name.get().is_none()
            && let Ok(version) = self.ctx.runtime.version(VersionRequest { version: "0.1.0".into() }).await
        {
            self.machine.runtime = format!("{}://{}", version.runtime_name, version.runtime_version);
            let _ = self.ctx.runtime_name.set(version.runtime_name);
        }
        let runtime = match self.ctx.runtime.status(StatusRequest { verbose: false }).await {
            Ok(answer) => {
                self.machine.handlers = report::handlers(&answer);
                self.machine.features = report::features(&answer);
                Runtime::of(&answer)
            }
            Err(status) => Runtime::unreachable(&rpc_text(&status)),
        };
        let network = runtime.network();
        self.ctx.network.send_if_modified(|known| {
            let changed = *known != network;
            *known = network;
            changed
        });
        runtime
    }

    async fn status(&mut self, known: Option<&NodeStatus>, runtime: &Runtime) -> NodeStatus {
        let (machine, ctx) = (&self.machine, &self.ctx);
        let mut status = report::status(&ctx.config, machine, self.port, report::images(&ctx.runtime).await);
        let now = ctx.env.now();
        let pressure = self.pressure.measure(&ctx.config, now);
        status.conditions = Some(conditions::conditions(known, runtime, pressure, now));
        status
    }

    async fn tell(&mut self, known: &Object, old: NodeStatus, new: NodeStatus) -> Result<(), client::Error> {
        let now = self.ctx.env.monotonic();
        let patch = report::patch(&old, &new);
        let essence = report::essence(&new);
        let due = match &self.told {
            Some((told, at)) => *told != essence || now.duration_since(*at) >= REPORT,
            None => true,
        };
        // Not at once, or a server that keeps less than it is told would be told for ever.
        let rested = self.told.as_ref().is_none_or(|(_, at)| now.duration_since(*at) >= TICK);
        if !(due || rested && report::differs(&old, &new)) {
            return Ok(());
        }
        let Ok(body) = Value::from_serialize(&patch) else { return Ok(()) };
        self.ctx.client.patch_status(&resources::NODES, known.key(), PatchKind::Strategic, &body).await?;
        self.announce(known, &old, &new);
        self.told = Some((essence, now));
        Ok(())
    }

    /// Records what changed of the node's conditions. Upstream: recordNodeStatusEvent.
    fn announce(&mut self, node: &Object, old: &NodeStatus, new: &NodeStatus) {
        // Upstream's kubelet knows its node by name before it knows its uid.
        let about = ObjectReference { uid: node.name().to_owned(), ..ObjectReference::to(node) };
        let event = |reason: &'static str, message: String| {
            self.ctx.recorder.event(about.clone(), EventType::Normal, reason, message);
        };
        if self.told.is_none() {
            event("Starting", "Starting kubelet.".to_owned());
        }
        let status = |of: &NodeStatus, name: &str| {
            let found = of.conditions.iter().flatten().find(|condition| condition.type_ == name);
            found.map(|condition| condition.status == "True")
        };
        for (name, yes, no) in conditions::EVENTS {
            let now = status(new, name);
            let before = if self.told.is_none() && name != "Ready" { None } else { status(old, name) };
            if now != before
                && let Some(now) = now
            {
                let reason = if now { yes } else { no };
                event(reason, format!("Node {} status is now: {reason}", node.name()));
            }
        }
    }
}
