//! What the runtime tells by itself: which pods' containers changed.

use std::time::Duration;

use client::Backoff;
use cri::v1::ContainerEventType;
use tonic::Code;

use super::{Runtime, labels};

/// While the runtime tells nothing by itself, it is asked again after so long (upstream: the generic PLEG's period).
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Calls `changed` with the uid of each pod whose sandbox or containers changed, and with `None` when it could be any: after the
/// stream began, or broke.
pub(crate) async fn follow(runtime: Runtime, changed: impl Fn(Option<&str>)) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        match runtime.container_events().await {
            Ok(mut events) => {
                changed(None);
                backoff.reset();
                while let Ok(Some(event)) = events.message().await {
                    // Whoever made it knows, and there is nothing to tell before it is started.
                    if event.container_event_type() == ContainerEventType::ContainerCreatedEvent {
                        continue;
                    }
                    let sandbox = event.pod_sandbox_status.as_ref();
                    changed(sandbox.and_then(|sandbox| sandbox.labels.get(labels::POD_UID)).map(String::as_str));
                }
                tracing::debug!("the runtime's events ended");
            }
            Err(status) if status.code() == Code::Unimplemented => {
                changed(None);
                runtime.env.sleep(ASK_AGAIN).await;
                continue;
            }
            Err(status) => tracing::debug!(%status, "the runtime's events can't be had"),
        }
        runtime.env.sleep(backoff.next(&runtime.env)).await;
        changed(None);
    }
}
