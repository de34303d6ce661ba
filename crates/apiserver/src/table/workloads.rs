//! Deployments, StatefulSets, Jobs and what scales them. Upstream: printDeployment, printJob, printHorizontalPodAutoscaler.

use apimachinery::Value;
use jiff::Timestamp;

use super::{NONE, Row, duration};

pub(super) fn cell(row: &Row<'_>, column: &str) -> Option<Value> {
    let number = |path: &[&str]| row.value.i64_at(path).unwrap_or_default();
    Some(
        match (row.object.kind(), column) {
            ("Deployment" | "StatefulSet", "Ready") => {
                format!("{}/{}", number(&["status", "readyReplicas"]), number(&["spec", "replicas"]))
            }
            ("ControllerRevision", "Controller") => match row.object.controller() {
                Some(owner) => {
                    let group =
                        owner.api_version.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
                    format!("{}{group}/{}", owner.kind.to_ascii_lowercase(), owner.name)
                }
                None => NONE.to_owned(),
            },
            ("Job", "Status") => job_status(row),
            ("Job", "Completions") => completions(row),
            ("Job", "Duration") => job_duration(row),
            ("CronJob", "Timezone") => row.text_or_none(&["spec", "timeZone"]),
            ("CronJob", "Suspend") => match row.value.bool_at(&["spec", "suspend"]) {
                Some(true) => "True".to_owned(),
                _ => "False".to_owned(),
            },
            ("CronJob", "Last Schedule") => match row.text(&["status", "lastScheduleTime"]) {
                "" => NONE.to_owned(),
                _ => row.since(&["status", "lastScheduleTime"]),
            },
            ("HorizontalPodAutoscaler", "Reference") => {
                let part = |key: &str| row.text(&["spec", "scaleTargetRef", key]);
                format!("{}/{}", part("kind"), part("name"))
            }
            ("HorizontalPodAutoscaler", "Targets") => targets(row),
            ("HorizontalPodAutoscaler", "MinPods") => {
                row.value.i64_at(&["spec", "minReplicas"]).map_or_else(|| "<unset>".to_owned(), |n| n.to_string())
            }
            ("PodDisruptionBudget", "Min Available") => int_or_string(row, &["spec", "minAvailable"]),
            ("PodDisruptionBudget", "Max Unavailable") => int_or_string(row, &["spec", "maxUnavailable"]),
            _ => return None,
        }
        .into(),
    )
}

fn int_or_string(row: &Row<'_>, path: &[&str]) -> String {
    match row.value.at(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(_)) => row.value.i64_at(path).unwrap_or_default().to_string(),
        _ => "N/A".to_owned(),
    }
}

fn job_status(row: &Row<'_>) -> String {
    let holds = |kind: &str| {
        row.value
            .items_at(&["status", "conditions"])
            .iter()
            .any(|condition| condition.str_at(&["type"]) == Some(kind) && condition.str_at(&["status"]) == Some("True"))
    };
    let known = ["Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"];
    match known.into_iter().find(|kind| holds(kind)) {
        _ if row.object.is_deleting() => "Terminating",
        Some(kind) => kind,
        None => "Running",
    }
    .to_owned()
}

fn completions(row: &Row<'_>) -> String {
    let done = row.value.i64_at(&["status", "succeeded"]).unwrap_or_default();
    match (row.value.i64_at(&["spec", "completions"]), row.value.i64_at(&["spec", "parallelism"]).unwrap_or_default()) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    }
}

fn job_duration(row: &Row<'_>) -> String {
    let time = |path: &[&str]| row.text(path).parse::<Timestamp>().ok();
    match (time(&["status", "startTime"]), time(&["status", "completionTime"])) {
        (None, _) => String::new(),
        (Some(start), Some(end)) => duration::between(start, end),
        (Some(start), None) => duration::between(start, row.now),
    }
}

fn targets(row: &Row<'_>) -> String {
    let specs = row.value.items_at(&["spec", "metrics"]);
    if specs.is_empty() {
        return match row.value.i64_at(&["spec", "targetCPUUtilizationPercentage"]) {
            Some(target) => {
                let now = row.value.i64_at(&["status", "currentCPUUtilizationPercentage"]);
                format!("cpu: {}/{target}%", now.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%")))
            }
            None => NONE.to_owned(),
        };
    }
    let current = row.value.items_at(&["status", "currentMetrics"]);
    let texts: Vec<String> =
        specs.iter().enumerate().map(|(index, metric)| target(metric, current.get(index))).collect();
    match texts.len() {
        n if n > 2 => format!("{} + {} more...", texts[..2].join(", "), n - 2),
        _ => texts.join(", "),
    }
}

fn target(metric: &Value, current: Option<&Value>) -> String {
    let (member, name) = match metric.str_at(&["type"]).unwrap_or_default() {
        "Resource" => ("resource", metric.str_at(&["resource", "name"])),
        "ContainerResource" => ("containerResource", metric.str_at(&["containerResource", "name"])),
        "Pods" => ("pods", None),
        "Object" => ("object", None),
        "External" => ("external", None),
        _ => return "<unknown type>".to_owned(),
    };
    let prefix = name.map(|name| format!("{name}: ")).unwrap_or_default();
    let now =
        |key: &str| current.and_then(|current| current.at(&[member, "current", key])).filter(|value| !value.is_null());
    let wanted = |key: &str| metric.at(&[member, "target", key]).filter(|value| !value.is_null());
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(percent) = wanted("averageUtilization") {
        let now = now("averageUtilization").map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%"));
        return format!("{prefix}{now}/{percent}%");
    }
    if let Some(average) = wanted("averageValue") {
        let now = now("averageValue").map_or_else(|| "<unknown>".to_owned(), plain);
        return format!("{prefix}{now}/{} (avg)", plain(average))
            .replace(" (avg)", if member == "pods" || name.is_some() { "" } else { " (avg)" });
    }
    let now = now("value").map_or_else(|| "<unknown>".to_owned(), plain);
    format!("{prefix}{now}/{}", wanted("value").map(plain).unwrap_or_default())
}
