//! The steps of a start, told one by one.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use apimachinery::{Object, ObjectKey, Value};
use client::{Client, resources, wait_until};
use cluster::progress::{Progress, report};
use env::Env;
use tokio::signal::unix::{SignalKind, signal};

/// No step takes longer on a machine that works.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs steps and reports them.
pub(super) struct Steps {
    env: Env,
}

impl Steps {
    pub(super) fn new(env: &Env) -> Steps {
        Steps { env: env.clone() }
    }

    /// Runs one step; an error names it, as does taking too long. A failpoint of its name follows it.
    pub(super) async fn run<T>(&self, step: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        report(&Progress::Waiting { step: step.to_owned() });
        let begin = self.env.monotonic();
        let outcome = self.env.timeout(LIMIT, work).await;
        let result = outcome
            .with_context(|| format!("{step}: not ready after {} s", LIMIT.as_secs()))?
            .with_context(|| step.to_owned())?;
        let millis = (self.env.monotonic() - begin).as_millis() as u64;
        tracing::info!(step, millis, "ready");
        report(&Progress::Done { step: step.to_owned(), millis });
        self.env.crashpoint(step);
        Ok(result)
    }
}

/// Waits until the node's `Ready` condition is true.
pub(super) async fn node_is_ready(client: &Client, name: &str) -> Result<()> {
    let ready = |node: Option<&Object>| node.is_some_and(|node| is_ready(&node.to_value()));
    wait_until(client, &resources::NODES, &ObjectKey::cluster(name), LIMIT, ready).await?;
    Ok(())
}

/// Whether the `Ready` condition of an object is true.
pub(super) fn is_ready(object: &Value) -> bool {
    let conditions = object.items_at(&["status", "conditions"]);
    conditions.iter().any(|c| c.str_at(&["type"]) == Some("Ready") && c.str_at(&["status"]) == Some("True"))
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn terminated() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Lets go of the pipe to `start`, whose end it waits for, and of standard input, which is the lock of who starts, stops or deletes.
pub(super) fn detach() -> Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("closing standard input")?;
    rustix::stdio::dup2_stdout(null).context("closing standard output")
}
