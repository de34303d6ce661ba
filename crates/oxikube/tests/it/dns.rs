//! Cluster DNS outlives the daemon, is kept alive by it, and ends with the cluster.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use testkit::machine::Machine;

use crate::support::{SOON, kill_daemon, started};

const KUBERNETES: &str = "kubernetes.default.svc.cluster.local.";

/// Asks once, as a process of the node, through the service address. The question waits for whoever is to answer it.
fn ask(machine: &Machine, name: &str) -> Result<Vec<IpAddr>, String> {
    let status: serde_json::Value = serde_json::from_str(&machine.oxikube("status -o json").out).unwrap();
    let ip: IpAddr = status["addresses"]["dns"].as_str().unwrap().parse().unwrap();
    let server = SocketAddr::new(ip, 53);
    let asked = machine.namespace().run(|| dns::ask(server, name, Duration::from_secs(30)));
    asked.unwrap().map_err(|error| error.to_string())
}

/// The process that answers; who it is is said by its socket.
fn process(machine: &Machine) -> Option<Pid> {
    let stream = UnixStream::connect(Path::new("/run/oxikube").join(machine.name()).join("dns.sock")).ok()?;
    Some(rustix::net::sockopt::socket_peercred(&stream).unwrap().pid)
}

fn kill(pid: Pid) {
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&process, Signal::KILL).unwrap();
}

/// The DNS processes of the machine's cluster, by their command lines.
fn processes(machine: &Machine) -> Vec<String> {
    let commands = std::fs::read_dir("/proc").unwrap().flatten().map(|process| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ")
    });
    commands.filter(|command| command.contains(" dns ") && command.contains(machine.name())).collect()
}

#[test]
fn names_are_answered_whoever_dies() {
    let machine = started("dns");
    assert_eq!(processes(&machine).len(), 1);
    let first = process(&machine).unwrap();
    ask(&machine, KUBERNETES).unwrap();

    // Without a daemon, from what it said last.
    kill_daemon(&machine);
    ask(&machine, KUBERNETES).unwrap();
    machine.oxikube("start").ok();
    assert_eq!(process(&machine), Some(first), "the daemon adopts it");
    machine.kubectl("create service clusterip late --tcp=80").ok();
    machine.eventually_or("a new Service's name", SOON, || ask(&machine, "late.default.svc.cluster.local."));

    // One that was adopted and one that was started here: the question waits for the next.
    for _ in 0..2 {
        let killed = process(&machine).unwrap();
        kill(killed);
        let begin = env::Env::system().monotonic();
        ask(&machine, "late.default.svc.cluster.local.").unwrap();
        println!("answered {:?} after a kill", env::Env::system().monotonic() - begin);
        assert_ne!(process(&machine), Some(killed));
    }

    // Both gone.
    kill_daemon(&machine);
    kill(process(&machine).unwrap());
    machine.oxikube("start").ok();
    ask(&machine, "late.default.svc.cluster.local.").unwrap();

    machine.oxikube("stop").ok();
    assert_eq!(processes(&machine), Vec::<String>::new());
    machine.oxikube("start").ok();
    kill_daemon(&machine);
    assert_eq!(processes(&machine).len(), 1);
    machine.oxikube("stop").ok();
    assert_eq!(processes(&machine), Vec::<String>::new());
    machine.oxikube("start").ok();
    kill_daemon(&machine);
    machine.oxikube("delete --yes").ok();
    assert_eq!(processes(&machine), Vec::<String>::new());
}
