//! A scheduler that its user configures.

use testkit::machine::Machine;

use crate::support::{SOON, jsonpath, until_pods_may_come};

const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

/// Who asks for nothing special keeps off the node `paper`; pods of `elsewhere` go nowhere else.
const PROFILES: &str = r#"profiles:
- schedulerName: default-scheduler
  pluginConfig:
  - name: NodeAffinity
    args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms:
      [{matchExpressions: [{key: place, operator: NotIn, values: [paper]}]}]}}}
- schedulerName: elsewhere
  plugins: {score: {disabled: [{name: "*"}]}}
  pluginConfig:
  - name: NodeAffinity
    args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms:
      [{matchExpressions: [{key: place, operator: In, values: [paper]}]}]}}}
"#;

/// Nobody runs it.
const NODE: &str = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"paper","labels":{"place":"paper"}},
    "status":{"allocatable":{"cpu":"4","memory":"4Gi","pods":"10"},"capacity":{"cpu":"4","memory":"4Gi","pods":"10"}}}"#;

fn pod(machine: &Machine, name: &str, scheduler: &str) -> String {
    let pod = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"schedulerName":"{scheduler}",
        "tolerations":[{{"operator":"Exists"}}],"containers":[{{"name":"c","image":"oxikube.local/none:1"}}]}}}}"#
    );
    let path = machine.folder().join(format!("{name}.json"));
    std::fs::write(&path, pod).unwrap();
    machine.kubectl(&format!("create -f {}", path.display())).ok();
    machine.eventually("it gets a node", SOON, || {
        Some(jsonpath(machine, &format!("pod {name}"), "{.spec.nodeName}")).filter(|node| !node.is_empty())
    })
}

#[test]
fn profiles_of_a_file_place_pods() {
    let machine = Machine::new("scheduling", env!("CARGO_BIN_EXE_oxikube"));
    let file = machine.folder().join("scheduler.yaml");
    let start = format!("start --scheduler-config {}", file.display());
    let check = |text: &str, expect: &str| {
        std::fs::write(&file, format!("{HEAD}{text}")).unwrap();
        let said = machine.oxikube(&start).failed();
        assert!(said.contains(expect), "{said}");
        assert!(machine.oxikube("status").failed().contains("there is no cluster"));
    };
    check("profiles: [{colour: red}]\n", r#"strict decoding error: unknown field "profiles[0].colour""#);
    check("profiles: [{plugins: {score: {enabled: [{name: Best}]}}}]\n", r#"ScorePlugin "Best" does not exist"#);

    std::fs::write(&file, format!("{HEAD}{PROFILES}")).unwrap();
    machine.oxikube(&start).ok();
    until_pods_may_come(&machine, "default");
    let node = machine.folder().join("node.json");
    std::fs::write(&node, NODE).unwrap();
    machine.kubectl(&format!("create -f {}", node.display())).ok();
    assert_ne!(pod(&machine, "here", "default-scheduler"), "paper");
    assert_eq!(pod(&machine, "there", "elsewhere"), "paper");

    // The cluster keeps what the file said, wherever that is now.
    std::fs::remove_file(&file).unwrap();
    machine.oxikube("stop").ok();
    machine.oxikube("start").ok();
    assert_eq!(pod(&machine, "there-again", "elsewhere"), "paper");
    machine.kubectl("delete pod --all --force --grace-period=0").ok();
}
