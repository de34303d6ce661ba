//! What upstream's scheduler decided about generated clusters and pods (`cargo xtask scheduler-diff --record`), decided again.

use std::collections::BTreeMap;

use scheduler::Configuration;
use scheduler::trial::{Decision, Trial};
use serde_json::{Value, json};
use testkit::placements::{Scenario, configuration, scenario};

const GOLDEN: &str = include_str!("placements.jsonl");

/// So many nodes are enough where not all are looked at.
const PART: usize = 100;

#[tokio::test]
async fn placements_are_upstreams() {
    let recorded = match std::env::var_os("OXIKUBE_PLACEMENTS") {
        Some(path) => std::fs::read_to_string(path).unwrap(),
        None => GOLDEN.to_owned(),
    };
    let mut differences = Vec::new();
    let mut compared = 0;
    for line in recorded.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let seed = line["seed"].as_u64().unwrap();
        let decisions = line["decisions"].as_array().unwrap();
        compared += decisions.len();
        differences.extend(replay(&scenario(seed), decisions).await.iter().map(|text| format!("seed {seed}: {text}")));
    }
    assert!(differences.is_empty(), "{} of {compared} differ:\n{}", differences.len(), differences.join("\n"));
}

/// The first decision that differs; those after it have other premises.
async fn replay(scenario: &Scenario, expected: &[Value]) -> Option<String> {
    let mut trial = Trial::new(&Configuration::parse(&configuration()).unwrap());
    let mut pods: BTreeMap<String, Value> = BTreeMap::new();
    for pod in scenario.objects.iter().map(with_uid).filter(|object| object["kind"] == "Pod") {
        pods.insert(pod["metadata"]["uid"].as_str().unwrap().to_owned(), pod);
    }
    scenario.objects.iter().for_each(|object| trial.put(&with_uid(object)));
    let mut claims: BTreeMap<String, Value> = BTreeMap::new();
    for claim in scenario.objects.iter().filter(|object| object["kind"] == "ResourceClaim").map(with_uid) {
        claims.insert(claim["metadata"]["name"].as_str().unwrap().to_owned(), claim);
    }
    for (at, (pod, expect)) in scenario.pods.iter().zip(expected).enumerate() {
        let mut pod = with_uid(pod);
        for claim in scenario.made_for(at, pod["metadata"]["uid"].as_str().unwrap()).iter().map(with_uid) {
            trial.put(&claim);
            claims.insert(claim["metadata"]["name"].as_str().unwrap().to_owned(), claim);
        }
        let mut decision = trial.decide(&pod).await;
        if expect["message"].as_str().is_some_and(|message| message.starts_with("running ")) {
            // Of several nodes at which a plugin fails, upstream's tells of any: each search goes on where the last one ended.
            let nodes = scenario.objects.iter().filter(|object| object["kind"] == "Node").count();
            for _ in 0..nodes {
                if difference(&decision, expect, scenario.ambiguous).is_none() {
                    break;
                }
                decision = trial.decide(&pod).await;
            }
        }
        let claimed =
            || expect.get("allocations").and_then(|told| allocated_otherwise(scenario, &decision, expect, told));
        if let Some(difference) = difference(&decision, expect, scenario.ambiguous).or_else(claimed) {
            return Some(format!("{}: {difference}", pod["metadata"]["name"]));
        }
        for victim in expect["victims"].as_array().into_iter().flatten().map(|victim| victim.as_str().unwrap()) {
            match expect["nominated"].as_str() {
                None => trial.remove_pod(victim),
                Some(_) => {
                    let ending = pods.get_mut(victim).unwrap();
                    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    trial.put(ending);
                }
            }
        }
        for (name, allocation) in expect["allocations"].as_object().into_iter().flatten() {
            let claim = claims.get_mut(name).unwrap();
            claim["status"]["allocation"] = allocation.clone();
            let user = json!({"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]});
            match claim["status"]["reservedFor"].as_array_mut() {
                Some(users) => users.push(user),
                None => claim["status"]["reservedFor"] = json!([user]),
            }
            trial.put(claim);
        }
        if let Some(node) = expect["nominated"].as_str() {
            pod["status"]["nominatedNodeName"] = json!(node);
            trial.put(&pod);
        }
        if let Some(node) = expect["node"].as_str() {
            pod["spec"]["nodeName"] = json!(node);
            trial.put(&pod);
            pods.insert(pod["metadata"]["uid"].as_str().unwrap().to_owned(), pod);
        }
    }
    None
}

fn with_uid(object: &Value) -> Value {
    let mut object = object.clone();
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    object["metadata"]["uid"] = json!(format!("{}/{}", text("namespace"), text("name")));
    object
}

/// How claims without devices would get others than upstream's scheduler gave them.
fn allocated_otherwise(scenario: &Scenario, ours: &Decision, expect: &Value, told: &Value) -> Option<String> {
    let node = expect["node"].as_str().unwrap();
    let ours = ours.allocations.get(node).cloned().unwrap_or_default();
    let differing = ours.iter().filter_map(|(claim, ours)| {
        let theirs = &told[claim.rsplit('/').next().unwrap()];
        // Pools come in any order there.
        let same = match scenario.ambiguous {
            true => requests(ours) == requests(theirs),
            false => ours == theirs,
        };
        (!same).then(|| format!("\n  {claim} on {node}\n  theirs: {theirs}\n  ours:   {ours}"))
    });
    let differing: Vec<String> = differing.collect();
    (!differing.is_empty()).then(|| differing.concat())
}

/// Which requests got devices, once for each.
fn requests(allocation: &Value) -> Vec<&str> {
    let results = allocation["devices"]["results"].as_array().into_iter().flatten();
    // Which alternative is had may hang on it, too.
    results.map(|result| result["request"].as_str().unwrap().split('/').next().unwrap()).collect()
}

/// Which of several nodes is at fault is chance: they are looked at together.
fn anywhere(message: &str) -> &str {
    message.split_once("resource pool").map_or(message, |(before, _)| before)
}

/// `ambiguous`: the scores of claims aren't compared.
fn difference(ours: &Decision, theirs: &Value, ambiguous: bool) -> Option<String> {
    if let Some(message) = theirs["message"].as_str() {
        return (anywhere(&ours.message) != anywhere(message))
            .then(|| format!("\n  theirs: {message}\n  ours:   {:?}", ours));
    }
    let node = theirs["node"].as_str().or(theirs["nominated"].as_str()).unwrap();
    if let Some(victims) = theirs["victims"].as_array() {
        let victims: Vec<String> = victims.iter().map(|victim| victim.as_str().unwrap().to_owned()).collect();
        let expect = Some((node.to_owned(), victims));
        return (ours.preemption != expect).then(|| format!("\n  theirs: {expect:?}\n  ours:   {ours:?}"));
    }
    let totals: BTreeMap<String, i64> = serde_json::from_value(theirs["totals"].clone()).unwrap();
    if totals.is_empty() {
        // The only one that suits is not compared.
        let alone = ours.feasible.len() == 1 && ours.feasible.contains_key(node);
        return (!alone).then(|| format!("only {node} suits, ours: {ours:?}"));
    }
    if totals.len() == PART {
        // Which nodes are looked at depends on the searches before.
        return (ours.feasible.len() != PART)
            .then(|| format!("{} nodes instead of {PART} are scored", ours.feasible.len()));
    }
    let claims = |of: Option<&BTreeMap<String, i64>>, node: &str| match ambiguous {
        true => of.and_then(|scores| scores.get(node)).copied().unwrap_or_default(),
        false => 0,
    };
    let told: Option<BTreeMap<String, i64>> =
        serde_json::from_value(theirs["scores"]["DynamicResources"].clone()).unwrap();
    let without = |totals: &BTreeMap<String, i64>, of: Option<&BTreeMap<String, i64>>| {
        let rest = totals.iter().map(|(node, total)| (node.clone(), total - claims(of, node)));
        rest.collect::<BTreeMap<String, i64>>()
    };
    if without(&ours.feasible, ours.scores.get("DynamicResources")) != without(&totals, told.as_ref()) {
        let theirs: BTreeMap<String, BTreeMap<String, i64>> = serde_json::from_value(theirs["scores"].clone()).unwrap();
        let differing: Vec<String> = theirs
            .iter()
            .filter(|(plugin, scores)| {
                let ours = ours.scores.get(*plugin);
                scores.iter().any(|(node, score)| ours.and_then(|o| o.get(node)).copied().unwrap_or_default() != *score)
            })
            .map(|(plugin, scores)| format!("{plugin}: theirs {scores:?}, ours {:?}", ours.scores.get(plugin)))
            .collect();
        return Some(format!("\n  theirs: {totals:?}\n  ours:   {:?}\n  {}", ours.feasible, differing.join("\n  ")));
    }
    let best = totals.values().max().unwrap();
    (totals.get(node) != Some(best)).then(|| format!("they chose {node}, which isn't best: {totals:?}"))
}
