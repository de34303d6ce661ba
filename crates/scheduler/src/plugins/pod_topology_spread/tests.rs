use serde_json::{Value, json};

use super::*;
use crate::plugins::tests::{Try, labelled, on_node};

fn plugin() -> PodTopologySpread {
    PodTopologySpread::new(Args::default()).unwrap()
}

fn spread(more: Value) -> Value {
    let mut constraint = json!({"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    constraint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"topologySpreadConstraints": [constraint]})
}

/// Zones a (two nodes) and b, and a node without; `web` pods: two on a1, one on b1.
fn nodes() -> Vec<NodeInfo> {
    let mut nodes = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("none", "")].map(|(name, zone)| on_node(name, zone));
    for (node, uid) in [(0, "1"), (0, "2"), (2, "3")] {
        let pod = PodInfo { uid: uid.into(), ..labelled("web", json!({})) };
        nodes[node].add(Arc::new(pod));
    }
    nodes.to_vec()
}

#[test]
fn uneven_places_are_left_out() {
    const NO: &str = "node(s) didn't match pod topology spread constraints";
    const UNLABELLED: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
    let check = |spec: Value, expect: [&str; 4]| {
        let nodes = nodes();
        let plugin = plugin();
        let mut tried = Try::new_on(&plugin, labelled("web", spec.clone()), &nodes);
        assert_eq!([0, 1, 2, 3].map(|i: usize| tried.on_known(nodes[i].name())), expect, "{spec}");
    };
    check(json!({}), [""; 4]);
    check(spread(json!({})), [NO, NO, "", UNLABELLED]);
    check(spread(json!({"maxSkew": 2})), ["", "", "", UNLABELLED]);
    // Too few places: as if an empty one were there.
    check(spread(json!({"maxSkew": 2, "minDomains": 3})), [NO, NO, "", UNLABELLED]);
    check(spread(json!({"labelSelector": {}})), ["", "", "", UNLABELLED]);
    check(spread(json!({"whenUnsatisfiable": "ScheduleAnyway"})), [""; 4]);
    // Only the nodes that it may go to count, so zone b isn't there to fall behind; the pod is kept off it by others.
    let mut selecting = spread(json!({}));
    selecting["nodeSelector"] = json!({"zone": "a"});
    check(selecting.clone(), ["", "", "", UNLABELLED]);
    selecting["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = json!("Ignore");
    check(selecting, [NO, NO, "", UNLABELLED]);
}

#[test]
fn empty_places_are_preferred() {
    let nodes = nodes();
    let spec = spread(json!({"whenUnsatisfiable": "ScheduleAnyway"}));
    let plugin = plugin();
    let mut tried = Try::new_on(&plugin, labelled("web", spec), &nodes);
    // 2 and 1 pods times ln(4), rounded: 3 and 1; the node without a zone isn't compared.
    assert_eq!(tried.scores_known(), [33, 33, 100, 0]);
}

#[test]
fn suppositions_change_the_answer() {
    let nodes = nodes();
    let plugin = plugin();
    let mut tried = Try::new_on(&plugin, labelled("web", spread(json!({}))), &nodes);
    let victim = nodes[0].pods()[0].clone();
    assert_eq!(tried.without("a1", "a1", &victim), "");
}

#[test]
fn mistakes_are_told() {
    let check = |args: Value, expect: &str| {
        let error = PodTopologySpread::new(serde_json::from_value(args).unwrap()).err().unwrap();
        assert!(error.contains(expect), "{error}");
    };
    check(
        json!({"defaultConstraints": [{"topologyKey": "k", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]}),
        "must be empty",
    );
    check(json!({"defaultingType": "Best"}), "Unsupported value");
    let skew = json!([{"topologyKey": "k", "maxSkew": 0, "whenUnsatisfiable": "DoNotSchedule"}]);
    check(json!({"defaultingType": "List", "defaultConstraints": skew}), "not in valid range");
}
