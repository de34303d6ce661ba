use cri::v1::{ContainerMetadata, ContainerStatus, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus};
use serde_json::{Value as Json, json};

use super::*;

/// `a` and `b` as containers, with what `spec` says besides.
fn pod(spec: Json) -> Pod {
    let mut full =
        json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": full})).unwrap()
}

/// A sandbox of which `true` is ready, and containers: name, `running`, `created`, `unknown` or an exit code.
fn state(ready: Option<bool>, containers: &[(&str, &str)]) -> PodState {
    let sandbox = ready.map(|ready| PodSandboxStatus {
        id: "s".into(),
        metadata: Some(PodSandboxMetadata { attempt: 3, ..Default::default() }),
        state: if ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }.into(),
        network: Some(PodSandboxNetworkStatus { ip: "10.0.0.1".into(), ..Default::default() }),
        ..Default::default()
    });
    let one = |(name, state): &(&str, &str)| {
        let (state, exit_code) = match *state {
            "running" => (ContainerState::ContainerRunning, 0),
            "created" => (ContainerState::ContainerCreated, 0),
            "unknown" => (ContainerState::ContainerUnknown, 0),
            code => (ContainerState::ContainerExited, code.parse().unwrap()),
        };
        let status = ContainerStatus {
            id: (*name).into(),
            metadata: Some(ContainerMetadata { name: (*name).into(), attempt: 0 }),
            state: state.into(),
            exit_code,
            ..Default::default()
        };
        runtime::Container { sandbox: "s".into(), status }
    };
    PodState { sandboxes: sandbox.into_iter().collect(), containers: containers.iter().map(one).collect() }
}

/// What is to be done, in short: `kill`, `sandbox N`, `init 0`, `start 1`, `end a: why`.
fn run(spec: Json, state: PodState, failed: &[(&str, Kind)]) -> Vec<String> {
    let verdicts = |id: &str, kind: Kind| failed.contains(&(id, kind)).then_some(Outcome::Failure);
    let actions = compute(&pod(spec), &state, &verdicts);
    let mut out = Vec::new();
    out.extend(actions.kill_pod.then(|| "kill".to_owned()));
    out.extend(actions.create_sandbox.then(|| format!("sandbox {}", actions.attempt)));
    out.extend(actions.kill.iter().map(|kill| format!("end {}: {}", kill.name, kill.message)));
    out.extend(actions.ephemeral.iter().map(|at| format!("debug {at}")));
    out.extend(actions.init.iter().map(|at| format!("init {at}")));
    out.extend(actions.containers.iter().map(|at| format!("start {at}")));
    out
}

fn check(spec: Json, state: PodState, failed: &[(&str, Kind)], expect: &[&str]) {
    let shown = format!("{spec} {state:?}");
    assert_eq!(run(spec, state, failed), expect, "{shown}");
}

#[test]
fn containers_are_started_and_restarted() {
    let never = || json!({"restartPolicy": "Never"});
    let on_failure = || json!({"restartPolicy": "OnFailure"});
    check(json!({}), state(None, &[]), &[], &["kill", "sandbox 0", "start 0", "start 1"]);
    check(json!({}), state(Some(true), &[]), &[], &["start 0", "start 1"]);
    check(json!({}), state(Some(true), &[("a", "running"), ("b", "running")]), &[], &[]);
    check(json!({}), state(Some(true), &[("a", "0"), ("b", "running")]), &[], &["start 0"]);
    check(json!({}), state(Some(true), &[("a", "created"), ("b", "running")]), &[], &["start 0"]);
    check(on_failure(), state(Some(true), &[("a", "0"), ("b", "1")]), &[], &["start 1"]);
    check(on_failure(), state(Some(true), &[("a", "0"), ("b", "0")]), &[], &["kill"]);
    check(never(), state(Some(true), &[("a", "1"), ("b", "running")]), &[], &[]);
    check(never(), state(Some(true), &[("a", "1"), ("b", "0")]), &[], &["kill"]);
    let unknown = "end a: Container is in \"Unknown\" state, try killing it before restart";
    check(json!({}), state(Some(true), &[("a", "unknown"), ("b", "running")]), &[], &[unknown, "start 0"]);
}

#[test]
fn a_sandbox_that_broke_is_replaced() {
    let broken = |containers: &[(&str, &str)]| state(Some(false), containers);
    check(json!({}), broken(&[("a", "1"), ("b", "1")]), &[], &["kill", "sandbox 4", "start 0", "start 1"]);
    check(json!({"restartPolicy": "Never"}), broken(&[("a", "1"), ("b", "1")]), &[], &["kill"]);
    check(json!({"restartPolicy": "Never"}), broken(&[]), &[], &["kill", "sandbox 4", "start 0", "start 1"]);
    check(
        json!({"restartPolicy": "OnFailure"}),
        broken(&[("a", "0"), ("b", "1")]),
        &[],
        &["kill", "sandbox 4", "start 1"],
    );
    check(json!({"restartPolicy": "OnFailure"}), broken(&[("a", "0"), ("b", "0")]), &[], &["kill"]);
    check(json!({"initContainers": [{"name": "i"}]}), broken(&[("a", "1")]), &[], &["kill", "sandbox 4", "init 0"]);
    check(json!({"hostNetwork": true}), state(Some(true), &[]), &[], &["kill", "sandbox 4", "start 0", "start 1"]);
}

#[test]
fn failed_probes_end_containers() {
    let both = || state(Some(true), &[("a", "running"), ("b", "running")]);
    let restarted = "end a: Container a failed liveness probe, will be restarted";
    check(json!({}), both(), &[("a", Kind::Liveness)], &[restarted, "start 0"]);
    let restarted = "end a: Container a failed startup probe, will be restarted";
    check(json!({}), both(), &[("a", Kind::Startup)], &[restarted, "start 0"]);
    check(json!({}), both(), &[("a", Kind::Readiness)], &[]);
    let ended = "end a: Container a failed liveness probe";
    check(json!({"restartPolicy": "Never"}), both(), &[("a", Kind::Liveness)], &[ended]);
}

#[test]
fn init_containers_come_first() {
    let two = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}, {"name": "j"}]});
    check(two("Always"), state(None, &[]), &[], &["kill", "sandbox 0", "init 0"]);
    check(two("Always"), state(Some(true), &[]), &[], &["init 0"]);
    check(two("Always"), state(Some(true), &[("i", "running")]), &[], &[]);
    check(two("Always"), state(Some(true), &[("i", "0")]), &[], &["init 1"]);
    check(two("Always"), state(Some(true), &[("i", "1")]), &[], &["init 0"]);
    check(two("Never"), state(Some(true), &[("i", "1")]), &[], &["kill"]);
    check(two("Always"), state(Some(true), &[("j", "running"), ("i", "0")]), &[], &[]);
    check(two("Always"), state(Some(true), &[("j", "0"), ("i", "0")]), &[], &["start 0", "start 1"]);
    // Records of init containers may be gone once the pod is initialized.
    check(two("Always"), state(Some(true), &[("a", "running")]), &[], &["start 1"]);
    check(two("Always"), state(Some(true), &[("a", "1")]), &[], &["start 0", "start 1"]);
}

#[test]
fn sidecars_are_kept_running() {
    let sidecar = || json!({"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}, {"name": "i"}]});
    check(sidecar(), state(Some(true), &[("s", "running")]), &[], &["init 1"]);
    check(sidecar(), state(Some(true), &[("s", "running"), ("i", "running")]), &[], &[]);
    check(sidecar(), state(Some(true), &[("s", "1"), ("i", "running")]), &[], &["init 0"]);
    check(sidecar(), state(Some(true), &[("s", "running"), ("i", "0")]), &[], &["start 0", "start 1"]);
    let running = [("s", "1"), ("i", "0"), ("a", "running"), ("b", "running")];
    check(sidecar(), state(Some(true), &running), &[], &["init 0"]);
    let done =
        json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}]});
    check(done, state(Some(true), &[("s", "running"), ("a", "0"), ("b", "0")]), &[], &["kill"]);
    let probed = || {
        json!({"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["x"]}}, "livenessProbe": {"exec": {"command": ["x"]}}}, {"name": "i"}]})
    };
    check(probed(), state(Some(true), &[("s", "running")]), &[], &[]);
    let failed = "end s: Init container s failed startup probe";
    check(probed(), state(Some(true), &[("s", "running")]), &[("s", Kind::Startup)], &[failed, "init 0"]);
}

#[test]
fn debug_containers_start_once() {
    let debug = || json!({"ephemeralContainers": [{"name": "d"}, {"name": "e"}]});
    let running = [("a", "running"), ("b", "running"), ("d", "0")];
    check(debug(), state(Some(true), &running), &[], &["debug 1"]);
}
