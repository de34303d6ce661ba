//! The real kubectl's commands, one after the other, on one cluster.

use testkit::machine::Machine;

use crate::support::{SOON, jsonpath, load_images, started};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sleeper, labels: {app: sleeper}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: oxikube.local/busybox:1
    command: [sh, -c, 'echo out; echo err >&2; trap "exit 0" TERM; while true; do sleep 1 & wait $!; done']
"#;

#[test]
fn kubectl_does_what_people_do_with_it() {
    let machine = started("kubectl");
    load_images(&machine);
    asks(&machine);
    pods(&machine);
    objects(&machine);
    deployments(&machine);
    refusals(&machine);
}

fn asks(machine: &Machine) {
    assert!(machine.kubectl("version").ok().contains("Server Version: v1.35"));
    assert!(machine.kubectl("cluster-info").ok().contains("is running at"));
    assert!(machine.kubectl("api-resources").ok().contains("deployments"));
    assert!(machine.kubectl("api-versions").ok().contains("apps/v1"));
    assert!(machine.kubectl("explain pod.spec.containers.ports").ok().contains("containerPort"));
    assert_eq!(machine.kubectl("auth can-i create pods").ok().trim(), "yes");
    assert_eq!(machine.kubectl("auth can-i create pods --as nobody").failed().trim(), "no");
    assert!(machine.kubectl("get nodes -o wide").ok().contains("Ready"));
    for output in ["json", "yaml", "name", "wide", "custom-columns=N:.metadata.name", "go-template={{len .items}}"] {
        machine.kubectl_args(&["get", "namespaces", "-o", output]).ok();
    }
    assert!(machine.kubectl("get all -A").ok().contains("service/kubernetes"));
}

fn pods(machine: &Machine) {
    machine.kubectl_with("create -f -", POD).ok();
    machine.kubectl("wait --for=condition=Ready pod/sleeper --timeout=60s").ok();
    assert!(machine.kubectl("describe pod sleeper").ok().contains("Started"));
    machine.eventually("logs", SOON, || {
        let logs = machine.kubectl("logs sleeper").ok();
        (logs.contains("out\n") && logs.contains("err\n")).then_some(())
    });
    assert_eq!(machine.kubectl("logs sleeper --tail=0").ok(), "");
    assert_eq!(machine.kubectl_args(&["exec", "sleeper", "--", "sh", "-c", "echo inside; exit 7"]).code, Some(7));
    assert_eq!(machine.kubectl_args(&["exec", "sleeper", "--", "hostname"]).ok().trim(), "sleeper");
    assert_eq!(machine.kubectl_with("exec -i sleeper -- cat", "through\n").ok(), "through\n");
    machine.kubectl("label pod sleeper tier=test").ok();
    machine.kubectl("annotate pod sleeper note=x").ok();
    assert!(machine.kubectl("get pods -l tier=test --show-labels").ok().contains("sleeper"));
    assert!(
        machine
            .kubectl("get pods --field-selector status.phase=Running --sort-by .metadata.name")
            .ok()
            .contains("sleeper")
    );
    machine.kubectl("delete pod sleeper").ok();
    assert!(machine.kubectl("get pod sleeper").failed().contains("pods \"sleeper\" not found"));
}

fn objects(machine: &Machine) {
    machine.kubectl("create namespace extra").ok();
    machine.kubectl("create configmap cm --from-literal=a=1 -n extra").ok();
    machine.kubectl("create secret generic s --from-literal=p=q -n extra").ok();
    machine.kubectl_args(&["patch", "configmap", "cm", "-n", "extra", "-p", r#"{"data":{"b":"2"}}"#]).ok();
    machine
        .kubectl_args(&[
            "patch",
            "configmap",
            "cm",
            "-n",
            "extra",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/data/a"}]"#,
        ])
        .ok();
    assert_eq!(jsonpath(machine, "configmap cm -n extra", "{.data}"), r#"{"b":"2"}"#);
    let manifest = machine.kubectl("get configmap cm -n extra -o yaml").ok();
    machine.kubectl_with("replace -f -", &manifest.replace("b: \"2\"", "b: \"3\"")).ok();
    let applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: extra}\ndata: {k: v}\n";
    machine.kubectl_with("apply -f -", applied).ok();
    assert!(machine.kubectl_with("apply -f -", applied).ok().contains("unchanged"));
    let diff = machine.kubectl_with("diff -f -", &applied.replace("k: v", "k: w"));
    assert!(diff.code == Some(1) && diff.out.contains("+  k: w"), "{diff:?}");
    machine.kubectl("delete namespace extra --timeout=60s").ok();
    assert!(machine.kubectl("get configmap cm -n extra").failed().contains("not found"));
}

fn deployments(machine: &Machine) {
    machine.kubectl("create deployment web --image=oxikube.local/busybox:1 --replicas=2 -- sleep 10000").ok();
    machine.kubectl("rollout status deployment/web --timeout=60s").ok();
    machine.kubectl("expose deployment web --port=80 --target-port=8080").ok();
    machine.kubectl("set image deployment/web busybox=oxikube.local/busybox:none").ok();
    machine.eventually("a pull error", SOON, || {
        let pods = machine.kubectl("get pods -l app=web").ok();
        (pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff")).then_some(())
    });
    assert!(machine.kubectl("rollout history deployment/web").ok().contains("2"));
    machine.kubectl("rollout undo deployment/web").ok();
    machine.kubectl("rollout status deployment/web --timeout=60s").ok();
    machine.kubectl("rollout restart deployment/web").ok();
    machine.kubectl("rollout status deployment/web --timeout=90s").ok();
    machine.kubectl("delete deployment/web service/web --cascade=foreground --timeout=60s").ok();
    machine.kubectl("wait --for=delete pod -l app=web --timeout=60s").ok();
}

/// What is wrong is said as upstream says it, and changes nothing.
fn refusals(machine: &Machine) {
    let check = |manifest: &str, expect: &str| {
        let said = machine.kubectl_with("create -f -", manifest).failed();
        assert!(said.contains(expect), "{manifest}\n{said}");
    };
    check("apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: x\n", "found character that cannot start any token");
    check("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatum: {}\n", "unknown field \"datum\"");
    check("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: X_y}\n", "a lowercase RFC 1123 subdomain must consist of");
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: many}\n",
        "cannot be handled as a Deployment",
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c}]}\n",
        "spec.containers[0].image: Required value",
    );
    // Unvalidated, as kubectl validates kinds it finds nowhere else with the older OpenAPI document.
    let thing = "apiVersion: v9\nkind: Thing\nmetadata: {name: x}\n";
    let said = machine.kubectl_with("create --validate=false -f -", thing).failed();
    assert!(said.contains("no matches for kind \"Thing\" in version \"v9\""), "{said}");
    assert!(machine.kubectl("get configmap x").failed().contains("not found"));
}
