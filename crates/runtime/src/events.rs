//! What happens to containers: told by shims, told to clients.

use std::sync::{Arc, Weak};

use shim::protocol::{Exit, Message};
use tokio::sync::mpsc;

use cri::v1::{ContainerEventResponse, ContainerEventType};

use crate::record::Phase;
use crate::service::status;
use crate::shims::Event;
use crate::state::{Container, Daemon, Sandbox};

/// The exit code and reason of a container that nobody saw end (upstream: containerd's `unknownExitCode`).
pub(crate) const UNKNOWN_EXIT_CODE: i32 = 255;
pub(crate) const UNKNOWN_REASON: &str = "Unknown";

/// Takes in what shims say, until the daemon is gone.
pub(crate) async fn follow(daemon: Weak<Daemon>, mut events: mpsc::UnboundedReceiver<(String, Event)>) {
    while let Some((sandbox, event)) = events.recv().await {
        let Some(daemon) = daemon.upgrade() else { return };
        match event {
            Event::Message(Message::Exited { container, exit }) => {
                if let Ok(container) = daemon.container(&container) {
                    exited(&daemon, &container, &exit);
                }
            }
            Event::Message(Message::PauseExited) => {
                if let Ok(sandbox) = daemon.sandbox(&sandbox) {
                    sandbox.state.lock().pause = None;
                    not_ready(&daemon, &sandbox);
                }
            }
            Event::Message(_) => {}
            Event::Gone => {
                if let Ok(sandbox) = daemon.sandbox(&sandbox)
                    && sandbox.is_ready()
                {
                    tracing::warn!(sandbox = %sandbox.id, "the sandbox's shim is gone");
                    lost(&daemon, &sandbox);
                }
            }
        }
    }
}

/// A container ended: records it, once, and tells everybody.
pub(crate) fn exited(daemon: &Arc<Daemon>, container: &Arc<Container>, exit: &Exit) {
    if container.record().phase != Phase::Running {
        return;
    }
    let changed = container.change(daemon, |record| {
        record.phase = Phase::Exited;
        record.exit_code = exit.code;
        record.finished_at = exit.finished_at;
        if exit.oom_killed {
            record.reason = "OOMKilled".to_owned();
        }
    });
    if let Err(error) = changed {
        tracing::error!(container = %container.id, error = error.report(), "the end of a container was not recorded");
    }
    let announced = {
        let mut state = container.state.lock();
        state.end_to_announce = !state.start_announced;
        state.start_announced
    };
    if announced {
        announce(daemon, &container.id, &container.sandbox, ContainerEventType::ContainerStoppedEvent);
    }
    // Its group has done its work; whatever is left in it goes with it.
    let (daemon, id) = (daemon.clone(), container.id.clone());
    let path = container.sandbox.state.lock().record.cgroup.join(&container.id);
    tokio::task::spawn_blocking(move || {
        let removed = daemon.group(&path).and_then(|group| {
            use crate::error::Context;
            let _ = group.kill();
            group.remove().context(|| "remove".to_owned())
        });
        if let Err(error) = removed {
            tracing::warn!(container = %id, error = error.report(), "the control group of an ended container is left");
        }
    });
}

/// A container started: tells everybody, and that it ended, if it did so meanwhile.
pub(crate) fn started(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    announce(daemon, &container.id, &container.sandbox, ContainerEventType::ContainerStartedEvent);
    let ended = {
        let mut state = container.state.lock();
        state.start_announced = true;
        std::mem::take(&mut state.end_to_announce)
    };
    if ended {
        announce(daemon, &container.id, &container.sandbox, ContainerEventType::ContainerStoppedEvent);
    }
}

/// The shim died and with it all knowledge of its containers: what still runs is killed, as nobody would notice its end.
pub(crate) fn lost(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    sandbox.state.lock().shim = None;
    for container in daemon.containers_of(&sandbox.id) {
        if container.record().phase == Phase::Running {
            let path = sandbox.state.lock().record.cgroup.join(&container.id);
            if let Ok(group) = daemon.group(&path) {
                let _ = group.kill();
            }
            let exit = shim::protocol::ExitRecord::load(&daemon.container_data(&container.id).join("exit.json"));
            unknown(daemon, &container, exit);
        }
    }
    not_ready(daemon, sandbox);
}

/// Nobody saw the container end, unless its shim recorded it.
pub(crate) fn unknown(daemon: &Arc<Daemon>, container: &Arc<Container>, recorded: Option<Exit>) {
    match recorded {
        Some(exit) => exited(daemon, container, &exit),
        None => {
            let exit = Exit { code: UNKNOWN_EXIT_CODE, finished_at: daemon.now(), oom_killed: false };
            let _ = container.change(daemon, |record| record.reason = UNKNOWN_REASON.to_owned());
            exited(daemon, container, &exit);
        }
    }
}

/// The sandbox cannot run containers any more.
pub(crate) fn not_ready(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    if let Err(error) = sandbox.change(daemon, |record| record.ready = false) {
        tracing::error!(sandbox = %sandbox.id, error = error.report(), "the end of a sandbox was not recorded");
    }
    announce(daemon, &sandbox.id, sandbox, ContainerEventType::ContainerStoppedEvent);
}

/// Tells who listens. Sandboxes have events too, under their own id, as upstream's runtimes have them.
pub(crate) fn announce(daemon: &Arc<Daemon>, id: &str, sandbox: &Arc<Sandbox>, kind: ContainerEventType) {
    if daemon.events.receiver_count() == 0 {
        return;
    }
    let containers = daemon.containers_of(&sandbox.id);
    let event = ContainerEventResponse {
        container_id: id.to_owned(),
        container_event_type: kind.into(),
        created_at: daemon.now(),
        pod_sandbox_status: Some(status::sandbox_status(sandbox)),
        containers_statuses: containers.iter().map(|container| status::container_status(daemon, container)).collect(),
    };
    // Without listeners there is nobody to tell.
    let _ = daemon.events.send(event);
}
