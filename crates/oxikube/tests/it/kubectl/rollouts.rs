//! Deployments that change, and go back.

use testkit::machine::Machine;

use super::{has, prints, refuses};
use crate::support::{SOON, jsonpath};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {kubernetes.io/change-cause: first words}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: oxikube.local/busybox:1
        env: [{name: WORD, value: one}]
        command: [sh, -c, 'mkdir /www; echo $WORD >/www/index.html; exec httpd -f -p 8080 -h /www']
"#;

/// Waits for the rollout and compares the word that the pods got.
#[track_caller]
fn rolled(machine: &Machine, word: &str) {
    has(machine, "rollout status deployment/web --timeout=90s", &["deployment \"web\" successfully rolled out"]);
    let words = jsonpath(
        machine,
        "pods -l app=web --field-selector status.phase=Running",
        "{.items[*].spec.containers[0].env[0].value}",
    );
    assert!(words.split(' ').any(|is| is == word), "{words}");
    assert_eq!(jsonpath(machine, "deployment web", "{.spec.template.spec.containers[0].env[0].value}"), word);
}

pub fn revisions(machine: &Machine) {
    machine.kubectl_with("create -f -", WEB).ok();
    rolled(machine, "one");
    machine.kubectl("set env deployment/web WORD=two").ok();
    machine.kubectl_args(&["annotate", "deployment/web", "kubernetes.io/change-cause=other words", "--overwrite"]).ok();
    rolled(machine, "two");
    let history = || machine.kubectl("rollout history deployment/web").ok();
    machine.eventually_or("both causes", SOON, || match history() {
        said if said.contains("1         first words\n2         other words\n") => Ok(()),
        said => Err(said),
    });
    has(
        machine,
        "rollout history deployment/web --revision=1",
        &["revision #1", "WORD:\tone", "oxikube.local/busybox:1"],
    );

    // An image that isn't there leaves the old pods serving, and is undone.
    machine.kubectl("set image deployment/web main=oxikube.local/busybox:none").ok();
    machine.eventually("a pull error", SOON, || {
        let pods = machine.kubectl("get pods -l app=web").ok();
        (pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff")).then_some(())
    });
    refuses(machine, "rollout status deployment/web --timeout=1s", "timed out waiting for the condition");
    prints(machine, "rollout undo deployment/web", "deployment.apps/web rolled back\n");
    rolled(machine, "two");
    machine.kubectl("rollout undo deployment/web --to-revision=1").ok();
    rolled(machine, "one");
    refuses(machine, "rollout undo deployment/web --to-revision=1", "unable to find specified revision 1 in history");
    let pods = || jsonpath(machine, "pods -l app=web", "{.items[*].metadata.uid}");
    let before = pods();
    prints(machine, "rollout restart deployment/web", "deployment.apps/web restarted\n");
    rolled(machine, "one");
    machine.eventually("only new pods", SOON, || before.split(' ').all(|uid| !pods().contains(uid)).then_some(()));

    machine.kubectl("rollout pause deployment/web").ok();
    machine.kubectl("set env deployment/web WORD=three").ok();
    assert!(!jsonpath(machine, "pods -l app=web", "{.items[*].spec.containers[0].env[0].value}").contains("three"));
    refuses(machine, "rollout undo deployment/web", "cannot rollback a paused deployment");
    machine.kubectl("rollout resume deployment/web").ok();
    rolled(machine, "three");
}

/// Services made from a Deployment lead to its pods.
pub fn exposed(machine: &Machine) {
    prints(machine, "expose deployment web --port=80 --target-port=8080", "service/web exposed\n");
    machine.kubectl("expose deployment web --name=open --type=NodePort --port=80 --target-port=8080").ok();
    let port = jsonpath(machine, "service open", "{.spec.ports[0].nodePort}");
    let page = |expect: &str| {
        machine.eventually_or("the page", SOON, || match machine.get(&format!("http://127.0.0.1:{port}/")) {
            Ok(page) if page == expect => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    page("three\n");
    machine.eventually_or("endpoints", SOON, || {
        let addresses = jsonpath(machine, "endpoints web", "{.subsets[0].addresses[*].ip}");
        if addresses.split_whitespace().count() == 2 { Ok(()) } else { Err(addresses) }
    });
    has(machine, "describe service web", &["Endpoints:", ":8080"]);
    refuses(machine, "scale deployment/web --replicas=3 --current-replicas=7", "Expected replicas to be 7, was 2");
    prints(machine, "scale deployment/web --replicas=1", "deployment.apps/web scaled\n");
    machine.eventually("one endpoint", SOON, || {
        let addresses = jsonpath(machine, "endpoints web", "{.subsets[0].addresses[*].ip}");
        (addresses.split_whitespace().count() == 1).then_some(())
    });
    page("three\n");
    machine.kubectl("delete deployment/web service/web service/open").ok();
}
