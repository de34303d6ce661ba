//! A pod's status, from what the runtime and the probes know. Upstream: kubelet_pods.go generateAPIPodStatus.

mod conditions;
mod containers;
mod messages;
mod patch;
mod phase;
mod writer;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::allocation::{ByContainer, Resize};
use crate::runtime::PodState;
use crate::spec;

pub(crate) use containers::Readiness;
pub(crate) use messages::{Messages, read as read_messages};
pub(crate) use phase::is_final;
pub(crate) use writer::Writer;

/// Why a container waits: reason and message.
pub(crate) type Waiting = BTreeMap<String, (&'static str, String)>;

/// What a status is made from.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    /// The status told last.
    pub(crate) old: &'a PodStatus,
    pub(crate) state: &'a PodState,
    /// What containers said at their end, by container id.
    pub(crate) messages: &'a Messages,
    pub(crate) waiting: &'a Waiting,
    /// What containers were given.
    pub(crate) actuated: &'a ByContainer,
    pub(crate) resize: &'a Resize,
    pub(crate) readiness: &'a dyn Readiness,
    pub(crate) host_ips: &'a [IpAddr],
    pub(crate) runtime_name: &'a str,
    pub(crate) now: Timestamp,
    /// All containers have ended and none comes again.
    pub(crate) ended: bool,
    /// A phase that was decided on other grounds: reason and message of a failure.
    pub(crate) failure: Option<(&'a str, &'a str)>,
}

/// A status, and whether the pod has come to its end.
pub(crate) struct Generated {
    pub(crate) status: PodStatus,
    /// No container comes again; those that still run are to be ended.
    pub(crate) ends: bool,
}

/// The status as it is now.
pub(crate) fn generate(facts: &Facts<'_>) -> Generated {
    let Facts { pod, old, state, .. } = facts;
    let generation = pod.metadata.generation;
    let mut lists = containers::statuses(facts);
    let mut status = PodStatus {
        observed_generation: generation,
        qos_class: Some(rules::qos_class(spec::spec(pod)).as_str().to_owned()),
        start_time: old.start_time.clone().or(Some(Time(facts.now))),
        ..PodStatus::default()
    };
    let mut phase = phase::phase(pod, &lists, facts.ended).to_owned();
    // A phase that was final stays.
    if let Some(known) = old.phase.as_deref().filter(|known| is_final(known)) {
        phase = known.to_owned();
    }
    if old.phase.as_deref() == Some(phase.as_str()) {
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    if let Some((reason, message)) = facts.failure {
        phase = "Failed".to_owned();
        status.reason = Some(reason.to_owned());
        status.message = Some(message.to_owned());
    }
    let ends = is_final(&phase);
    // It is told when nothing runs any more: until then what the pod holds is not free.
    if ends && !facts.ended && state.running().next().is_some() {
        phase = old.phase.clone().unwrap_or_else(|| "Running".to_owned());
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    containers::set_readiness(facts, &mut lists);
    status.conditions = Some(conditions::conditions(facts, &lists, &phase));
    status.phase = Some(phase);
    set_addresses(facts, &mut status);
    let unless_empty = |list: Vec<_>| if list.is_empty() { None } else { Some(list) };
    status.container_statuses = unless_empty(lists.containers);
    status.init_container_statuses = unless_empty(lists.init);
    status.ephemeral_container_statuses = unless_empty(lists.ephemeral);
    Generated { status, ends }
}

fn set_addresses(facts: &Facts<'_>, status: &mut PodStatus) {
    let host: Vec<String> = facts.host_ips.iter().map(IpAddr::to_string).collect();
    status.host_ip = host.first().cloned();
    status.host_ips = Some(host.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let ips: Vec<String> = if spec::host_network(facts.pod) {
        host
    } else {
        let found: Vec<String> = facts.state.ips().iter().map(IpAddr::to_string).collect();
        // A pod that ends keeps the addresses it was known by.
        let known = || facts.old.pod_ips.iter().flatten().map(|known| known.ip.clone()).collect();
        if found.is_empty() { known() } else { found }
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips = if ips.is_empty() { None } else { Some(ips.into_iter().map(|ip| PodIP { ip }).collect()) };
}

#[cfg(test)]
mod tests;
