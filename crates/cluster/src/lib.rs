//! Commands for the life of a cluster: `start`, `stop`, `status`, `delete`, `check`, `image`.
//!
//! A command runs in the caller's terminal and ends; the cluster itself is the daemon, another process of the same binary. The two
//! meet at the [`progress`] lines that a starting daemon writes and at the [`control`] socket of a running one. This crate knows no
//! API server, kubelet or runtime: what ends them and what removes their leftovers comes as [`Hooks`] from the binary.
//!
//! ```
//! use clap::Parser;
//! let args = cluster::Args::parse_from(["oxikube", "start", "--name", "staging"]);
//! assert_eq!(args.name(), "staging");
//! ```

pub mod control;
pub mod process;
pub mod progress;
pub mod settings;

mod args;
mod check;
mod delete;
mod image;
mod kubeconfig;
mod routes;
mod start;
mod status;
mod stop;
mod turn;
mod volumes;

pub use args::{Args, Command};
pub use check::{Outcome, Requirement};
pub use kubeconfig::renew as renew_kubeconfig;
pub use settings::Settings;
pub use start::LONELY_NODE_IP;
pub use status::described;

use std::process::ExitCode;

use anyhow::Result;
use futures_util::future::BoxFuture;

/// What only the binary can do, because it knows every component.
pub struct Hooks {
    /// Ends what a dead daemon of this cluster left running and removes its mounts, links and rules. Idempotent.
    pub cleanup: fn(Settings) -> BoxFuture<'static, Result<()>>,
    /// Requirements of components on this machine, beside this crate's own.
    pub requirements: fn(&Settings) -> Vec<Requirement>,
    /// Whether all these, as `--controllers` names them, are known.
    pub controllers: fn(&[String]) -> Result<()>,
    /// Whether this text is a configuration for the scheduler.
    pub scheduler_config: fn(&str) -> Result<()>,
}

/// Runs one command and returns how the process ends. Errors are for the caller to print, whole chain in one line.
pub async fn run(args: Args, env: env::Env, hooks: Hooks) -> Result<ExitCode> {
    match &args.command {
        Command::Start(start) => start::run(&args, start, &env, &hooks).await,
        Command::Stop => stop::run(&args, &env, &hooks).await,
        Command::Status { output } => status::run(&args, output.as_deref(), &env).await,
        Command::Delete { yes, keep_volumes } => delete::run(&args, *yes, *keep_volumes, &env, &hooks).await,
        Command::Check => check::run(&args, &env, &hooks).await,
        Command::Image { command } => image::run(&args, command).await,
    }
}
