//! What the kubelet says of one pod.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Began;

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
        let order = |name: &str| pod["metadata"]["annotations"][format!("fake/{name}")].as_str();
        let seconds = |name: &str| Duration::from_secs_f64(order(name).and_then(|s| s.parse().ok()).unwrap_or(0.0));
        let index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str();
        let by_index = order("exit-of-index").into_iter().flat_map(|list| list.split(','));
        let of_index = by_index.filter_map(|one| one.split_once('=')).find(|(of, _)| Some(*of) == index);
        let exit = of_index.map(|(_, code)| code).or_else(|| order("exit"));
        let exit: Option<i64> = exit.and_then(|code| code.parse().ok());
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut images = containers.filter_map(|container| container["image"].as_str());
        let restarts = match pod["spec"]["restartPolicy"].as_str() {
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
        let status = &pod["status"];
        let container = &status["containerStatuses"][0];
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        match status["phase"].as_str() {
            Some("Running") => Seen::Running { ready, restarts: container["restartCount"].as_i64().unwrap_or(0) },
            Some(phase @ ("Succeeded" | "Failed")) => {
                let code = container["state"]["terminated"]["exitCode"].as_i64().unwrap_or(0);
                Seen::Over { failed: phase == "Failed", code }
            }
            _ if container["state"]["waiting"].is_object() => Seen::Waiting,
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
        let names: Vec<&str> = containers(pod).filter_map(|container| container["name"].as_str()).collect();
        let unready = (!ready).then(|| match why {
            "ContainersNotReady" => json!(format!("containers with unready status: [{}]", names.join(" "))),
            _ => Value::Null,
        });
        let known = pod["status"]["conditions"].as_array();
        let condition = |kind: &str, holds: bool, reason: Value, message: Value| {
            let status = if holds { "True" } else { "False" };
            let same = known.into_iter().flatten().find(|one| one["type"] == kind && one["status"] == status);
            let since = same.map_or(json!(now), |one| one["lastTransitionTime"].clone());
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
                "lastProbeTime": null, "observedGeneration": pod["metadata"]["generation"]})
        };
        let reason = if ready { Value::Null } else { json!(why) };
        let message = unready.unwrap_or(Value::Null);
        let started = pod["status"]["startTime"].as_str().unwrap_or(now);
        let statuses: Vec<Value> = containers(pod).map(|container| self.container(container, ready, now)).collect();
        let mut addresses = vec![json!({"ip": address})];
        let families = pod["metadata"]["annotations"]["fake/families"].as_str().unwrap_or_default();
        if let Ok(v4) = address.parse::<Ipv4Addr>().map(|v4| v4.octets())
            && families.contains("IPv6")
        {
            addresses.push(json!({"ip": format!("fd00:10::{:x}:{:x}", v4[1], u16::from_be_bytes([v4[2], v4[3]]))}));
        }
        if families == "IPv6" && addresses.len() > 1 {
            addresses.remove(0);
        }
        json!({"phase": phase, "startTime": started, "podIP": addresses[0]["ip"], "podIPs": addresses, "hostIP": "192.168.0.1",
            "hostIPs": [{"ip": "192.168.0.1"}], "qosClass": pod["status"]["qosClass"], "observedGeneration": pod["metadata"]["generation"],
            "conditions": [
                condition("PodReadyToStartContainers", !self.is_over(), Value::Null, Value::Null),
                condition("Initialized", true, if *self == (Seen::Over { failed: false, code: 0 }) { json!("PodCompleted") } else { Value::Null }, Value::Null),
                condition("Ready", ready, reason.clone(), message.clone()),
                condition("ContainersReady", ready, reason, message),
            ],
            "containerStatuses": statuses,
        })
    }

    fn container(&self, container: &Value, ready: bool, now: &str) -> Value {
        let (state, restarts, started) = match self {
            Seen::Nothing | Seen::Waiting => {
                let message = format!("failed to pull and unpack image {}: not found", container["image"]);
                (json!({"waiting": {"reason": "ErrImagePull", "message": message}}), 0, false)
            }
            Seen::Running { restarts, .. } => (json!({"running": {"startedAt": now}}), *restarts, true),
            Seen::Over { code, .. } => {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                (
                    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}}),
                    0,
                    false,
                )
            }
        };
        json!({"name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "started": started,
            "restartCount": restarts, "state": state, "lastState": {}})
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().into_iter().flatten()
}
