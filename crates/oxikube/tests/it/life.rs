//! Clusters that can't start, that are not alone, and that are gone again.

mod refused;
mod stops;
pub mod traces;

use std::fs;

use linux::netlink::Netlink;
use rustix::process::Signal;
use testkit::machine::Machine;

use self::traces::traces;
use crate::support::{SOON, jsonpath, kill_daemon, load_images, netlink, signal_daemon, started};

#[test]
fn delete_leaves_nothing() {
    let machine = Machine::new("gone", env!("CARGO_BIN_EXE_oxikube"));
    let before = traces(&machine);
    machine.oxikube("start").ok();
    assert_ne!(traces(&machine), before);
    assert!(machine.oxikube("delete").failed().contains("nothing was deleted"));
    machine.oxikube("delete --yes").ok();
    let after = traces(&machine);
    let left: Vec<_> = after.difference(&before).collect();
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(left.is_empty() && lost.is_empty(), "left: {left:#?}\nlost: {lost:#?}");
}

/// Pods, volumes and Services, and a daemon that had no chance to end in order.
#[test]
fn delete_after_a_kill_leaves_nothing() {
    delete_after_a_kill("killed", |_| ());
}

#[test]
fn delete_without_its_data_leaves_nothing() {
    delete_after_a_kill("dataless", |machine| {
        linux::mount::unmount_below(&machine.data_dir()).unwrap();
        fs::remove_dir_all(machine.data_dir()).unwrap();
    });
}

/// A daemon that stands still answers nothing, and holds up nobody for ever.
#[test]
fn delete_of_a_daemon_that_stands_still_leaves_nothing() {
    delete_after("still", |machine| drop(signal_daemon(machine, Signal::STOP)));
}

fn delete_after_a_kill(name: &str, spoil: impl Fn(&Machine)) {
    delete_after(name, |machine| {
        kill_daemon(machine);
        spoil(machine);
    });
}

fn delete_after(name: &str, spoil: impl Fn(&Machine)) {
    let machine = Machine::new(name, env!("CARGO_BIN_EXE_oxikube"));
    let before = traces(&machine);
    machine.oxikube("start").ok();
    load_images(&machine);
    machine.kubectl_with("create -f -", BUSY).ok();
    machine.kubectl("wait --for=condition=Ready pod/busy --timeout=60s").ok();
    spoil(&machine);
    let env = env::Env::system();
    let begin = env.monotonic();
    machine.oxikube("delete --yes").ok();
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert!(!machine.kubectl("config view").ok().contains(machine.name()));
    // The archives of the images are the test's own. kubectl keeps a cache, and its configuration stays, without the
    // cluster, once what was there before is forgotten.
    let others = |trace: &str| trace.ends_with(".tar") || trace.contains("/.kube");
    let left: Vec<_> = traces(&machine).difference(&before).filter(|trace| !others(trace)).cloned().collect();
    assert!(left.is_empty(), "{left:#?}");
}

const BUSY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sleep, "10000"]
    ports: [{containerPort: 80, hostPort: 8081}]
    volumeMounts: [{name: memory, mountPath: /memory}]
  volumes: [{name: memory, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Service
metadata: {name: busy}
spec: {type: NodePort, selector: {app: busy}, ports: [{port: 80}]}
"#;

#[test]
fn two_clusters_share_a_machine() {
    let machine = started("first");
    let second = format!("{}-b", machine.name());
    let run = |args: &[&str]| {
        let mut command = machine.command(env!("CARGO_BIN_EXE_oxikube"));
        command.args(args).args(["--name", &second, "--data-dir"]).arg(machine.folder().join("second"));
        machine.run(command)
    };
    // Where the machine has an address, another node than the one that needs none may have it.
    netlink(&machine, async |netlink: Netlink| {
        netlink.add_dummy("card").await?;
        netlink.add_address(netlink.link("card").await?.index, "198.51.100.7/32".parse().expect("an address")).await
    });
    run(&["start", "--node-ip", "198.51.100.7", "--node-name", "other"]).ok();
    let node = "{.items[0].metadata.name} {.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    assert_eq!(jsonpath(&machine, "nodes", node), "other 198.51.100.7");
    assert_eq!(machine.kubectl("config current-context").ok().trim(), second);
    let server = |context: &str| machine.kubectl(&format!("--context {context} cluster-info")).ok();
    assert_ne!(server(machine.name()), server(&second));
    run(&["delete", "--yes"]).ok();
    assert_eq!(machine.kubectl("config current-context").ok().trim(), machine.name());
    machine.kubectl("get nodes").ok();
}
