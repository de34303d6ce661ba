//! Clients that others made, each doing what programs on it do; the programs are in `conformance`, `cargo xtask clients` makes them ready.

use std::path::Path;
use std::process::Command;

use testkit::machine::Machine;
use testkit::peers;

use crate::support::{Step, every, load_images, started};

/// Echoes on 9000 what it is sent, and says a line.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sh, -c, 'echo said; exec nc -ll -p 9000 -e cat']
    readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
"#;

/// What each of them does.
const STEPS: [&str; 4] = ["objects", "watch", "apply", "streams"];

#[test]
fn clients_of_others_work() {
    let machine = started("clients");
    load_images(&machine);
    machine.kubectl_with("create -f -", POD).ok();
    machine.kubectl("wait --for=condition=Ready pod/talks --timeout=60s").ok();
    let steps: [Step; 4] = [("rust", rust), ("python", python), ("node", node), ("go", go)];
    every(&machine, &steps);
}

/// Runs a client's program, which has to get through all `steps`.
fn run(machine: &Machine, mut command: Command, steps: &[&str]) {
    command.args(steps).env("KUBECONFIG", machine.folder().join(".kube/config"));
    let said = machine.run(command).ok();
    assert_eq!(said.matches(": done").count(), steps.len(), "{said}");
}

/// Where a client's program is.
fn source(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/clients").join(path)
}

/// What `cargo xtask clients` made.
fn made(path: &str) -> std::path::PathBuf {
    let path = peers::folder().join(path);
    assert!(path.exists(), "{} is missing: run cargo xtask clients first", path.display());
    path
}

fn rust(machine: &Machine) {
    run(machine, machine.command(made("client-rust/debug/kube-client")), &STEPS);
}

fn python(machine: &Machine) {
    let mut command = machine.command(made("client-python/bin/python"));
    command.arg("-B").arg(source("python/client.py"));
    run(machine, command, &STEPS);
}

fn node(machine: &Machine) {
    // Modules are looked for where the program is.
    let program = machine.folder().join("client.js");
    std::fs::copy(source("node/client.js"), &program).unwrap();
    std::fs::copy(source("node/package.json"), machine.folder().join("package.json")).unwrap();
    std::os::unix::fs::symlink(made("client-node/node_modules"), machine.folder().join("node_modules")).unwrap();
    let mut command = machine.command("node");
    command.arg(program);
    run(machine, command, &STEPS);
}

fn go(machine: &Machine) {
    run(machine, machine.command(peers::path("client-go")), &[&STEPS[..], &["elections"]].concat());
}
