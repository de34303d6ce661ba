//! Clusters and pods in the shapes of upstream's `scheduler_perf`.

use serde_json::{Value, json};

pub const SHAPES: [&str; 7] = ["basic", "affinity", "anti-affinity", "spread", "preemption", "volumes", "churn"];

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// What is there before anything is measured, apart from nodes.
pub fn beginning(shape: &str, nodes: usize, pods: usize) -> Vec<Value> {
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}),
    ];
    match shape {
        // Every node is full of pods that yield.
        "preemption" => all.extend((0..nodes * 4).map(|i| {
            let mut low = pod(&format!("low-{i}"), "low", "900m");
            low["spec"]["nodeName"] = json!(node_name(i % nodes));
            low["spec"]["terminationGracePeriodSeconds"] = json!(0);
            low
        })),
        "volumes" => {
            all.push(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "bench"},
                "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}));
            for i in 0..pods {
                all.push(json!({"apiVersion": "v1", "kind": "PersistentVolume",
                    "metadata": {"name": format!("v{i}"), "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
                    "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"], "storageClassName": "bench",
                        "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": "csi.example.com", "volumeHandle": format!("v{i}")},
                        "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": format!("c{i}")}}}));
                all.push(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": {"name": format!("c{i}"), "namespace": "default", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                    "spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "bench", "volumeName": format!("v{i}"),
                        "resources": {"requests": {"storage": "1Gi"}}}}));
            }
        }
        _ => {}
    }
    all
}

pub fn node_name(i: usize) -> String {
    format!("node-{i}")
}

pub fn node(i: usize) -> Value {
    let name = node_name(i);
    let amounts = json!({"cpu": "4", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {HOSTNAME: name, ZONE: format!("zone-{}", i % 3)}},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// The pod to measure with this number.
pub fn measured(shape: &str, i: usize) -> Value {
    let name = format!("pod-{i}");
    let mut pod = pod(&name, shape, "10m");
    let selector = json!({"matchLabels": {"app": shape}});
    let terms = |key: &str| json!({"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key, "labelSelector": selector}]});
    let spec = &mut pod["spec"];
    match shape {
        "affinity" => spec["affinity"] = json!({"podAffinity": terms(ZONE)}),
        "anti-affinity" => {
            // As many groups as pods allow on few nodes: members of one don't share a node.
            let group = format!("group-{}", i / 50);
            pod["metadata"]["labels"]["app"] = json!(group);
            pod["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                [{"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": group}}}]}});
        }
        "spread" => {
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": selector}]);
        }
        "preemption" => {
            spec["priorityClassName"] = json!("high");
            spec["containers"][0]["resources"]["requests"]["cpu"] = json!("900m");
        }
        "volumes" => {
            spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": format!("c{i}")}}])
        }
        // One in ten fits nowhere, and stays in everybody's way.
        "churn" if i.is_multiple_of(10) => spec["containers"][0]["resources"]["requests"]["cpu"] = json!("9"),
        "churn" if i % 10 < 4 => {
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": selector}]);
        }
        _ => {}
    }
    pod
}

/// How many pods to measure, of so many that are asked for: no more than there is room for.
pub fn count(shape: &str, nodes: usize, pods: usize) -> usize {
    if shape == "preemption" { pods.min(nodes * 2) } else { pods }
}

/// Whether most of the work comes before the first binding.
pub fn makes_room(shape: &str) -> bool {
    shape == "preemption"
}

/// How many of so many pods get a node.
pub fn fitting(shape: &str, pods: usize) -> usize {
    if shape == "churn" { pods - pods.div_ceil(10) } else { pods }
}

fn pod(name: &str, app: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": cpu, "memory": "50Mi"}}}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fits_is_counted() {
        let check = |shape, pods, expect| assert_eq!(fitting(shape, pods), expect);
        check("basic", 25, 25);
        check("churn", 25, 22);
        let large = |i: &usize| measured("churn", *i)["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "9";
        assert_eq!((0..25).filter(large).count(), 3);
    }
}
