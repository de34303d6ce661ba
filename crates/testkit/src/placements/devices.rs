//! Clusters with devices, and pods that claim them.

use serde_json::{Value, json};

use super::{Maker, Scenario, ZONE};

/// Claims for administrators' access are allowed here.
const NAMESPACE: &str = "devices";
const GPU: &str = "gpu.example.com";
const NIC: &str = "nic.example.com";
const NET: &str = "net.example.com";
/// An attribute that devices of several drivers have.
const NUMA: &str = "machine.example.com/numa";

/// Slices, and who has which device.
#[derive(Default)]
struct Devices {
    slices: Vec<Value>,
    /// Driver, pool and device, with the node of those that only one node reaches.
    all: Vec<(&'static str, String, String, Option<String>)>,
    ambiguous: bool,
}

impl Maker {
    pub(super) fn devices(&mut self) -> Scenario {
        let labels = json!({"resource.kubernetes.io/admin-access": "true"});
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})];
        let nodes = 2 + self.below(5);
        objects.extend((0..nodes).map(|i| self.simple_node(i)));
        objects.extend(classes());
        let mut devices = Devices::default();
        for i in 0..nodes {
            self.slices_of(&format!("n{i}"), &mut devices);
        }
        self.shared_slices(&mut devices);
        let Devices { slices, all, mut ambiguous } = devices;
        objects.extend(slices);
        let users = self.users(&all);
        let held = users.iter().any(|claim| claim["metadata"]["name"] == "held");
        objects.extend(users);
        let claims: Vec<String> = (0..6).map(|i| format!("c{i}")).collect();
        for name in &claims {
            let spec = self.claim_spec(&mut ambiguous);
            objects.push(claim(name, spec, json!({})));
        }
        let (mut pods, mut made) = (Vec::new(), Vec::new());
        for i in 0..4 {
            let name = format!("new-{i}");
            let mut entries = Vec::new();
            let mut statuses = Vec::new();
            for entry in ["a", "b"].into_iter().take(1 + self.below(2) as usize) {
                match self.below(8) {
                    0 if held => entries.push(json!({"name": entry, "resourceClaimName": "held"})),
                    1 | 2 => {
                        let own = format!("{name}-{entry}");
                        entries.push(json!({"name": entry, "resourceClaimTemplateName": "t"}));
                        statuses.push(json!({"name": entry, "resourceClaimName": own}));
                        made.push((i, claim(&own, self.claim_spec(&mut ambiguous), json!({}))));
                    }
                    _ => {
                        let claim = &claims[self.below(claims.len() as u64) as usize];
                        entries.push(json!({"name": entry, "resourceClaimName": claim}));
                    }
                }
            }
            let same =
                |key: &str| entries.len() == 2 && entries[0][key] == entries[1][key] && !entries[0][key].is_null();
            if same("resourceClaimName") {
                entries.pop();
            }
            pods.push(self.claiming_pod(&name, entries, statuses));
        }
        Scenario { objects, pods, made, ambiguous }
    }

    fn simple_node(&self, i: u64) -> Value {
        let name = format!("n{i}");
        let labels = json!({"kubernetes.io/hostname": name, ZONE: format!("z{}", i % 2)});
        let room = json!({"cpu": format!("{}", 2 + self.below(6)), "memory": "8Gi", "pods": "20"});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {},
            "status": {"allocatable": room, "capacity": room}})
    }

    /// The devices in a node: some have none, some pools are being updated or wrong.
    fn slices_of(&self, node: &str, devices: &mut Devices) {
        let gpus: Vec<Value> = (0..self.below(5)).map(|i| self.gpu(i)).collect();
        let slice = |name: String, generation: u64, count: u64, driver: &str, devices: &[Value]| {
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name},
                "spec": {"driver": driver, "nodeName": node, "devices": devices,
                    "pool": {"name": node, "generation": generation, "resourceSliceCount": count}}})
        };
        match self.below(10) {
            0 => devices.slices.push(slice(format!("gpu-{node}"), 1, 2, GPU, &gpus)),
            1 if !gpus.is_empty() => {
                devices.slices.push(slice(format!("gpu-{node}-a"), 1, 2, GPU, &gpus));
                devices.slices.push(slice(format!("gpu-{node}-b"), 1, 2, GPU, &gpus[..1]));
            }
            2 if gpus.len() > 1 => {
                devices.ambiguous = true;
                devices.slices.push(slice(format!("gpu-{node}-a"), 2, 2, GPU, &gpus[..1]));
                devices.slices.push(slice(format!("gpu-{node}-b"), 2, 2, GPU, &gpus[1..]));
                devices.slices.push(slice(format!("gpu-{node}-old"), 1, 1, GPU, &[self.gpu(9)]));
                devices.know(GPU, node, &gpus, Some(node));
            }
            _ => {
                devices.slices.push(slice(format!("gpu-{node}"), 1, 1, GPU, &gpus));
                devices.know(GPU, node, &gpus, Some(node));
            }
        }
        let nics: Vec<Value> = (0..self.below(3))
            .map(|i| json!({"name": format!("nic-{i}"), "attributes": {NUMA: {"int": self.below(2)}, "speed": {"int": 10 + 90 * self.below(2)}}}))
            .collect();
        if !nics.is_empty() {
            devices.slices.push(slice(format!("nic-{node}"), 1, 1, NIC, &nics));
            devices.know(NIC, node, &nics, Some(node));
        }
    }

    fn gpu(&self, i: u64) -> Value {
        let version = ["1.0.0", "1.2.3-rc.1", "2.0.0"][self.below(3) as usize];
        json!({"name": format!("gpu-{i}"),
            "attributes": {"model": {"string": self.pick(&["a100", "t4"])}, "version": {"version": version},
                "mig": {"bool": self.one_in(2)}, NUMA: {"int": self.below(2)}},
            "capacity": {"memory": {"value": self.pick(&["16Gi", "40Gi", "80Gi"])}}})
    }

    /// Devices that several nodes reach.
    fn shared_slices(&self, devices: &mut Devices) {
        let nets: Vec<Value> = (0..1 + self.below(3)).map(|i| json!({"name": format!("net-{i}")})).collect();
        let mut spec =
            json!({"driver": NET, "devices": nets, "pool": {"name": "net", "generation": 1, "resourceSliceCount": 1}});
        match self.below(3) {
            0 => return,
            1 => spec["allNodes"] = json!(true),
            _ => {
                let zone = json!({"key": ZONE, "operator": "In", "values": [self.pick(&["z0", "z1"])]});
                spec["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchExpressions": [zone]}]});
            }
        }
        devices.slices.push(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "net"}, "spec": spec}));
        devices.know(NET, "net", &nets, None);
    }

    /// Claims that have their devices: one that pods share, one that others use, and one that nobody uses.
    fn users(&self, all: &[(&'static str, String, String, Option<String>)]) -> Vec<Value> {
        let mut made = Vec::new();
        let mut start = self.below(3) as usize;
        for name in ["held", "other", "idle"] {
            let Some((driver, pool, device, node)) = all.get(start) else { break };
            start += 1 + self.below(3) as usize;
            let class = if *driver == GPU { "gpu" } else { "any" };
            let exactly = json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": 1});
            let spec = json!({"devices": {"requests": [{"name": "r", "exactly": exactly}]}});
            let mut allocation =
                json!({"devices": {"results": [{"request": "r", "driver": driver, "pool": pool, "device": device}]}});
            if let Some(node) = node {
                let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
                allocation["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
            }
            let mut status = json!({"allocation": allocation});
            if name != "idle" && !(name == "held" && self.one_in(3)) {
                status["reservedFor"] = json!([{"resource": "pods", "name": "elsewhere", "uid": "elsewhere"}]);
            }
            made.push(claim(name, spec, status));
        }
        made
    }

    fn claim_spec(&self, ambiguous: &mut bool) -> Value {
        let mut requests = Vec::new();
        for name in ["r", "s"].into_iter().take(1 + usize::from(self.one_in(3))) {
            requests.push(match self.one_in(3) {
                false => {
                    let mut exactly = self.asks(ambiguous);
                    if self.one_in(12) {
                        exactly["adminAccess"] = json!(true);
                    }
                    json!({"name": name, "exactly": exactly})
                }
                true => {
                    let option = |option: &&str| {
                        let mut asks = self.asks(ambiguous);
                        asks["name"] = json!(option);
                        asks
                    };
                    let options: Vec<Value> =
                        ["x", "y", "z"][..2 + self.below(2) as usize].iter().map(option).collect();
                    json!({"name": name, "firstAvailable": options})
                }
            });
        }
        let mut devices = json!({"requests": requests});
        if self.one_in(4) {
            let mut constraint = json!({"matchAttribute": NUMA});
            if self.one_in(3) {
                constraint["requests"] = json!(["r"]);
            }
            devices["constraints"] = json!([constraint]);
        }
        if self.one_in(4) {
            let mut config = json!({"opaque": {"driver": GPU, "parameters": {"mode": "claim"}}});
            if self.one_in(2) {
                config["requests"] = json!(["r"]);
            }
            devices["config"] = json!([config]);
        }
        json!({"devices": devices})
    }

    fn asks(&self, ambiguous: &mut bool) -> Value {
        let class = match self.below(14) {
            0 => "any",
            1 => "absent",
            2..=4 => "nic",
            5 | 6 => "net",
            7 | 8 => "big",
            _ => "gpu",
        };
        *ambiguous |= class == "any";
        let mut asks = json!({"deviceClassName": class});
        match self.below(8) {
            0 => asks["allocationMode"] = json!("All"),
            _ => {
                asks["allocationMode"] = json!("ExactCount");
                asks["count"] = json!([1, 1, 1, 2, 2, 3][self.below(6) as usize]);
            }
        }
        if matches!(class, "gpu" | "big") && self.one_in(2) {
            let expression = match self.below(14) {
                0 => "device.attributes['gpu.example.com'].absent == 1".to_owned(),
                1..=3 => format!("device.attributes['{GPU}'].model == '{}'", self.pick(&["a100", "t4"])),
                4..=6 => format!("device.capacity['{GPU}'].memory.compareTo(quantity('40Gi')) >= 0"),
                7 | 8 => format!("device.attributes['{GPU}'].version.isGreaterThan(semver('1.1.0'))"),
                9 | 10 => format!("!device.attributes['{GPU}'].mig && device.driver == '{GPU}'"),
                11 => "'speed' in device.attributes['nic.example.com']".to_owned(),
                _ => "device.attributes['machine.example.com'].numa == 0".to_owned(),
            };
            asks["selectors"] = json!([{"cel": {"expression": expression}}]);
        }
        asks
    }

    fn claiming_pod(&self, name: &str, entries: Vec<Value>, statuses: Vec<Value>) -> Value {
        let uses: Vec<Value> = entries.iter().map(|entry| json!({"name": entry["name"]})).collect();
        let cpu = format!("{}m", 100 * (1 + self.below(9)));
        let container = json!({"name": "main", "image": "registry.example/small:1",
            "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "claims": uses}});
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"schedulerName": "default-scheduler", "restartPolicy": "Always", "terminationGracePeriodSeconds": 0,
                "containers": [container], "priority": 0, "automountServiceAccountToken": false, "enableServiceLinks": true,
                "resourceClaims": entries}});
        if !statuses.is_empty() {
            pod["status"] = json!({"resourceClaimStatuses": statuses});
        }
        pod
    }
}

impl Devices {
    fn know(&mut self, driver: &'static str, pool: &str, devices: &[Value], node: Option<&str>) {
        let name = |device: &Value| device["name"].as_str().expect("devices have names").to_owned();
        self.all.extend(devices.iter().map(|device| (driver, pool.to_owned(), name(device), node.map(str::to_owned))));
    }
}

fn classes() -> [Value; 5] {
    let class = |name: &str, expressions: &[String], config: Value| {
        let selectors: Vec<Value> = expressions.iter().map(|text| json!({"cel": {"expression": text}})).collect();
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name},
            "spec": {"selectors": selectors, "config": config}})
    };
    let of = |driver: &str| format!("device.driver == '{driver}'");
    let big = format!("device.capacity['{GPU}'].memory.isGreaterThan(quantity('32Gi'))");
    let config = json!([{"opaque": {"driver": GPU, "parameters": {"mode": "class"}}}]);
    [
        class("gpu", &[of(GPU)], config),
        class("big", &[of(GPU), big], json!([])),
        class("nic", &[of(NIC)], json!([])),
        class("net", &[of(NET)], json!([])),
        class("any", &[], json!([])),
    ]
}

fn claim(name: &str, spec: Value, status: Value) -> Value {
    let mut claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
    if status.as_object().is_some_and(|status| !status.is_empty()) {
        claim["metadata"]["finalizers"] = json!(["resource.kubernetes.io/delete-protection"]);
        claim["status"] = status;
    }
    claim
}
