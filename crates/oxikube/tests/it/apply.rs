//! `kubectl apply` of both sorts: several managers, conflicts, the way from one sort to the other, and trees that didn't change.

use std::time::Duration;

use testkit::machine::{Machine, Said};

use crate::support::{Step, every, started};

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: NAME\ndata:\n  a: \"1\"\n  b: \"2\"\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n  selector:\n    \
                          matchLabels:\n      app: web\n  template:\n    metadata:\n      labels:\n        app: web\n    spec:\n      \
                          containers:\n      - name: web\n        image: example.com/web:1\n        ports:\n        - \
                          containerPort: 80\n";

#[test]
fn kubectl_applies_on_either_side() {
    let machine = started("apply");
    let steps: [Step; 5] = [
        ("twice_is_once", twice_is_once),
        ("managers_meet", managers_meet),
        ("from_the_clients_side", from_the_clients_side),
        ("components_are_managers", components_are_managers),
        ("unchanged_trees", unchanged_trees),
    ];
    every(&machine, &steps);
}

/// What a command that succeeded said.
fn told(said: Said) -> Option<String> {
    (said.code == Some(0)).then_some(said.out)
}

fn revision(machine: &Machine, what: &str) -> String {
    machine.kubectl(&format!("get {what} -o jsonpath={{.metadata.resourceVersion}}")).ok()
}

/// Each manager with its operation and subresource.
fn managers(machine: &Machine, what: &str) -> Vec<String> {
    let path = "{range .metadata.managedFields[*]}{.manager}/{.operation}/{.subresource}{\"\\n\"}{end}";
    let out = machine.kubectl_args(&["get", what, "-o", &format!("jsonpath={path}")]).ok();
    let mut found: Vec<String> = out.lines().map(str::to_owned).collect();
    found.sort();
    found
}

fn twice_is_once(machine: &Machine) {
    let manifest = CONFIG.replace("NAME", "once");
    let apply = || machine.kubectl_with("apply --server-side -f -", &manifest).ok();
    assert_eq!(apply(), "configmap/once serverside-applied\n");
    let before = revision(machine, "configmap/once");
    assert_eq!(apply(), "configmap/once serverside-applied\n");
    assert_eq!(revision(machine, "configmap/once"), before);
    assert_eq!(managers(machine, "configmap/once"), ["kubectl/Apply/"]);
    let diff = machine.kubectl_with("diff --server-side -f -", &manifest);
    assert_eq!(diff.ok(), "");
}

fn managers_meet(machine: &Machine) {
    let manifest = CONFIG.replace("NAME", "met");
    machine.kubectl_with("apply --server-side -f -", &manifest).ok();
    let other = manifest.replace("\"1\"", "\"5\"").replace("  b: \"2\"\n", "  c: \"3\"\n");
    let said = machine.kubectl_with("apply --server-side --field-manager=other -f -", &other).failed();
    for part in [
        "Apply failed with 1 conflict: conflict with \"kubectl\": .data.a",
        "Please review the fields above--they currently have other managers.",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let forced = "apply --server-side --force-conflicts --field-manager=other -f -";
    assert_eq!(machine.kubectl_with(forced, &other).ok(), "configmap/met serverside-applied\n");
    let data = || machine.kubectl("get configmap/met -o jsonpath={.data}").ok();
    assert_eq!(data(), r#"{"a":"5","b":"2","c":"3"}"#);
    assert_eq!(managers(machine, "configmap/met"), ["kubectl/Apply/", "other/Apply/"]);
    // What the other no longer says goes; what is kubectl's stays.
    machine.kubectl_with(forced, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: met\n").ok();
    assert_eq!(data(), r#"{"b":"2"}"#);
    // An edit takes a field, and is met by the next apply.
    machine.kubectl_args(&["patch", "configmap", "met", "-p", r#"{"data":{"b":"9"}}"#]).ok();
    let said = machine.kubectl_with("apply --server-side -f -", &manifest).failed();
    assert!(said.contains("conflict with \"kubectl-patch\" using v1: .data.b"), "{said}");
    machine.kubectl_with("apply --server-side --force-conflicts -f -", &manifest).ok();
    assert_eq!(data(), r#"{"a":"1","b":"2"}"#);
    let said = machine.kubectl_with(
        "apply --server-side -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: met\ndatum: {}\n",
    );
    let said = said.failed();
    assert!(said.contains(".datum: field not declared in schema"), "{said}");
}

fn from_the_clients_side(machine: &Machine) {
    let manifest = CONFIG.replace("NAME", "moved");
    assert_eq!(machine.kubectl_with("apply -f -", &manifest).ok(), "configmap/moved created\n");
    assert_eq!(managers(machine, "configmap/moved"), ["kubectl-client-side-apply/Update/"]);
    let before = revision(machine, "configmap/moved");
    assert_eq!(machine.kubectl_with("apply -f -", &manifest).ok(), "configmap/moved unchanged\n");
    assert_eq!(revision(machine, "configmap/moved"), before);
    // kubectl moves what it applied on its side to the server's.
    let changed = manifest.replace("\"2\"", "\"3\"");
    assert_eq!(machine.kubectl_with("apply --server-side -f -", &changed).ok(), "configmap/moved serverside-applied\n");
    let found = managers(machine, "configmap/moved");
    assert!(found.contains(&"kubectl/Apply/".to_owned()), "{found:?}");
    assert!(!found.contains(&"kubectl-client-side-apply/Update/".to_owned()), "{found:?}");
    // So a field that is dropped goes.
    let less = changed.replace("  a: \"1\"\n", "");
    machine.kubectl_with("apply --server-side -f -", &less).ok();
    assert_eq!(machine.kubectl("get configmap/moved -o jsonpath={.data}").ok(), r#"{"b":"3"}"#);
    // And back: the annotation was kept in step.
    assert_eq!(machine.kubectl_with("apply -f -", &manifest).ok(), "configmap/moved configured\n");
    assert_eq!(machine.kubectl("get configmap/moved -o jsonpath={.data}").ok(), r#"{"a":"1","b":"2"}"#);
}

/// The cluster's own components manage what they write, as clients like all others.
fn components_are_managers(machine: &Machine) {
    machine.kubectl_with("apply --server-side -f -", DEPLOYMENT).ok();
    machine.eventually("the controller's status", Duration::from_secs(60), || {
        let found = managers(machine, "deployment/web");
        found.contains(&"kube-controller-manager/Update/status".to_owned()).then_some(())
    });
    let found = managers(machine, "deployment/web");
    assert!(found.contains(&"kubectl/Apply/".to_owned()), "{found:?}");
    let pod = machine.eventually("a pod", Duration::from_secs(60), || {
        told(machine.kubectl("get pods -l app=web -o name"))?.lines().next().map(str::to_owned)
    });
    machine.eventually("the kubelet's status", Duration::from_secs(60), || {
        let found = managers(machine, &pod);
        let wanted = ["kube-controller-manager/Update/", "kubelet/Update/status"];
        wanted.iter().all(|wanted| found.contains(&(*wanted).to_owned())).then_some(())
    });
    // Scaling is told apart, and an apply that still says a count meets it.
    machine.kubectl("scale deployment/web --replicas=1").ok();
    let found = managers(machine, "deployment/web");
    assert!(found.contains(&"kubectl/Update/scale".to_owned()), "{found:?}");
    let said =
        machine.kubectl_with("apply --server-side -f -", &DEPLOYMENT.replace("replicas: 2", "replicas: 3")).failed();
    assert!(
        said.contains("conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"),
        "{said}"
    );
    machine.kubectl_with("apply --server-side -f -", &DEPLOYMENT.replace("  replicas: 2\n", "")).ok();
    assert_eq!(machine.kubectl("get deployment/web -o jsonpath={.spec.replicas}").ok(), "1");
}

/// Applying a tree again that nobody changed writes nothing, on either side.
fn unchanged_trees(machine: &Machine) {
    for (namespace, how) in [("client", "apply"), ("server", "apply --server-side")] {
        let tree = machine.folder().join(format!("tree-{namespace}"));
        let base = tree.join("base");
        std::fs::create_dir_all(&base).unwrap();
        let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector:\n    app: web\n  ports:\n  - port: 80\n";
        let scaled_down = DEPLOYMENT.replace("replicas: 2", "replicas: 0");
        let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\nspec:\n  accessModes: [ReadWriteOnce]\n  \
                     resources:\n    requests:\n      storage: SIZE\n";
        // On the client's side another way to write an amount is a change.
        let claim = claim.replace("SIZE", if namespace == "client" { "1Gi" } else { "1024Mi" });
        let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: robot\n";
        let files = [
            ("service.yaml", service),
            ("deployment.yaml", scaled_down.as_str()),
            ("claim.yaml", claim.as_str()),
            ("account.yaml", account),
            ("kustomization.yaml", "resources: [service.yaml, deployment.yaml, claim.yaml, account.yaml]\n"),
        ];
        for (name, text) in files {
            std::fs::write(base.join(name), text).unwrap();
        }
        let overlay = format!(
            "namespace: {namespace}\nlabels:\n- pairs: {{tier: front}}\nresources: [base]\nconfigMapGenerator:\n- name: settings\n  \
             literals: [a=1, b=2]\nimages:\n- name: example.com/web\n  newTag: \"2\"\n"
        );
        std::fs::write(tree.join("kustomization.yaml"), overlay).unwrap();
        machine.kubectl(&format!("create namespace {namespace}")).ok();
        let apply = || machine.kubectl(&format!("{how} -k {}", tree.display())).ok();
        apply();
        let kinds = "service,configmap,persistentvolumeclaim,serviceaccount,deployment";
        let revisions = || {
            let path = "{range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
            machine
                .kubectl_args(&["get", kinds, "-n", namespace, "-l", "tier=front", "-o", &format!("jsonpath={path}")])
                .ok()
        };
        // Until the controllers have said what they have to say.
        machine.eventually("the deployment is observed", Duration::from_secs(60), || {
            let path = "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.conditions[*].reason}";
            let said = machine.kubectl_args(&["get", "deployment/web", "-n", namespace, "-o", path]).ok();
            let mut words = said.split(' ');
            (words.next() == words.next() && words.any(|word| word == "NewReplicaSetAvailable")).then_some(())
        });
        let mut before = revisions();
        // A controller's last word may come in between; twice the same is quiet.
        machine.eventually("a quiet tree", Duration::from_secs(30), || {
            let now = revisions();
            (std::mem::replace(&mut before, now.clone()) == now).then_some(())
        });
        assert_eq!(before.lines().count(), 5, "{before}");
        let said = apply();
        assert_eq!(revisions(), before, "{said}");
        if namespace == "client" {
            assert!(said.lines().all(|line| line.ends_with(" unchanged")), "{said}");
        }
    }
}
