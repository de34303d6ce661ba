//! How long a start takes: the first one, and one that brings an application back.

use anyhow::Result;
use serde_json::{Value, json};

use super::{deploy, load_images, millis, new_machine, page, summary};

const RUNS: usize = 5;

pub(super) fn run() -> Result<Value> {
    let (mut first, mut steps) = (Vec::new(), Vec::new());
    for i in 0..RUNS {
        let machine = new_machine(&format!("start{i}"));
        let mut said = String::new();
        first.push(millis(|| said = machine.oxikube("start").ok()));
        steps.push(node_ready(&said));
    }
    let machine = new_machine("again");
    machine.oxikube("start").ok();
    load_images(&machine)?;
    deploy(&machine);
    let mut again = Vec::new();
    for _ in 0..RUNS {
        machine.oxikube("stop").ok();
        again.push(millis(|| {
            machine.oxikube("start").ok();
            page(&machine);
        }));
    }
    Ok(json!({
        "node_ready": summary(steps),
        "first_start_until_dns_answers": summary(first),
        "start_until_application_answers": summary(again),
        "upstream_node_ready_ms": 1900,
    }))
}

/// The sum of the steps up to the node's, as the progress lines say.
fn node_ready(said: &str) -> f64 {
    let mut sum = 0.0;
    for line in said.lines() {
        let Some((step, rest)) = line.split_once(": done in ") else { continue };
        let seconds: f64 = rest.trim_end_matches(" s").parse().unwrap_or_default();
        sum += seconds * 1000.0;
        if step == "node" {
            break;
        }
    }
    sum
}
