//! `stop`, and the `start` after it.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use linux::netlink::{Netlink, Route};
use rustix::process::Signal;
use serde_json::Value;
use testkit::machine::Machine;

use super::refused::refused;
use super::traces::traces;
use crate::support::{SOON, end_daemon, load_images, netlink};

/// Two that don't end by themselves, two that say when they were asked to, and one whose only container is done.
fn pods(folder: &std::path::Path) -> String {
    let pod = |name: &str, script: &str, restart: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 60\n  restartPolicy: {restart}\n  containers: [{{name: main, image: 'oxikube.local/busybox:1', command: [sh, -c, {}], ports: [{{containerPort: 80}}], volumeMounts: [{{name: d, mountPath: /d}}]}}]\n  volumes: [{{name: d, hostPath: {{path: {}}}}}]\n",
            serde_json::json!(script),
            folder.display()
        )
    };
    let polite = "trap 'touch /d/$HOSTNAME; exit 0' TERM; while true; do sleep 1000 & wait $!; done";
    let stubborn = "trap '' TERM; while true; do sleep 1; done";
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: polite-a}\nspec: {type: NodePort, selector: {app: polite-a}, ports: [{port: 80}]}\n";
    [
        pod("stubborn-a", stubborn, "Always"),
        pod("polite-a", polite, "Always"),
        pod("stubborn-b", stubborn, "Always"),
        pod("polite-b", polite, "Always"),
        pod("done", "exit 0", "Never"),
        service.to_owned(),
    ]
    .concat()
}

#[test]
fn a_stop_ends_everything_and_a_start_brings_it_back() {
    let machine = Machine::new("stops", env!("CARGO_BIN_EXE_oxikube"));
    // Files, and the record of a cluster that is stopped, stay.
    let files = [machine.folder().display().to_string(), format!("/run/oxikube/{}", machine.name())];
    let kept = |trace: &String| !files.iter().any(|file| trace.starts_with(file));
    let alive = || -> BTreeSet<String> { traces(&machine).into_iter().filter(kept).collect() };
    let before = alive();
    machine.oxikube("start").ok();
    load_images(&machine);
    let folder = machine.folder().join("asked");
    std::fs::create_dir(&folder).unwrap();
    machine.kubectl_with("create -f -", &pods(&folder)).ok();
    machine.kubectl("wait --for=condition=Ready pod -l app!=done --timeout=60s").ok();
    machine.kubectl("wait --for=jsonpath={.status.phase}=Succeeded pod/done --timeout=60s").ok();
    let old = containers(&machine);

    let env = env::Env::system();
    let begin = env.monotonic();
    let said = machine.oxikube("stop").ok();
    let taken = begin.elapsed();
    println!("stop took {taken:?}");
    assert!(taken < SOON, "{taken:?}");
    assert_eq!(said, format!("cluster {} is stopped\n", machine.name()));
    let asked = |name: &str| -> SystemTime { std::fs::metadata(folder.join(name)).unwrap().modified().unwrap() };
    let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_else(|error| error.duration());
    let apart = apart(asked("polite-a"), asked("polite-b"));
    // Before one that does not end by itself has had its ten seconds.
    assert!(apart < Duration::from_secs(9), "asked to end {apart:?} apart");
    let after = alive();
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
    let begin = env.monotonic();
    machine.oxikube("stop").ok();
    assert!(begin.elapsed() < taken, "nothing is left to stop");

    cannot_start(&machine, &alive);

    machine.oxikube("start").ok();
    // What is told now is of this run: no container is said to run that ended with the last one.
    let new = containers(&machine);
    assert_eq!(new.len(), 5);
    for (pod, state) in &new {
        let (id, running) = (&state["containerID"], state["state"]["running"].is_object());
        let before = &old[pod];
        match pod.as_str() {
            "done" => assert_eq!(state["state"], before["state"], "it stays as it ended"),
            _ => assert!(!running || *id != before["containerID"], "{pod}: {state}"),
        }
    }
    machine.kubectl("wait --for=condition=Ready pod -l app!=done --timeout=60s").ok();
    machine.kubectl("delete pods --all --force --grace-period=0").ok();
}

/// The only container's status of each pod.
fn containers(machine: &Machine) -> std::collections::BTreeMap<String, Value> {
    let pods: Value = serde_json::from_str(&machine.kubectl("get pods -o json").ok()).unwrap();
    let one = |pod: &Value| {
        (pod["metadata"]["name"].as_str().unwrap().to_owned(), pod["status"]["containerStatuses"][0].clone())
    };
    pods["items"].as_array().unwrap().iter().map(one).collect()
}

/// A stopped cluster keeps its ports and ranges; whoever has taken one meanwhile is named.
fn cannot_start(machine: &Machine, alive: &dyn Fn() -> BTreeSet<String>) {
    let status: Value = serde_json::from_str(&machine.oxikube("status -o json").failed()).unwrap();
    assert_eq!(status["daemon"]["pid"], Value::Null);
    let port: u16 = status["addresses"]["server"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let before = alive();
    let listener = machine.namespace().run(|| TcpListener::bind(("0.0.0.0", port))).unwrap().unwrap();
    refused(&machine.oxikube("start"), &format!("API server port: port {port} is taken by another program"));
    drop(listener);
    assert_eq!(alive(), before);

    let range = status["addresses"]["services"].as_str().unwrap().to_owned();
    netlink(machine, async |netlink: Netlink| {
        netlink.add_dummy("other").await?;
        let link = netlink.link("other").await?.index;
        netlink.add_route(&Route::on_link(range.parse().expect("a range"), link)).await
    });
    let taken = alive();
    refused(&machine.oxikube("start"), &format!("service range: {range} overlaps the route {range} of other"));
    assert_eq!(alive(), taken);
    netlink(machine, async |netlink: Netlink| netlink.delete_link("other").await.map(drop));
}

/// A daemon that ends in order, told by a command or a signal, leaves nothing to check to the next one.
#[test]
fn what_ends_in_order_closes_its_store() {
    let machine = Machine::new("closed", env!("CARGO_BIN_EXE_oxikube"));
    let log = machine.data_dir().join("log/daemon.log");
    let checked = || std::fs::read_to_string(&log).unwrap().matches("the store was not closed properly").count();
    machine.oxikube("start").ok();
    machine.oxikube("stop").ok();
    machine.oxikube("start").ok();
    end_daemon(&machine, Signal::TERM);
    machine.oxikube("start").ok();
    assert_eq!(checked(), 0);
    end_daemon(&machine, Signal::KILL);
    machine.oxikube("start").ok();
    assert_eq!(checked(), 1, "one that had no chance");
}
