//! `get` in every form, `describe`, `explain`, `wait`, and questions about the cluster.

use testkit::machine::Machine;
use testkit::terminal::Terminal;

use super::{has, prints, prints_args, refuses};
use crate::support::SOON;

const MAPS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: forms}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: forms, labels: {set: forms, tier: front}}
data: {num: "3"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: two, namespace: forms, labels: {set: forms, tier: back}}
data: {num: "1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: three, namespace: forms, labels: {set: forms, tier: front}}
data: {num: "2"}
"#;

pub fn begin(machine: &Machine) {
    machine.kubectl_with("create -f -", MAPS).ok();
}

pub fn about_the_cluster(machine: &Machine) {
    has(machine, "version", &["Server Version: v1.35"]);
    has(machine, "cluster-info", &["control plane", "is running at", "https://"]);
    has(machine, "api-resources", &["deployments", "deploy", "apps/v1", "true", "Deployment"]);
    has(machine, "api-resources --namespaced=false -o name", &["nodes\n", "namespaces\n"]);
    has(machine, "api-versions", &["apps/v1\n", "v1\n", "rbac.authorization.k8s.io/v1\n"]);
    has(machine, "explain pod.spec.containers.ports", &["KIND:       Pod", "containerPort\t<integer> -required-"]);
    has(machine, "explain deployment --recursive", &["strategy\t<DeploymentStrategy>", "maxSurge\t<IntOrString>"]);
    refuses(machine, "explain pod.spec.nonsense", "field \"nonsense\" does not exist");
    prints(machine, "auth can-i create pods", "yes\n");
    assert_eq!(machine.kubectl("auth can-i create pods --as nobody").failed(), "no\n");
    has(machine, "auth can-i --list", &["*.*"]);
    has(machine, "auth whoami", &["kubernetes-admin", "system:masters"]);
    has(machine, "get nodes -o wide", &["Ready", "INTERNAL-IP", "CONTAINER-RUNTIME"]);
    has(machine, "get all -A", &["service/kubernetes"]);
    has(machine, "get --raw /readyz", &["ok"]);
    for kind in
        ["node", "service/kubernetes", "namespace/forms", "serviceaccount/default", "configmap/kube-root-ca.crt"]
    {
        has(machine, &format!("describe {kind}"), &["Name:", "Labels:"]);
    }
    has(machine, "describe configmaps one -n forms", &["num:\n----\n3"]);
}

pub fn forms(machine: &Machine) {
    const ONE: &[&str] = &["get", "configmap", "one", "-n", "forms"];
    const SET: &[&str] = &["get", "configmaps", "-n", "forms", "-l", "set=forms"];
    let check = |base: &[&str], more: &[&str], expect: &str| prints_args(machine, &[base, more].concat(), expect);
    check(SET, &["-o", "name"], "configmap/one\nconfigmap/three\nconfigmap/two\n");
    check(SET, &["-o", "name", "--sort-by", "{.data.num}"], "configmap/two\nconfigmap/three\nconfigmap/one\n");
    check(SET, &["-o", "name", "--sort-by", ".metadata.name"], "configmap/one\nconfigmap/three\nconfigmap/two\n");
    check(SET, &["-o", "name", "--field-selector", "metadata.name=two"], "configmap/two\n");
    check(SET, &["-o", "name", "--field-selector", "metadata.name!=two"], "configmap/one\nconfigmap/three\n");
    check(SET, &["-o", "jsonpath={.items[*].data.num}"], "3 2 1");
    check(SET, &["-o", "go-template={{range .items}}{{.data.num}},{{end}}"], "3,2,1,");
    check(
        SET,
        &["-o", "custom-columns=NAME:.metadata.name,N:.data.num"],
        "NAME    N\none     3\nthree   2\ntwo     1\n",
    );
    check(SET, &["-o", "custom-columns=NAME:.metadata.name", "--no-headers"], "one\nthree\ntwo\n");
    check(ONE, &["-o", "jsonpath={.data.num}"], "3");
    let labels = |selector: &str, expect: &str| {
        let args = ["get", "configmaps", "-n", "forms", "-o", "jsonpath={.items[*].data.num}", "-l", selector];
        prints_args(machine, &args, expect);
    };
    labels("tier=front,set", "3 2");
    labels("tier in (front, back),tier notin (back)", "3 2");
    labels("!nothing,set!=forms,tier", "");
    let files = [
        ("jsonpath-file", "{.data.num}", "3"),
        ("go-template-file", "{{.data.num}}", "3"),
        ("custom-columns-file", "NAME          N\nmetadata.name data.num\n", "NAME   N\none    3\n"),
    ];
    for (form, text, expect) in files {
        let path = machine.folder().join(form);
        std::fs::write(&path, text).unwrap();
        check(ONE, &["-o", &format!("{form}={}", path.display())], expect);
    }
    let json: serde_json::Value =
        serde_json::from_str(&machine.kubectl_args(&[SET, &["-o", "json"]].concat()).ok()).unwrap();
    assert_eq!((json["kind"].as_str(), json["items"].as_array().map(Vec::len)), (Some("List"), Some(3)));
    let yaml = machine.kubectl_args(&[ONE, &["-o", "yaml"]].concat()).ok();
    assert!(yaml.starts_with("apiVersion: v1\ndata:\n  num: \"3\"\nkind: ConfigMap\nmetadata:\n"), "{yaml}");
    let table = machine.kubectl("get configmaps -A -l set=forms -L tier --show-labels").ok();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["NAMESPACE", "NAME", "DATA", "AGE", "TIER", "LABELS"]);
    let row = lines.next().unwrap();
    assert_eq!((&row[..3], &row[4..]), (&["forms", "one", "1"][..], &["front", "set=forms,tier=front"][..]));
    assert_eq!(machine.kubectl("get configmaps -n forms -l set=none").ok(), "");
    refuses(machine, "get configmaps none -n forms", "Error from server (NotFound): configmaps \"none\" not found");
}

/// Changes are shown as they happen.
pub fn watching(machine: &Machine) {
    let watch = "get configmaps -n forms -l set=forms -w --output-watch-events";
    let screen = Terminal::start(machine, machine.kubectl_command(watch)).unwrap();
    for name in ["one", "two", "three"] {
        screen.until(&format!("ADDED      {name}"), SOON);
    }
    machine.kubectl("create configmap late -n forms").ok();
    machine.kubectl("label configmap late -n forms set=forms").ok();
    screen.until("ADDED      late", SOON);
    machine.kubectl("annotate configmap late -n forms some=thing").ok();
    screen.until("MODIFIED   late", SOON);
    machine.kubectl("delete configmap late -n forms").ok();
    screen.until("DELETED    late", SOON);
    screen.kill().unwrap();
    let only =
        Terminal::start(machine, machine.kubectl_command("get configmaps -n forms --watch-only -o name")).unwrap();
    machine.eventually("the watch to begin", SOON, || {
        machine.kubectl("create configmap later -n forms --dry-run=none").ok();
        machine.kubectl("delete configmap later -n forms").ok();
        only.shows("configmap/later").then_some(())
    });
    assert!(!only.shows("configmap/one"));
    only.kill().unwrap();
}

pub fn waiting(machine: &Machine) {
    let mut wait = machine.kubectl_command("wait configmap/one -n forms --for=jsonpath={.data.num}=4 --timeout=60s");
    wait.stdout(std::process::Stdio::piped());
    let waits = machine.spawn(wait);
    let created = machine.spawn(machine.kubectl_command("wait configmap/made -n forms --for=create --timeout=60s"));
    machine.kubectl_args(&["patch", "configmap", "one", "-n", "forms", "-p", r#"{"data":{"num":"4"}}"#]).ok();
    machine.kubectl("create configmap made -n forms").ok();
    let said = waits.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "configmap/one condition met\n");
    assert!(created.wait_with_output().unwrap().status.success());
    let gone = machine.spawn(machine.kubectl_command("wait configmap/made -n forms --for=delete --timeout=60s"));
    machine.kubectl("delete configmap made -n forms").ok();
    assert!(gone.wait_with_output().unwrap().status.success());
    refuses(machine, "wait configmap/one -n forms --for=delete --timeout=1s", "timed out waiting for the condition");
}
