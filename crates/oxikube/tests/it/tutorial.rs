//! A first tutorial, followed by hand: files, Deployments, a Service in front of them, configuration. (StatefulSets and their data: `sets`.)

use std::collections::BTreeMap;
use std::fs;

use testkit::machine::Machine;

use crate::support::{SOON, Step, every, jsonpath, load_images, started};

#[test]
fn a_first_tutorial() {
    let machine = started("tutorial");
    load_images(&machine);
    let steps: [Step; 4] = [
        ("a file with a tab is told with its line", tabs),
        ("a Deployment is looked at from all sides", deployment),
        ("a Service is the single name of its ready pods", balance),
        ("a ConfigMap replaces a file, a Secret stays in memory", configuration),
    ];
    every(&machine, &steps);
    machine.kubectl("delete -f web.yml -f configured.yml --timeout=60s").ok();
    let left = machine.kubectl("get deployments,replicasets,configmaps,secrets -l tutorial=first -o name").ok();
    assert_eq!(left, "");
    machine.eventually_or("the pods are gone", SOON, || match machine.kubectl("get pods -o name").ok() {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
}

fn write(machine: &Machine, name: &str, text: &str) {
    fs::write(machine.folder().join(name), text).unwrap();
}

fn tabs(machine: &Machine) {
    write(machine, "tabs.yml", "apiVersion: v1\nkind: Pod\nmetadata:\n\tname: web\n");
    let said = machine.kubectl("create -f tabs.yml").failed();
    for part in ["error parsing tabs.yml", "line 4", "cannot start any token"] {
        assert!(said.contains(part), "{said}");
    }
    write(machine, "typo.yml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {contaners: []}\n");
    let said = machine.kubectl("create -f typo.yml").failed();
    assert!(said.contains("unknown field \"spec.contaners\""), "{said}");
    assert_eq!(machine.kubectl("get pods -o name").ok(), "");
}

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {tutorial: first}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, tutorial: first}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: oxikube.local/busybox:1
        command: [sh, -c, 'mkdir /www; hostname >/www/index.html; touch /www/ready; echo serving; exec httpd -f -p 8080 -h /www']
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}
        resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {cpu: 200m, memory: 32Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tutorial: first}}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"#;

fn deployment(machine: &Machine) {
    write(machine, "web.yml", WEB);
    let said = machine.kubectl("create -f web.yml").ok();
    assert_eq!(said, "deployment.apps/web created\nservice/web created\n");
    machine.kubectl("rollout status deployment/web --timeout=90s").ok();
    let said = machine.kubectl("create -f web.yml").failed();
    assert!(said.contains("deployments.apps \"web\" already exists"), "{said}");
    let all = machine.kubectl("get all").ok();
    for line in ["pod/web-", "service/web ", "deployment.apps/web ", "replicaset.apps/web-"] {
        assert!(all.lines().any(|have| have.starts_with(line)), "no {line} in\n{all}");
    }
    assert!(all.lines().any(|line| line.starts_with("deployment.apps/web") && line.contains("3/3")), "{all}");
    // Events and logs follow what they tell of.
    let tells = |command: &str, parts: &[&str]| {
        machine.eventually_or(command, SOON, || match machine.kubectl(command).ok() {
            said if parts.iter().all(|part| said.contains(part)) => Ok(()),
            said => Err(said),
        });
    };
    let counts = "3 desired | 3 updated | 3 total | 3 available | 0 unavailable";
    tells("describe deployment web", &[counts, "Limits:", "ScalingReplicaSet"]);
    let assigned = "Successfully assigned default/web-";
    tells("describe pods -l app=web", &[assigned, "Container started", "QoS Class:                   Burstable"]);
    tells("logs deployment/web", &["serving\n"]);
    // One that is deleted is replaced.
    let pod = jsonpath(machine, "pods -l app=web", "{.items[0].metadata.name}");
    machine.kubectl(&format!("delete pod {pod}")).ok();
    machine.kubectl("wait --for=jsonpath={.status.readyReplicas}=3 deployment/web --timeout=60s").ok();
    assert!(!machine.kubectl("get pods -o name").ok().contains(&pod));
}

/// Which pods answer through the Service, and how often.
fn answering(machine: &Machine) -> BTreeMap<String, usize> {
    let port = jsonpath(machine, "service web", "{.spec.ports[0].nodePort}");
    let mut seen = BTreeMap::new();
    for _ in 0..60 {
        let page = machine.get(&format!("http://127.0.0.1:{port}/")).unwrap_or_else(|error| error.to_string());
        *seen.entry(page.trim().to_owned()).or_default() += 1;
    }
    seen
}

fn balance(machine: &Machine) {
    let names = jsonpath(machine, "pods -l app=web", "{.items[*].metadata.name}");
    let names: Vec<&str> = names.split(' ').collect();
    let answer = |expect: &[&str]| {
        machine.eventually_or("the ready ones answer", SOON, || {
            let seen = answering(machine);
            let mut wanted = expect.to_vec();
            wanted.sort_unstable();
            if seen.keys().eq(&wanted) { Ok(()) } else { Err(format!("{seen:?}, not {wanted:?}")) }
        });
    };
    answer(&names);
    machine.kubectl_args(&["exec", names[0], "--", "rm", "/www/ready"]).ok();
    answer(&names[1..]);
    machine.kubectl_args(&["exec", names[0], "--", "touch", "/www/ready"]).ok();
    answer(&names);
    // Other pods know it by its name.
    let ask = ["exec", names[1], "--", "wget", "-qO-", "http://web"];
    machine.eventually_or("the name is found", SOON, || {
        let said = machine.kubectl_args(&ask);
        if said.code == Some(0) && names.contains(&said.out.trim()) { Ok(()) } else { Err(said.out + &said.err) }
    });
}

const CONFIGURED: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: pages, labels: {tutorial: first}}
data: {healthz: "better\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: key, labels: {tutorial: first}}
stringData: {key.pem: private}
---
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {tutorial: first}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: pages, configMap: {name: pages}}, {name: key, secret: {secretName: key, defaultMode: 0444}}]
  containers:
  - name: web
    image: oxikube.local/visits-frontend:1
    command: [httpd, -f, -p, '8080', -h, /www]
    volumeMounts:
    - {name: pages, mountPath: /www/healthz, subPath: healthz}
    - {name: key, mountPath: /keys, readOnly: true}
"#;

fn configuration(machine: &Machine) {
    write(machine, "configured.yml", CONFIGURED);
    machine.kubectl("create -f configured.yml").ok();
    machine.kubectl("wait --for=condition=Ready pod/configured --timeout=60s").ok();
    let shell = |command: &str| machine.kubectl_args(&["exec", "configured", "--", "sh", "-c", command]);
    // The image's own file says something else, and its neighbours stay.
    let page = shell("wget -qO- http://127.0.0.1:8080/healthz; ls /www/cgi-bin").ok();
    assert_eq!(page, "better\nindex.cgi\n");
    assert_eq!(shell("cat /keys/key.pem").ok(), "private");
    shell("echo more >> /keys/key.pem").failed();
    assert!(shell("grep ' /keys ' /proc/mounts").ok().starts_with("tmpfs "));
}
