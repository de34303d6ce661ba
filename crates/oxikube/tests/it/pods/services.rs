//! Names and addresses that pods reach each other by.

use std::collections::BTreeSet;

use testkit::machine::Machine;

use super::{busybox, create, ready, sh, taken};
use crate::support::{SOON, jsonpath};

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {tier: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {tier: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: heads}
spec: {selector: {tier: web}, clusterIP: None, ports: [{name: http, port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {tier: web}}
  template:
    metadata: {labels: {tier: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: oxikube.local/busybox:1
        command: [sh, -c, 'mkdir /www; hostname >/www/index.html; exec httpd -f -p 8080 -h /www']
        ports: [{name: http, containerPort: 8080}]
"#;

pub fn begin(machine: &Machine) {
    machine.kubectl_with("create -f -", OBJECTS).ok();
    let named = busybox("exec sleep 1000", "  hostname: own\n  subdomain: heads\n");
    create(machine, &[("client", &busybox("exec sleep 1000", "")), ("named", &named)]);
    machine.kubectl("label pod named tier=web").ok();
}

fn addresses(machine: &Machine, pods: &str) -> BTreeSet<String> {
    let ips = jsonpath(machine, pods, "{.items[*].status.podIP}");
    ips.split_whitespace().map(str::to_owned).collect()
}

/// What the names of `question` resolve to, asked from a pod.
fn asked(machine: &Machine, question: &str) -> BTreeSet<String> {
    let said = machine.kubectl_args(&["exec", "client", "--", "nslookup", question]);
    let answers = said.out.split_once("Name:").map_or("", |(_, answers)| answers);
    answers.lines().filter_map(|line| line.strip_prefix("Address: ")).map(|a| a.trim().to_owned()).collect()
}

/// The distinct pages of `n` visits; with nc, as a static wget finds no names without glibc's modules.
fn visits(machine: &Machine, host: &str, port: u16, n: u32) -> BTreeSet<String> {
    let one = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {host} {port} | tail -n 1");
    let pages = sh(machine, "client", &format!("for i in $(seq {n}); do {one}; done"));
    assert_eq!(pages.lines().count(), n as usize, "{host}: {pages}");
    pages.lines().map(str::to_owned).collect()
}

pub fn names_and_addresses(machine: &Machine) {
    machine.kubectl("rollout status deployment/web --timeout=60s").ok();
    ready(machine, "client");
    ready(machine, "named");
    // This one was only for its name.
    let own = jsonpath(machine, "pod named", "{.status.podIP}");
    machine.eventually_or("the pod's own name", SOON, || {
        let is = asked(machine, "own.heads.default.svc.cluster.local");
        if is == BTreeSet::from([own.clone()]) { Ok(()) } else { Err(format!("{is:?}")) }
    });
    assert_eq!(sh(machine, "named", "hostname -f").trim(), "own.heads.default.svc.cluster.local");
    let all = addresses(machine, "pods -l tier=web");
    let becomes = |expect: &BTreeSet<String>| {
        machine.eventually_or("all pods that are there", SOON, || {
            let is = asked(machine, "heads.default.svc.cluster.local");
            if is == *expect { Ok(()) } else { Err(format!("{is:?}")) }
        });
    };
    becomes(&all);
    machine.kubectl("delete pod named --now").ok();
    let pods = addresses(machine, "pods -l tier=web");
    assert_eq!(pods.len(), 2);
    becomes(&pods);
    let address = jsonpath(machine, "service web", "{.spec.clusterIP}");
    assert_eq!(asked(machine, "web.default.svc.cluster.local"), BTreeSet::from([address.clone()]));
    let reverse = sh(machine, "client", &format!("nslookup {address}"));
    assert!(reverse.contains("name = web.default.svc.cluster.local"), "{reverse}");
    let srv = sh(machine, "client", "nslookup -type=srv _http._tcp.web.default.svc.cluster.local");
    assert!(srv.contains("80 web.default.svc.cluster.local"), "{srv}");

    let names: BTreeSet<String> = jsonpath(machine, "pods -l tier=web", "{.items[*].metadata.name}")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    for host in ["web", "web.default", "web.default.svc.cluster.local", &address] {
        let seen = visits(machine, host, 80, 3);
        assert!(!seen.is_empty() && seen.is_subset(&names), "{host}: {seen:?}");
    }
    assert_eq!(visits(machine, &address, 80, 30), names, "each pod gets visits");
    assert!(visits(machine, "heads", 8080, 2).is_subset(&names));
}

pub fn affinity(machine: &Machine) {
    let seen = visits(machine, "sticky", 80, 15);
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// Without a network, names of others fail while the client still waits, as do ours that don't exist.
pub fn unknown_names(machine: &Machine) {
    for (name, why) in [("none.default.svc.cluster.local", "NXDOMAIN"), ("nowhere.example.com", "SERVFAIL")] {
        let begin = env::Env::system().monotonic();
        let said = machine.kubectl_args(&["exec", "client", "--", "nslookup", name]).failed();
        println!("{name} failed after {:?}", taken(begin));
        assert!(said.contains(why), "{name}: {said}");
    }
}
