use cri::v1::{
    ContainerMetadata, ContainerState, ContainerStatus, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus,
};
use serde_json::{Value as Json, json};

use super::*;
use crate::runtime::Container;

/// Everything has started, and is ready but for those named.
struct Unready(&'static [&'static str]);

impl Readiness for Unready {
    fn started(&self, _: &str, _: &str) -> bool {
        true
    }

    fn ready(&self, name: &str, _: &str) -> bool {
        !self.0.contains(&name)
    }
}

struct Case {
    spec: Json,
    /// Name and `running` or an exit code, the newest first.
    containers: Vec<(&'static str, &'static str)>,
    sandbox: bool,
    old: Json,
    waiting: Vec<(&'static str, &'static str)>,
    unready: &'static [&'static str],
    ended: bool,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            spec: json!({"containers": [{"name": "a"}]}),
            containers: Vec::new(),
            sandbox: true,
            old: json!({}),
            waiting: Vec::new(),
            unready: &[],
            ended: false,
        }
    }
}

fn state(case: &Case) -> PodState {
    let sandbox = PodSandboxStatus {
        id: "s".into(),
        metadata: Some(PodSandboxMetadata::default()),
        state: PodSandboxState::SandboxReady.into(),
        network: Some(PodSandboxNetworkStatus { ip: "10.0.0.1".into(), ..Default::default() }),
        ..Default::default()
    };
    let count = case.containers.len();
    let containers = case.containers.iter().enumerate().map(|(at, (name, state))| {
        let running = *state == "running";
        let status = ContainerStatus {
            id: format!("id-{}", count - at),
            metadata: Some(ContainerMetadata { name: (*name).into(), attempt: 0 }),
            state: if running { ContainerState::ContainerRunning } else { ContainerState::ContainerExited }.into(),
            exit_code: state.parse().unwrap_or(0),
            reason: match *state {
                "running" => "",
                "0" => "Completed",
                _ => "Error",
            }
            .into(),
            ..Default::default()
        };
        Container { sandbox: "s".into(), status }
    });
    PodState { sandboxes: if case.sandbox { vec![sandbox] } else { Vec::new() }, containers: containers.collect() }
}

fn run(case: &Case) -> (PodStatus, bool) {
    let mut spec = json!({"restartPolicy": "Always"});
    spec.as_object_mut().unwrap().extend(case.spec.as_object().unwrap().clone());
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "p", "generation": 2}, "spec": spec, "status": case.old}))
            .unwrap();
    let old: PodStatus = serde_json::from_value(case.old.clone()).unwrap();
    let waiting = case.waiting.iter().map(|(name, reason)| ((*name).to_owned(), (*reason, "why".to_owned())));
    let generated = generate(&Facts {
        pod: &pod,
        old: &old,
        state: &state(case),
        messages: &Messages::new(),
        waiting: &waiting.collect(),
        actuated: &Default::default(),
        resize: &Default::default(),
        readiness: &Unready(case.unready),
        host_ips: &["192.0.2.1".parse().unwrap()],
        runtime_name: "oxikube",
        now: Timestamp::UNIX_EPOCH,
        ended: case.ended,
        failure: None,
    });
    (generated.status, generated.ends)
}

#[test]
fn phases_follow_containers() {
    let check = |policy: &str, containers: &[(&'static str, &'static str)], ended: bool, expect: &str, ends: bool| {
        let spec = json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
        let (status, found) = run(&Case { spec, containers: containers.to_vec(), ended, ..Case::default() });
        assert_eq!((status.phase.as_deref().unwrap(), found), (expect, ends), "{policy} {containers:?} {ended}");
    };
    check("Always", &[], false, "Pending", false);
    check("Always", &[("a", "running")], false, "Pending", false);
    check("Always", &[("a", "running"), ("b", "running")], false, "Running", false);
    check("Always", &[("a", "running"), ("b", "1")], false, "Running", false);
    check("Always", &[("a", "0"), ("b", "0")], false, "Running", false);
    check("OnFailure", &[("a", "0"), ("b", "1")], false, "Running", false);
    check("OnFailure", &[("a", "0"), ("b", "0")], false, "Succeeded", true);
    check("Never", &[("a", "0"), ("b", "1")], false, "Failed", true);
    check("Never", &[("a", "0"), ("b", "running")], false, "Running", false);
    check("Always", &[("a", "0"), ("b", "0")], true, "Succeeded", true);
    check("Always", &[("a", "0"), ("b", "137")], true, "Failed", true);
}

#[test]
fn initialization_decides_first() {
    let check = |policy: &str, containers: &[(&'static str, &'static str)], expect: (&str, &str)| {
        let spec = json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        let (status, _) = run(&Case { spec, containers: containers.to_vec(), ..Case::default() });
        let conditions = status.conditions.unwrap();
        let initialized = conditions.iter().find(|c| c.type_ == "Initialized").unwrap();
        assert_eq!((status.phase.as_deref().unwrap(), initialized.status.as_str()), expect, "{containers:?}");
    };
    check("Always", &[], ("Pending", "False"));
    check("Always", &[("i", "running")], ("Pending", "False"));
    check("Always", &[("i", "1")], ("Pending", "False"));
    check("Never", &[("i", "1")], ("Failed", "False"));
    check("Always", &[("i", "0")], ("Pending", "True"));
    check("Always", &[("a", "running"), ("i", "0")], ("Running", "True"));
}

/// The status of the container `a`, in short.
fn container(case: &Case) -> Json {
    let (status, _) = run(case);
    let status = status.container_statuses.unwrap().into_iter().find(|status| status.name == "a").unwrap();
    let shown = |state: Option<k8s_openapi::api::core::v1::ContainerState>| {
        let state = state.unwrap_or_default();
        match (state.waiting, state.running, state.terminated) {
            (Some(waiting), ..) => format!("waiting {}", waiting.reason.unwrap_or_default()),
            (_, Some(_), _) => "running".to_owned(),
            (.., Some(end)) => format!("ended {} {}", end.exit_code, end.reason.unwrap_or_default()),
            _ => String::new(),
        }
    };
    json!([shown(status.state), shown(status.last_state), status.restart_count, status.ready])
}

#[test]
fn containers_tell_their_states() {
    let old = |state: Json, restarts: i32| {
        json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "",
        "ready": true, "restartCount": restarts, "state": state}]})
    };
    let running = || json!({"running": {}});
    let check = |case: Case, expect: Json| assert_eq!(container(&case), expect);
    check(Case::default(), json!(["waiting ContainerCreating", "", 0, false]));
    check(
        Case { spec: json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}), ..Case::default() },
        json!(["waiting PodInitializing", "", 0, false]),
    );
    check(
        Case { waiting: vec![("a", "ErrImagePull")], ..Case::default() },
        json!(["waiting ErrImagePull", "", 0, false]),
    );
    check(Case { containers: vec![("a", "running")], ..Case::default() }, json!(["running", "", 0, true]));
    check(
        Case { containers: vec![("a", "running")], unready: &["a"], ..Case::default() },
        json!(["running", "", 0, false]),
    );
    check(
        Case { containers: vec![("a", "running"), ("a", "1")], ..Case::default() },
        json!(["running", "ended 1 Error", 0, true]),
    );
    check(
        Case { containers: vec![("a", "1")], waiting: vec![("a", "CrashLoopBackOff")], ..Case::default() },
        json!(["waiting CrashLoopBackOff", "ended 1 Error", 0, false]),
    );
    check(
        Case { sandbox: false, old: old(running(), 2), ..Case::default() },
        json!(["waiting ContainerCreating", "ended 137 ContainerStatusUnknown", 3, false]),
    );
    check(
        Case { sandbox: false, old: old(running(), 2), ended: true, ..Case::default() },
        json!(["ended 137 ContainerStatusUnknown", "", 2, false]),
    );
}

#[test]
fn readiness_has_reasons() {
    let check = |case: Case, expect: (&str, &str, &str)| {
        let (status, _) = run(&case);
        let ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
        let (reason, message) = (ready.reason.unwrap_or_default(), ready.message.unwrap_or_default());
        assert_eq!((ready.status.as_str(), reason.as_str(), message.as_str()), expect);
    };
    let running = || vec![("a", "running")];
    check(Case { containers: running(), ..Case::default() }, ("True", "", ""));
    check(
        Case { containers: running(), unready: &["a"], ..Case::default() },
        ("False", "ContainersNotReady", "containers with unready status: [a]"),
    );
    let gated = || json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]});
    check(
        Case { spec: gated(), containers: running(), ..Case::default() },
        ("False", "ReadinessGatesNotReady", "corresponding condition of pod readiness gate \"x/y\" does not exist."),
    );
    check(
        Case {
            spec: gated(),
            containers: running(),
            old: json!({"conditions": [{"type": "x/y", "status": "False"}]}),
            ..Case::default()
        },
        ("False", "ReadinessGatesNotReady", "the status of pod readiness gate \"x/y\" is not \"True\", but False"),
    );
    check(
        Case {
            spec: gated(),
            containers: running(),
            old: json!({"conditions": [{"type": "x/y", "status": "True"}]}),
            ..Case::default()
        },
        ("True", "", ""),
    );
}

#[test]
fn times_and_final_phases_stay() {
    let old = json!({"phase": "Failed", "reason": "Evicted", "startTime": "2026-01-01T00:00:00Z", "conditions":
        [{"type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-02T00:00:00Z"}]});
    let (status, ends) = run(&Case { old, ..Case::default() });
    assert_eq!((status.phase.as_deref(), status.reason.as_deref(), ends), (Some("Failed"), Some("Evicted"), true));
    assert_eq!(status.start_time.unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    let initialized = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Initialized").unwrap();
    assert_eq!(initialized.last_transition_time.unwrap().0.to_string(), "2026-01-02T00:00:00Z");
    assert_eq!(initialized.observed_generation, Some(2));
}
