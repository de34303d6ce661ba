//! The DNS process and whoever feeds it: each may die without the other.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use apimachinery::ObjectKey;
use client::fake::FakeServer;
use client::{TaskGuard, resources};
use env::Env;
use rustix::process::{Pid, PidfdFlags, Signal};

const SOON: Duration = Duration::from_secs(60);
const WEB: &str = "web.ns.svc.cluster.local.";

/// A cluster's API and a place for the process.
struct World {
    env: Env,
    server: FakeServer,
    folder: tempfile::TempDir,
}

/// A daemon, until dropped.
struct Daemon {
    address: SocketAddr,
    pid: i32,
    _task: TaskGuard,
}

impl World {
    fn new() -> World {
        let env = Env::system();
        let world = World { server: FakeServer::new(env.clone()), folder: tempfile::tempdir().unwrap(), env };
        world.service("web", "10.96.0.7");
        world
    }

    fn service(&self, name: &str, ip: &str) {
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}","namespace":"ns"}},"spec":{{"clusterIP":"{ip}","clusterIPs":["{ip}"],"ports":[{{"name":"http","port":80}}]}}}}"#
        );
        self.server.put(&resources::SERVICES, &json);
    }

    fn headless(&self, addresses: &str) {
        let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"db","namespace":"ns"},"spec":{"clusterIP":"None","clusterIPs":["None"]}}"#;
        let slice = format!(
            r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"db-1","namespace":"ns","labels":{{"kubernetes.io/service-name":"db"}}}},"addressType":"IPv4","endpoints":[{{"addresses":[{addresses}]}}],"ports":[]}}"#
        );
        self.server.put(&resources::SERVICES, service);
        self.server.put(&resources::ENDPOINT_SLICES, &slice);
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("dns.sock")
    }

    fn config(&self, program: &str) -> dns::Config {
        dns::Config {
            env: self.env.clone(),
            client: self.server.client(),
            domain: "cluster.local".into(),
            service_ip: "10.96.0.10".parse().unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            node_name: "n".into(),
            resolv_conf: "/nowhere".into(),
            program: dns::Program { command: vec![program.into()], socket: self.socket() },
        }
    }

    async fn daemon_with(&self, config: dns::Config) -> Daemon {
        let dns = dns::build(config).await.unwrap();
        let (address, pid) = (dns.address(), dns.pid());
        Daemon { address, pid, _task: TaskGuard::new(self.env.spawn(dns.run())) }
    }

    async fn daemon(&self) -> Daemon {
        self.daemon_with(self.config(env!("CARGO_BIN_EXE_oxikube-dns"))).await
    }

    /// One question: `Err` unless there is an answer with addresses.
    async fn ask(&self, server: SocketAddr, name: &'static str) -> std::io::Result<Vec<IpAddr>> {
        tokio::task::spawn_blocking(move || dns::ask(server, name, Duration::from_secs(20))).await.unwrap()
    }

    /// Waits for this answer.
    async fn answers(&self, server: SocketAddr, name: &'static str, expect: &[&str]) {
        let expect: Vec<IpAddr> = expect.iter().map(|ip| ip.parse().unwrap()).collect();
        let deadline = self.env.monotonic() + SOON;
        loop {
            let said = self.ask(server, name).await;
            if said.as_ref().is_ok_and(|said| *said == expect) {
                return;
            }
            assert!(self.env.monotonic() < deadline, "{name}: {said:?}, not {expect:?}");
            self.env.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Who can be found.
    fn pid(&self) -> Option<i32> {
        let stream = UnixStream::connect(self.socket()).ok()?;
        Some(rustix::net::sockopt::socket_peercred(&stream).unwrap().pid.as_raw_nonzero().get())
    }

    async fn end(&self) {
        let pid = self.pid();
        dns::end(&self.env, &self.socket()).await.unwrap();
        assert!(!self.socket().exists());
        assert!(pid.is_none_or(|pid| !runs(pid)));
    }
}

impl Drop for World {
    /// Nothing stays of a test that failed.
    fn drop(&mut self) {
        self.pid().into_iter().for_each(kill);
    }
}

fn kill(pid: i32) {
    let process = rustix::process::pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&process, Signal::KILL).unwrap();
}

/// Whether it runs, as opposed to waiting for its parent to notice its end.
fn runs(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[tokio::test]
async fn answers_outlive_the_daemon() {
    let world = World::new();
    world.headless(r#""10.244.0.2""#);
    let first = world.daemon().await;
    world.answers(first.address, WEB, &["10.96.0.7"]).await;
    world.answers(first.address, "db.ns.svc.cluster.local.", &["10.244.0.2"]).await;
    world.service("web", "10.96.0.8");
    world.answers(first.address, WEB, &["10.96.0.8"]).await;
    world.headless(r#""10.244.0.3""#);
    world.answers(first.address, "db.ns.svc.cluster.local.", &["10.244.0.3"]).await;

    let (address, pid) = (first.address, first.pid);
    drop(first);
    assert_eq!(world.ask(address, WEB).await.unwrap(), ["10.96.0.8".parse::<IpAddr>().unwrap()]);
    // What happens without a daemon is told by the next one; it finds the same process.
    world.server.remove(&resources::SERVICES, &ObjectKey::new("ns", "db"));
    world.service("late", "10.96.0.9");
    let second = world.daemon().await;
    assert_eq!((second.address, second.pid), (address, pid));
    world.answers(address, "late.ns.svc.cluster.local.", &["10.96.0.9"]).await;
    assert_eq!(world.ask(address, WEB).await.unwrap(), ["10.96.0.8".parse::<IpAddr>().unwrap()]);
    assert!(world.ask(address, "db.ns.svc.cluster.local.").await.unwrap_err().to_string().contains("Non-Existent"));
    drop(second);
    world.end().await;
    // None is fine.
    world.end().await;
}

#[tokio::test]
async fn a_killed_process_is_started_again() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers(daemon.address, WEB, &["10.96.0.7"]).await;
    kill(daemon.pid);
    // The socket is the same, so the question waits for the next process.
    assert_eq!(world.ask(daemon.address, WEB).await.unwrap(), ["10.96.0.7".parse::<IpAddr>().unwrap()]);
    let next = world.pid().unwrap();
    assert_ne!(next, daemon.pid);
    // So it is with one that the daemon did not start.
    let address = daemon.address;
    drop(daemon);
    let daemon = world.daemon().await;
    assert_eq!(daemon.pid, next);
    world.answers(address, WEB, &["10.96.0.7"]).await;
    kill(next);
    world.answers(address, WEB, &["10.96.0.7"]).await;
    assert_ne!(world.pid().unwrap(), next);
    drop(daemon);
    world.end().await;
}

#[tokio::test]
async fn another_program_takes_over_without_a_gap() {
    let world = World::new();
    let other = world.folder.path().join("other");
    // By another program: what other tests start at this moment would hold our copy open for writing, which can't be executed then.
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_oxikube-dns")).arg(&other).status();
    assert!(copied.unwrap().success());
    let old = world.daemon_with(world.config(other.to_str().unwrap())).await;
    world.answers(old.address, WEB, &["10.96.0.7"]).await;
    let (address, pid) = (old.address, old.pid);
    drop(old);
    let new = world.daemon().await;
    assert_ne!(new.pid, pid);
    assert_eq!(new.address, address);
    let deadline = world.env.monotonic() + SOON;
    while runs(pid) {
        assert_eq!(world.ask(address, WEB).await.unwrap(), ["10.96.0.7".parse::<IpAddr>().unwrap()]);
        assert!(world.env.monotonic() < deadline, "the old process stays");
    }
    assert_eq!(world.ask(address, WEB).await.unwrap(), ["10.96.0.7".parse::<IpAddr>().unwrap()]);
    // Another address is a matter of new sockets.
    drop(new);
    let moved =
        dns::Config { listen: "127.0.0.2:0".parse().unwrap(), ..world.config(env!("CARGO_BIN_EXE_oxikube-dns")) };
    let moved = world.daemon_with(moved).await;
    assert_eq!(moved.address.ip().to_string(), "127.0.0.2");
    world.answers(moved.address, WEB, &["10.96.0.7"]).await;
    drop(moved);
    world.end().await;
}

#[tokio::test]
async fn what_does_not_start_is_an_error() {
    let world = World::new();
    let build = async |config| dns::build(config).await.err().unwrap().to_string();
    assert_eq!(build(world.config("/bin/false")).await, "starting the DNS process");
    assert_eq!(build(world.config("/nowhere")).await, "starting the DNS process");
    let elsewhere = dns::Config { listen: "192.0.2.1:0".parse().unwrap(), ..world.config("/bin/false") };
    assert_eq!(build(elsewhere).await, "listening for DNS on 192.0.2.1:0");
    let nameless = dns::Config { domain: "a..b".into(), ..world.config("/bin/false") };
    assert_eq!(build(nameless).await, "\"a..b\" is no domain name");
    assert_eq!(world.pid(), None);
}
