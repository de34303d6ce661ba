//! Clusters and pods to place, made from seeds: what schedulers are compared on.
//!
//! Objects are complete, so that a server's defaulting changes nothing that matters for placement, and what two objects could tie in differs.

mod devices;
mod profiles;

use env::Env;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use profiles::{PROFILES, configuration};

/// The seeds before this one are about the default profile alone, the others about everything else that there is.
pub const WIDE: u64 = 216;
/// The seeds from this one on are about claims of devices.
pub const DEVICES: u64 = 312;
/// So many seeds are compared.
pub const SEEDS: u64 = 372;

/// A cluster, and pods that come to it one after the other.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Everything that is there, pods with a node among them; what depends on something comes after it.
    pub objects: Vec<Value>,
    /// Pods without a node.
    pub pods: Vec<Value>,
    /// Claims that are made for pods, by their place among these: [`Scenario::made_for`] says whose they are.
    pub made: Vec<(usize, Value)>,
    /// Which of several devices a claim gets may differ, and so how well a node suits.
    pub ambiguous: bool,
}

impl Scenario {
    /// The claims that are made for the pod at this place, which has this UID.
    pub fn made_for(&self, at: usize, uid: &str) -> Vec<Value> {
        let of_pod = self.made.iter().filter(|(pod, _)| *pod == at);
        let owned = |(_, claim): &(usize, Value)| {
            let mut claim = claim.clone();
            claim["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod",
                "name": self.pods[at]["metadata"]["name"], "uid": uid, "controller": true, "blockOwnerDeletion": true}]);
            claim
        };
        of_pod.map(owned).collect()
    }
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";
const NAMESPACES: [&str; 2] = ["blue", "green"];
const APPS: [&str; 3] = ["api", "db", "web"];

/// The scenario of a seed; always the same one.
pub fn scenario(seed: u64) -> Scenario {
    Maker { env: Env::seeded(seed, Timestamp::UNIX_EPOCH), seed, counter: 0 }.make()
}

struct Maker {
    env: Env,
    seed: u64,
    counter: u64,
}

impl Maker {
    fn below(&self, bound: u64) -> u64 {
        self.env.random_below(bound)
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Whether rare features are in.
    fn wide(&self) -> bool {
        self.seed >= WIDE
    }

    fn make(&mut self) -> Scenario {
        if self.seed >= DEVICES {
            return self.devices();
        }
        let mut objects: Vec<Value> = NAMESPACES
            .iter()
            .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"colour": name}}}))
            .collect();
        let theme = self.seed % 6;
        let nodes = match self.wide() && theme == 5 && self.seed % 4 == 1 {
            // So many that only a part of them is looked at.
            true => 130,
            false => 2 + self.below(9),
        };
        objects.extend((0..nodes).map(|i| self.node(i)));
        // Each seed is about something, so that rare features meet.
        if theme == 1 {
            objects.extend(self.storage(nodes));
            if self.wide() {
                objects.extend(self.attachable(nodes));
            }
        }
        if self.one_in(2) {
            objects
                .push(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "blue"},
                "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}}));
        }
        let crowd = if theme == 2 { nodes * 4 } else { self.below(nodes.min(20) * 3) };
        for _ in 0..crowd {
            let node = format!("n{}", self.below(nodes));
            objects.push(self.placed_pod(theme, &node));
        }
        if theme == 2 {
            for app in APPS {
                if self.one_in(2) {
                    objects.push(self.budget(app));
                }
            }
        }
        let pods = (0..4).map(|i| self.pending_pod(theme, i)).collect();
        Scenario { objects, pods, made: Vec::new(), ambiguous: false }
    }

    fn node(&mut self, i: u64) -> Value {
        let name = format!("n{i}");
        let mut labels =
            json!({HOSTNAME: name, "disk": self.pick(&["ssd", "hdd"]), "cores": (2 + self.below(6)).to_string()});
        if !self.one_in(6) {
            labels[ZONE] = json!(format!("z{}", self.below(3)));
        }
        let mut taints = Vec::new();
        for effect in ["NoSchedule", "PreferNoSchedule", "NoExecute"] {
            if self.one_in(8) {
                taints.push(
                    json!({"key": self.pick(&["dedicated", "gpu"]), "value": self.pick(&["a", "b"]), "effect": effect}),
                );
            }
        }
        let mut allocatable = json!({"cpu": format!("{}m", 1000 * (1 + self.below(6))), "memory": format!("{}Mi", 512 * (1 + self.below(12))),
            "ephemeral-storage": "20Gi", "pods": (3 + self.below(12)).to_string()});
        if self.one_in(3) {
            allocatable["example.com/gpu"] = json!((1 + self.below(3)).to_string());
        }
        let images: Vec<Value> = ["big:1", "medium:1", "small:1"]
            .iter()
            .zip([900i64, 300, 40])
            .filter(|_| self.one_in(3))
            .map(|(image, mebibytes)| json!({"names": [format!("registry.example/{image}")], "sizeBytes": mebibytes << 20}))
            .collect();
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints, "unschedulable": self.one_in(10)},
            "status": {"allocatable": allocatable, "capacity": allocatable, "images": images}})
    }

    fn labels(&self) -> Value {
        json!({"app": self.pick(&APPS), "track": self.pick(&["stable", "canary"])})
    }

    fn container(&self) -> Value {
        let mut requests = json!({});
        if !self.one_in(5) {
            requests["cpu"] = json!(format!("{}m", 100 * (1 + self.below(9))));
        }
        if !self.one_in(5) {
            requests["memory"] = json!(format!("{}Mi", 64 * (1 + self.below(10))));
        }
        if self.one_in(12) {
            requests["example.com/gpu"] = json!("1");
        }
        let limits = match requests.get("example.com/gpu") {
            Some(gpu) => json!({"example.com/gpu": gpu}),
            None => json!({}),
        };
        let image = self.pick(&["big:1", "medium:1", "small:1", "other:1"]);
        let mut container = json!({"name": "main", "image": format!("registry.example/{image}"),
            "resources": {"requests": requests, "limits": limits}});
        if self.one_in(8) {
            let port = 8000 + self.below(2);
            container["ports"] = json!([{"containerPort": port, "hostPort": port, "protocol": "TCP"}]);
        }
        container
    }

    fn affinity_term(&self) -> Value {
        let mut term = json!({"topologyKey": self.pick(&[ZONE, HOSTNAME]), "labelSelector": {"matchLabels": {"app": self.pick(&APPS)}}});
        match self.below(5) {
            0 => term["namespaces"] = json!([self.pick(&NAMESPACES)]),
            1 => term["namespaceSelector"] = json!({}),
            2 => term["namespaceSelector"] = json!({"matchLabels": {"colour": self.pick(&NAMESPACES)}}),
            _ => {}
        }
        if self.wide() && self.one_in(2) {
            let keys = self.pick(&["matchLabelKeys", "mismatchLabelKeys"]);
            term[keys] = json!(["track"]);
        }
        term
    }

    fn pod_affinity(&self, odds: u64) -> Option<(&'static str, Value)> {
        if !self.one_in(odds) {
            return None;
        }
        let kind = self.pick(&["podAffinity", "podAntiAffinity"]);
        let rules = if self.one_in(2) {
            json!({"requiredDuringSchedulingIgnoredDuringExecution": [self.affinity_term()]})
        } else {
            json!({"preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": 1 + self.below(100), "podAffinityTerm": self.affinity_term()}]})
        };
        Some((kind, rules))
    }

    fn pod(&mut self, theme: u64, name: &str) -> Value {
        let mut spec = json!({"schedulerName": "default-scheduler", "restartPolicy": "Always", "terminationGracePeriodSeconds": 0,
            "containers": [self.container()], "priority": 0, "automountServiceAccountToken": false, "enableServiceLinks": true});
        if self.one_in(6) {
            let mut init = self.container();
            init["name"] = json!("init");
            init.as_object_mut().expect("an object").remove("ports");
            if self.one_in(2) {
                init["restartPolicy"] = json!("Always");
            }
            spec["initContainers"] = json!([init]);
        }
        if self.one_in(4) {
            let key = self.pick(&["dedicated", "gpu"]);
            let effect = self.pick(&["NoSchedule", "PreferNoSchedule", "NoExecute"]);
            let toleration = match self.below(3) {
                0 => json!({"operator": "Exists"}),
                1 => json!({"key": key, "operator": "Exists", "effect": effect}),
                _ => json!({"key": key, "operator": "Equal", "value": "a"}),
            };
            spec["tolerations"] = json!([toleration]);
        }
        let odds = if theme == 3 { 2 } else { 6 };
        if let Some((kind, rules)) = self.pod_affinity(odds) {
            spec["affinity"] = json!({kind: rules});
        }
        let namespace = self.pick(&NAMESPACES);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": self.labels()}, "spec": spec})
    }

    fn placed_pod(&mut self, theme: u64, node: &str) -> Value {
        self.counter += 1;
        let number = self.counter;
        let mut pod = self.pod(theme, &format!("old-{number}"));
        pod["spec"]["nodeName"] = json!(node);
        pod["spec"]["priority"] = json!(self.pick(&[&0, &10, &100, &1000]));
        // No two start together, so that the age of victims decides between them.
        let started = Timestamp::from_second(1_700_000_000 + number as i64 * 60).expect("a time of this century");
        pod["status"] = json!({"phase": "Running", "startTime": started.to_string()});
        if self.wide() && theme == 2 {
            // It takes its time to go.
            pod["spec"]["terminationGracePeriodSeconds"] = json!(3600);
        }
        if self.wide() && theme == 1 && self.one_in(2) {
            let claim = self.pick(&["csi-0", "csi-1", "csi-2"]);
            pod["metadata"]["namespace"] = json!("blue");
            pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        }
        pod
    }

    fn budget(&self, app: &str) -> Value {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": app, "namespace": self.pick(&NAMESPACES)},
            "spec": {"selector": {"matchLabels": {"app": app}}, "minAvailable": 1},
            "status": {"disruptionsAllowed": self.below(2), "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}})
    }

    fn node_affinity(&self) -> Value {
        let expression = match self.below(4) {
            0 => json!({"key": "disk", "operator": "In", "values": [self.pick(&["ssd", "hdd"])]}),
            1 => json!({"key": ZONE, "operator": "NotIn", "values": ["z0"]}),
            2 => json!({"key": "cores", "operator": "Gt", "values": ["4"]}),
            _ => json!({"key": ZONE, "operator": "Exists"}),
        };
        if self.one_in(6) {
            let name = format!("n{}", self.below(4));
            return json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
                [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}});
        }
        if self.one_in(2) {
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}})
        } else {
            json!({"preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": 1 + self.below(100), "preference": {"matchExpressions": [expression]}}]})
        }
    }

    fn constraint(&self) -> Value {
        let mut constraint = json!({"topologyKey": self.pick(&[ZONE, HOSTNAME]), "maxSkew": 1 + self.below(2),
            "whenUnsatisfiable": self.pick(&["DoNotSchedule", "ScheduleAnyway"]),
            "labelSelector": {"matchLabels": {"app": self.pick(&APPS)}}});
        if self.one_in(4) {
            constraint["nodeAffinityPolicy"] = json!(self.pick(&["Honor", "Ignore"]));
        }
        if self.one_in(4) {
            constraint["nodeTaintsPolicy"] = json!(self.pick(&["Honor", "Ignore"]));
        }
        if self.one_in(4) && constraint["whenUnsatisfiable"] == "DoNotSchedule" {
            constraint["minDomains"] = json!(1 + self.below(4));
        }
        if self.one_in(5) {
            constraint["matchLabelKeys"] = json!(["track"]);
        }
        constraint
    }

    fn pending_pod(&mut self, theme: u64, i: u64) -> Value {
        let mut pod = self.pod(theme, &format!("new-{i}"));
        if self.one_in(3) {
            pod["spec"]["affinity"]["nodeAffinity"] = self.node_affinity();
        }
        if self.one_in(8) {
            pod["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        }
        if self.one_in(if theme == 4 { 1 } else { 5 }) {
            let mut constraints = vec![self.constraint()];
            let another = self.constraint();
            let same = |key: &str| another[key] == constraints[0][key];
            if self.one_in(3) && !(same("topologyKey") && same("whenUnsatisfiable")) {
                constraints.push(another);
            }
            pod["spec"]["topologySpreadConstraints"] = json!(constraints);
        }
        if self.wide() {
            pod["spec"]["schedulerName"] = json!(self.profile(theme));
        }
        match theme {
            1 => {
                let claim = match self.wide() {
                    true => self.pick(&["csi-0", "csi-1", "csi-2", "csi-3", "csi-4", "zoned"]),
                    false => self.pick(&["bound", "waits", "made", "now", "big", "missing", "once"]),
                };
                pod["metadata"]["namespace"] = json!("blue");
                pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
            }
            2 => {
                pod["spec"]["priority"] = json!(self.pick(&[&0, &50, &500]));
                pod["spec"]["preemptionPolicy"] = json!(if self.one_in(6) { "Never" } else { "PreemptLowerPriority" });
                pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] =
                    json!(format!("{}m", 500 * (1 + self.below(4))));
            }
            _ => {}
        }
        pod
    }

    /// Claims of a driver that attaches only so many volumes to a node, and a volume that is in a zone.
    fn attachable(&mut self, nodes: u64) -> Vec<Value> {
        let mut all = Vec::new();
        for i in 0..nodes {
            if !self.one_in(5) {
                let count = 1 + self.below(3);
                all.push(
                    json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": format!("n{i}")},
                    "spec": {"drivers": [{"name": "disk.example.com", "nodeID": format!("n{i}"), "topologyKeys": [],
                        "allocatable": {"count": count}}]}}),
                );
            }
        }
        for i in 0..6 {
            let (claim, volume) = match i {
                5 => ("zoned".to_owned(), "in-a-zone".to_owned()),
                i => (format!("csi-{i}"), format!("disk-{i}")),
            };
            let mut made = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "volumeMode": "Filesystem",
                    "storageClassName": "manual", "persistentVolumeReclaimPolicy": "Retain",
                    "csi": {"driver": "disk.example.com", "volumeHandle": volume},
                    "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "blue", "name": claim}},
                "status": {"phase": "Bound"}});
            if i == 5 {
                let zones = self.pick(&["z0", "z1", "z1__z2"]);
                made["metadata"]["labels"] = json!({ZONE: zones});
            }
            all.push(made);
            all.push(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": "blue", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                "spec": {"accessModes": ["ReadWriteMany"], "volumeMode": "Filesystem", "storageClassName": "manual",
                    "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
                "status": {"phase": "Bound"}}));
        }
        all
    }

    /// Classes, volumes and claims of the namespace `blue`.
    fn storage(&mut self, nodes: u64) -> Vec<Value> {
        let class = |name: &str, provisioner: &str, mode: &str, zone: Option<String>| {
            let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
                "provisioner": provisioner, "reclaimPolicy": "Delete", "volumeBindingMode": mode});
            if let Some(zone) = zone {
                class["allowedTopologies"] = json!([{"matchLabelExpressions": [{"key": ZONE, "values": [zone]}]}]);
            }
            class
        };
        let waits = "WaitForFirstConsumer";
        let mut all = vec![
            class("manual", "kubernetes.io/no-provisioner", waits, None),
            class("dynamic", "example.com/made", waits, self.one_in(2).then(|| format!("z{}", self.below(3)))),
            class("now", "example.com/made", "Immediate", None),
        ];
        let volume = |name: &str, size: u64, nodes: Vec<String>, claim: Option<&str>| {
            let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {"capacity": {"storage": format!("{size}Gi")}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                    "storageClassName": "manual", "persistentVolumeReclaimPolicy": "Retain", "local": {"path": format!("/{name}")},
                    "nodeAffinity": {"required": {"nodeSelectorTerms":
                        [{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": nodes}]}]}}},
                "status": {"phase": "Available"}});
            if let Some(claim) = claim {
                volume["spec"]["claimRef"] =
                    json!({"kind": "PersistentVolumeClaim", "namespace": "blue", "name": claim});
                volume["status"]["phase"] = json!("Bound");
            }
            volume
        };
        let some_nodes = |maker: &Maker| (0..1 + maker.below(2)).map(|_| format!("n{}", maker.below(nodes))).collect();
        for i in 0..self.below(4) {
            let (size, nodes) = (1 + self.below(5), some_nodes(self));
            all.push(volume(&format!("free-{i}"), size, nodes, None));
        }
        all.push(volume("taken", 2, some_nodes(self), Some("bound")));
        all.push(volume("single", 2, some_nodes(self), Some("once")));
        let claim = |name: &str, class: &str, size: u64, mode: &str, volume: Option<&str>| {
            let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "blue"},
                "spec": {"accessModes": [mode], "volumeMode": "Filesystem", "storageClassName": class,
                    "resources": {"requests": {"storage": format!("{size}Gi")}}},
                "status": {"phase": "Pending"}});
            if let Some(volume) = volume {
                claim["spec"]["volumeName"] = json!(volume);
                claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
                claim["status"]["phase"] = json!("Bound");
            }
            claim
        };
        let once = "ReadWriteOnce";
        all.push(claim("bound", "manual", 1, once, Some("taken")));
        all.push(claim("waits", "manual", 1 + self.below(4), once, None));
        all.push(claim("big", "manual", 50, once, None));
        all.push(claim("made", "dynamic", 1, once, None));
        all.push(claim("now", "now", 1, once, None));
        all.push(claim("once", "manual", 1, "ReadWriteOncePod", Some("single")));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_scenario_always() {
        for seed in (0..20).chain(WIDE..WIDE + 20).chain(DEVICES..DEVICES + 20) {
            let (a, b) = (scenario(seed), scenario(seed));
            assert_eq!((a.objects, a.pods, a.made), (b.objects, b.pods, b.made));
        }
        assert_ne!(scenario(1).objects, scenario(2).objects);
    }
}
