//! `cargo xtask controllers-diff`: upstream's controller manager and ours do the same work.
//!
//! Two stacks of our API server, fake nodes and our scheduler, one with each controller manager, play the scenarios of
//! `conformance/controllers`; at each scenario's looks, all its objects and events are compared. What is meant to differ
//! is in `kept.txt` beside them.

pub mod bench;
mod drive;
mod mask;
mod requests;
mod scenario;
mod stack;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use testkit::parity::{Answer, Kept, differences};

use drive::{Looks, World};
use scenario::Scenario;
use stack::Manager;

/// What `cargo xtask` says of it.
pub const USAGE: &str = "  controllers-diff  upstream's controller manager and ours, compared by scenarios ([--against-itself] [--no-build] [--quiet SECONDS] [NAME...])
";

/// How long a program may take to become ready, and a condition to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

pub fn run(root: &Path, args: &[&str]) -> Result<()> {
    let mut names = Vec::new();
    let (mut other, mut build, mut quiet) = (Manager::Ours, true, Duration::from_secs(2));
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--against-itself" => other = Manager::Upstream { limited: false },
            "--no-build" => build = false,
            "--quiet" => quiet = Duration::from_secs_f64(args.next().context("--quiet takes seconds")?.parse()?),
            name if !name.starts_with('-') => names.push(name),
            unknown => bail!("unknown option {unknown}"),
        }
    }
    let folder = root.join("conformance/controllers");
    let mut scenarios = scenario::all(&folder)?;
    scenarios.retain(|one| names.is_empty() || names.iter().any(|name| one.name.starts_with(name)));
    if scenarios.is_empty() {
        bail!("no scenario in {} has such a name", folder.display());
    }
    let kept = fs::read_to_string(folder.join("kept.txt")).context("reading kept.txt")?;
    let mut kept = Kept::parse(&kept).map_err(|why| anyhow::anyhow!("kept.txt: {why}"))?;
    let examples = if build { stack::build(root, true)? } else { stack::examples(root, true) };
    let logs = root.join("target/controllers-diff");
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?;
    let (theirs, ours) = runtime.block_on(async {
        let play = |who: Manager, folder: &str| {
            let (scenarios, examples, logs) = (&scenarios, &examples, logs.join(folder));
            async move { World::start(examples, &logs, who, quiet).await?.play_all(scenarios).await }
        };
        let upstream = Manager::Upstream { limited: false };
        futures_util::future::try_join(play(upstream, "upstream"), play(other, "ours")).await
    })?;
    let mut differing = 0;
    for scenario in &scenarios {
        let empty = Looks::default();
        let [theirs, ours] = [&theirs, &ours].map(|all| all.get(&scenario.name).unwrap_or(&empty));
        for (who, looks) in [("upstream", theirs), ("ours", ours)] {
            for (name, seen) in looks {
                let path = logs.join(who).join(format!("{}.{name}.json", scenario.name));
                fs::write(&path, serde_json::to_string_pretty(seen)?)?;
            }
        }
        if !scenario.refused
            && let Some(missed) = theirs.values().find_map(|look| look.get("missed"))
        {
            println!("{} does not go as it is written: {missed}", scenario.name);
            differing += 1;
            continue;
        }
        differing += usize::from(!compare(scenario, theirs, ours, &mut kept));
    }
    if names.is_empty() {
        for unused in kept.unused() {
            println!("kept.txt: nothing differs any more at {unused}");
        }
    }
    println!("{} scenarios: {differing} differ", scenarios.len());
    if differing == 0 { Ok(()) } else { bail!("the controllers differ; what was seen is in {}", logs.display()) }
}

/// Tells what differs, and whether nothing does that is not meant to.
fn compare(scenario: &Scenario, theirs: &Looks, ours: &Looks, kept: &mut Kept) -> bool {
    let mut same = true;
    let mut names: Vec<&String> = theirs.keys().collect();
    names.extend(ours.keys().filter(|name| !theirs.contains_key(*name)));
    for name in names {
        let [theirs, ours] = [theirs, ours].map(|looks| looks.get(name).cloned().unwrap_or_default());
        let [theirs, ours] = [theirs, ours].map(|body| Answer { code: 200, headers: BTreeMap::new(), body });
        let look = format!("{}/{name}", scenario.name);
        let unexplained: Vec<_> =
            differences(&theirs, &ours).into_iter().filter(|one| !kept.covers(&look, one)).collect();
        if !unexplained.is_empty() {
            same = false;
            println!("{look}");
            for one in unexplained {
                println!("    {}", brief(&one.to_string()));
            }
        }
    }
    same
}

/// Whole objects that one side does not have need not be read in full.
fn brief(text: &str) -> String {
    let lines = text.trim_start_matches("body.").lines().map(|line| line.chars().take(600).collect::<String>());
    lines.collect::<Vec<_>>().join("\n    ")
}

/// A member of nothing, for objects that are not there.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(value, |value, key| &value[*key]).as_str().unwrap_or_default()
}
