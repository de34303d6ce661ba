//! The path from the manifest to a page: the six steps of the README as one test.

use std::collections::BTreeSet;

use testkit::machine::Machine;

use crate::support::{SOON, jsonpath, load_images, started};

#[test]
fn from_the_manifest_to_the_page() {
    let machine = started("path");
    assert!(machine.oxikube("start").ok().contains("runs already"));
    assert_eq!(machine.kubectl("config current-context").ok().trim(), machine.name());
    assert_eq!(jsonpath(&machine, "nodes", "{.items[0].status.conditions[?(@.type==\"Ready\")].status}"), "True");

    load_images(&machine);
    assert!(machine.oxikube("image ls").ok().contains("oxikube.local/visits-frontend:1"));
    let manifests = testkit::example::visits();
    machine.kubectl(&format!("apply -f {}", manifests.display())).ok();
    machine.kubectl("rollout status deployment/redis --timeout=60s").ok();
    machine.kubectl("rollout status deployment/frontend --timeout=60s").ok();

    let node = jsonpath(&machine, "nodes", "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}");
    let pages = pages(&machine, &format!("http://{node}:30080/"), 12);
    assert!(pages.windows(2).all(|pair| pair[1].visits == pair[0].visits + 1), "{pages:?}");
    let pods: BTreeSet<&str> = pages.iter().map(|page| page.pod.as_str()).collect();
    assert!(pods.len() > 1, "only {pods:?} answered");
    let local = self::pages(&machine, "http://127.0.0.1:30080/", 1);
    assert_eq!(local[0].visits, pages.last().unwrap().visits + 1);

    scaled(&machine);
    killed_container_is_restarted(&machine);
    readiness_decides(&machine);
    survives_kill(&machine);
    stops_and_starts(&machine);
}

#[derive(Debug)]
struct Page {
    visits: u64,
    pod: String,
}

/// Fetches the page `n` times; each must be there within a while.
#[track_caller]
fn pages(machine: &Machine, url: &str, n: usize) -> Vec<Page> {
    let one = || {
        let body = machine.eventually_or("the page", SOON, || match machine.get(url) {
            Ok(body) => Ok(body),
            Err(error) => Err(error.to_string()),
        });
        let line =
            body.lines().find(|line| line.contains("visits: ")).unwrap_or_else(|| panic!("no count in {body:?}"));
        let rest = line.split_once("visits: ").unwrap().1;
        let (visits, pod) = rest.split_once(" from ").unwrap();
        Page { visits: visits.parse().unwrap(), pod: pod.split(['<', ' ']).next().unwrap().to_owned() }
    };
    (0..n).map(|_| one()).collect()
}

fn scaled(machine: &Machine) {
    machine.kubectl("scale deployment/frontend --replicas=0").ok();
    machine.kubectl("wait --for=delete pod -l component=frontend --timeout=60s").ok();
    assert!(machine.get("http://127.0.0.1:30080/").is_err());
    machine.kubectl("scale deployment/frontend --replicas=10").ok();
    machine.kubectl("rollout status deployment/frontend --timeout=60s").ok();
    machine.kubectl("scale deployment/frontend --replicas=3").ok();
    machine.eventually("three pods", SOON, || {
        (jsonpath(machine, "pods -l component=frontend", "{.items[*].metadata.name}").split_whitespace().count() == 3)
            .then_some(())
    });
}

fn killed_container_is_restarted(machine: &Machine) {
    let pod = jsonpath(machine, "pods -l component=redis", "{.items[0].metadata.name}");
    machine.kubectl(&format!("exec {pod} -- kill 1")).ok();
    machine.eventually("a restart", SOON, || {
        (jsonpath(machine, &format!("pod {pod}"), "{.status.containerStatuses[0].restartCount}") == "1").then_some(())
    });
    machine.kubectl("wait --for=condition=Ready pod -l component=redis --timeout=60s").ok();
}

fn readiness_decides(machine: &Machine) {
    let pod = jsonpath(machine, "pods -l component=frontend", "{.items[0].metadata.name}");
    let ip = jsonpath(machine, &format!("pod {pod}"), "{.status.podIP}");
    let ready = || {
        let slices = "endpointslices -l kubernetes.io/service-name=frontend";
        let ready = jsonpath(machine, slices, "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}");
        ready.split_whitespace().any(|address| address == ip)
    };
    machine.eventually("a ready endpoint", SOON, || ready().then_some(()));
    machine.kubectl(&format!("exec {pod} -- rm /www/healthz")).ok();
    machine.eventually("leaving the endpoints", SOON, || (!ready()).then_some(()));
    machine.kubectl(&format!("delete pod {pod} --now")).ok();
    machine.kubectl("rollout status deployment/frontend --timeout=60s").ok();
}

fn survives_kill(machine: &Machine) {
    let identities = || {
        jsonpath(
            machine,
            "pods",
            "{range .items[*]}{.metadata.uid}{.status.containerStatuses[0].containerID}{.status.containerStatuses[0].restartCount}{\" \"}{end}",
        )
    };
    let before = identities();
    let visits = pages(machine, "http://127.0.0.1:30080/", 1)[0].visits;
    let status: serde_json::Value = serde_json::from_str(&machine.oxikube("status -o json").ok()).unwrap();
    let pid = status["daemon"]["pid"].as_i64().unwrap();
    linux::process::signal(pid as i32, 9).unwrap();
    machine.eventually("the daemon's end", SOON, || (machine.oxikube("status").code != Some(0)).then_some(()));
    // Names are answered by the daemon, so the count waits for it; the pages themselves don't.
    assert_eq!(machine.get("http://127.0.0.1:30080/healthz").unwrap(), "ok\n");
    machine.oxikube("start").ok();
    assert_eq!(identities(), before);
    assert_eq!(pages(machine, "http://127.0.0.1:30080/", 1)[0].visits, visits + 1);
}

fn stops_and_starts(machine: &Machine) {
    machine.oxikube("stop").ok();
    assert!(machine.get("http://127.0.0.1:30080/").is_err());
    assert!(machine.oxikube("status").failed().starts_with("daemon: not running"));
    machine.oxikube("start").ok();
    machine.kubectl("rollout status deployment/frontend --timeout=60s").ok();
    machine.kubectl("rollout status deployment/redis --timeout=60s").ok();
    pages(machine, "http://127.0.0.1:30080/", 1);
}
