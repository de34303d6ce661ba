//! How many pods a metric asks for. Upstream: podautoscaler/replica_calculator.go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::metrics::{Sample, Samples};
use super::view::Tolerances;

/// How long a pod that starts may use more than later.
const CPU_INITIALIZATION: Duration = Duration::from_secs(5 * 60);
/// How long a pod may take to become ready for the first time.
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// What a target is compared with.
pub(super) enum Aim<'a> {
    /// So much for each pod.
    Average(i64),
    /// So many percent of what each pod requests, or one of its containers.
    Utilization { percent: i64, resource: &'a str, container: Option<&'a str> },
}

/// The same, once it is known what the pods request.
enum Target {
    Average(i64),
    Utilization { percent: i64, requests: BTreeMap<String, i64> },
}

/// What came of it: the size, the average use, and percent of the requests.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub replicas: i64,
    pub average: i64,
    pub percent: Option<i64>,
}

/// Why there is no size.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSize {
    #[error("no pods returned by selector while calculating replica count")]
    Pods,
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    Metrics,
    #[error("no metrics returned matched known pods")]
    Requests,
    #[error("missing request for {resource} in container {container} of Pod {pod}")]
    Request { resource: String, container: String, pod: String },
    #[error("missing pod-level request for {resource} in Pod {pod}")]
    PodRequest { resource: String, pod: String },
    #[error("container {container} not found in Pod {pod}")]
    Container { container: String, pod: String },
    #[error("unable to calculate ready pods: {0}")]
    Ready(Box<NoSize>),
}

/// Pods by what their samples are worth.
#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

/// The size for samples of each pod.
pub(super) fn by_pods(
    pods: &[Pod],
    mut samples: Samples,
    aim: &Aim<'_>,
    current: i64,
    tolerances: Tolerances,
    is_cpu: bool,
    now: Timestamp,
) -> Result<Outcome, NoSize> {
    if pods.is_empty() {
        return Err(NoSize::Pods);
    }
    let groups = group(pods, &samples, is_cpu, now);
    samples.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
    if samples.is_empty() {
        return Err(NoSize::Metrics);
    }
    let target = aim.at(pods)?;
    let (ratio, average, percent) = target.ratio(&samples)?;
    let outcome = |replicas: i64| Ok(Outcome { replicas, average, percent });
    let counts_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !counts_unready && groups.missing.is_empty() {
        return outcome(if tolerances.allow(ratio) { current } else { (ratio * groups.ready as f64).ceil() as i64 });
    }
    let nothing = Sample { value: 0, at: now, window: Duration::ZERO };
    for pod in &groups.missing {
        // What is not known is taken for what changes least.
        let value = if ratio < 1.0 { target.of(pod) } else { 0 };
        if ratio != 1.0 {
            samples.insert(pod.clone(), Sample { value, ..nothing });
        }
    }
    if counts_unready {
        samples.extend(groups.unready.iter().map(|pod| (pod.clone(), nothing)));
    }
    let (again, ..) = target.ratio(&samples)?;
    let turned = ratio < 1.0 && again > 1.0 || ratio > 1.0 && again < 1.0;
    if tolerances.allow(again) || turned {
        return outcome(current);
    }
    let replicas = (again * samples.len() as f64).ceil() as i64;
    let wrong_way = again < 1.0 && replicas > current || again > 1.0 && replicas < current;
    outcome(if wrong_way { current } else { replicas })
}

impl Aim<'_> {
    fn at(&self, pods: &[Pod]) -> Result<Target, NoSize> {
        Ok(match self {
            Aim::Average(target) => Target::Average(*target),
            Aim::Utilization { percent, resource, container } => {
                Target::Utilization { percent: *percent, requests: requests(pods, resource, *container)? }
            }
        })
    }
}

impl Target {
    fn ratio(&self, samples: &Samples) -> Result<(f64, i64, Option<i64>), NoSize> {
        match self {
            Target::Average(target) => {
                let total: i64 = samples.values().map(|sample| sample.value).sum();
                let average = total / samples.len() as i64;
                Ok((average as f64 / *target as f64, average, None))
            }
            Target::Utilization { percent, requests } => {
                let known = samples.iter().filter_map(|(pod, sample)| Some((sample.value, *requests.get(pod)?)));
                let (mut used, mut requested, mut count) = (0, 0, 0);
                for (value, request) in known {
                    used += value;
                    requested += request;
                    count += 1;
                }
                if requested == 0 {
                    return Err(NoSize::Requests);
                }
                let utilization = used * 100 / requested;
                Ok((utilization as f64 / *percent as f64, used / count, Some(utilization)))
            }
        }
    }

    /// What a pod without a sample is believed to use when the rest use little.
    fn of(&self, pod: &str) -> i64 {
        match self {
            Target::Average(target) => *target,
            Target::Utilization { percent, requests } => {
                requests.get(pod).copied().unwrap_or_default() * (*percent).max(100) / 100
            }
        }
    }
}

fn group(pods: &[Pod], samples: &Samples, is_cpu: bool, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            groups.ignored.insert(name);
        } else if phase == "Pending" {
            groups.unready.insert(name);
        } else {
            match samples.get(&name) {
                None => drop(groups.missing.insert(name)),
                Some(sample) if is_cpu && is_starting(pod, sample, now) => drop(groups.unready.insert(name)),
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// Whether what the pod uses says little about what it will.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let started = status.and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (ready, started) else { return true };
    let after = |time: Timestamp, pause: Duration| time.checked_add(pause).unwrap_or(Timestamp::MAX);
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_unready = ready.status == "False";
    if after(started.0, CPU_INITIALIZATION) > now {
        is_unready || sample.at < after(changed, sample.window)
    } else {
        is_unready && after(started.0, INITIAL_READINESS) > changed
    }
}

/// The size for one value that all pods share.
pub(super) fn by_value(
    pods: &[Pod],
    value: i64,
    target: i64,
    current: i64,
    tolerances: Tolerances,
) -> Result<i64, NoSize> {
    let ratio = value as f64 / target as f64;
    if current == 0 {
        return Ok(ratio.ceil() as i64);
    }
    if tolerances.allow(ratio) {
        return Ok(current);
    }
    if pods.is_empty() {
        return Err(NoSize::Ready(Box::new(NoSize::Pods)));
    }
    let is_running = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    let ready = pods.iter().filter(is_running).filter(|pod| rules::is_ready(pod)).count();
    Ok((ratio * ready as f64).ceil().min(f64::from(i32::MAX)) as i64)
}

/// The size for a value of which each pod shall have so much, and each one's share.
pub(super) fn by_share(value: i64, target: i64, replicas: i64, tolerances: Tolerances) -> (i64, i64) {
    let ratio = value as f64 / (target as f64 * replicas as f64);
    let wanted = (value as f64 / target as f64).ceil().min(f64::from(i32::MAX)) as i64;
    let share = if replicas == 0 { value } else { (value as f64 / replicas as f64).ceil() as i64 };
    (if tolerances.allow(ratio) { replicas } else { wanted }, share)
}

/// What each pod requests, in thousandths: one container or all that run on.
fn requests(pods: &[Pod], resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, NoSize> {
    let request = |pod: &Pod| {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let request = match spec.filter(|spec| container.is_none() && asks_as_a_whole(spec)) {
            Some(spec) => of_pod(spec, resource, &name)?,
            None => of_containers(spec, resource, container, &name)?,
        };
        Ok((name, request))
    };
    pods.iter().map(request).collect()
}

/// Whether the pod says what all its containers together request.
fn asks_as_a_whole(spec: &PodSpec) -> bool {
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let counts = |name: &String| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-");
    requests.is_some_and(|requests| requests.keys().any(counts))
}

fn of_pod(spec: &PodSpec, resource: &str, pod: &str) -> Result<i64, NoSize> {
    let amount = rules::pod_requests(spec).get(resource);
    match (amount, resource) {
        (0, _) => Err(NoSize::PodRequest { resource: resource.to_owned(), pod: pod.to_owned() }),
        (milli, "cpu") => Ok(milli),
        (whole, _) => Ok(whole.saturating_mul(1000)),
    }
}

fn of_containers(spec: Option<&PodSpec>, resource: &str, container: Option<&str>, pod: &str) -> Result<i64, NoSize> {
    let sidecars = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).filter(|c| rules::is_sidecar(c));
    let containers = spec.iter().flat_map(|spec| &spec.containers).chain(sidecars);
    let (mut total, mut found) = (0, false);
    for one in containers.filter(|one| container.is_none_or(|name| one.name == name)) {
        let request = one.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
        let request = request.ok_or_else(|| NoSize::Request {
            resource: resource.to_owned(),
            container: one.name.clone(),
            pod: pod.to_owned(),
        })?;
        total += rules::parse_quantity(request).milli_value();
        found = true;
    }
    match container.filter(|_| !found) {
        Some(container) => Err(NoSize::Container { container: container.to_owned(), pod: pod.to_owned() }),
        None => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: Tolerances = Tolerances { up: 0.1, down: 0.1 };

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    /// Pods `p0`, `p1` and so on by phase and readiness, started long ago, requesting one core each.
    fn pods(states: &[(&str, bool)]) -> Vec<Pod> {
        let pod = |(n, (phase, ready)): (usize, &(&str, bool))| {
            let ready = if *ready { "True" } else { "False" };
            let json = format!(
                r#"{{"metadata":{{"name":"p{n}"}},"spec":{{"containers":[{{"name":"c","resources":{{"requests":{{"cpu":"1"}}}}}}]}},
                    "status":{{"phase":"{phase}","startTime":"2026-01-01T00:00:00Z","conditions":
                    [{{"type":"Ready","status":"{ready}","lastTransitionTime":"2026-01-01T00:00:10Z"}}]}}}}"#
            );
            serde_json::from_str(&json).unwrap()
        };
        states.iter().enumerate().map(pod).collect()
    }

    fn samples(values: &[i64]) -> Samples {
        let sample = |value: i64| Sample { value, at: now(), window: Duration::from_secs(30) };
        values.iter().enumerate().map(|(n, value)| (format!("p{n}"), sample(*value))).collect()
    }

    #[test]
    fn sizes_follow_utilization() {
        let check = |states: &[(&str, bool)], values: &[i64], percent: i64, expect: (i64, i64)| {
            let pods = pods(states);
            let aim = Aim::Utilization { percent, resource: "cpu", container: None };
            let outcome = by_pods(&pods, samples(values), &aim, states.len() as i64, EVEN, true, now()).unwrap();
            assert_eq!((outcome.replicas, outcome.percent.unwrap()), expect, "{states:?} {values:?}");
        };
        const UP: (&str, bool) = ("Running", true);
        check(&[UP, UP, UP], &[300, 500, 700], 30, (5, 50));
        check(&[UP, UP, UP], &[510, 500, 520], 50, (3, 51));
        check(&[UP, UP, UP, UP], &[100, 100, 100, 100], 50, (1, 10));
        // One that never was ready is taken for idle when the size grows.
        check(&[UP, UP, ("Running", false)], &[900, 900, 900], 50, (4, 90));
        // One without a sample: idle when growing, busy when shrinking.
        check(&[UP, UP, UP], &[900, 900], 50, (4, 90));
        check(&[UP, UP, UP], &[100, 100], 50, (3, 10));
        check(&[UP, UP, ("Failed", false)], &[900, 900, 900], 50, (4, 90));
    }

    #[test]
    fn sizes_follow_values() {
        let two = pods(&[("Running", true), ("Running", true)]);
        assert_eq!(by_value(&two, 30_000, 10_000, 2, EVEN).unwrap(), 6);
        assert_eq!(by_value(&two, 10_500, 10_000, 2, EVEN).unwrap(), 2);
        assert_eq!(by_value(&[], 25_000, 10_000, 0, EVEN).unwrap(), 3);
        let why = by_value(&[], 25_000, 10_000, 2, EVEN).unwrap_err().to_string();
        assert_eq!(why, "unable to calculate ready pods: no pods returned by selector while calculating replica count");
        assert_eq!(by_share(35_000, 10_000, 2, EVEN), (4, 17_500));
        assert_eq!(by_share(20_500, 10_000, 2, EVEN), (2, 10_250));
        assert!(by_pods(&two, Samples::new(), &Aim::Average(1), 2, EVEN, false, now()).is_err());
    }

    #[test]
    fn requests_are_the_pods_or_its_containers() {
        let check = |spec: &str, container: Option<&str>, expect: &str| {
            let pod = serde_json::from_str(&format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#)).unwrap();
            let said = match requests(&[pod], "cpu", container) {
                Ok(requests) => requests["p"].to_string(),
                Err(why) => why.to_string(),
            };
            assert_eq!(said, expect, "{spec}");
        };
        let two = r#"{"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}},{"name":"b","resources":{"requests":{"cpu":"500m"}}}]}"#;
        check(two, None, "1500");
        check(two, Some("b"), "500");
        check(two, Some("c"), "container c not found in Pod p");
        check(r#"{"containers":[{"name":"a"}]}"#, None, "missing request for cpu in container a of Pod p");
        let whole = r#"{"resources":{"requests":{"cpu":"2"}},"containers":[{"name":"a"}]}"#;
        check(whole, None, "2000");
        check(whole, Some("a"), "missing request for cpu in container a of Pod p");
        let memory = r#"{"resources":{"requests":{"memory":"1Gi"}},"containers":[{"name":"a"}]}"#;
        check(memory, None, "missing pod-level request for cpu in Pod p");
    }

    #[test]
    fn what_is_missing_first_is_told() {
        let pending = pods(&[("Pending", false)]);
        let aim = Aim::Utilization { percent: 50, resource: "memory", container: None };
        let check = |pods: &[Pod], values: &[i64], expect: &str| {
            let outcome = by_pods(pods, samples(values), &aim, 1, EVEN, false, now());
            assert_eq!(outcome.unwrap_err().to_string(), expect);
        };
        check(&[], &[1], "no pods returned by selector while calculating replica count");
        check(&pending, &[1], "did not receive metrics for targeted pods (pods might be unready)");
        check(&pods(&[("Running", true)]), &[1], "missing request for memory in container c of Pod p0");
    }
}
