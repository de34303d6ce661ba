//! Resizing a pod in place: what is asked for is allocated when it fits, and then given. Upstream: kuberuntime_manager.go
//! computePodResizeAction, doPodResizeAction.

use std::sync::Arc;

use client::EventType;
use cri::v1::{ContainerStatsRequest, UpdateContainerResourcesRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use linux::cgroup::Limits;

use super::Shared;
use super::actions::{Actions, Kill};
use crate::admission;
use crate::allocation::{self, Allocation, Pending, Progress, Resize, resizable};
use crate::error::rpc_text;
use crate::runtime::{self, PodState};
use crate::spec;
use crate::volumes::pod_folder;

impl Shared {
    /// Begins with what an earlier kubelet kept, or else with what the spec asks for.
    pub(super) fn begin_allocation(&self, pod: &Pod) {
        let kept = Allocation::load(&pod_folder(&self.ctx.config.root, &self.uid));
        let mut memory = self.memory.lock();
        let allocation = kept.unwrap_or_else(|| Allocation::of(pod));
        let unfinished = allocation.allocated.keys().any(|name| allocation.differs(name));
        if unfinished {
            let generation = pod.metadata.generation.unwrap_or_default();
            memory.resize.progress = Some(Progress { generation, error: None });
        }
        memory.allocation = allocation;
    }

    /// The pod with what is allocated to it now.
    pub(crate) fn allocated(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.memory.lock().allocation.apply(pod).map_or_else(|| pod.clone(), Arc::new)
    }

    /// Whether the pod waits for room to grow.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.memory.lock().resize.pending.is_some()
    }

    /// Allocates what the pod asks for if it fits; returns the pod with what is allocated to it.
    pub(super) async fn allocate(&self, pod: Arc<Pod>, others: &(dyn Fn() -> Vec<Arc<Pod>> + Send + Sync)) -> Arc<Pod> {
        let Some(held) = self.memory.lock().allocation.apply(&pod) else {
            self.memory.lock().resize.pending = None;
            return pod;
        };
        let generation = pod.metadata.generation.unwrap_or_default();
        let refused = {
            let _turn = self.ctx.admission.lock();
            let refused = admission::refuse_resize(&pod, &others(), &self.ctx.allocatable);
            if refused.is_none() {
                let mut memory = self.memory.lock();
                memory.allocation.allocated = Allocation::of(&pod).allocated;
                memory.resize = Resize { pending: None, progress: Some(Progress { generation, error: None }) };
            }
            refused
        };
        let Some((reason, message)) = refused else {
            self.keep_allocation().await;
            let text = allocation::message("Pod resize started", &pod, generation, "");
            self.event(&pod, None, EventType::Normal, "ResizeStarted", text);
            return pod;
        };
        let pending = Some(Pending { reason, message: message.clone(), generation });
        if std::mem::replace(&mut self.memory.lock().resize.pending, pending.clone()) != pending {
            let event = if reason == "Infeasible" { "ResizeInfeasible" } else { "ResizeDeferred" };
            let text = allocation::message(&format!("Pod resize {reason}"), &pod, generation, &message);
            self.event(&pod, None, EventType::Warning, event, text);
        }
        Arc::new(held)
    }

    /// Writes down what is allocated and actuated.
    pub(super) async fn keep_allocation(&self) {
        let (folder, allocation) =
            (pod_folder(&self.ctx.config.root, &self.uid), self.memory.lock().allocation.clone());
        if let Err(error) = self.place.make(move || allocation.save(&folder)).await {
            tracing::debug!(pod = %self.key, %error, "what is allocated to a pod can't be kept");
        }
    }

    /// The container is about to be started with what is allocated to it.
    pub(super) async fn actuated(&self, container: &Container) {
        let changed = {
            let allocation = &mut self.memory.lock().allocation;
            let Some(allocated) = allocation.allocated.get(&container.name).cloned() else { return };
            allocation.actuated.insert(container.name.clone(), allocated.clone()) != Some(allocated)
        };
        if changed {
            self.keep_allocation().await;
        }
    }

    /// Adds the containers that are to be started again for their new resources.
    pub(super) fn restart_resized(&self, pod: &Pod, state: &PodState, wanted: &mut Actions) {
        if wanted.kill_pod {
            return;
        }
        let allocation = self.memory.lock().allocation.clone();
        let lists = [(spec::init_containers(pod), true), (spec::spec(pod).containers.as_slice(), false)];
        for (containers, init) in lists {
            for (at, container) in containers.iter().enumerate() {
                let Some(old) = allocation.actuated.get(&container.name) else { continue };
                let running = state.current(&container.name).filter(|instance| instance.is_running());
                let Some(instance) = running.filter(|_| allocation.differs(&container.name)) else { continue };
                let ends = wanted.kill.iter().any(|kill| kill.id == instance.id());
                if ends || !allocation::needs_restart(container, old) {
                    continue;
                }
                wanted.kill.push(Kill {
                    id: instance.id().to_owned(),
                    name: container.name.clone(),
                    message: format!("Container {} resize requires restart", container.name),
                    probe: None,
                });
                let list = if init { &mut wanted.init } else { &mut wanted.containers };
                list.push(at);
                list.sort_unstable();
                list.dedup();
            }
        }
    }

    /// Gives running containers what is allocated to them, but for those that are started again: the pod grows first. Returns
    /// whether all went well.
    pub(super) async fn grow_and_update(&self, pod: &Pod, state: &PodState, wanted: &Actions) -> bool {
        if self.memory.lock().resize.progress.is_none() || wanted.kill_pod {
            return true;
        }
        match Box::pin(self.try_update(pod, state, wanted)).await {
            Ok(()) => true,
            Err(message) => {
                self.fail_resize(pod, message);
                false
            }
        }
    }

    async fn try_update(&self, pod: &Pod, state: &PodState, wanted: &Actions) -> Result<(), String> {
        let allocation = self.memory.lock().allocation.clone();
        let new = spec::pod_limits(spec::spec(pod));
        let old = allocation.applied(pod).map_or_else(|| new.clone(), |old| spec::pod_limits(spec::spec(&old)));
        self.limit_pod(pod, larger(&old, &new)).await?;
        let mut changed: Vec<(&Container, &runtime::Container)> = resizable(pod)
            .filter(|container| allocation.differs(&container.name))
            .filter_map(|container| Some((container, state.latest(&container.name).filter(|c| c.is_running())?)))
            .filter(|(_, instance)| wanted.kill.iter().all(|kill| kill.id != instance.id()))
            .collect();
        let memory = |container: &Container| spec::memory_limit(container.resources.as_ref());
        let before = |container: &Container| spec::memory_limit(allocation.actuated.get(&container.name));
        // Who gives memory back comes first.
        changed.sort_by_key(|(container, _)| memory(container) > before(container));
        for (container, instance) in changed {
            if memory(container) > 0 && memory(container) < before(container) {
                self.check_memory(container, instance, memory(container)).await?;
            }
            let version = self.ctx.cgroups.version();
            let mut linux = spec::container_resources(pod, container, self.ctx.memory, version);
            (linux.oom_score_adj, linux.unified) = (0, Default::default());
            // Without a limit there is none any more.
            if linux.cpu_quota == 0 {
                linux.cpu_quota = -1;
            }
            if linux.memory_limit_in_bytes == 0 {
                linux.memory_limit_in_bytes = -1;
            }
            let request = UpdateContainerResourcesRequest {
                container_id: instance.id().to_owned(),
                linux: Some(linux),
                ..Default::default()
            };
            self.ctx.runtime.update_container_resources(request).await.map_err(|status| rpc_text(&status))?;
            self.actuated(container).await;
        }
        Ok(())
    }

    /// A limit below what is in use would have processes killed.
    async fn check_memory(
        &self,
        container: &Container,
        instance: &runtime::Container,
        limit: i64,
    ) -> Result<(), String> {
        let request = ContainerStatsRequest { container_id: instance.id().to_owned() };
        let stats = self.ctx.runtime.container_stats(request).await.ok().and_then(|answer| answer.stats);
        let used = stats.and_then(|stats| Some(stats.memory?.usage_bytes?.value));
        match used {
            Some(used) if i64::try_from(used).is_ok_and(|used| used >= limit) => Err(format!(
                "attempting to set container {:?} memory limit ({limit}) below current usage ({used})",
                container.name
            )),
            _ => Ok(()),
        }
    }

    async fn limit_pod(&self, pod: &Pod, limits: Limits) -> Result<(), String> {
        let (ctx, path) = (self.ctx.clone(), spec::pod_cgroup(&self.ctx.config, pod));
        let work = move || ctx.cgroups.group(path)?.apply(&limits);
        self.place.make(work).await.map_err(|error| format!("failed to set the pod's limits: {error}"))
    }

    /// Shrinks the pod once its containers have, and tells when the resize is done.
    pub(super) async fn finish_resize(&self, pod: &Pod) {
        let Some(progress) = self.memory.lock().resize.progress.clone() else { return };
        let Ok(state) = self.ctx.runtime.pod(&self.uid).await else { return };
        let allocation = self.memory.lock().allocation.clone();
        let running = |container: &&Container| state.latest(&container.name).is_some_and(|c| c.is_running());
        if resizable(pod).filter(running).any(|container| allocation.differs(&container.name)) {
            return;
        }
        if let Err(message) = self.limit_pod(pod, spec::pod_limits(spec::spec(pod))).await {
            return self.fail_resize(pod, message);
        }
        self.memory.lock().resize.progress = None;
        let text = allocation::message("Pod resize completed", pod, progress.generation, "");
        self.event(pod, None, EventType::Normal, "ResizeCompleted", text);
        self.ctx.freed.send_modify(|count| *count += 1);
    }

    fn fail_resize(&self, pod: &Pod, error: String) {
        let generation = {
            let progress = &mut self.memory.lock().resize.progress;
            let Some(progress) = progress else { return };
            if progress.error.as_ref() == Some(&error) {
                return;
            }
            progress.error = Some(error.clone());
            progress.generation
        };
        let text = allocation::message("Pod resize error", pod, generation, &error);
        self.event(pod, None, EventType::Warning, "ResizeError", text);
    }
}

/// What both fit in.
fn larger(old: &Limits, new: &Limits) -> Limits {
    let limit = |old: Option<i64>, new: Option<i64>| match (old, new) {
        (Some(old), Some(new)) => Some(old.max(new)),
        (Some(_), None) => Some(-1),
        (None, _) => None,
    };
    Limits {
        cpu_quota: limit(old.cpu_quota, new.cpu_quota),
        cpu_period: new.cpu_period.or(old.cpu_period),
        memory: limit(old.memory, new.memory),
        ..new.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_grows_before_its_containers() {
        let check = |old: Option<i64>, new: Option<i64>, expect: Option<i64>| {
            let limits = |memory| Limits { memory, ..Limits::default() };
            assert_eq!(larger(&limits(old), &limits(new)).memory, expect);
        };
        check(Some(1), Some(2), Some(2));
        check(Some(2), Some(1), Some(2));
        check(None, Some(1), None);
        check(Some(1), None, Some(-1));
    }
}
