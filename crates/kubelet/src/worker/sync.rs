//! One pass over a pod that shall run: what is missing is made. Upstream: kubelet SyncPod, kuberuntime SyncPod.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{EventType, Resource};
use cri::v1::{RemovePodSandboxRequest, RunPodSandboxRequest};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::time::Instant;

use super::Shared;
use super::actions::{self, Actions};
use super::shared::MadeVolumes;
use super::start::Kit;
use crate::claims;
use crate::environment::Referred;
use crate::error::rpc_text;
use crate::fields::Situation;
use crate::runtime::PodState;
use crate::spec::sandbox::sandbox_config;
use crate::spec::{self, files};
use crate::volumes::{self, Claimed, Contents, Mounted};

/// What failed is tried again after so long, unless something changes before (upstream: `backOffPeriod`).
const AGAIN: Duration = Duration::from_secs(10);

const RUNTIME_CLASSES: Resource = Resource::cluster("node.k8s.io", "v1", "runtimeclasses");

/// How a pass ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// When the next pass is due if nothing happens before.
    pub(super) next: Option<Instant>,
}

impl Outcome {
    fn at(next: Instant) -> Outcome {
        Outcome { next: Some(next) }
    }

    fn no_later_than(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

impl Shared {
    /// Brings the pod nearer to what it shall be. May be dropped at any await.
    pub(super) async fn sync(&self, pod: &Pod, state: PodState) -> Outcome {
        let network = self.ctx.network.borrow().clone();
        if let Err(why) = network
            && !spec::host_network(pod)
        {
            let message = format!("network is not ready: {why}");
            self.event(pod, None, EventType::Warning, "NetworkNotReady", message);
            return self.again();
        }
        self.ctx.objects.refer(pod);
        if let Err(error) = self.prepare(pod).await {
            self.event(pod, None, EventType::Warning, "FailedCreatePodContainer", error.to_string());
            return self.again();
        }
        let mut outcome = Outcome::default();
        let (volumes, refresh_at) = match Box::pin(self.volumes(pod, &state)).await {
            Ok(found) => found,
            Err(message) => {
                self.event(pod, None, EventType::Warning, "FailedMount", message);
                return Outcome::at(self.ctx.env.monotonic() + self.pause_after_volumes(pod));
            }
        };
        self.memory.lock().mounts.reset();
        if let Some(at) = refresh_at {
            outcome.no_later_than(at);
        }
        let mut wanted = actions::compute(pod, &state, &|id, kind| self.probes.verdict(id, kind));
        self.restart_resized(pod, &state, &mut wanted);
        let resized = self.grow_and_update(pod, &state, &wanted).await;
        match Box::pin(self.carry_out(pod, state, volumes, &wanted)).await {
            Ok(Some(at)) => outcome.no_later_than(at),
            Ok(None) => {}
            Err(()) => outcome.no_later_than(self.ctx.env.monotonic() + self.ctx.env.jitter(AGAIN, 0.5)),
        }
        if resized {
            Box::pin(self.finish_resize(pod)).await;
        }
        if self.memory.lock().resize.progress.is_some() {
            outcome.no_later_than(self.ctx.env.monotonic() + AGAIN);
        }
        outcome
    }

    fn again(&self) -> Outcome {
        Outcome::at(self.ctx.env.monotonic() + self.ctx.env.jitter(AGAIN, 0.5))
    }

    /// The pod's folders and its control group, once.
    async fn prepare(&self, pod: &Pod) -> std::io::Result<()> {
        if self.memory.lock().prepared {
            return Ok(());
        }
        let (ctx, owned) = (self.ctx.clone(), Arc::new(pod.clone()));
        let (allocation, resizes) = {
            let memory = self.memory.lock();
            (memory.allocation.clone(), memory.resize.progress.is_some())
        };
        let work = move || {
            files::make_folders(&ctx.config, &owned)?;
            allocation.save(&volumes::pod_folder(&ctx.config.root, spec::uid(&owned)))?;
            let group = ctx.cgroups.group(spec::pod_cgroup(&ctx.config, &owned))?;
            group.create()?;
            // In the midst of a resize its limits are changed in step with its containers'.
            if resizes { Ok(()) } else { group.apply(&spec::pod_limits(spec::spec(&owned))) }
        };
        self.place.make(work).await?;
        self.memory.lock().prepared = true;
        Ok(())
    }

    fn situation(&self, pod: &Pod, state: &PodState) -> Situation {
        let host_ips = self.ctx.config.node_ips.clone();
        let pod_ips = if spec::host_network(pod) { host_ips.clone() } else { state.ips() };
        Situation { host_ips, pod_ips, allocatable: self.ctx.allocatable.clone() }
    }

    /// Makes the pod's volumes, or brings them up to date; also tells when a token in them is to be renewed.
    async fn volumes(
        &self,
        pod: &Pod,
        state: &PodState,
    ) -> Result<(BTreeMap<String, Mounted>, Option<Instant>), String> {
        if spec::spec(pod).volumes.as_ref().is_none_or(Vec::is_empty) {
            return Ok(Default::default());
        }
        self.ctx.objects.synced(pod).await?;
        let tokens = self.ctx.tokens.of(pod).await.map_err(|error| format!("failed to fetch token: {error}"))?;
        let contents = Contents {
            config_maps: self.ctx.objects.config_maps(pod),
            secrets: self.ctx.objects.secrets(pod),
            tokens: tokens.tokens,
            claimed: self.claimed(pod, !state.containers.is_empty()).await?,
        };
        let refresh_at = tokens.refresh_at.map(|at| {
            let left = Duration::try_from(at.duration_since(self.ctx.env.now())).unwrap_or_default();
            self.ctx.env.monotonic() + left.max(Duration::from_secs(1))
        });
        let situation = self.situation(pod, state);
        let (labels, annotations) = (&pod.metadata.labels, &pod.metadata.annotations);
        if let Some(made) = &self.memory.lock().volumes
            && (&made.contents, &made.situation, &made.labels, &made.annotations)
                == (&contents, &situation, labels, annotations)
        {
            return Ok((made.mounted.clone(), refresh_at));
        }
        let (root, owned) = (self.ctx.config.root.clone(), pod.clone());
        let with = (situation.clone(), contents.clone());
        let work = move || Ok(volumes::set_up(&root, &owned, &with.0, &with.1));
        let made = self.place.make(work).await.map_err(|error| error.to_string())?;
        let mounted = made.map_err(|error| error.to_string())?;
        self.memory.lock().volumes = Some(MadeVolumes {
            contents,
            situation,
            labels: labels.clone(),
            annotations: annotations.clone(),
            mounted: mounted.clone(),
        });
        Ok((mounted, refresh_at))
    }

    /// How long to wait after volumes could not be made. A kubelet may not watch claims, so it looks often.
    fn pause_after_volumes(&self, pod: &Pod) -> Duration {
        let mut memory = self.memory.lock();
        let waits_for_claims = memory.claimed.is_none() && claims::any(pod);
        let backoff = if waits_for_claims { &mut memory.claims } else { &mut memory.mounts };
        backoff.next(&self.ctx.env)
    }

    /// What the pod's claims are bound to. A claim that is bound stays so as long as a pod uses it.
    async fn claimed(&self, pod: &Pod, started: bool) -> Result<BTreeMap<String, Claimed>, String> {
        let known = self.memory.lock().claimed.clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let node = self.ctx.node.list("").into_iter().next().and_then(|node| node.view().ok());
        let found = Box::pin(claims::resolve(&self.ctx.client, pod, node.as_ref(), started)).await?;
        self.memory.lock().claimed = Some(found.clone());
        Ok(found)
    }

    /// Does what is to be done. Tells when something that waits is due; an error is an event already.
    async fn carry_out(
        &self,
        pod: &Pod,
        state: PodState,
        volumes: BTreeMap<String, Mounted>,
        wanted: &Actions,
    ) -> Result<Option<Instant>, ()> {
        let failed = |what: &str, status: &tonic::Status| {
            let message = format!("error killing pod: {}", rpc_text(status));
            tracing::debug!(pod = %self.key, %status, what, "a pod can't be brought on");
            self.event(pod, None, EventType::Warning, "FailedKillPod", message);
        };
        let mut state = state;
        if wanted.kill_pod {
            if wanted.create_sandbox && !state.sandboxes.is_empty() {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.event(pod, None, EventType::Normal, "SandboxChanged", message);
            }
            let grace = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30);
            Box::pin(self.kill_pod(pod, &state, grace)).await.map_err(|status| failed("kill", &status))?;
            if !wanted.create_sandbox {
                return Ok(None);
            }
        } else {
            self.memory.lock().replaces = !wanted.containers.is_empty();
            for kill in &wanted.kill {
                let Some(instance) = state.containers.iter().find(|c| c.id() == kill.id) else { continue };
                let grace = self.grace_after(pod, &kill.name, kill.probe);
                let killed = Box::pin(self.kill(pod, instance, &kill.message, grace, async {})).await;
                killed.map_err(|status| failed("kill a container", &status))?;
            }
            if !wanted.kill.is_empty() {
                state = self.ctx.runtime.pod(&self.uid).await.map_err(|status| failed("look", &status))?;
            }
        }
        let nothing = wanted.init.is_empty() && wanted.containers.is_empty() && wanted.ephemeral.is_empty();
        if nothing && !wanted.create_sandbox {
            return Ok(None);
        }
        let resolver = std::fs::read_to_string(&self.ctx.config.resolv_conf).unwrap_or_default();
        let attempt = match wanted.create_sandbox {
            true => wanted.attempt,
            false => state.sandboxes.first().and_then(|s| s.metadata.as_ref()).map_or(0, |metadata| metadata.attempt),
        };
        let config = sandbox_config(&self.ctx.config, pod, attempt, &resolver);
        if wanted.create_sandbox {
            if let Err(why) = Box::pin(self.ctx.devices.prepare(pod)).await {
                let message = format!("Failed to prepare dynamic resources: prepare dynamic resources: {why}");
                self.event(pod, None, EventType::Warning, "FailedPrepareDynamicResources", message);
                return Err(());
            }
            let made = match self.runtime_handler(pod).await {
                Ok(runtime_handler) => {
                    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler };
                    self.ctx.runtime.run_pod_sandbox(request).await.map_err(|status| rpc_text(&status))
                }
                Err(message) => Err(message),
            };
            if let Err(message) = made {
                let message = format!("Failed to create pod sandbox: {message}");
                self.event(pod, None, EventType::Warning, "FailedCreatePodSandBox", message);
                return Err(());
            }
            self.remove_empty_sandboxes(&state).await;
            state = self.ctx.runtime.pod(&self.uid).await.map_err(|status| failed("look", &status))?;
        }
        let Some(sandbox) = state.ready_sandbox().map(|sandbox| sandbox.id.clone()) else { return Err(()) };
        let kit = self.kit(pod, state, volumes, sandbox, config).await?;
        Box::pin(self.start_all(pod, &kit, wanted)).await
    }

    /// The runtime's name for the pod's RuntimeClass.
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(class) = spec::spec(pod).runtime_class_name.as_deref().filter(|class| !class.is_empty()) else {
            return Ok(String::new());
        };
        let found = self.ctx.client.find(&RUNTIME_CLASSES, &apimachinery::ObjectKey::cluster(class)).await;
        let found = found.map_err(|error| error.to_string())?.map(|class| class.to_value());
        let handler = found.as_ref().and_then(|class| class.str_at(&["handler"]));
        let missing = || format!("failed to get sandbox runtime: RuntimeClass {class:?} not found");
        handler.map(str::to_owned).ok_or_else(missing)
    }

    async fn kit(
        &self,
        pod: &Pod,
        state: PodState,
        volumes: BTreeMap<String, Mounted>,
        sandbox: String,
        sandbox_config: cri::v1::PodSandboxConfig,
    ) -> Result<Kit, ()> {
        if let Err(message) = self.ctx.objects.synced(pod).await {
            self.event(pod, None, EventType::Warning, "FailedSync", message);
            return Err(());
        }
        self.ctx.services.synced().await;
        let secrets = self.ctx.objects.secrets(pod);
        let wanted = spec::spec(pod).image_pull_secrets.iter().flatten();
        let missing: Vec<&str> =
            wanted.clone().map(|secret| secret.name.as_str()).filter(|name| !secrets.contains_key(*name)).collect();
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.event(pod, None, EventType::Warning, "FailedToRetrieveImagePullSecret", message);
        }
        let pull_secrets = wanted.filter_map(|secret| secrets.get(&secret.name).cloned()).collect();
        let referred =
            Referred { config_maps: self.ctx.objects.config_maps(pod), secrets, services: self.services(pod) };
        let situation = self.situation(pod, &state);
        Ok(Kit { sandbox, sandbox_config, situation, volumes, referred, pull_secrets, state })
    }

    /// The Services that the pod's containers are told the addresses of.
    fn services(&self, pod: &Pod) -> Vec<Service> {
        let key = apimachinery::ObjectKey::new("default", "kubernetes");
        let mut all = self.ctx.services.get(&key).into_iter().collect::<Vec<_>>();
        if spec::spec(pod).enable_service_links != Some(false) {
            let own = self.ctx.services.list(spec::namespace(pod));
            all.extend(own.into_iter().filter(|service| *service.key() != key));
        }
        all.iter().filter_map(|object| object.view().ok()).collect()
    }

    /// Sandboxes before the newest one that hold nothing any more.
    async fn remove_empty_sandboxes(&self, state: &PodState) {
        for sandbox in &state.sandboxes {
            if state.containers.iter().all(|container| container.sandbox != sandbox.id) {
                let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
                if let Err(status) = self.ctx.runtime.remove_pod_sandbox(request).await {
                    tracing::debug!(%status, sandbox = sandbox.id, "an old sandbox can't be removed");
                }
            }
        }
    }

    async fn start_all(&self, pod: &Pod, kit: &Kit, wanted: &Actions) -> Result<Option<Instant>, ()> {
        let mut next: Option<Instant> = None;
        let mut result = Ok(());
        let mut note = |refused: Option<Instant>| match refused {
            Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
            None => result = Err(()),
        };
        for at in &wanted.ephemeral {
            let Some(ephemeral) = spec::ephemeral_containers(pod).get(*at) else { continue };
            let target = ephemeral.target_container_name.as_deref().filter(|name| !name.is_empty());
            let target = target.and_then(|name| kit.state.current(name)).map(|container| container.id().to_owned());
            if let Err(refused) = self.start(pod, &spec::as_container(ephemeral), kit, target.as_deref()).await {
                note(refused);
            }
        }
        for at in &wanted.init {
            let Some(container) = spec::init_containers(pod).get(*at) else { continue };
            if let Err(refused) = self.start(pod, container, kit, None).await {
                note(refused);
                if !rules::is_sidecar(container) {
                    break;
                }
            }
        }
        for at in &wanted.containers {
            let Some(container) = spec::spec(pod).containers.get(*at) else { continue };
            if let Err(refused) = self.start(pod, container, kit, None).await {
                note(refused);
            }
        }
        match (result, next) {
            (Ok(()), next) => Ok(next),
            // Whatever comes first.
            (Err(()), Some(at)) => Ok(Some(at.min(self.ctx.env.monotonic() + AGAIN))),
            (Err(()), None) => Err(()),
        }
    }
}
