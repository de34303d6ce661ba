//! The project's own chores: `cargo xtask <command>`.

mod bench;
mod ci;
mod clients;
mod conformance;
mod controllers;
mod guest;
mod images;
mod models;
mod parity;
mod peers;
mod powercut;
mod prerequisites;
mod scheduler;
mod schema;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask <command>
  ci             all checks: formatting, clippy, tidy, tests, docs (installs what is missing)
  bench NAME     start, idle, pod, api or streams: the budgets, measured, as JSON
  tidy           the rules no compiler knows
  schema         the facts of the built-in kinds, from upstream's types into crates/api/tables
  images         the example's images, from Debian packages, into target/images; --conformance: also those of upstream's suite
  parity         upstream's API server and ours, compared by the same requests ([--record] [SCRIPT...])
  clients        clients that others made (Python, Node, Rust, Go), for the tests that drive them
  peers [NAME]   upstream's own programs (all, or those named), which tests drive and compare with
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ci"] => ci::run(),
        ["images", args @ ..] => images::command(&root(), args),
        ["schema"] => schema::run(&root()),
        ["bench", "scheduler", args @ ..] => scheduler::bench::run(&root(), args),
        ["bench", "controllers", args @ ..] => controllers::bench::run(&root(), args),
        ["bench", name] => bench::run(name),
        ["tidy"] => tidy::run(&root()),
        ["parity", args @ ..] => parity::run(&root(), args),
        ["models", args @ ..] => models::run(&root(), args),
        ["clients"] => clients::run(&root()),
        ["scheduler-diff", args @ ..] => scheduler::run(&root(), args),
        ["controllers-diff", args @ ..] => controllers::run(&root(), args),
        ["peers", names @ ..] => peers::run(&root(), names),
        ["conformance", args @ ..] => conformance::run(&root(), "Conformance", args),
        ["node-conformance", args @ ..] => conformance::run(&root(), "NodeConformance", args),
        ["vm", args @ ..] => vm::run(args),
        ["powercut", args @ ..] => powercut::run(args),
        ["guest", args @ ..] => guest::run(args),
        _ => {
            eprint!(
                "{USAGE}{}{}{}{}{}{}{}{}",
                models::USAGE,
                controllers::USAGE,
                controllers::bench::USAGE,
                scheduler::USAGE,
                scheduler::bench::USAGE,
                conformance::USAGE,
                vm::USAGE,
                powercut::USAGE
            );
            std::process::exit(2);
        }
    }
}

/// The work tree.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask lies in the work tree").to_owned()
}

/// Chores wait for programs, which take real time.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

/// The value of an option that says how much or how many.
fn number<N: FromStr + PartialOrd + Default>(option: &str, value: &str) -> Result<N> {
    match value.parse() {
        Ok(number) if number > N::default() => Ok(number),
        _ => bail!("{option} needs a number above 0, not {value:?}"),
    }
}

/// Runs a program in the work tree and fails with its name if it fails.
fn call(program: &str, args: &[&str]) -> Result<()> {
    eprintln!("$ {program} {}", args.join(" "));
    let status =
        Command::new(program).args(args).current_dir(root()).status().with_context(|| format!("starting {program}"))?;
    if !status.success() {
        bail!("{program} {} failed: {status}", args.join(" "));
    }
    Ok(())
}
