//! From the chosen node to the bound pod, beside the next attempts.

use std::sync::Arc;

use client::EventType;

use super::{Chosen, fail};
use crate::Shared;
use crate::framework::{Change, ClusterEvent, Point, Profile, Rejection};
use crate::pod::PodInfo;

enum Trouble {
    /// A plugin says no after all.
    Refused(Rejection),
    Error(String),
    /// The pod is gone, or somebody else bound it: its own events say what becomes of it.
    Overtaken {
        gone: bool,
    },
}

/// Whether more than a request stands between the pod and its node: somebody's permission, volumes to make.
pub(crate) fn takes_its_time(shared: &Shared, profile: &Profile, pod: &PodInfo, chosen: &Chosen) -> bool {
    !chosen.reservations.is_empty()
        || !profile.at(Point::Permit).is_empty()
        || shared.extenders.iter().any(|extender| extender.binds(pod))
}

/// Waits for permission, prepares and binds; takes all back if one of these fails.
pub(crate) async fn bind(shared: &Shared, profile: &Profile, pod: &Arc<PodInfo>, chosen: Chosen) {
    let Chosen { node, reservations } = &chosen;
    let trouble = match carry_out(shared, profile, pod, &chosen).await {
        Ok(()) => {
            shared.queue.remove(&pod.uid);
            let message = format!("Successfully assigned {} to {node}", pod.key);
            shared.recorder(pod).event(pod.reference(), EventType::Normal, "Scheduled", message);
            profile.at(Point::PostBind).iter().for_each(|enabled| enabled.plugin.post_bind(pod, node));
            return;
        }
        Err(trouble) => trouble,
    };
    reservations.iter().rev().for_each(|reservation| reservation.undo(pod));
    let forgotten = shared.cache.lock().forget(&pod.uid);
    if let Some(forgotten) = forgotten {
        shared.queue.wake(&ClusterEvent::Pod(Change::removed(forgotten)));
    }
    match trouble {
        Trouble::Overtaken { gone: true } => shared.queue.remove(&pod.uid),
        Trouble::Overtaken { gone: false } => shared.queue.retry(&pod.uid),
        Trouble::Refused(rejection) => fail::refused(shared, pod, rejection).await,
        Trouble::Error(message) => {
            tracing::warn!(pod = %pod.key, node, message, "binding failed");
            fail::errored(shared, pod, message).await;
        }
    }
}

async fn carry_out(shared: &Shared, profile: &Profile, pod: &PodInfo, chosen: &Chosen) -> Result<(), Trouble> {
    let Chosen { node, reservations } = chosen;
    let asked = profile
        .at(Point::Permit)
        .iter()
        .filter_map(|enabled| Some((enabled.plugin.name(), enabled.plugin.permit(pod, node)?)));
    let asked: Vec<_> = asked.collect();
    if (!asked.is_empty() || !reservations.is_empty()) && pod.nominated != *node {
        // It takes its time: others see where it goes.
        fail::nominate(shared, pod, node).await;
    }
    for (name, permission) in asked {
        permission.await.map_err(|rejection| Trouble::Refused(Rejection { plugin: name, ..rejection }))?;
    }
    shared.queue.settled(&pod.uid);
    if !profile.at(Point::PreBind).is_empty() {
        for reservation in reservations {
            let done = reservation.pre_bind(pod, node).await;
            done.map_err(|error| {
                Trouble::Error(format!("running PreBind plugin {:?}: {error}", reservation.plugin()))
            })?;
        }
    }
    for extender in shared.extenders.iter().filter(|extender| extender.binds(pod)) {
        match extender.bind(pod, node).await {
            Err(error) if extender.is_ignorable() => {
                tracing::info!(error, "an extender that may be ignored does not bind")
            }
            bound => return bound.map_err(Trouble::Error),
        }
    }
    for enabled in profile.at(Point::Bind) {
        let Some(binding) = enabled.plugin.bind(&shared.client, pod, node) else { continue };
        return binding.await.map_err(|error| match error {
            error if error.is_not_found() => Trouble::Overtaken { gone: true },
            error if error.is_conflict() => Trouble::Overtaken { gone: false },
            error => Trouble::Error(format!("running Bind plugin {:?}: {error}", enabled.plugin.name())),
        });
    }
    Err(Trouble::Error("no plugin binds pods".into()))
}
