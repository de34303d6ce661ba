//! Lives of containers: in order, side by side, ending, failing, probed, deleted.

use std::time::Duration;

use testkit::machine::Machine;

use super::{busybox, create, event, jsonpath, log, ready, sh, shows, taken};
use crate::support::SOON;

const RESTARTS: &str = "{.status.containerStatuses[0].restartCount}";
const ENDED: &str = "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}";
const NEVER: &str = "  restartPolicy: Never\n";

/// A container's probe by a command, which may take its time on a busy machine.
fn probe(kind: &str, command: &str, failures: u32) -> String {
    format!(
        "    {kind}Probe: {{exec: {{command: [{command}]}}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: {failures}}}\n"
    )
}

pub fn begin(machine: &Machine) {
    let scratch = "  volumes: [{name: d, emptyDir: {}}]\n";
    let mount = "volumeMounts: [{name: d, mountPath: /d}]";
    let crash = format!("    {mount}\n{scratch}");
    let one = |name: &str, script: &str| {
        let script = serde_json::json!(script);
        format!("  - {{name: {name}, image: 'oxikube.local/busybox:1', command: [sh, -c, {script}], {mount}}}\n")
    };
    let ordered = format!(
        "{NEVER}  initContainers:\n{}{}  containers:\n{}{scratch}",
        one("first", "sleep 1; echo 1 >>/d/order"),
        one("second", "echo 2 >>/d/order"),
        one("main", "cat /d/order"),
    );
    let broken = format!(
        "{NEVER}  initContainers:\n{}  containers:\n{}{scratch}",
        one("first", "exit 6"),
        one("main", "echo never")
    );
    let pair = format!(
        "  containers:\n{}{}{scratch}",
        one("a", "echo early; echo shared >/d/word; while sleep 1; do echo tick; done"),
        one("b", "until cat /d/word 2>/dev/null; do sleep 0.1; done; exec sleep 1000"),
    );
    let hungry = format!(
        "{NEVER}  containers: [{{name: main, image: 'oxikube.local/busybox:1', command: [tail, /dev/zero], resources: {{limits: {{memory: 16Mi}}}}}}]\n"
    );
    let live = probe("liveness", "test, -e, /ok", 1);
    let late = probe("startup", "test, -e, /ok", 40) + &probe("liveness", "test, -e, /ok", 1);
    create(
        machine,
        &[
            ("crash", &busybox("echo x >>/d/runs; echo run $(wc -l </d/runs); exit 3", &crash)),
            ("live", &busybox("touch /ok; sleep 3; rm /ok; exec sleep 1000", &live)),
            ("late", &busybox("sleep 3; touch /ok; exec sleep 1000", &late)),
            ("stuck", &busybox("exec sleep 1000", &probe("startup", "test, -e, /ok", 2))),
            ("reader", &busybox("exec sleep 1000", &probe("readiness", "test, -e, /ok", 1))),
            ("ordered", &ordered),
            ("broken", &broken),
            ("pair", &pair),
            ("fails", &busybox("exit 4", NEVER)),
            ("hungry", &hungry),
        ],
    );
}

pub fn ended(machine: &Machine) {
    create(machine, &[("brief", &busybox("for i in 1 2 3; do echo $i; sleep 1; done", NEVER))]);
    shows(machine, "ordered", ENDED, "Succeeded 0 Completed");
    log(machine, "ordered", |log| log == "1\n2\n");
    shows(
        machine,
        "broken",
        "{.status.phase} {.status.initContainerStatuses[0].state.terminated.exitCode}",
        "Failed 6",
    );
    assert!(machine.kubectl("get pod broken").ok().contains("Init:Error"));
    shows(machine, "fails", ENDED, "Failed 4 Error");
    shows(machine, "hungry", ENDED, "Failed 137 OOMKilled");
    machine.eventually("brief to start", SOON, || {
        let phase = jsonpath(machine, "pod brief", "{.status.phase}");
        (phase == "Running" || phase == "Succeeded").then_some(())
    });
    assert_eq!(machine.kubectl("logs -f brief").ok(), "1\n2\n3\n");
    shows(machine, "brief", ENDED, "Succeeded 0 Completed");
    assert_eq!(machine.kubectl("logs brief --tail=1").ok(), "3\n");
}

pub fn several_in_one_pod(machine: &Machine) {
    ready(machine, "pair");
    log(machine, "pair -c b", |log| log == "shared\n");
    log(machine, "pair -c a", |log| log.starts_with("early\ntick\n"));
    let said = machine.kubectl("logs pair");
    assert!(said.err.contains("Defaulted container \"a\" out of: a, b"), "{said:?}");
    assert!(said.ok().starts_with("early\n"));
    log(machine, "pair -c a --since=3s", |log| log.contains("tick\n") && !log.contains("early"));
    assert!(machine.kubectl("logs pair -c c").failed().contains("container c is not valid for pod pair"));
    assert_eq!(machine.kubectl("exec pair -c b -- cat /d/word").ok(), "shared\n");
}

pub fn probes(machine: &Machine) {
    event(machine, "live", &["Warning Unhealthy Liveness probe failed"]);
    event(machine, "live", &["Normal Killing Container main failed liveness probe, will be restarted"]);
    event(machine, "stuck", &["Warning Unhealthy Startup probe failed"]);
    event(machine, "stuck", &["Normal Killing Container main failed startup probe, will be restarted"]);
    for pod in ["live", "stuck"] {
        machine.eventually(&format!("{pod} to restart"), SOON, || {
            (jsonpath(machine, &format!("pod {pod}"), RESTARTS) != "0").then_some(())
        });
    }
    ready(machine, "late");
    shows(
        machine,
        "late",
        "{.status.containerStatuses[0].started} {.status.containerStatuses[0].restartCount}",
        "true 0",
    );

    let is_ready = "{.status.containerStatuses[0].ready} {.status.conditions[?(@.type==\"Ready\")].status}";
    event(machine, "reader", &["Warning Unhealthy Readiness probe failed"]);
    shows(machine, "reader", is_ready, "false False");
    sh(machine, "reader", "touch /ok");
    shows(machine, "reader", is_ready, "true True");
    sh(machine, "reader", "rm /ok");
    shows(machine, "reader", is_ready, "false False");
    shows(machine, "reader", RESTARTS, "0");
    machine.kubectl("delete pod live stuck late reader --now --wait=false").ok();
}

pub fn crashing(machine: &Machine) {
    machine.eventually_or("a second restart", SOON, || {
        let count = jsonpath(machine, "pod crash", RESTARTS);
        if count.parse::<u32>().is_ok_and(|count| count >= 2) { Ok(()) } else { Err(count) }
    });
    shows(machine, "crash", "{.status.containerStatuses[0].state.waiting.reason}", "CrashLoopBackOff");
    shows(
        machine,
        "crash",
        "{.status.phase} {.status.containerStatuses[0].lastState.terminated.exitCode}",
        "Running 3",
    );
    event(machine, "crash", &["Warning BackOff Back-off restarting failed container main in pod crash_default("]);
    let run = |args: &str| machine.kubectl(args).ok().trim().trim_start_matches("run ").parse::<u32>().unwrap();
    assert!(run("logs crash --previous") >= 2, "the run before");
    assert!(run("logs crash") >= 3);
    machine.kubectl("delete pod crash --now --wait=false").ok();
}

/// The hook first, then SIGTERM, and SIGKILL when the grace period is over.
pub fn deleted(machine: &Machine) {
    let folder = machine.folder().join("kept");
    std::fs::create_dir(&folder).unwrap();
    let kept = format!(
        "    volumeMounts: [{{name: d, mountPath: /d}}]\n  volumes: [{{name: d, hostPath: {{path: {}}}}}]\n",
        folder.display()
    );
    let hook = "    lifecycle: {preStop: {exec: {command: [sh, -c, 'sleep 1; echo hook >>/d/log']}}}\n".to_owned();
    let polite = "trap 'echo term >>/d/log; exit 0' TERM; while true; do sleep 0.2; done";
    create(
        machine,
        &[("polite", &busybox(polite, &(hook + &kept))), ("stubborn", &busybox("trap '' TERM; sleep 1000", ""))],
    );
    ready(machine, "polite");
    ready(machine, "stubborn");
    let env = env::Env::system();
    let begin = env.monotonic();
    machine.kubectl("delete pod polite --grace-period=120").ok();
    assert!(taken(begin) < Duration::from_secs(120), "it left before its time was over");
    assert_eq!(std::fs::read_to_string(folder.join("log")).unwrap(), "hook\nterm\n");
    let begin = env.monotonic();
    machine.kubectl("delete pod stubborn --grace-period=3").ok();
    let taken = taken(begin);
    assert!(taken >= Duration::from_secs(3) && taken < SOON, "{taken:?}");
}
