//! StatefulSets, DaemonSets and disruption budgets, as somebody with kubectl sees them.

use std::collections::BTreeMap;

use testkit::machine::Machine;

use crate::support::{SOON, Step, every, jsonpath, load_images, started};

#[test]
fn sets_keep_names_data_and_history() {
    let machine = started("sets");
    load_images(&machine);
    let steps: [Step; 6] = [
        ("a database starts in order", database),
        ("names and data outlive pods", identity),
        ("a pod that fails is made again, with its name and data", failure),
        ("a StatefulSet is rolled out and back", stateful_rollout),
        ("a DaemonSet is rolled out and back", daemon_rollout),
        ("drain respects budgets", drain),
    ];
    every(&machine, &steps);
}

const SHELL: &str = "image: 'oxikube.local/busybox:1', command: [sleep, '10000']";

fn database(machine: &Machine) {
    let manifest = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: db}}, spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 5432}}]}}}}
---
{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{replicas: 3, serviceName: db, selector: {{matchLabels: {{app: db}}}},
   template: {{metadata: {{labels: {{app: db}}}}, spec: {{terminationGracePeriodSeconds: 1,
     containers: [{{name: db, {SHELL}, volumeMounts: [{{name: data, mountPath: /data}}],
       readinessProbe: {{exec: {{command: ['true']}}, periodSeconds: 1, initialDelaySeconds: 1, timeoutSeconds: 30}}}}]}}}},
   volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}}}]}}}}"
    );
    machine.kubectl_with("apply -f -", &manifest).ok();
    machine.kubectl("rollout status statefulset/db --timeout=120s").ok();
    // Each was made only after the one before was ready.
    let since = |pod: &str| jsonpath(machine, pod, "{.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}");
    for (before, after) in [("pod/db-0", "pod/db-1"), ("pod/db-1", "pod/db-2")] {
        let made = jsonpath(machine, after, "{.metadata.creationTimestamp}");
        assert!(made >= since(before), "{after} was made at {made}, before {before} was ready");
    }
    let claims = jsonpath(machine, "pvc", "{.items[*].metadata.name}");
    assert_eq!(claims, "data-db-0 data-db-1 data-db-2");
}

fn exec(machine: &Machine, pod: &str, command: &str) -> String {
    machine.kubectl_args(&["exec", pod, "--", "sh", "-c", command]).ok()
}

/// The address under which the pods of the set find one of them.
fn resolve(machine: &Machine, pod: &str) -> Result<String, String> {
    let said =
        machine.kubectl_args(&["exec", "db-0", "--", "nslookup", &format!("{pod}.db.default.svc.cluster.local")]);
    let lines = said.out.lines().skip_while(|line| !line.starts_with("Name"));
    let addresses = lines.filter_map(|line| line.strip_prefix("Address")?.rsplit(' ').next());
    addresses.map(str::to_owned).next().ok_or(said.out)
}

fn identity(machine: &Machine) {
    for pod in ["db-0", "db-1", "db-2"] {
        exec(machine, pod, "hostname > /data/name");
    }
    let uid = jsonpath(machine, "pod/db-1", "{.metadata.uid}");
    machine.kubectl("delete pod db-1 --wait=true").ok();
    machine.eventually("db-1 is another", SOON, || {
        let now = machine.kubectl("get pod db-1 --ignore-not-found -o jsonpath={.metadata.uid}").ok();
        (!now.is_empty() && now != uid).then_some(())
    });
    machine.kubectl("wait --for=condition=Ready pod/db-1 --timeout=60s").ok();
    assert_eq!(exec(machine, "db-1", "hostname; cat /data/name"), "db-1\ndb-1\n");
    for pod in ["db-0", "db-1", "db-2"] {
        machine.eventually_or(&format!("{pod} is found by its name"), SOON, || {
            let found = resolve(machine, pod)?;
            let address = jsonpath(machine, &format!("pod/{pod}"), "{.status.podIP}");
            if found == address { Ok(()) } else { Err(format!("{found}, not {address}")) }
        });
    }
    // Scaled down and up again: the data is there.
    machine.kubectl("scale statefulset db --replicas=1").ok();
    machine.kubectl("wait --for=delete pod/db-1 pod/db-2 --timeout=60s").ok();
    machine.kubectl("scale statefulset db --replicas=3").ok();
    machine.kubectl("rollout status statefulset/db --timeout=60s").ok();
    machine.kubectl("wait --for=condition=Ready pod/db-2 --timeout=60s").ok();
    assert_eq!(exec(machine, "db-2", "cat /data/name"), "db-2\n");
}

fn failure(machine: &Machine) {
    let of_pod = |path: &str| jsonpath(machine, "pod/db-1", path);
    let (uid, others) = (of_pod("{.metadata.uid}"), ["db-0", "db-2"]);
    let uids = || others.map(|pod| jsonpath(machine, &format!("pod/{pod}"), "{.metadata.uid}"));
    let before = uids();
    // Its time is over: the kubelet fails it.
    machine.kubectl_args(&["patch", "pod", "db-1", "-p", r#"{"spec":{"activeDeadlineSeconds":1}}"#]).ok();
    machine.eventually("db-1 is another", SOON, || {
        let now = machine.kubectl("get pod db-1 --ignore-not-found -o jsonpath={.metadata.uid}").ok();
        (!now.is_empty() && now != uid).then_some(())
    });
    machine.kubectl("wait --for=condition=Ready pod/db-1 --timeout=60s").ok();
    assert_eq!(exec(machine, "db-1", "hostname; cat /data/name"), "db-1\ndb-1\n");
    let events = "get events --field-selector involvedObject.name=db,reason=SuccessfulDelete";
    machine.eventually("it is told", SOON, || {
        machine.kubectl(events).ok().contains("Delete Pod db-1 in StatefulSet db successful").then_some(())
    });
    machine.eventually_or("it is found by its name", SOON, || match resolve(machine, "db-1")? {
        found if found == of_pod("{.status.podIP}") => Ok(()),
        found => Err(found),
    });
    assert_eq!(uids(), before);
}

fn stage(machine: &Machine, set: &str) -> String {
    jsonpath(machine, set, "{.spec.template.spec.containers[0].env[0].value}")
}

/// Changes the template, looks at its history, goes back, and restarts; returns the pods' uids before and after the restart.
fn roll(machine: &Machine, set: &str) -> [BTreeMap<String, String>; 2] {
    let status = format!("rollout status {set} --timeout=120s");
    for stage in ["one", "two"] {
        machine.kubectl(&format!("set env {set} STAGE={stage}")).ok();
        machine.kubectl(&format!("annotate {set} --overwrite kubernetes.io/change-cause={stage}")).ok();
        machine.kubectl(&status).ok();
    }
    let history = machine.kubectl(&format!("rollout history {set}")).ok();
    assert!(history.contains("1 ") && history.contains("2 ") && history.contains("3 "), "{history}");
    let second = machine.kubectl(&format!("rollout history {set} --revision=2")).ok();
    assert!(second.contains("STAGE:") && second.contains("one"), "{second}");
    assert!(machine.kubectl(&format!("rollout undo {set}")).ok().contains("rolled back"));
    machine.kubectl(&status).ok();
    assert_eq!(stage(machine, set), "one");
    let skipped = machine.kubectl(&format!("rollout undo {set} --to-revision=4")).ok();
    assert!(skipped.contains("skipped rollback (current template already matches revision 4)"), "{skipped}");
    let app = set.rsplit('/').next().unwrap();
    let pods = || -> BTreeMap<String, String> {
        let range = "{range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
        let said = jsonpath(machine, &format!("pods -l app={app}"), range);
        said.lines().filter_map(|line| line.split_once(' ')).map(|(name, uid)| (name.into(), uid.into())).collect()
    };
    let before = pods();
    machine.kubectl(&format!("rollout restart {set}")).ok();
    machine.kubectl(&status).ok();
    [before, pods()]
}

fn stateful_rollout(machine: &Machine) {
    let [before, after] = roll(machine, "statefulset/db");
    assert!(
        before.keys().eq(after.keys()) && before.iter().all(|(name, uid)| after[name] != *uid),
        "{before:?} {after:?}"
    );
    assert_eq!(exec(machine, "db-0", "cat /data/name"), "db-0\n");
    let row = machine.kubectl("get statefulset db --no-headers").ok();
    assert_eq!(row.split_whitespace().nth(1), Some("3/3"));
}

fn daemon_rollout(machine: &Machine) {
    let manifest = format!(
        "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: agent}}, spec: {{selector: {{matchLabels: {{app: agent}}}},
           template: {{metadata: {{labels: {{app: agent}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: agent, {SHELL}}}]}}}}}}}}"
    );
    machine.kubectl_with("apply -f -", &manifest).ok();
    machine.kubectl("rollout status daemonset/agent --timeout=60s").ok();
    let [before, after] = roll(machine, "daemonset/agent");
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after);
    let row = machine.kubectl("get daemonset agent --no-headers").ok();
    let words: Vec<&str> = row.split_whitespace().skip(1).take(5).collect();
    assert_eq!(words, ["1", "1", "1", "1", "1"]);
}

fn drain(machine: &Machine) {
    let budget = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: db}, spec: {minAvailable: 2, selector: {matchLabels: {app: db}}}}";
    machine.kubectl_with("apply -f -", budget).ok();
    machine.eventually_or("one may go", SOON, || match jsonpath(machine, "pdb db", "{.status.disruptionsAllowed}") {
        allowed if allowed == "1" => Ok(()),
        allowed => Err(allowed),
    });
    let node = jsonpath(machine, "nodes", "{.items[0].metadata.name}");
    let refused =
        machine.kubectl(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --timeout=10s")).failed();
    assert!(refused.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{refused}");
    // One went and has no other node; two are left.
    let left = |app: &str| {
        let running = format!("pods -l app={app} --field-selector=status.phase=Running");
        jsonpath(machine, &running, "{.items[*].metadata.name}")
    };
    machine.eventually_or("two are left", SOON, || match left("db") {
        left if left.split_whitespace().count() == 2 => Ok(()),
        left => Err(left),
    });
    machine.kubectl("delete pdb db").ok();
    machine.kubectl(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --timeout=60s")).ok();
    assert_eq!(left("agent").split_whitespace().count(), 1, "daemons stay");
    machine.kubectl(&format!("uncordon {node}")).ok();
    machine.kubectl("rollout status statefulset/db --timeout=120s").ok();
    assert_eq!(exec(machine, "db-2", "cat /data/name"), "db-2\n");
}
