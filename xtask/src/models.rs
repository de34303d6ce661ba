//! `cargo xtask models`: the controllers' seeded models, many runs of each, optimised.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

pub(crate) const USAGE: &str =
    "  models         the controllers under everything that may go wrong, by seeded chance, optimised
                 ([--seeds 10000] [--first 1] [--seed N: that one alone, told] [--only TEST])
";

/// The models: paths of tests of `controllers`.
const MODELS: [&str; 4] = [
    "sets::sets_keep_their_promises",
    "job_model::counts_are_exact_whatever_happens",
    "chaos::rollouts_survive_a_bad_connection",
    "mixed::everything_at_once",
];

pub(crate) fn run(root: &Path, args: &[&str]) -> Result<()> {
    let (mut seeds, mut first, mut seed, mut only) = ("10000", "1", None, None);
    let mut args = args.iter();
    while let Some(&flag) = args.next() {
        let Some(&value) = args.next() else { bail!("{flag} needs a value") };
        match flag {
            "--seeds" => seeds = value,
            "--first" => first = value,
            "--seed" => seed = Some(value),
            "--only" => only = Some(value),
            _ => bail!("unknown flag {flag}; usage:\n{USAGE}"),
        }
    }
    for number in [seeds, first].into_iter().chain(seed) {
        if number.parse::<u64>().is_err() {
            bail!("{number:?} is no number");
        }
    }
    if let Some(model) = only
        && !MODELS.contains(&model)
    {
        bail!("no model {model:?}; there are {}", MODELS.join(", "));
    }
    let mut failed = Vec::new();
    for model in MODELS.into_iter().filter(|model| only.is_none_or(|only| only == *model)) {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--release", "--package", "controllers", "--test", "it", "--", "--exact", model]);
        cargo.current_dir(root).env("OXIKUBE_SEEDS", seeds).env("OXIKUBE_FIRST_SEED", first);
        cargo.env_remove("OXIKUBE_SEED");
        if let Some(seed) = seed {
            cargo.arg("--nocapture").env("OXIKUBE_SEED", seed);
        }
        if !cargo.status()?.success() {
            failed.push(model);
        }
    }
    if !failed.is_empty() {
        bail!("these failed: {}", failed.join(", "));
    }
    Ok(())
}
