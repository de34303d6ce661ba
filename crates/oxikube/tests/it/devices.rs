//! A pod gets the device that its claim asks for: from the driver's slice, by the scheduler, through the driver and the runtime into the container.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use serde_json::json;
use testkit::device_driver::FakeDriver;
use testkit::machine::Machine;

use crate::support::{SOON, jsonpath, load_images, started};

/// Where runtimes look devices up, on the whole machine.
const DESCRIPTIONS: &str = "/var/run/cdi";

/// A class, and a claim on a card that has much memory.
const CLAIMS: &str = r#"
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: gpu}
spec: {selectors: [{cel: {expression: device.driver == "gpu.example.com"}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: big}
spec: {spec: {devices: {requests: [{name: card, exactly: {deviceClassName: gpu,
  selectors: [{cel: {expression: 'device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) >= 0'}}]}}]}}}
"#;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: trains}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: gpu, resourceClaimTemplateName: big}]
  containers:
  - {name: main, image: 'oxikube.local/busybox:1', command: [sleep, '10000'], resources: {claims: [{name: gpu}]}}
  - {name: beside, image: 'oxikube.local/busybox:1', command: [sleep, '10000']}
"#;

/// A description of devices, as long as the test runs.
struct Description(PathBuf);

impl Description {
    fn of(kind: &str) -> Description {
        fs::create_dir_all(DESCRIPTIONS).unwrap();
        let path = Path::new(DESCRIPTIONS).join(format!("{}.json", kind.replace('/', "-")));
        let device = json!({"name": "card-1", "containerEdits": {"env": ["CARD=1"],
            "deviceNodes": [{"path": "/dev/card1", "hostPath": "/dev/null"}],
            "mounts": [{"hostPath": "/proc/version", "containerPath": "/card/version", "options": ["ro", "bind"]}]}});
        let spec = json!({"cdiVersion": "0.6.0", "kind": kind, "devices": [device]});
        fs::write(&path, spec.to_string()).unwrap();
        Description(path)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        // Others may have theirs there.
        let _ = fs::remove_dir(DESCRIPTIONS);
    }
}

/// What the driver offers: cards of which some drive pods out.
fn slice(node: &str, tainted: &[&str]) -> String {
    let device = |(name, memory): (&str, &str)| {
        let taint = json!({"key": "gpu.example.com/broken", "effect": "NoExecute"});
        let taints: Vec<_> = tainted.iter().filter(|other| **other == name).map(|_| taint.clone()).collect();
        json!({"name": name, "capacity": {"memory": {"value": memory}}, "taints": taints})
    };
    let devices = [("card-0", "16Gi"), ("card-1", "80Gi"), ("card-2", "80Gi")].map(device);
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "cards"},
        "spec": {"driver": "gpu.example.com", "nodeName": node, "pool": pool, "devices": devices}})
    .to_string()
}

/// Runs the driver beside the test. It ends with what is returned as one that is killed does: its sockets stay.
fn run(driver: &FakeDriver, kubelet: PathBuf) -> mpsc::Sender<()> {
    let (sender, end) = mpsc::channel::<()>();
    let driver = driver.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        std::mem::forget(driver.serve(&env::Env::system(), &kubelet));
        // Its other end is dropped.
        let _ = end.recv();
    });
    sender
}

fn sees(machine: &Machine, container: &str, script: &str, expect: &str) {
    let said = machine.kubectl_args(&["exec", "trains", "-c", container, "--", "sh", "-c", script]).ok();
    assert_eq!(said.trim(), expect);
}

#[test]
fn a_claimed_device_is_in_the_container() {
    let machine = started("devices");
    load_images(&machine);
    let kind = format!("gpu.example.com/{}", machine.name());
    let _description = Description::of(&kind);
    let driver = FakeDriver::new("gpu.example.com", &["v1.DRAPlugin"]);
    let running = run(&driver, machine.data_dir().join("kubelet"));
    machine.eventually("the driver is registered", SOON, || driver.told().filter(|told| told.plugin_registered));

    machine.kubectl_with("create -f -", &format!("{CLAIMS}---{POD}")).ok();
    let node = jsonpath(&machine, "node", "{.items[0].metadata.name}");
    let claim = machine.eventually("the pod has its claim", SOON, || {
        let name = jsonpath(&machine, "pod trains", "{.status.resourceClaimStatuses[0].resourceClaimName}");
        Some(name).filter(|name| !name.is_empty())
    });
    driver.has(&claim, &[("card", &format!("{kind}=card-1"))]);
    machine.kubectl_with("create -f -", &slice(&node, &["card-1"])).ok();
    let taints = jsonpath(&machine, "resourceslice cards", "{.spec.devices[*].taints}");
    assert_eq!(taints, "", "kept only where the gate is open");
    machine.kubectl("wait --for=condition=Ready pod/trains --timeout=60s").ok();
    let of_claim = |path: &str| jsonpath(&machine, &format!("resourceclaim {claim}"), path);
    assert_eq!(of_claim("{.status.allocation.devices.results[0].device}"), "card-1");
    assert_eq!(of_claim("{.status.reservedFor[0].name}"), "trains");
    let look =
        "echo $CARD; test -c /dev/card1 && echo x >/dev/card1 && echo device; grep -q Linux /card/version && echo file";
    sees(&machine, "main", look, "1\ndevice\nfile");
    sees(&machine, "beside", "echo \"$CARD\"; test -e /dev/card1 || echo none", "none");
    assert_eq!(driver.take_log(), [format!("prepare default/{claim}")]);

    machine.kubectl("delete pod trains --timeout=60s").ok();
    assert_eq!(driver.take_log(), [format!("unprepare default/{claim}")]);
    machine.kubectl(&format!("wait --for=delete resourceclaim/{claim} --timeout=60s")).ok();
    drop(running);
    machine.kubectl("wait --for=delete resourceslice/cards --timeout=90s").ok();
}

const WORK: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: any}
spec: {spec: {devices: {requests: [{name: card, exactly: {deviceClassName: gpu, tolerations: [{operator: Exists, effect: NoExecute}],
  selectors: [{cel: {expression: 'device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) < 0'}}]}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: bears}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: gpu, resourceClaimTemplateName: any}]
  containers: [{name: main, image: 'oxikube.local/busybox:1', command: [sleep, '10000'], resources: {claims: [{name: gpu}]}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: trains}
spec:
  selector: {matchLabels: {app: trains}}
  template:
    metadata: {labels: {app: trains}}
    spec:
      terminationGracePeriodSeconds: 1
      resourceClaims: [{name: gpu, resourceClaimTemplateName: big}]
      containers: [{name: main, image: 'oxikube.local/busybox:1', command: [sleep, '10000'], resources: {claims: [{name: gpu}]}}]
"#;

/// The card that the pod's claim has.
fn card(machine: &Machine, pod: &str) -> String {
    let claim = jsonpath(machine, &format!("pod {pod}"), "{.status.resourceClaimStatuses[0].resourceClaimName}");
    jsonpath(machine, &format!("resourceclaim {claim}"), "{.status.allocation.devices.results[0].device}")
}

#[test]
fn pods_leave_a_device_that_drives_them_out() {
    let machine = Machine::new("tainted", env!("CARGO_BIN_EXE_oxikube"));
    machine.oxikube("start --feature-gates DRADeviceTaints=true").ok();
    load_images(&machine);
    let driver = FakeDriver::new("gpu.example.com", &["v1.DRAPlugin"]);
    let _running = run(&driver, machine.data_dir().join("kubelet"));
    machine.eventually("the driver is registered", SOON, || driver.told().filter(|told| told.plugin_registered));
    let node = jsonpath(&machine, "node", "{.items[0].metadata.name}");
    machine.kubectl_with("create -f -", &slice(&node, &[])).ok();
    machine.kubectl_with("create -f -", &format!("{CLAIMS}---{WORK}")).ok();
    machine.kubectl("wait --for=condition=Ready pod/bears --timeout=60s").ok();
    machine.kubectl("rollout status deployment/trains --timeout=60s").ok();
    let pod = || jsonpath(&machine, "pods -l app=trains", "{.items[*].metadata.name}");
    let uid = |pod: &str| jsonpath(&machine, &format!("pod {pod}"), "{.metadata.uid}");
    let (first, bears) = (pod(), uid("bears"));
    let was = card(&machine, &first);
    assert_eq!(card(&machine, "bears"), "card-0");

    // Both cards in use are tainted: who tolerates that stays.
    machine.kubectl_with("replace -f -", &slice(&node, &["card-0", &was])).ok();
    machine.kubectl(&format!("wait --for=delete pod/{first} --timeout=60s")).ok();
    machine.kubectl("rollout status deployment/trains --timeout=60s").ok();
    let second = machine.eventually("only the new pod", SOON, || Some(pod()).filter(|pods| !pods.contains(&first)));
    let is = card(&machine, &second);
    assert!(is != was && is != "card-0", "{was}, then {is}");
    let events = format!("get events --field-selector involvedObject.name={first},reason=DeviceTaintManagerEviction");
    machine.eventually("it is told", SOON, || {
        machine.kubectl(&events).ok().contains("Marking for deletion").then_some(())
    });
    assert_eq!(uid("bears"), bears);
    machine.kubectl("wait --for=condition=Ready pod/bears --timeout=60s").ok();
    let log = driver.take_log();
    let did = |verb: &str| log.iter().filter(|line| line.starts_with(verb)).count();
    assert_eq!((did("prepare"), did("unprepare")), (3, 1), "{log:?}");

    // Without a card that is good the next one waits.
    machine.kubectl_with("replace -f -", &slice(&node, &["card-0", "card-1", "card-2"])).ok();
    machine.kubectl(&format!("wait --for=delete pod/{second} --timeout=60s")).ok();
    machine.eventually_or("nowhere to go", SOON, || {
        let said = jsonpath(
            &machine,
            "pods -l app=trains",
            "{.items[*].status.conditions[?(@.type==\"PodScheduled\")].message}",
        );
        if said.contains("cannot allocate all claims") { Ok(()) } else { Err(said) }
    });
    machine.kubectl_with("replace -f -", &slice(&node, &["card-0"])).ok();
    machine.kubectl("rollout status deployment/trains --timeout=60s").ok();
}
