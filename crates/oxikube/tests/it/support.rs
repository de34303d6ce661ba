//! What these tests share.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Kubeconfig, TaskGuard, Tls};
use linux::netlink::Netlink;
use rustix::process::Signal;
use testkit::machine::Machine;

/// Long enough for anything on a busy machine of two cores.
pub const SOON: Duration = Duration::from_secs(60);

/// A machine whose cluster runs.
pub fn started(name: &str) -> Machine {
    let machine = Machine::new(name, env!("CARGO_BIN_EXE_oxikube"));
    machine.oxikube("start").ok();
    until_pods_may_come(&machine, "default");
    machine
}

/// Waits until the namespace has the account that pods run as, which its controller makes soon after the namespace.
pub fn until_pods_may_come(machine: &Machine, namespace: &str) {
    machine.eventually_or("the default account", SOON, || {
        match machine.kubectl(&format!("-n {namespace} get serviceaccount default")) {
            said if said.code == Some(0) => Ok(()),
            said => Err(said.err),
        }
    });
}

/// Loads the images of the example.
pub fn load_images(machine: &Machine) {
    for named in testkit::example::visits_images().unwrap() {
        let path = machine.folder().join(format!("{}.tar", named.file));
        std::fs::write(&path, testkit::image::oci_layout(&[(named.reference, &named.image)])).unwrap();
        let said = machine.oxikube(&format!("image load {}", path.display())).ok();
        assert!(said.contains(named.reference), "{said}");
    }
}

/// The value of a jsonpath expression.
pub fn jsonpath(machine: &Machine, what: &str, path: &str) -> String {
    let output = format!("jsonpath={path}");
    let mut args: Vec<&str> = vec!["get"];
    args.extend(what.split_whitespace());
    args.extend(["-o", &output]);
    machine.kubectl_args(&args).ok()
}

/// A part of a test and its name.
pub type Step = (&'static str, fn(&Machine));

/// Runs the steps in order; one that fails keeps none of the others from being seen.
#[track_caller]
pub fn every(machine: &Machine, steps: &[Step]) {
    let failed = steps.iter().filter(|(_, step)| catch_unwind(AssertUnwindSafe(|| step(machine))).is_err());
    let failed: Vec<&str> = failed.map(|(name, _)| *name).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Talks to the API server as kubectl would, from the machine's network namespace. What `work` spawns goes on while it
/// waits for a command.
pub fn with_client<T: Send>(machine: &Machine, work: impl AsyncFnOnce(Client) -> T + Send) -> T {
    let kubeconfig = machine.folder().join(".kube/config");
    let inside = || {
        // Its threads come from this one, so they are in the namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let env = env::Env::system();
            let config = Kubeconfig::load(&[kubeconfig]).unwrap().access(None).unwrap();
            let transport = Tls::new(env.clone(), &config).unwrap();
            work(Client::new(env, Arc::new(transport), "test")).await
        })
    };
    machine.namespace().run(inside).unwrap()
}

/// Changes the machine's links, addresses and routes.
pub fn netlink(machine: &Machine, work: impl AsyncFnOnce(Netlink) -> Result<(), linux::netlink::Error> + Send) {
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (netlink, driver) = Netlink::open()?;
            let _driver = TaskGuard::new(env::Env::system().spawn(driver));
            work(netlink).await
        })
    };
    machine.namespace().run(inside).unwrap().unwrap()
}

/// Ends the daemon as a lack of memory would.
pub fn kill_daemon(machine: &Machine) {
    end_daemon(machine, Signal::KILL);
}

/// Sends the daemon a signal that ends it, and waits until it has.
pub fn end_daemon(machine: &Machine, signal: Signal) {
    let handle = signal_daemon(machine, signal);
    // Readable once it ended.
    let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut ended, None).unwrap(), 1);
}

/// Sends the daemon a signal.
pub fn signal_daemon(machine: &Machine, signal: Signal) -> OwnedFd {
    let control = UnixStream::connect(Path::new("/run/oxikube").join(machine.name()).join("control.sock")).unwrap();
    let daemon = rustix::net::sockopt::socket_peercred(&control).unwrap().pid;
    let handle = rustix::process::pidfd_open(daemon, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&handle, signal).unwrap();
    handle
}
