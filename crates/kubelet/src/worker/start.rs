//! Starting one container. Upstream: kuberuntime_container.go startContainer.

use std::collections::BTreeMap;

use client::{EventType, ObjectReference};
use cri::v1::{
    ContainerState, CreateContainerRequest, Image, PodSandboxConfig, RemoveContainerRequest, StartContainerRequest,
};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use tokio::time::Instant;

use super::Shared;
use crate::environment::Referred;
use crate::fields::Situation;
use crate::images::{Refusal, go_duration};
use crate::runtime::{self, PodState};
use crate::spec::container::{Ingredients, container_config};
use crate::spec::{self, files, full_name};
use crate::volumes::Mounted;

/// What the containers of one pod are made from, the same for all.
pub(super) struct Kit {
    pub(super) sandbox: String,
    pub(super) sandbox_config: PodSandboxConfig,
    pub(super) situation: Situation,
    pub(super) volumes: BTreeMap<String, Mounted>,
    pub(super) referred: Referred,
    pub(super) pull_secrets: Vec<Secret>,
    pub(super) state: PodState,
}

impl Shared {
    /// Starts the container, or says why it waits, which the pod's status then tells.
    pub(super) async fn start(
        &self,
        pod: &Pod,
        container: &Container,
        kit: &Kit,
        target: Option<&str>,
    ) -> Result<(), Option<Instant>> {
        match Box::pin(self.try_start(pod, container, kit, target)).await {
            Ok(()) => {
                self.memory.lock().waiting.remove(&container.name);
                Ok(())
            }
            Err(refusal) => {
                let why = (refusal.reason, refusal.message);
                self.memory.lock().waiting.insert(container.name.clone(), why);
                Err(refusal.retry_at)
            }
        }
    }

    async fn try_start(
        &self,
        pod: &Pod,
        container: &Container,
        kit: &Kit,
        target: Option<&str>,
    ) -> Result<(), Refusal> {
        self.back_off(pod, container, &kit.state)?;
        let about = self.about(pod, Some(&container.name));
        let secrets: Vec<&Secret> = kit.pull_secrets.iter().collect();
        let ensured = self.ctx.images.ensure(&self.uid, container, &secrets, &kit.sandbox_config, &about).await;
        let image = ensured.inspect_err(|refusal| {
            self.event(pod, Some(&container.name), EventType::Warning, "Failed", format!("Error: {}", refusal.reason));
        })?;
        let image_volumes = self.image_volumes(pod, container, kit, &about).await?;
        let id = self.create(pod, container, kit, (&image, image_volumes), target).await?;
        let started = self.ctx.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await;
        if let Err(status) = started {
            let message = status.message().to_owned();
            self.event(pod, Some(&container.name), EventType::Warning, "Failed", format!("Error: {message}"));
            return Err(Refusal { reason: "RunContainerError", message, retry_at: None });
        }
        self.event(pod, Some(&container.name), EventType::Normal, "Started", "Container started");
        Box::pin(self.post_start(pod, container, &id)).await
    }

    /// The ids of the images that the container mounts as volumes, fetched where they are missing. Upstream: getImageVolumes.
    async fn image_volumes(
        &self,
        pod: &Pod,
        container: &Container,
        kit: &Kit,
        about: &ObjectReference,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let mut ids = BTreeMap::new();
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        for volume in spec::spec(pod).volumes.iter().flatten() {
            let Some(source) = &volume.image else { continue };
            if !mounts.iter().any(|mount| mount.name == volume.name) {
                continue;
            }
            let known = (kit.sandbox.clone(), volume.name.clone());
            if let Some(id) = self.memory.lock().image_volumes.get(&known) {
                ids.insert(volume.name.clone(), id.clone());
                continue;
            }
            let like = Container {
                name: container.name.clone(),
                image: source.reference.clone(),
                image_pull_policy: source.pull_policy.clone(),
                ..Container::default()
            };
            let secrets: Vec<&Secret> = kit.pull_secrets.iter().collect();
            let image = self.ctx.images.ensure(&self.uid, &like, &secrets, &kit.sandbox_config, about).await?;
            self.memory.lock().image_volumes.insert(known, image.id.clone());
            ids.insert(volume.name.clone(), image.id);
        }
        Ok(ids)
    }

    /// A container that ended a moment ago waits, longer each time.
    fn back_off(&self, pod: &Pod, container: &Container, state: &PodState) -> Result<(), Refusal> {
        let last = state.containers.iter().find(|c| c.name() == container.name && c.is_exited());
        let Some(last) = last else { return Ok(()) };
        let ended = jiff::Timestamp::from_nanosecond(i128::from(last.status.finished_at)).unwrap_or_default();
        let now = self.ctx.env.now();
        let key = backoff_key(container);
        let mut memory = self.memory.lock();
        let Some((pause, until)) = memory.restarts.pause(&key, ended, now) else {
            memory.restarts.restarted(&key, ended, now);
            return Ok(());
        };
        drop(memory);
        let name = &container.name;
        let message = format!("Back-off restarting failed container {name} in pod {}", full_name(pod));
        self.event(pod, Some(name), EventType::Warning, "BackOff", message);
        let left = std::time::Duration::try_from(until.duration_since(now)).unwrap_or_default();
        Err(Refusal {
            reason: "CrashLoopBackOff",
            message: format!(
                "back-off {} restarting failed container={name} pod={}",
                go_duration(pause),
                full_name(pod)
            ),
            retry_at: Some(self.ctx.env.monotonic() + left),
        })
    }

    async fn create(
        &self,
        pod: &Pod,
        container: &Container,
        kit: &Kit,
        (image, image_volumes): (&Image, BTreeMap<String, String>),
        target: Option<&str>,
    ) -> Result<String, Refusal> {
        let name = &container.name;
        let refuse = |reason: &'static str, message: String| {
            self.event(pod, Some(name), EventType::Warning, "Failed", format!("Error: {message}"));
            Refusal { reason, message, retry_at: None }
        };
        self.remove_dead(&kit.state, name).await;
        self.remove_unstarted(&kit.state, name).await;
        let config = &self.ctx.config;
        let logs = config.pod_logs(spec::namespace(pod), spec::name(pod), &self.uid).join(name);
        let logged = || files::last_logged_attempt(&logs).map_or(0, |last| last.saturating_add(1));
        let latest = kit.state.containers.iter().find(|container| container.name() == name && !is_unstarted(container));
        let restart_count = latest.map_or_else(logged, |latest| latest.restart_count().saturating_add(1));
        let ips = if spec::host_network(pod) { config.node_ips.clone() } else { kit.situation.pod_ips.clone() };
        let make = || {
            std::fs::create_dir_all(&logs)?;
            let hosts = files::write_hosts(config, pod, &ips)?;
            let unique = format!("{:08x}", self.ctx.env.random_u64() as u32);
            Ok::<_, std::io::Error>((hosts, files::make_message_file(config, pod, name, &unique)?))
        };
        let (hosts, message) = make().map_err(|error| refuse("CreateContainerConfigError", error.to_string()))?;
        let with = Ingredients {
            config,
            situation: &kit.situation,
            referred: &kit.referred,
            volumes: &kit.volumes,
            image_volumes: &image_volumes,
            image,
            restart_count,
            hosts,
            message,
            memory_capacity: self.ctx.memory,
            cgroup_version: self.ctx.cgroups.version(),
            target,
        };
        let made = container_config(pod, container, &with);
        let mut made = made.map_err(|error| refuse("CreateContainerConfigError", error.to_string()))?;
        let devices = self.ctx.devices.of_container(pod, container);
        made.cdi_devices = devices.map_err(|why| refuse("CreateContainerConfigError", why))?;
        self.actuated(container).await;
        let request = CreateContainerRequest {
            pod_sandbox_id: kit.sandbox.clone(),
            config: Some(made),
            sandbox_config: Some(kit.sandbox_config.clone()),
        };
        let created = self.ctx.runtime.create_container(request).await;
        let created = created.map_err(|status| refuse("CreateContainerError", status.message().to_owned()))?;
        self.event(pod, Some(name), EventType::Normal, "Created", "Container created");
        Ok(created.container_id)
    }

    /// Keeps one dead instance of a container, for its log and its status.
    async fn remove_dead(&self, state: &PodState, name: &str) {
        let dead = state.containers.iter().filter(|container| container.name() == name && !container.is_running());
        for old in dead.skip(1) {
            let request = RemoveContainerRequest { container_id: old.id().to_owned() };
            if let Err(status) = self.ctx.runtime.remove_container(request).await {
                tracing::debug!(%status, container = old.id(), "a dead container can't be removed yet");
            } else if !old.status.log_path.is_empty() {
                let _ = std::fs::remove_file(&old.status.log_path);
            }
        }
    }

    /// Removes what a kubelet made that died before it started it: it has neither a log nor a status to tell, and its number is free.
    async fn remove_unstarted(&self, state: &PodState, name: &str) {
        let of_name = state.containers.iter().filter(|container| container.name() == name);
        for old in of_name.filter(|container| is_unstarted(container)) {
            let request = RemoveContainerRequest { container_id: old.id().to_owned() };
            if let Err(status) = self.ctx.runtime.remove_container(request).await {
                tracing::debug!(%status, container = old.id(), "a container that never started can't be removed yet");
            }
        }
    }

    async fn post_start(&self, pod: &Pod, container: &Container, id: &str) -> Result<(), Refusal> {
        let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(handler) = handler else { return Ok(()) };
        let ip = self.address(pod).await;
        let Err(error) = self.run_hook(container, id, handler, ip).await else { return Ok(()) };
        self.event(pod, Some(&container.name), EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        let state = self.ctx.runtime.pod(&self.uid).await.unwrap_or_default();
        if let Some(instance) = state.containers.iter().find(|instance| instance.id() == id) {
            let grace = self.grace_after(pod, &container.name, None);
            if let Err(status) = self.kill(pod, instance, "FailedPostStartHook", grace, async {}).await {
                tracing::debug!(%status, "a container whose postStart handler failed can't be ended");
            }
        }
        Err(Refusal { reason: "PostStartHookError", message: error.0, retry_at: None })
    }
}

/// Who changes what a container is begins its pauses anew. Upstream: GetBackoffKey.
fn backoff_key(container: &Container) -> String {
    let resources = serde_json::to_string(&container.resources).unwrap_or_default();
    format!("{}_{}_{resources}", container.name, container.image.as_deref().unwrap_or_default())
}

fn is_unstarted(container: &runtime::Container) -> bool {
    container.status.state == ContainerState::ContainerCreated as i32
}
