//! Clusters that can't start, that are not alone, and that are gone again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testkit::machine::Machine;

use crate::support::{load_images, started};

/// Everything on the machine that a cluster may leave behind.
fn traces(machine: &Machine) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    machine
        .namespace()
        .run(|| {
            for file in ["/proc/thread-self/net/dev", "/proc/thread-self/net/route", "/proc/thread-self/net/fib_trie"] {
                let lines: Vec<String> = text(file).lines().map(counters_off).collect();
                traces.extend(lines.into_iter().map(|line| format!("{file}: {line}")));
            }
            for family in [linux::nft::Family::Ip, linux::nft::Family::Ip6] {
                let tables = linux::nft::Socket::open().unwrap().tables(family).unwrap();
                traces.extend(tables.into_iter().map(|table| format!("table {table}")));
            }
            for sysctl in ["ip_forward", "conf/all/route_localnet", "conf/all/rp_filter", "conf/default/rp_filter"] {
                traces.insert(format!("{sysctl} = {}", text(&format!("/proc/sys/net/ipv4/{sysctl}")).trim()));
            }
        })
        .unwrap();
    let named = |path: &Path| path.to_string_lossy().contains(machine.name());
    let mounts = linux::mount::mounts().unwrap();
    traces.extend(mounts.iter().filter(|m| named(&m.path)).map(|m| format!("mount {}", m.path.display())));
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let folders = fs::read_dir(controller.path()).into_iter().flatten().flatten();
        let ours = folders.map(|folder| folder.path()).filter(|path| named(path));
        traces.extend(ours.map(|path| format!("cgroup {}", path.display())));
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(machine.name()) {
            traces.insert(format!("process {}", String::from_utf8_lossy(&command)));
        }
    }
    for folder in ["/run/oxikube", "/var/lib/oxikube"] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        traces.extend(entries.map(|e| e.path()).filter(|path| named(path)).map(|path| path.display().to_string()));
    }
    for entry in walk(machine.folder()) {
        traces.insert(entry);
    }
    traces
}

/// Names of links without what they carried.
fn counters_off(line: &str) -> String {
    match line.split_once(':') {
        Some((link, _)) => link.trim().to_owned(),
        None => line.trim().to_owned(),
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

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

fn delete_after_a_kill(name: &str, spoil: impl Fn(&Machine)) {
    let machine = Machine::new(name, env!("CARGO_BIN_EXE_oxikube"));
    let before = traces(&machine);
    machine.oxikube("start").ok();
    load_images(&machine);
    machine.kubectl_with("create -f -", BUSY).ok();
    machine.kubectl("wait --for=condition=Ready pod/busy --timeout=60s").ok();
    kill_daemon(&machine);
    spoil(&machine);
    machine.oxikube("delete --yes").ok();
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

/// Ends the daemon as a lack of memory would.
fn kill_daemon(machine: &Machine) {
    let control =
        std::os::unix::net::UnixStream::connect(Path::new("/run/oxikube").join(machine.name()).join("control.sock"))
            .unwrap();
    let daemon = rustix::net::sockopt::socket_peercred(&control).unwrap().pid;
    let handle = rustix::process::pidfd_open(daemon, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL).unwrap();
    // Readable once it ended.
    let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut ended, None).unwrap(), 1);
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let machine = Machine::new("taken", env!("CARGO_BIN_EXE_oxikube"));
    let before = traces(&machine);
    // The daemon's folder for the store is a file: opening it fails after the control group was made.
    let blocked = machine.data_dir();
    fs::create_dir_all(&blocked).unwrap();
    fs::write(blocked.join("store"), "in the way").unwrap();
    let said = machine.oxikube("start").failed();
    assert!(said.contains("store"), "{said}");
    let after = traces(&machine);
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn a_taken_port_is_named() {
    let machine = Machine::new("port", env!("CARGO_BIN_EXE_oxikube"));
    let listener = machine.namespace().run(|| std::net::TcpListener::bind("0.0.0.0:6443")).unwrap().unwrap();
    // The default cluster's ports are fixed; its folders are the machine's, so it is only checked here, not started.
    let mut command = machine.command(env!("CARGO_BIN_EXE_oxikube"));
    command.args(["check", "--data-dir"]).arg(machine.data_dir());
    let said = machine.run(command).failed();
    assert!(said.contains("port 6443 is taken by another program"), "{said}");
    drop(listener);
}

#[test]
fn no_other_program_is_called() {
    let machine = Machine::new("alone", env!("CARGO_BIN_EXE_oxikube"));
    let mut command = machine.oxikube_command("start");
    command.env("PATH", "");
    machine.run(command).ok();
    machine.kubectl("get nodes").ok();
}

#[test]
fn two_clusters_share_a_machine() {
    let machine = started("first");
    let second = format!("{}-b", machine.name());
    let run = |args: &[&str]| {
        let mut command = machine.command(env!("CARGO_BIN_EXE_oxikube"));
        command.args(args).args(["--name", &second, "--data-dir"]).arg(machine.folder().join("second"));
        machine.run(command)
    };
    run(&["start"]).ok();
    assert_eq!(machine.kubectl("config current-context").ok().trim(), second);
    let server = |context: &str| machine.kubectl(&format!("--context {context} cluster-info")).ok();
    assert_ne!(server(machine.name()), server(&second));
    run(&["delete", "--yes"]).ok();
    assert_eq!(machine.kubectl("config current-context").ok().trim(), machine.name());
    machine.kubectl("get nodes").ok();
}
