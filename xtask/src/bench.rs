//! `cargo xtask bench start|idle|pod|api|streams`: the budgets of `docs/benchmarks.md`, measured on the release binary, as JSON.

mod api;
mod idle;
mod pod;
mod start;
mod streams;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Client, Kubeconfig, Tls};
use serde_json::{Value, json};
use testkit::machine::Machine;

use crate::{call, now, root};

/// Runs one benchmark and prints its result.
pub fn run(name: &str) -> Result<()> {
    call("cargo", &["build", "--release", "--locked", "-p", "oxikube"])?;
    crate::prerequisites::install()?;
    crate::peers::build(&root(), &["kubectl"])?;
    let result = match name {
        "start" => start::run()?,
        "idle" => idle::run()?,
        "pod" => pod::run()?,
        "api" => api::run()?,
        "streams" => streams::run()?,
        other => bail!("no benchmark {other:?}: start, idle, pod, api, streams"),
    };
    println!("{}", serde_json::to_string_pretty(&json!({"benchmark": name, "machine": machine(), "result": result}))?);
    Ok(())
}

/// What the figures were measured on.
fn machine() -> Value {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = text("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m.to_owned()));
    json!({
        "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
        "cpu": model,
        "kernel": text("/proc/sys/kernel/osrelease").trim(),
        "load": text("/proc/loadavg").split_whitespace().next(),
    })
}

fn binary() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("release/oxikube")
}

/// A machine of its own for the cluster `name`; nothing runs yet.
fn new_machine(name: &str) -> Machine {
    Machine::new(&format!("bench-{name}"), &binary().to_string_lossy())
}

/// Loads the example's images.
fn load_images(machine: &Machine) -> Result<()> {
    for named in testkit::example::visits_images()? {
        let path = machine.folder().join(format!("{}.tar", named.file));
        std::fs::write(&path, testkit::image::oci_layout(&[(named.reference, &named.image)]))?;
        machine.oxikube(&format!("image load {}", path.display())).ok();
    }
    Ok(())
}

/// Deploys the example and waits for its page.
fn deploy(machine: &Machine) {
    machine.kubectl(&format!("apply -f {}", testkit::example::visits().display())).ok();
    page(machine);
}

/// Waits for the example's page.
fn page(machine: &Machine) {
    machine.eventually("the page", Duration::from_secs(60), || machine.get("http://127.0.0.1:30080/").ok());
}

/// Runs `work` with a client of the machine's cluster, in its network namespace.
fn with_client<T: Send>(machine: &Machine, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
    let kubeconfig = machine.folder().join(".kube/config");
    let inside = || -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let env = env::Env::system();
            let config = Kubeconfig::load(&[kubeconfig])?.access(None)?;
            let transport = std::sync::Arc::new(Tls::new(env.clone(), &config)?);
            work(Client::new(env, transport, "bench")).await
        })
    };
    machine.namespace().run(inside).context("entering the namespace")?
}

/// Milliseconds that `work` takes.
fn millis(work: impl FnOnce()) -> f64 {
    let begin = now();
    work();
    begin.elapsed().as_secs_f64() * 1000.0
}

/// Median, 99th percentile and worst of some durations in milliseconds.
fn summary(mut samples: Vec<f64>) -> Value {
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| {
        samples.get(((samples.len() as f64 - 1.0) * q).round() as usize).copied().map(|ms| (ms * 100.0).round() / 100.0)
    };
    json!({"n": samples.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)})
}
