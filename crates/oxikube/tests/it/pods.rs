//! What a pod's manifest asks for, seen through the real kubectl on one cluster: images, lives of containers, volumes, names.

mod containers;
mod images;
mod services;
mod volumes;

use std::time::Duration;

use testkit::machine::Machine;
use tokio::time::Instant;

use crate::support::{SOON, Step, every, jsonpath, load_images, started};

#[test]
fn pods_do_what_their_manifests_say() {
    let machine = started("pods");
    load_images(&machine);
    // What takes its time starts first; the rest is looked at meanwhile.
    containers::begin(&machine);
    volumes::begin(&machine);
    services::begin(&machine);
    let _registries = images::begin(&machine);
    let steps: [Step; 13] = [
        ("volumes::missing_folder", volumes::missing_folder),
        ("images::pulled", images::pulled),
        ("images::refused", images::refused),
        ("containers::ended", containers::ended),
        ("containers::several_in_one_pod", containers::several_in_one_pod),
        ("volumes::environment", volumes::environment),
        ("volumes::files", volumes::files),
        ("services::names_and_addresses", services::names_and_addresses),
        ("services::affinity", services::affinity),
        ("services::unknown_names", services::unknown_names),
        ("containers::probes", containers::probes),
        ("containers::crashing", containers::crashing),
        ("containers::deleted", containers::deleted),
    ];
    every(&machine, &steps);
}

/// Creates pods: each its name and what its spec says beyond the shortest grace period, as YAML in flow style.
fn create(machine: &Machine, pods: &[(&str, &str)]) {
    let manifests: String = pods
        .iter()
        .map(|(name, spec)| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}\n"
            )
        })
        .collect();
    machine.kubectl_with("create -f -", &manifests).ok();
}

/// A spec of one busybox that runs `script`, with `more` fields of the container and then of the pod.
fn busybox(script: &str, more: &str) -> String {
    format!(
        "  containers:\n  - name: main\n    image: oxikube.local/busybox:1\n    command: [sh, -c, {}]\n{more}",
        serde_json::json!(script)
    )
}

/// Waits until the jsonpath of the pod gives `expect`.
#[track_caller]
fn shows(machine: &Machine, pod: &str, path: &str, expect: &str) {
    machine.eventually_or(&format!("{pod} {path} = {expect}"), SOON, || {
        let is = jsonpath(machine, &format!("pod {pod}"), path);
        if is == expect { Ok(()) } else { Err(is) }
    });
}

/// Waits until one of the pod's events has all `parts`.
#[track_caller]
fn event(machine: &Machine, pod: &str, parts: &[&str]) {
    machine.eventually_or(&format!("an event of {pod} with {parts:?}"), SOON, || {
        let events = jsonpath(
            machine,
            &format!("events --field-selector involvedObject.name={pod}"),
            "{range .items[*]}{.type} {.reason} {.message}{\"\\n\"}{end}",
        );
        match events.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            true => Ok(()),
            false => Err(events),
        }
    });
}

fn ready(machine: &Machine, pod: &str) {
    machine.kubectl(&format!("wait --for=condition=Ready pod/{pod} --timeout=60s")).ok();
}

/// Runs a line of shell in a pod.
fn sh(machine: &Machine, pod: &str, line: &str) -> String {
    machine.kubectl_args(&["exec", pod, "--", "sh", "-c", line]).ok()
}

/// Waits until the pod's log satisfies `fits`.
#[track_caller]
fn log(machine: &Machine, args: &str, fits: impl Fn(&str) -> bool) {
    machine.eventually_or(&format!("logs {args}"), SOON, || {
        let said = machine.kubectl(&format!("logs {args}"));
        if said.code == Some(0) && fits(&said.out) { Ok(()) } else { Err(said.out + &said.err) }
    });
}

fn taken(since: Instant) -> Duration {
    env::Env::system().monotonic().saturating_duration_since(since)
}
