//! What goes with an owner that is deleted.

use testkit::machine::Machine;

use crate::support::{SOON, jsonpath};

/// Makes a Deployment whose pods don't end by themselves.
fn make(machine: &Machine, name: &str) {
    let deployment = format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 120
      containers: [{{name: main, image: 'oxikube.local/busybox:1', command: [sh, -c, 'trap "" TERM; while true; do sleep 1; done']}}]
"#
    );
    machine.kubectl_with("create -f -", &deployment).ok();
}

pub fn all(machine: &Machine) {
    for name in ["orphaning", "foreground", "background"] {
        make(machine, name);
    }
    for name in ["orphaning", "foreground", "background"] {
        machine.kubectl(&format!("rollout status deployment/{name} --timeout=60s")).ok();
    }
    let named = |kind: &str, app: &str| machine.kubectl(&format!("get {kind} -l app={app} -o name")).ok();
    let owners = |kind: &str, app: &str| {
        jsonpath(machine, &format!("{kind} -l app={app}"), "{.items[*].metadata.ownerReferences[*].kind}")
    };
    // Their grace period is shortened, which lets whoever waits for them go on.
    let hurry = |app: &str| {
        machine.kubectl(&format!("delete pods -l app={app} --grace-period=1 --wait=false")).ok();
    };
    let ends = |kind: &str, app: &str| {
        machine.eventually_or(&format!("{kind} of {app} to go"), SOON, || match named(kind, app) {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        });
    };

    // Orphaned, step by step: what was owned stays and knows no owner.
    assert_eq!(owners("replicasets", "orphaning"), "Deployment");
    let (sets, pods) = (named("replicasets", "orphaning"), named("pods", "orphaning"));
    machine.kubectl("delete deployment orphaning --cascade=orphan --timeout=60s").ok();
    assert_eq!((named("replicasets", "orphaning"), owners("replicasets", "orphaning")), (sets, String::new()));
    assert_eq!(owners("pods", "orphaning"), "ReplicaSet ReplicaSet");
    machine.kubectl("delete replicasets -l app=orphaning --cascade=orphan --timeout=60s").ok();
    assert_eq!((named("pods", "orphaning"), owners("pods", "orphaning")), (pods, String::new()));
    hurry("orphaning");

    // In the foreground the owner is the last to go.
    machine.kubectl("delete deployment foreground --cascade=foreground --wait=false").ok();
    assert_eq!(jsonpath(machine, "deployment foreground", "{.metadata.finalizers}"), r#"["foregroundDeletion"]"#);
    // Before, their set would make others.
    machine.eventually_or("its pods end", SOON, || {
        match jsonpath(machine, "pods -l app=foreground", "{.items[*].metadata.deletionTimestamp}") {
            ends if ends.split_whitespace().count() == 2 => Ok(()),
            ends => Err(ends),
        }
    });
    hurry("foreground");
    machine.kubectl("wait --for=delete deployment/foreground --timeout=60s").ok();
    assert_eq!((named("replicasets", "foreground"), named("pods", "foreground")), (String::new(), String::new()));

    // In the background it is the first.
    machine.kubectl("delete deployment background --cascade=background").ok();
    assert_ne!(named("pods", "background"), "", "their grace period is not over");
    ends("replicasets", "background");
    hurry("background");
    ends("pods", "background");
    ends("pods", "orphaning");
}
