//! The one binary: parses argv, builds components, runs them until shutdown.
//!
//! It is four programs: `shim` (one per pod, starts before anything else, see the crate), `dns` (answers questions for the cluster, see
//! the crate), `daemon` (the cluster itself, launched by `start`), and the commands that people type, which `cluster` implements.

mod cleanup;
mod daemon;
mod requirements;

use std::process::ExitCode;

use clap::Parser;
use env::Env;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        // A shim stays small: no runtime, no threads, no logger.
        Some(first) if first == "shim" => std::process::exit(shim::run()),
        // Nor does cluster DNS need more than it logs.
        Some(first) if first == "dns" => {
            daemon::log_to_stderr(tracing::level_filters::LevelFilter::WARN);
            std::process::exit(dns::run(arguments))
        }
        Some(first) if first == "daemon" => daemon::main(arguments.next()),
        _ => command(),
    }
}

fn command() -> ExitCode {
    let args = cluster::Args::parse();
    let hooks = cluster::Hooks {
        cleanup: cleanup::cleanup,
        requirements: requirements::requirements,
        controllers: check_controllers,
        scheduler_config: |text| Ok(scheduler::Configuration::from_yaml(text).map(drop)?),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("starting the command's runtime")),
    };
    runtime.block_on(cluster::run(args, Env::system(), hooks)).unwrap_or_else(|error| fail(&error))
}

/// Refuses names that are unknown, and says which of the others stand for nothing.
fn check_controllers(names: &[String]) -> anyhow::Result<()> {
    controllers::check_names(names)?;
    for name in controllers::absent(names) {
        eprintln!("oxikube: there is no {name} here: --controllers names it in vain");
    }
    Ok(())
}

/// One line with the whole chain.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("oxikube: {error:#}");
    ExitCode::FAILURE
}
