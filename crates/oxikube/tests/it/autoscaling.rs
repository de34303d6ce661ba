//! What pods and nodes use, sizes that follow it, and servers that take over what is answered here: as somebody with kubectl
//! sees them.

mod figures;

use std::time::Duration;

use testkit::machine::Machine;

use crate::support::{Step, every, jsonpath, load_images, started};
use figures::Figures;

/// Autoscalers look every 15 seconds, and pods take their time.
const LATER: Duration = Duration::from_secs(240);

#[test]
fn sizes_follow_use() {
    let machine = started("autoscaling");
    let steps: [Step; 4] = [
        ("kubectl top works soon after the start", top),
        ("a Deployment grows with its load and shrinks without", load),
        ("sizes follow what other servers tell", others),
        ("another server's figures replace ours while it is registered", steps_aside),
    ];
    every(&machine, &steps);
}

/// What kubectl says once it is as wanted: figures, conditions and events follow what they tell of.
#[track_caller]
fn until(machine: &Machine, command: &str, wanted: impl Fn(&str) -> bool) -> String {
    machine.eventually_or(command, LATER, || {
        let said = machine.kubectl(command);
        if said.code == Some(0) && wanted(said.out.trim_end()) { Ok(said.out) } else { Err(said.out + &said.err) }
    })
}

#[track_caller]
fn tells(machine: &Machine, command: &str, texts: &[&str]) {
    until(machine, command, |said| texts.iter().all(|text| said.contains(text)));
}

fn top(machine: &Machine) {
    let node = jsonpath(machine, "nodes", "{.items[0].metadata.name}");
    let said = until(machine, "top node", |_| true);
    assert!(said.starts_with("NAME") && said.contains(&node) && said.contains('%'), "{said}");
    load_images(machine);
    let pod = |name: &str, seconds: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: top}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [
               {{name: one, image: 'oxikube.local/busybox:1', command: [sh, -c, 'while :; do sleep {seconds}; done']}},
               {{name: two, image: 'oxikube.local/busybox:1', command: [sh, -c, 'while :; do sleep {seconds}; done']}}]}}}}\n---\n"
        )
    };
    machine.kubectl_with("apply -f -", &[pod("idle", "1"), pod("busy", "0.01")].concat()).ok();
    machine.kubectl("wait --for=condition=Ready pod/idle pod/busy --timeout=240s").ok();
    let said = until(machine, "top pod -l app=top --containers --no-headers", |said| said.lines().count() == 4);
    let unit = |line: &str| line.split_whitespace().count() == 4 && line.contains("m ") && line.ends_with("Mi");
    assert!(said.lines().all(|line| unit(line.trim_end())), "{said}");
    // Two pods, a line, and the sum.
    until(machine, "top pod --sort-by=memory --sum --no-headers", |said| said.lines().count() == 4);
    until(machine, "top pod -A --sort-by=cpu", |said| said.starts_with("NAMESPACE") && said.contains("default"));
    let said = machine.kubectl("top pod none").failed();
    assert!(said.contains("pods.metrics.k8s.io \"default/none\" not found") || said.contains("not found"), "{said}");
    // As a resource like any other.
    until(machine, "get pods.metrics.k8s.io idle", |said| said.starts_with("NAME") && said.contains("WINDOW"));
    until(machine, "get podmetrics idle -o jsonpath={.containers[*].name}", |said| said == "one two");
    let said = machine.kubectl("explain podmetrics.containers.usage").ok();
    assert!(said.contains("usage"), "{said}");
    assert_eq!(machine.kubectl("auth can-i list pods.metrics.k8s.io --as=nobody").out.trim(), "no");
    machine.kubectl("create clusterrolebinding top-view --clusterrole=view --user=viewer").ok();
    until(machine, "auth can-i list pods.metrics.k8s.io --as=viewer", |said| said == "yes");
    machine.kubectl("delete pod idle busy").ok();
}

fn load(machine: &Machine) {
    let folder = machine.folder().join("load");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: burner}}, spec: {{selector: {{matchLabels: {{app: burner}}}},
           template: {{metadata: {{labels: {{app: burner}}}}, spec: {{terminationGracePeriodSeconds: 0,
             containers: [{{name: burner, image: 'oxikube.local/busybox:1',
               command: [sh, -c, 'while :; do [ -e /load/on ] || sleep 1; done'],
               resources: {{requests: {{cpu: 50m}}, limits: {{cpu: 150m}}}}, volumeMounts: [{{name: load, mountPath: /load}}]}}],
             volumes: [{{name: load, hostPath: {{path: '{}', type: Directory}}}}]}}}}}}}}",
        folder.display()
    );
    machine.kubectl_with("apply -f -", &manifest).ok();
    machine.kubectl("rollout status deployment/burner --timeout=240s").ok();
    machine.kubectl("autoscale deployment burner --cpu=50% --min=1 --max=3").ok();
    let quick = r#"{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0}}}}"#;
    machine.kubectl_args(&["patch", "hpa", "burner", "--type=merge", "-p", quick]).ok();
    // One container's use, told apart.
    let container = "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: watcher}, spec: {
       scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: other}, minReplicas: 1, maxReplicas: 2,
       metrics: [{type: ContainerResource, containerResource: {name: cpu, container: main, target: {type: Utilization, averageUtilization: 90}}}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: other}, spec: {selector: {matchLabels: {app: other}},
   template: {metadata: {labels: {app: other}}, spec: {terminationGracePeriodSeconds: 0, containers: [
     {name: main, image: 'oxikube.local/busybox:1', command: [sleep, '10000'], resources: {requests: {cpu: 50m}}},
     {name: side, image: 'oxikube.local/busybox:1', command: [sleep, '10000']}]}}}}";
    machine.kubectl_with("apply -f -", container).ok();
    let size = |wanted: &'static str| {
        move || match jsonpath(machine, "deployment burner", "{.spec.replicas}") {
            now if now == wanted => Ok(()),
            _ => Err(machine.kubectl("describe hpa burner").out),
        }
    };
    until(machine, "get hpa burner --no-headers", |row| row.contains("/50%") && !row.contains("<unknown>"));
    std::fs::write(folder.join("on"), "").unwrap();
    machine.eventually_or("it grows under load", LATER, size("3"));
    tells(machine, "get hpa burner --no-headers", &["Deployment/burner", "cpu: ", "/50%"]);
    let texts = [
        "resource cpu on pods  (as a percentage of request):",
        "AbleToScale",
        "ScalingActive",
        "ValidMetricFound",
        "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)",
        "SuccessfulRescale",
        "reason: cpu resource utilization (percentage of request) above target",
    ];
    tells(machine, "describe hpa burner", &texts);
    std::fs::remove_file(folder.join("on")).unwrap();
    machine.eventually_or("it shrinks without", LATER, size("1"));
    tells(machine, "describe hpa burner", &["New size: 1; reason: All metrics below target"]);
    machine.eventually_or("the container's use is told", LATER, || {
        let path = "{.status.currentMetrics[0].containerResource.current.averageUtilization}";
        let used = jsonpath(machine, "hpa watcher", path);
        if used.is_empty() { Err(machine.kubectl("describe hpa watcher").out) } else { Ok(()) }
    });
    machine.kubectl("delete deployment,hpa --all").ok();
}

/// Has a group version answered by the figures' server.
fn register(machine: &Machine, figures: &Figures, group: &str, version: &str) {
    let manifest = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: figures}}, spec: {{type: ExternalName, externalName: localhost}}}}
---
{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: {version}.{group}}}, spec: {{
   group: {group}, version: {version}, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true,
   service: {{namespace: default, name: figures, port: {}}}}}}}",
        figures.port()
    );
    machine.kubectl_with("apply -f -", &manifest).ok();
    machine.kubectl(&format!("wait --for=condition=Available apiservice/{version}.{group} --timeout=240s")).ok();
}

fn others(machine: &Machine) {
    let figures = Figures::start(machine);
    register(machine, &figures, "custom.metrics.k8s.io", "v1beta2");
    register(machine, &figures, "external.metrics.k8s.io", "v1beta1");
    let groups = machine.kubectl("api-versions").ok();
    assert!(groups.contains("custom.metrics.k8s.io/v1beta2"), "{groups}");
    let manifest = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web}, spec: {replicas: 1, serviceName: web,
   podManagementPolicy: Parallel, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {
     terminationGracePeriodSeconds: 0, containers: [{name: main, image: 'oxikube.local/busybox:1', command: [sleep, '10000']}]}}}}
---
{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web}, spec: {
   scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: web}, minReplicas: 1, maxReplicas: 5, metrics: [
     {type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: '10'}}},
     {type: Object, object: {metric: {name: hits}, describedObject: {apiVersion: v1, kind: Service, name: web},
        target: {type: Value, value: '30'}}},
     {type: External, external: {metric: {name: queue, selector: {matchLabels: {of: web}}}, target: {type: AverageValue, averageValue: '15'}}}]}}";
    machine.kubectl_with("apply -f -", manifest).ok();
    machine.eventually_or("the queue's length asks for three", LATER, || {
        let metrics = jsonpath(machine, "hpa web", "{.status.currentMetrics[*].type}");
        match jsonpath(machine, "statefulset web", "{.spec.replicas}") {
            now if now == "3" && metrics == "Pods Object External" => Ok(()),
            _ => Err(machine.kubectl("describe hpa web").out),
        }
    });
    let texts =
        ["\"requests\" on pods:", "\"hits\" on Service/web", "\"queue\" (target average value):", "SuccessfulRescale"];
    tells(machine, "describe hpa web", &texts);
    machine.kubectl("delete statefulset,hpa --all").ok();
    machine.kubectl("delete apiservice v1beta2.custom.metrics.k8s.io v1beta1.external.metrics.k8s.io").ok();
}

fn steps_aside(machine: &Machine) {
    let figures = Figures::start(machine);
    register(machine, &figures, "metrics.k8s.io", "v1beta1");
    let row = "get apiservice v1beta1.metrics.k8s.io --no-headers";
    tells(machine, row, &["default/figures", "True"]);
    until(machine, "top node", |said| said.contains("123m"));
    drop(figures);
    tells(machine, row, &["False (FailedDiscoveryCheck)"]);
    machine.kubectl("delete apiservice v1beta1.metrics.k8s.io").ok();
    until(machine, "top node", |said| !said.contains("123m"));
}
