//! The path from the manifest to a page: the six steps of the README as one test.

use std::collections::BTreeSet;
use std::time::Duration;

use apimachinery::Value;
use client::{Client, ListOptions, Selection, WatchEvent, WatchOptions, resources};
use futures_util::StreamExt;
use linux::cgroup::Hierarchies;
use parking_lot::Mutex;
use serde_json::json;
use testkit::machine::Machine;
use tokio::time::Instant;

use crate::support::{SOON, jsonpath, kill_daemon, load_images, started, with_client};

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
    // Which one answers is chance: each of three misses sixty in a row once in ten thousand million runs.
    let pages = pages(&machine, &format!("http://{node}:30080/"), 60);
    assert!(pages.windows(2).all(|pair| pair[1].visits == pair[0].visits + 1), "{pages:?}");
    let pods: BTreeSet<&str> = pages.iter().map(|page| page.pod.as_str()).collect();
    assert_eq!(pods.len(), 3, "only {pods:?} answered");
    let local = self::pages(&machine, "http://127.0.0.1:30080/", 1);
    assert_eq!(local[0].visits, pages.last().unwrap().visits + 1);

    shims_are_small(&machine);
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

/// Each pod's shim, as the shipped program is: what it has for itself alone.
fn shims_are_small(machine: &Machine) {
    let group = Hierarchies::detect().unwrap().group(format!("oxikube-{}/daemon", machine.name())).unwrap();
    let text = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let private = |pid: &i32| -> u64 {
        let rollup = text(*pid, "smaps_rollup");
        let fields = rollup.lines().filter(|line| line.starts_with("Private_"));
        fields.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
    };
    let mut processes = group.processes().unwrap();
    processes.retain(|pid| text(*pid, "comm") == "oxikube-shim\n");
    let private: Vec<u64> = processes.iter().map(private).collect();
    println!("private memory of shims: {private:?} KiB");
    assert!(private.len() >= 4 && private.iter().all(|kib| *kib < 2048), "{private:?}");
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
    // What told it so may end with it.
    machine.kubectl(&format!("exec {pod} -- kill 1"));
    machine.eventually("a restart", SOON, || {
        (jsonpath(machine, &format!("pod {pod}"), "{.status.containerStatuses[0].restartCount}") == "1").then_some(())
    });
    machine.kubectl("wait --for=condition=Ready pod -l component=redis --timeout=60s").ok();
}

/// A pod that fails its probe leaves the endpoints, on a machine that is not busy within a second.
fn readiness_decides(machine: &Machine) {
    let pod = jsonpath(machine, "pods -l component=frontend", "{.items[0].metadata.name}");
    let (unready, left) = with_client(machine, async |client| {
        let selection = Selection::all().namespace("default");
        let is_pod = selection.clone().fields(format!("metadata.name={pod}"));
        let slices = selection.labels("kubernetes.io/service-name=frontend");
        let ready = |slice: &Value| {
            let endpoints = slice.items_at(&["endpoints"]);
            let mut ours =
                endpoints.iter().filter(|endpoint| endpoint.str_at(&["targetRef", "name"]) == Some(pod.as_str()));
            ours.any(|endpoint| endpoint.bool_at(&["conditions", "ready"]) == Some(true))
        };
        comes(&client, &resources::ENDPOINT_SLICES, &slices, ready).await;
        // After a second, when both are watched.
        let mut later = machine.kubectl_command(&format!("exec {pod} -- sh -c"));
        later.arg("sleep 1; rm /www/healthz");
        let mut later = machine.spawn(later);
        let unready = |pod: &Value| {
            let mut conditions = pod.items_at(&["status", "conditions"]).iter();
            conditions.any(|c| c.str_at(&["type"]) == Some("Ready") && c.str_at(&["status"]) == Some("False"))
        };
        let (pods, endpoint_slices) = (resources::PODS, resources::ENDPOINT_SLICES);
        let seen = tokio::join!(
            comes(&client, &pods, &is_pod, unready),
            comes(&client, &endpoint_slices, &slices, |slice| !ready(slice)),
        );
        assert!(later.wait().unwrap().success());
        seen
    });
    let taken = left.saturating_duration_since(unready);
    println!("out of the endpoints {taken:?} after it was not ready");
    assert!(taken < Duration::from_secs(10), "{taken:?}");
    machine.kubectl(&format!("delete pod {pod} --now")).ok();
    machine.kubectl("rollout status deployment/frontend --timeout=60s").ok();
}

/// When one of the selected objects was seen to be so.
async fn comes(
    client: &Client,
    resource: &client::Resource,
    selection: &Selection,
    is_so: impl Fn(&Value) -> bool,
) -> Instant {
    let options = WatchOptions { send_initial_events: true, ..WatchOptions::default() };
    let mut events = client.watch(resource, selection, &options).await.unwrap();
    let seen = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                && is_so(&object.to_value())
            {
                return client.env().monotonic();
            }
        }
        panic!("the watch of {} ended", resource.plural);
    };
    tokio::time::timeout(SOON, seen).await.expect("it comes")
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
    let acknowledged = with_client(machine, async |client| writes_until_the_end(machine, &client).await);
    assert_ne!(machine.oxikube("status").code, Some(0));
    // The count needs redis' name, and what answers for names outlives the daemon too.
    assert_eq!(pages(machine, "http://127.0.0.1:30080/", 1)[0].visits, visits + 1);
    machine.oxikube("start").ok();
    assert_eq!(identities(), before);
    // Every acknowledged write is there, at the revision that was told.
    let kept: BTreeSet<(String, u64)> = with_client(machine, async |client| {
        let ours = Selection::all().namespace("default").labels("written=yes");
        let list = client.list(&resources::CONFIG_MAPS, &ours, &ListOptions::default()).await.unwrap();
        list.items.iter().map(|object| (object.name().to_owned(), object.revision())).collect()
    });
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    println!("{} writes were acknowledged, {} were made", acknowledged.len(), kept.len());
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(pages(machine, "http://127.0.0.1:30080/", 1)[0].visits, visits + 2);
}

/// Writes until the daemon, killed in between, answers no more; returns the writes that it acknowledged.
async fn writes_until_the_end(machine: &Machine, client: &Client) -> BTreeSet<(String, u64)> {
    let acknowledged = Mutex::new(BTreeSet::new());
    let (written, killed) = (&acknowledged, &Mutex::new(false));
    let writer = |writer: usize| async move {
        for number in 0.. {
            let body = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("written-{writer}-{number}"), "namespace": "default", "labels": {"written": "yes"}},
                "data": {"text": "x".repeat(500)},
            });
            match client.create(&resources::CONFIG_MAPS, &body.into()).await {
                Ok(object) => written.lock().insert((object.name().to_owned(), object.revision())),
                Err(error) => return assert!(*killed.lock(), "{error:?}"),
            };
            if writer == 0 && number == 50 {
                *killed.lock() = true;
                kill_daemon(machine);
            }
        }
    };
    futures_util::future::join_all((0..8).map(writer)).await;
    acknowledged.into_inner()
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
