//! `cargo xtask scheduler-diff`: upstream's scheduler and ours place the same pods in the same clusters.
//!
//! Upstream's API server, with nothing behind it, holds each scenario of `testkit::placements`; upstream's scheduler places its pods one after the
//! other and tells every score in its log. What it decided is recorded, and `cargo test -p scheduler` decides the same again without it.

pub mod bench;
mod claims;
mod log;
mod shapes;
mod world;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::placements::{SEEDS, scenario};

use world::World;

/// What `cargo xtask` says of it.
pub const USAGE: &str =
    "  scheduler-diff    upstream's scheduler and ours on the same clusters and pods ([--seeds FROM TO] [--record])
";

/// Where decisions are recorded, a seed a line.
const GOLDEN: &str = "crates/scheduler/tests/it/placements.jsonl";

pub fn run(root: &Path, args: &[&str]) -> Result<()> {
    let (mut from, mut to, mut record) = (0, SEEDS, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--record" => record = true,
            "--seeds" => {
                let mut number = || args.next().context("--seeds takes two numbers")?.parse().context("--seeds");
                (from, to) = (number()?, number()?);
            }
            other => bail!("unknown option {other}"),
        }
    }
    crate::peers::build(root, crate::peers::OF_PARITY)?;
    crate::peers::build(root, &["kube-scheduler"])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lines = runtime.block_on(decide_all(&root.join("target/scheduler-diff"), from, to))?;
    let mut text = String::new();
    for line in &lines {
        writeln!(text, "{line}")?;
    }
    if record {
        std::fs::write(root.join(GOLDEN), &text)?;
    }
    let recorded = root.join("target/scheduler-diff/decisions.jsonl");
    std::fs::write(&recorded, &text)?;
    println!("{} scenarios decided by upstream; comparing", lines.len());
    let status = std::process::Command::new("cargo")
        .args(["test", "-q", "-p", "scheduler", "--test", "it", "placements"])
        .env("OXIKUBE_PLACEMENTS", &recorded)
        .current_dir(root)
        .status()?;
    if !status.success() {
        bail!("our scheduler decides differently; upstream's decisions are in {}", recorded.display());
    }
    Ok(())
}

async fn decide_all(folder: &Path, from: u64, to: u64) -> Result<Vec<Value>> {
    let mut world = World::start(folder).await?;
    let mut lines = Vec::new();
    for seed in from..to {
        let scenario = scenario(seed);
        world.make(&scenario.objects).await.with_context(|| format!("making scenario {seed}"))?;
        let mut decisions = Vec::new();
        for at in 0..scenario.pods.len() {
            let placed = world.place(&scenario, at).await;
            let (decision, over) = placed.with_context(|| format!("placing in scenario {seed}"))?;
            decisions.push(decision);
            if over {
                break;
            }
        }
        world.clear().await.with_context(|| format!("clearing scenario {seed}"))?;
        lines.push(json!({"seed": seed, "decisions": decisions}));
        if (seed + 1) % 10 == 0 {
            eprintln!("{} of {}", seed + 1 - from, to - from);
        }
    }
    Ok(lines)
}
