//! Giving back what a pod held.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use client::{Backoff, DeleteOptions, resources};
use cri::v1::RemovePodSandboxRequest;
use k8s_openapi::api::core::v1::Pod;

use super::Shared;
use crate::error::rpc_text;
use crate::spec;
use crate::volumes;

/// So many tries in, somebody is told: about two seconds.
const LATE: u32 = 5;

impl Shared {
    /// Gives back volumes and control group of a pod whose containers have ended.
    pub(super) async fn clean(&self, pod: &Pod) {
        self.ctx.objects.release(&self.uid);
        self.ctx.tokens.forget(&self.uid);
        self.ctx.images.forget(&self.uid);
        let mut pause = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let groups = self.groups(pod);
        for failures in 1.. {
            let (ctx, uid, groups) = (self.ctx.clone(), self.uid.clone(), groups.clone());
            let work = move || {
                volumes::tear_down(&ctx.config.root, &uid).map_err(|error| named(error, "its folder"))?;
                for path in groups {
                    let group = ctx.cgroups.group(&path)?;
                    if group.exists() {
                        let removed = group.kill().and_then(|()| group.remove());
                        removed.map_err(|error| named(error, &format!("control group {}", path.display())))?;
                    }
                }
                Ok(())
            };
            match self.place.clear(work).await {
                Ok(()) => return self.ctx.env.crashpoint("kubelet-pod-cleaned"),
                // Killed processes end when the machine finds the time.
                Err(error) if failures < LATE => tracing::debug!(pod = %self.key, %error, "a pod is cleaned up again"),
                Err(error) => tracing::warn!(pod = %self.key, %error, "a pod can't be cleaned up yet"),
            }
            self.ctx.env.sleep(pause.next(&self.ctx.env)).await;
        }
    }

    /// The pod's control group; every place where it may lie, if its spec is not known.
    fn groups(&self, pod: &Pod) -> Vec<PathBuf> {
        if pod.spec.is_some() {
            return vec![spec::pod_cgroup(&self.ctx.config, pod)];
        }
        let folders = ["kubelet", "kubelet/burstable", "kubelet/besteffort"].into_iter();
        folders.map(|folder| self.ctx.config.scope.cgroup(folder).join(format!("pod{}", self.uid))).collect()
    }

    /// Deletes the pod's object for good; whether that is done, or was.
    pub(super) async fn delete_object(&self) -> bool {
        let options = DeleteOptions::uid(&*self.uid).grace(0);
        match self.ctx.client.delete(&resources::PODS, &self.key, &options).await {
            Ok(_) => {
                self.ctx.env.crashpoint("kubelet-pod-deleted");
                true
            }
            Err(error) if error.is_not_found() || error.is_conflict() => true,
            Err(error) => {
                tracing::debug!(pod = %self.key, error = &error as &dyn std::error::Error, "a pod can't be deleted yet");
                false
            }
        }
    }

    /// Removes the sandboxes, the ended containers and the logs.
    pub(super) async fn remove_remains(&self, pod: &Pod) -> Result<(), String> {
        let state = self.ctx.runtime.pod(&self.uid).await.map_err(|status| rpc_text(&status))?;
        for sandbox in &state.sandboxes {
            let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            match self.ctx.runtime.remove_pod_sandbox(request).await {
                Err(status) if status.code() == tonic::Code::NotFound => {}
                answer => drop(answer.map_err(|status| rpc_text(&status))?),
            }
        }
        let logs = self.ctx.config.pod_logs(spec::namespace(pod), spec::name(pod), &self.uid);
        match tokio::fs::remove_dir_all(logs).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

/// Says what an error was about.
fn named(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
