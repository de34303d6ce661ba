//! Getting a container's image: pull policies, back-off, and what is told about it. Upstream: pkg/kubelet/images.

mod auth;
mod reference;

use std::collections::BTreeMap;
use std::time::Duration;

use client::{EventRecorder, EventType, ObjectReference};
use cri::v1::{Image, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest};
use env::Env;
use k8s_openapi::api::core::v1::{Container, Secret};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::rpc_text;
use crate::runtime::Runtime;
use crate::worker::backoff::{FIRST, MAX};

pub(crate) use auth::credentials;
pub(crate) use reference::with_default_tag;

/// Why a container has no image: the waiting reason, its message, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) retry_at: Option<Instant>,
}

/// Fetches images for all pods.
pub(crate) struct Images {
    env: Env,
    runtime: Runtime,
    recorder: EventRecorder,
    /// By pod and image: how often it failed.
    failed: Mutex<BTreeMap<(String, String), Failed>>,
}

#[derive(Clone)]
struct Failed {
    pause: Duration,
    at: Instant,
    message: String,
}

impl Images {
    pub(crate) fn new(env: Env, runtime: Runtime, recorder: EventRecorder) -> Images {
        Images { env, runtime, recorder, failed: Mutex::default() }
    }

    /// The container's image, fetched if its policy says so. `about` is the container, for events.
    pub(crate) async fn ensure(
        &self,
        uid: &str,
        container: &Container,
        secrets: &[&Secret],
        sandbox: &PodSandboxConfig,
        about: &ObjectReference,
    ) -> Result<Image, Refusal> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let event = |kind, reason, message: String| self.recorder.event(about.clone(), kind, reason, message);
        let image = with_default_tag(wanted).ok_or_else(|| {
            let message = format!(
                "Failed to apply default image tag {wanted:?}: couldn't parse image name {wanted:?}: invalid reference format"
            );
            event(EventType::Warning, "InspectFailed", message.clone());
            Refusal { reason: "InvalidImageName", message, retry_at: None }
        })?;
        let present = self.inspect(&image).await.map_err(|status| {
            let message = format!("Failed to inspect image {wanted:?}: {}", rpc_text(&status));
            event(EventType::Warning, "InspectFailed", message.clone());
            Refusal { reason: "ImageInspectError", message, retry_at: None }
        })?;
        let policy = container.image_pull_policy.as_deref();
        let policy = policy.unwrap_or(if image.ends_with(":latest") { "Always" } else { "IfNotPresent" });
        match (policy, present) {
            ("Always", _) | ("IfNotPresent", None) => {}
            (_, Some(image)) => {
                let message =
                    format!("Container image {wanted:?} already present on machine and can be accessed by the pod");
                event(EventType::Normal, "Pulled", message);
                return Ok(image);
            }
            (_, None) => {
                let message = format!("Container image {wanted:?} is not present with pull policy of Never");
                event(EventType::Warning, "ErrImageNeverPull", message.clone());
                return Err(Refusal { reason: "ErrImageNeverPull", message, retry_at: None });
            }
        }
        let key = (uid.to_owned(), image.clone());
        let failed = self.failed.lock().get(&key).cloned();
        if let Some(failed) = &failed
            && self.env.monotonic() < failed.at + failed.pause
        {
            let message = format!("Back-off pulling image {wanted:?}");
            event(EventType::Normal, "BackOff", message.clone());
            let message = format!("{message}: {}", failed.message);
            return Err(Refusal { reason: "ImagePullBackOff", message, retry_at: Some(failed.at + failed.pause) });
        }
        event(EventType::Normal, "Pulling", format!("Pulling image {wanted:?}"));
        let began = self.env.monotonic();
        match self.pull(&image, wanted, secrets, sandbox).await {
            Ok(image) => {
                let took = go_duration(self.env.monotonic() - began);
                let size = image.size;
                event(
                    EventType::Normal,
                    "Pulled",
                    format!(
                        "Successfully pulled image {wanted:?} in {took} ({took} including waiting). Image size: {size} bytes."
                    ),
                );
                self.failed.lock().remove(&key);
                Ok(image)
            }
            Err(message) => {
                event(EventType::Warning, "Failed", format!("Failed to pull image {wanted:?}: {message}"));
                let (at, last) = (self.env.monotonic(), failed.map(|failed| failed.pause));
                let pause = last.map_or(FIRST, |last| (last * 2).min(MAX));
                let failed = Failed { pause, at, message: format!("ErrImagePull: {message}") };
                self.failed.lock().insert(key, failed);
                // Half-way it is told that this is a pause.
                let retry_at = Some(at + (pause / 2).min(FIRST));
                Err(Refusal { reason: "ErrImagePull", message, retry_at })
            }
        }
    }

    async fn inspect(&self, image: &str) -> Result<Option<Image>, tonic::Status> {
        let spec = ImageSpec { image: image.to_owned(), ..Default::default() };
        let request = ImageStatusRequest { image: Some(spec), verbose: false };
        Ok(self.runtime.image_status(request).await?.image)
    }

    async fn pull(
        &self,
        image: &str,
        wanted: &str,
        secrets: &[&Secret],
        sandbox: &PodSandboxConfig,
    ) -> Result<Image, String> {
        let spec = ImageSpec { image: image.to_owned(), user_specified_image: wanted.to_owned(), ..Default::default() };
        let mut tries: Vec<_> = credentials(image, secrets).into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut last = String::new();
        for auth in tries {
            let request = PullImageRequest { image: Some(spec.clone()), auth, sandbox_config: Some(sandbox.clone()) };
            match self.runtime.pull_image(request).await {
                Ok(reference) => {
                    let found = match self.inspect(&reference).await {
                        Ok(None) => self.inspect(image).await,
                        found => found,
                    };
                    return found.map_err(|status| rpc_text(&status))?.ok_or_else(|| "image vanished".to_owned());
                }
                Err(status) => last = rpc_text(&status),
            }
        }
        Err(last)
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.failed.lock().retain(|(of, _), _| of != uid);
    }
}

/// As Go prints a duration, to the millisecond: `1.234s`, `87ms`, `1m3.5s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = |millis: u128| {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match millis {
        0..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{}s", seconds(millis)),
        60_000..3_600_000 => format!("{}m{}s", millis / 60_000, seconds(millis % 60_000)),
        _ => format!("{}h{}m{}s", millis / 3_600_000, millis / 60_000 % 60, seconds(millis % 60_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        let check = |millis: u64, expect: &str| assert_eq!(go_duration(Duration::from_millis(millis)), expect);
        check(87, "87ms");
        check(1200, "1.2s");
        check(10_000, "10s");
        check(63_500, "1m3.5s");
        check(300_000, "5m0s");
        check(3_661_000, "1h1m1s");
    }
}
