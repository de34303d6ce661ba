//! What the kubelet says of one pod.

use std::net::Ipv4Addr;
use std::time::Duration;

use apimachinery::Value;
use client::trim::{each, keep};
use tokio::time::Instant;

use super::Began;

/// Leaves what is read here, for a cluster may have very many pods.
pub(super) fn trim(pod: &mut Value) -> Vec<(&'static str, String)> {
    const METADATA: [&str; 9] = [
        "annotations",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "uid",
    ];
    keep(pod, &["metadata"], &METADATA);
    keep(pod, &["spec"], &["containers", "hostNetwork", "nodeName", "restartPolicy"]);
    keep(pod, &["status"], &["conditions", "containerStatuses", "phase", "podIP", "qosClass", "startTime"]);
    each(pod, &["spec", "containers"], |container| keep(container, &[], &["image", "name"]));
    Vec::new()
}

/// What a pod's annotations ask for.
pub(super) struct Orders {
    bad_image: bool,
    ready: bool,
    ready_after: Duration,
    exit: Option<i64>,
    after: Duration,
    restarts: bool,
    pub(super) linger: Duration,
}

/// What its status says, as far as the kubelet cares.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    Nothing,
    Waiting,
    Running { ready: bool, restarts: i64 },
    Over { failed: bool, code: i64 },
}

impl Orders {
    pub(super) fn of(pod: &Value) -> Orders {
        let annotations = pod.at(&["metadata", "annotations"]);
        let annotation = |name: &str| annotations.and_then(|all| all.str_at(&[name]));
        let order = |name: &str| annotations.and_then(|all| all.str_at(&[&format!("fake/{name}")]));
        let seconds = |name: &str| Duration::from_secs_f64(order(name).and_then(|s| s.parse().ok()).unwrap_or(0.0));
        let index = annotation("batch.kubernetes.io/job-completion-index");
        let by_index = order("exit-of-index").into_iter().flat_map(|list| list.split(','));
        let of_index = by_index.filter_map(|one| one.split_once('=')).find(|(of, _)| Some(*of) == index);
        let exit = of_index.map(|(_, code)| code).or_else(|| order("exit"));
        let exit: Option<i64> = exit.and_then(|code| code.parse().ok());
        let mut images = containers(pod).iter().filter_map(|container| container.str_at(&["image"]));
        let restarts = match pod.str_at(&["spec", "restartPolicy"]) {
            Some("Never") => false,
            Some("OnFailure") => exit != Some(0),
            _ => true,
        };
        Orders {
            bad_image: images.any(|image| ["unpullable", "non-existent"].iter().any(|bad| image.contains(bad))),
            ready: order("ready") != Some("false"),
            ready_after: seconds("ready-after"),
            exit,
            after: seconds("after"),
            restarts,
            linger: seconds("linger"),
        }
    }

    /// What the pod's status is to say, and when to look again.
    pub(super) fn wanted(&self, ending: bool, began: &mut Began, now: Instant) -> (Seen, Option<Duration>) {
        if ending {
            return (Seen::Over { failed: true, code: 137 }, None);
        }
        if self.bad_image {
            return (Seen::Waiting, None);
        }
        let since = now - *began.running.get_or_insert(now);
        if let Some(code) = self.exit
            && since >= self.after
        {
            if !self.restarts {
                return (Seen::Over { failed: code != 0, code }, None);
            }
            began.restarts += 1;
            began.running = Some(now);
            return (Seen::Running { ready: self.ready, restarts: began.restarts }, Some(self.after.max(SHORT)));
        }
        let ready = self.ready && since >= self.ready_after;
        let times = [(self.ready && !ready).then_some(self.ready_after), self.exit.map(|_| self.after)];
        let again = times.into_iter().flatten().min().map(|at| at.saturating_sub(since));
        (Seen::Running { ready, restarts: began.restarts }, again)
    }
}

/// Nothing restarts faster.
const SHORT: Duration = Duration::from_millis(500);

impl Seen {
    pub(super) fn of(pod: &Value) -> Seen {
        let container = pod.items_at(&["status", "containerStatuses"]).first();
        let state = |path: &[&str]| container.and_then(|container| container.at(path));
        let mut conditions = pod.items_at(&["status", "conditions"]).iter();
        let ready =
            conditions.any(|one| one.str_at(&["type"]) == Some("Ready") && one.str_at(&["status"]) == Some("True"));
        match pod.str_at(&["status", "phase"]) {
            Some("Running") => {
                let restarts = state(&["restartCount"]).and_then(Value::as_i64).unwrap_or(0);
                Seen::Running { ready, restarts }
            }
            Some(phase @ ("Succeeded" | "Failed")) => {
                let code = state(&["state", "terminated", "exitCode"]).and_then(Value::as_i64).unwrap_or(0);
                Seen::Over { failed: phase == "Failed", code }
            }
            _ if state(&["state", "waiting"]).is_some_and(|waiting| !waiting.is_null()) => Seen::Waiting,
            _ => Seen::Nothing,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Seen::Over { .. })
    }

    /// The status to write.
    pub(super) fn status(&self, pod: &Value, address: &str, now: &str) -> Value {
        let (phase, ready, why) = match self {
            Seen::Nothing | Seen::Waiting => ("Pending", false, "ContainersNotReady"),
            Seen::Running { ready, .. } => ("Running", *ready, "ContainersNotReady"),
            Seen::Over { failed: true, .. } => ("Failed", false, "PodFailed"),
            Seen::Over { failed: false, .. } => ("Succeeded", false, "PodCompleted"),
        };
        let unready = (!ready && why == "ContainersNotReady").then(|| {
            let names: Vec<&str> = containers(pod).iter().filter_map(|one| one.str_at(&["name"])).collect();
            format!("containers with unready status: [{}]", names.join(" "))
        });
        let generation = pod.i64_at(&["metadata", "generation"]);
        let known = pod.items_at(&["status", "conditions"]);
        let condition = |kind: &str, holds: bool, reason: Option<&str>, message: Option<&str>| {
            let status = if holds { "True" } else { "False" };
            let is_same = |one: &&Value| one.str_at(&["type"]) == Some(kind) && one.str_at(&["status"]) == Some(status);
            let since = known.iter().find(is_same).and_then(|one| one.str_at(&["lastTransitionTime"])).unwrap_or(now);
            object([
                ("lastProbeTime", Value::Null),
                ("lastTransitionTime", since.into()),
                ("message", message.into()),
                ("observedGeneration", generation.into()),
                ("reason", reason.into()),
                ("status", status.into()),
                ("type", kind.into()),
            ])
        };
        let (reason, message) = ((!ready).then_some(why), unready.as_deref());
        let completed = (*self == Seen::Over { failed: false, code: 0 }).then_some("PodCompleted");
        let conditions = [
            condition("PodReadyToStartContainers", !self.is_over(), None, None),
            condition("Initialized", true, completed, None),
            condition("Ready", ready, reason, message),
            condition("ContainersReady", ready, reason, message),
        ];
        let statuses: Vec<_> = containers(pod).iter().map(|container| self.container(container, ready, now)).collect();
        let addresses = addresses(pod, address);
        let several = |addresses: &[String]| {
            Value::Array(addresses.iter().map(|address| object([("ip", address.into())])).collect())
        };
        object([
            ("conditions", Value::Array(conditions.into())),
            ("containerStatuses", Value::Array(statuses)),
            ("hostIP", HOST.into()),
            ("hostIPs", several(&[HOST.to_owned()])),
            ("observedGeneration", generation.into()),
            ("phase", phase.into()),
            ("podIP", addresses.first().map(String::as_str).into()),
            ("podIPs", several(&addresses)),
            ("qosClass", pod.str_at(&["status", "qosClass"]).into()),
            ("startTime", pod.str_at(&["status", "startTime"]).unwrap_or(now).into()),
        ])
    }

    fn container(&self, container: &Value, ready: bool, now: &str) -> Value {
        let text = |field: &str| container.str_at(&[field]).unwrap_or_default();
        let (state, restarts, started) = match self {
            Seen::Nothing | Seen::Waiting => {
                let message = format!("failed to pull and unpack image {:?}: not found", text("image"));
                let waiting = object([("message", message.into()), ("reason", "ErrImagePull".into())]);
                (("waiting", waiting), 0, false)
            }
            Seen::Running { restarts, .. } => (("running", object([("startedAt", now.into())])), *restarts, true),
            Seen::Over { code, .. } => {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                let terminated = object([
                    ("exitCode", (*code).into()),
                    ("finishedAt", now.into()),
                    ("reason", reason.into()),
                    ("startedAt", now.into()),
                ]);
                (("terminated", terminated), 0, false)
            }
        };
        object([
            ("image", text("image").into()),
            ("imageID", "".into()),
            ("lastState", Value::object()),
            ("name", text("name").into()),
            ("ready", ready.into()),
            ("restartCount", restarts.into()),
            ("started", started.into()),
            ("state", object([state])),
        ])
    }
}

/// Where every pod's containers are said to run.
const HOST: &str = "192.168.0.1";

/// The pod's addresses, of the families that it asks for.
fn addresses(pod: &Value, address: &str) -> Vec<String> {
    let mut addresses = vec![address.to_owned()];
    let families = pod.str_at(&["metadata", "annotations", "fake/families"]).unwrap_or_default();
    if let Ok(v4) = address.parse::<Ipv4Addr>().map(|v4| v4.octets())
        && families.contains("IPv6")
    {
        addresses.push(format!("fd00:10::{:x}:{:x}", v4[1], u16::from_be_bytes([v4[2], v4[3]])));
    }
    if families == "IPv6" && addresses.len() > 1 {
        addresses.remove(0);
    }
    addresses
}

fn object<const N: usize>(members: [(&'static str, Value); N]) -> Value {
    Value::Object(members.into_iter().collect())
}

fn containers(pod: &Value) -> &[Value] {
    pod.items_at(&["spec", "containers"])
}
