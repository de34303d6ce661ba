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

const OBJECTS: &str = r#"
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
---
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

fn slice(node: &str) -> String {
    let device = |name: &str, memory: &str| json!({"name": name, "capacity": {"memory": {"value": memory}}});
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "cards"},
        "spec": {"driver": "gpu.example.com", "nodeName": node, "pool": pool,
            "devices": [device("card-0", "16Gi"), device("card-1", "80Gi")]}})
    .to_string()
}

/// Runs the driver beside the test; it ends with what is returned.
fn run(driver: &FakeDriver, kubelet: PathBuf) -> mpsc::Sender<()> {
    let (sender, end) = mpsc::channel::<()>();
    let driver = driver.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let _served = driver.serve(&env::Env::system(), &kubelet);
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

    machine.kubectl_with("create -f -", OBJECTS).ok();
    let node = jsonpath(&machine, "node", "{.items[0].metadata.name}");
    let claim = machine.eventually("the pod has its claim", SOON, || {
        let name = jsonpath(&machine, "pod trains", "{.status.resourceClaimStatuses[0].resourceClaimName}");
        Some(name).filter(|name| !name.is_empty())
    });
    driver.has(&claim, &[("card", &format!("{kind}=card-1"))]);
    machine.kubectl_with("create -f -", &slice(&node)).ok();
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
