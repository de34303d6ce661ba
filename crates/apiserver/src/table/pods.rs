//! Pods. Upstream: printPod.

use apimachinery::Value;
use jiff::Timestamp;

use super::{Row, duration, or_none};

pub(super) fn cell(row: &Row<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Ready" => summary(row).ready.into(),
        "Status" => summary(row).status.into(),
        "Restarts" => summary(row).restarts.into(),
        "IP" => {
            let ips = row.value.items_at(&["status", "podIPs"]);
            or_none(
                ips.first()
                    .and_then(|ip| ip.str_at(&["ip"]))
                    .unwrap_or_else(|| row.text(&["status", "podIP"]))
                    .to_owned(),
            )
            .into()
        }
        "Node" => row.text_or_none(&["spec", "nodeName"]).into(),
        "Nominated Node" => row.text_or_none(&["status", "nominatedNodeName"]).into(),
        "Readiness Gates" => gates(row.value).into(),
        _ => return None,
    })
}

struct Summary {
    ready: String,
    status: String,
    restarts: String,
}

/// Counts restarts and remembers the latest.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status.i64_at(&["restartCount"]).unwrap_or_default();
        let finished = status.str_at(&["lastState", "terminated", "finishedAt"]).and_then(|text| text.parse().ok());
        self.last = self.last.max(finished);
    }

    fn shown(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count > 0 => format!("{} ({} ago)", self.count, duration::between(last, now)),
            _ => self.count.to_string(),
        }
    }
}

fn summary(row: &Row<'_>) -> Summary {
    let pod = row.value;
    let mut status = match row.text(&["status", "reason"]) {
        "" => row.text(&["status", "phase"]).to_owned(),
        reason => reason.to_owned(),
    };
    for condition in pod.items_at(&["status", "conditions"]) {
        if condition.str_at(&["type"]) == Some("PodScheduled")
            && condition.str_at(&["reason"]) == Some("SchedulingGated")
        {
            status = "SchedulingGated".to_owned();
        }
    }
    let containers = pod.items_at(&["spec", "containers"]).len();
    let init_containers = pod.items_at(&["spec", "initContainers"]);
    let restartable = |name: &str| {
        init_containers.iter().any(|container| {
            container.str_at(&["name"]) == Some(name) && container.str_at(&["restartPolicy"]) == Some("Always")
        })
    };
    let mut total =
        containers + init_containers.iter().filter(|c| c.str_at(&["restartPolicy"]) == Some("Always")).count();
    let (mut ready, mut restarts, mut sidecar_restarts) = (0, Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (index, state) in pod.items_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        let name = state.str_at(&["name"]).unwrap_or_default();
        restarts.add(state);
        if restartable(name) {
            sidecar_restarts.add(state);
        }
        if let Some(terminated) = state.at(&["state", "terminated"]) {
            if terminated.i64_at(&["exitCode"]).unwrap_or_default() == 0 {
                continue;
            }
            status = format!("Init:{}", terminated_reason(terminated));
            initializing = true;
            break;
        }
        if restartable(name) && state.bool_at(&["started"]) == Some(true) {
            if state.bool_at(&["ready"]) == Some(true) {
                ready += 1;
            }
            continue;
        }
        let waiting = state.str_at(&["state", "waiting", "reason"]).unwrap_or_default();
        status = match waiting {
            "" | "PodInitializing" => format!("Init:{index}/{}", init_containers.len()),
            reason => format!("Init:{reason}"),
        };
        initializing = true;
        break;
    }
    let initialized = pod.items_at(&["status", "conditions"]).iter().any(|condition| {
        condition.str_at(&["type"]) == Some("Initialized") && condition.str_at(&["status"]) == Some("True")
    });
    if !initializing || initialized {
        restarts = sidecar_restarts;
        let mut running = false;
        for state in pod.items_at(&["status", "containerStatuses"]).iter().rev() {
            restarts.add(state);
            let waiting = state.str_at(&["state", "waiting", "reason"]).unwrap_or_default();
            if !waiting.is_empty() {
                status = waiting.to_owned();
            } else if let Some(terminated) = state.at(&["state", "terminated"]) {
                status = terminated_reason(terminated);
            } else if state.bool_at(&["ready"]) == Some(true) && state.at(&["state", "running"]).is_some() {
                running = true;
                ready += 1;
            }
        }
        if status == "Completed" && running {
            let is_ready = pod.items_at(&["status", "conditions"]).iter().any(|condition| {
                condition.str_at(&["type"]) == Some("Ready") && condition.str_at(&["status"]) == Some("True")
            });
            status = if is_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if row.object.is_deleting() {
        if row.text(&["status", "reason"]) == "NodeLost" {
            status = "Unknown".to_owned();
        } else if !matches!(row.text(&["status", "phase"]), "Failed" | "Succeeded") {
            status = "Terminating".to_owned();
        }
    }
    total = total.max(ready);
    Summary { ready: format!("{ready}/{total}"), status, restarts: restarts.shown(row.now) }
}

fn terminated_reason(terminated: &Value) -> String {
    match terminated.str_at(&["reason"]).unwrap_or_default() {
        "" => match terminated.i64_at(&["signal"]).unwrap_or_default() {
            0 => format!("ExitCode:{}", terminated.i64_at(&["exitCode"]).unwrap_or_default()),
            signal => format!("Signal:{signal}"),
        },
        reason => reason.to_owned(),
    }
}

fn gates(pod: &Value) -> String {
    let gates = pod.items_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return super::NONE.to_owned();
    }
    let conditions = pod.items_at(&["status", "conditions"]);
    let passed = gates.iter().filter(|gate| {
        let kind = gate.str_at(&["conditionType"]);
        conditions.iter().any(|c| c.str_at(&["type"]) == kind && c.str_at(&["status"]) == Some("True"))
    });
    format!("{}/{}", passed.count(), gates.len())
}
