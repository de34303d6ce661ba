//! `cargo xtask conformance` and `cargo xtask node-conformance`: upstream's end-to-end suite against a cluster of ours.
//!
//! One run is a fresh cluster in a network namespace of its own (or one given by `--kubeconfig`), the images loaded, the parallel
//! specs on several processes, then the serial and disruptive ones. What passed is compared with `conformance/passing.txt`.

mod cluster;
mod options;
mod passing;
mod report;
mod stop;
mod suite;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::now;

use cluster::Cluster;
use options::Options;
use passing::Record;
use report::{Outcome, Spec};
use stop::Stop;
use suite::{Pass, Suite};

pub use options::USAGE;

/// Runs the specs with one of upstream's labels, `Conformance` or `NodeConformance`.
pub fn run(root: &Path, label: &'static str, args: &[&str]) -> Result<()> {
    let options = options::parse(args)?;
    let suite = Suite { label, selection: selection(root, label, &options)? };
    crate::peers::build(root, crate::peers::OF_THE_SUITE)?;
    if !options.list {
        return run_all(root, &suite, &options);
    }
    for name in suite.list()? {
        println!("{name}");
    }
    Ok(())
}

fn run_all(root: &Path, suite: &Suite, options: &Options) -> Result<()> {
    let stop = Stop::on_signals()?;
    let folder = root.join("target/conformance");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing the last run's {}", folder.display()))?;
    }
    let mut runs: Vec<Vec<Spec>> = Vec::new();
    let mut broken = None;
    for number in 1..=options.repeat {
        let folder = if options.repeat > 1 { folder.join(format!("run-{number}")) } else { folder.clone() };
        let begin = now();
        let (specs, end) = one_run(root, suite, options, &stop, &folder)?;
        println!("{}", report::summary(&specs, begin.elapsed()));
        print!("{}", report::failures(&specs, &folder)?);
        runs.push(specs);
        if let Some(sentence) = end {
            broken = Some(sentence);
            break;
        }
    }
    let verdict = judge(root, options, suite, &runs);
    if let Some(sentence) = broken {
        bail!("{sentence} (results so far are in {})", folder.display());
    }
    verdict
}

/// What the options choose of the label's specs.
fn selection(root: &Path, label: &str, options: &Options) -> Result<suite::Selection> {
    let mut selection = suite::Selection {
        focus: options.focus.clone(),
        skip: options.skip.clone(),
        sig: options.sig.clone(),
        names: None,
    };
    if options.sample {
        let sample = Record::read(root)?.sample(label);
        if sample.is_empty() {
            bail!("conformance/durations.txt names no quick spec to sample");
        }
        selection.names = Some(sample);
    }
    if options.recorded {
        selection.names = Some(Record::read(root)?.passing.into_iter().collect());
    }
    Ok(selection)
}

/// One cluster and both passes; the specs that ended, and why the run ended early if it did.
fn one_run(
    root: &Path,
    suite: &Suite,
    options: &Options,
    stop: &Stop,
    folder: &Path,
) -> Result<(Vec<Spec>, Option<String>)> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let cluster = match &options.kubeconfig {
        Some(path) => Cluster::given(path)?,
        None => Cluster::fresh(root, options, stop)?,
    };
    let mut specs = Vec::new();
    let mut end = None;
    for pass in [Pass::parallel(options.procs), Pass::serial()] {
        if options.sample && pass.is_serial() {
            continue;
        }
        // What ended before counts, whatever went wrong.
        let (more, sentence) = suite
            .run(&pass, &cluster, options, stop, folder)
            .unwrap_or_else(|error| (Vec::new(), Some(format!("{error:#}"))));
        specs.extend(more);
        if sentence.is_some() {
            end = sentence;
            break;
        }
    }
    if let Err(error) = cluster.keep_log(folder) {
        eprintln!("{error:#}");
    }
    drop(cluster);
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((specs, end))
}

/// Compares with what passed before.
fn judge(root: &Path, options: &Options, suite: &Suite, runs: &[Vec<Spec>]) -> Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    let passed = |specs: &[Spec]| -> BTreeSet<String> {
        specs.iter().filter(|spec| spec.outcome == Outcome::Passed).map(|spec| spec.name.clone()).collect()
    };
    let always = runs.iter().skip(1).fold(passed(first), |all, run| all.intersection(&passed(run)).cloned().collect());
    let ever: BTreeSet<String> = runs.iter().flat_map(|run| passed(run)).collect();
    for unstable in ever.difference(&always) {
        println!("passed in some runs only: {unstable}");
    }
    let ran: BTreeSet<String> =
        runs.iter().flatten().filter(|spec| spec.outcome.has_run()).map(|spec| spec.name.clone()).collect();
    let mut record = Record::read(root)?;
    let gained: Vec<&String> = always.difference(&record.passing).collect();
    let lost: Vec<&String> = record.passing.intersection(&ran).filter(|name| !always.contains(*name)).collect();
    for name in &gained {
        println!("gained: {name}");
    }
    for name in &lost {
        println!("lost: {name}");
    }
    let (gained, lost) = (gained.len(), lost.len());
    println!("{} of {} specs with the label {} passed", always.len(), ran.len(), suite.label);
    if options.bless {
        record.bless(&always, runs.iter().flatten());
        record.write(root)?;
    } else if gained > 0 {
        println!("{gained} gained: --bless adds them to {}", passing::PASSING);
    }
    if lost > 0 {
        bail!("{lost} specs of {} no longer pass", passing::PASSING);
    }
    Ok(())
}

/// Where oxikube's binary is built.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// `1h02m`, `3m05s` or `7s`.
fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}
