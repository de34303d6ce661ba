//! `cargo xtask bench scheduler`: upstream's scheduler and ours, one after the other, against our API server with nothing behind it.
//!
//! All pods are there when a scheduler starts; what is measured lasts from the first binding to the last, and from its start to the last binding.
//! The second is what counts where room must be made first: `throughput` is the rate that counts in each shape.

mod bound;
mod table;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apimachinery::{ObjectKey, Value as Any};
use bound::Bound;
use client::{Client, Kubeconfig, PatchKind, Resource, Tls, resources};
use env::Env;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::shapes::{self, SHAPES};
use crate::call;
use crate::parity::servers::{self, Running};

/// What `cargo xtask` says of it.
pub const USAGE: &str = "  bench scheduler   upstream's scheduler and ours in the shapes of scheduler_perf
    --shapes A,B  --nodes N,M  --pods N  what (default: all shapes, 100, 1000 and 5000 nodes, 1000 pods)
    --dev                                development builds: to try it, not to measure
    --programs FOLDER                    builds nothing: `serve` and `run` are there
    --who ours|upstream                  one of the two
";

/// Writers that fill the API server.
const WRITERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(600);

struct Options {
    shapes: Vec<String>,
    nodes: Vec<usize>,
    pods: usize,
    dev: bool,
    programs: Option<PathBuf>,
    who: Vec<&'static str>,
}

pub fn run(root: &Path, args: &[&str]) -> Result<()> {
    let options = options(args)?;
    let mut build = vec!["build", "-p", "apiserver", "-p", "scheduler", "--example", "serve", "--example", "run"];
    if !options.dev {
        build.extend(["--release", "--locked"]);
    }
    if options.programs.is_none() {
        call("cargo", &build)?;
    }
    crate::peers::build(root, &["kube-scheduler"])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?;
    let mut results = Vec::new();
    for shape in &options.shapes {
        for nodes in &options.nodes {
            for who in options.who.iter().copied() {
                let result = runtime.block_on(measure(root, &options, shape, *nodes, who));
                let result = result.with_context(|| format!("{who}, {shape}, {nodes} nodes"))?;
                eprintln!("{result}");
                results.push(result);
            }
        }
    }
    println!("{}", serde_json::to_string_pretty(&json!({"benchmark": "scheduler", "result": results}))?);
    println!("{}", table::table(&results));
    Ok(())
}

fn options(args: &[&str]) -> Result<Options> {
    let mut options = Options {
        shapes: SHAPES.map(str::to_owned).to_vec(),
        nodes: vec![100, 1000, 5000],
        pods: 1000,
        dev: false,
        programs: None,
        who: vec!["ours", "upstream"],
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().copied().with_context(|| format!("{arg} takes a value"));
        match *arg {
            "--dev" => options.dev = true,
            "--shapes" => options.shapes = value()?.split(',').map(str::to_owned).collect(),
            "--nodes" => options.nodes = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--pods" => options.pods = value()?.parse()?,
            "--programs" => options.programs = Some(value()?.into()),
            "--who" => {
                let one = value()?;
                options.who.retain(|who| *who == one);
            }
            other => bail!("unknown option {other}"),
        }
    }
    if let Some(unknown) = options.shapes.iter().find(|shape| !SHAPES.contains(&shape.as_str())) {
        bail!("no shape {unknown:?}: {}", SHAPES.join(", "));
    }
    Ok(options)
}

async fn measure(root: &Path, options: &Options, shape: &str, nodes: usize, who: &str) -> Result<Value> {
    let logs = root.join("target/scheduler-bench");
    let count = shapes::count(shape, nodes, options.pods);
    fs::create_dir_all(&logs)?;
    let folder = tempfile::tempdir()?;
    let env = Env::system();
    let examples = options.programs.clone().unwrap_or_else(|| examples(root, options.dev));
    let [port, own_port] = servers::free_ports()?;
    let mut serve = Command::new(examples.join("serve"));
    serve.arg(folder.path()).arg(format!("127.0.0.1:{port}"));
    let mut server = servers::spawn("ours", serve, &logs)?;
    server.ready()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let access = Kubeconfig::load(std::slice::from_ref(&kubeconfig))?.access(None)?;
    let client = Client::new(env.clone(), Arc::new(Tls::new(env.clone(), &access)?), "bench");
    let objects = (0..nodes).map(shapes::node).collect();
    create(&client, objects).await?;
    ready(&client, nodes).await?;
    create(&client, shapes::beginning(shape, nodes, count)).await?;
    create(&client, (0..count).map(|i| shapes::measured(shape, i)).collect()).await?;
    let mut scheduler = match who {
        "ours" => {
            let mut command = Command::new(examples.join("run"));
            command.arg(&kubeconfig);
            command
        }
        _ => {
            let mut command = Command::new(testkit::peers::path("kube-scheduler"));
            command.arg("--kubeconfig").arg(&kubeconfig);
            command.args(["--leader-elect=false", "--kube-api-qps=10000", "--kube-api-burst=10000"]);
            command.args(["--bind-address=127.0.0.1".to_owned(), format!("--secure-port={own_port}")]);
            command.args(["--authentication-skip-lookup=true", "--authorization-always-allow-paths=/metrics"]);
            command
        }
    };
    scheduler.env("RUST_LOG", "warn");
    let bound = Bound::begin(&client).await?;
    let (server_before, _) = usage(server.id())?;
    let began = env.monotonic();
    let running = servers::spawn("scheduler", scheduler, &logs)?;
    let times = env.timeout(PATIENCE, bound.wait(shapes::fitting(shape, count))).await;
    let times = times.context("not all pods got a node in time")?;
    let (rate, last) = Bound::rate(&times)?;
    let from_start = last.duration_since(began).as_secs_f64();
    let rate_from_start = times.len() as f64 / from_start;
    let (cpu, memory) = usage(running.id())?;
    let of_files = file_pages(running.id())?;
    let server_cpu = usage(server.id())?.0 - server_before;
    let attempt = match who {
        "ours" => own_attempts(&env, running, &logs).await?,
        _ => upstreams_attempts(&env, own_port).await?,
    };
    let throughput = if shapes::makes_room(shape) { rate_from_start } else { rate };
    Ok(json!({"attempt": attempt, "shape": shape, "nodes": nodes, "pods": count, "who": who,
        "seconds_from_start": round(from_start), "throughput": round(throughput), "pods_per_second": round(rate),
        "pods_per_second_from_start": round(rate_from_start), "cpu_seconds": round(cpu), "rss_mib": memory >> 20,
        "of_files_mib": of_files >> 20,
        "server_cpu_seconds": round(server_cpu)}))
}

/// Takes back what nodes are made with: that they aren't ready.
async fn ready(client: &Client, nodes: usize) -> Result<()> {
    let patch = Any::from_serialize(&json!({"spec": {"taints": null}}))?;
    let one = |i: usize| {
        let (patch, key) = (&patch, ObjectKey::cluster(shapes::node_name(i)));
        async move { client.patch(&resources::NODES, &key, PatchKind::Merge, patch).await }
    };
    stream::iter((0..nodes).map(one)).buffer_unordered(WRITERS).try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}

/// Ends our scheduler, which then says how long its attempts took.
async fn own_attempts(env: &Env, mut running: Running, logs: &Path) -> Result<Value> {
    let id = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    for _ in 0..100 {
        if running.child.try_wait()?.is_some() {
            break;
        }
        env.sleep(Duration::from_millis(50)).await;
    }
    let log = fs::read_to_string(logs.join("scheduler.log"))?;
    let last = log.lines().rev().find(|line| line.starts_with("{\"attempts\"")).context("how long attempts took")?;
    Ok(serde_json::from_str(last)?)
}

/// Reads the histogram of upstream's scheduler: scheduler_scheduling_algorithm_duration_seconds.
async fn upstreams_attempts(env: &Env, port: u16) -> Result<Value> {
    let access =
        client::TlsConfig { server: format!("https://127.0.0.1:{port}"), insecure: true, ..Default::default() };
    let tls = Tls::new(env.clone(), &access)?;
    let request = client::Request {
        method: http::Method::GET,
        target: "/metrics".into(),
        headers: http::HeaderMap::new(),
        body: Default::default(),
    };
    let answer = client::Transport::send(&tls, request).await?;
    let client::Body::Stream(body) = answer.body else { bail!("no metrics") };
    let chunks: Vec<_> = body.try_collect().await?;
    let text = String::from_utf8(chunks.iter().flat_map(|chunk| chunk.to_vec()).collect())?;
    let buckets: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("scheduler_scheduling_algorithm_duration_seconds_bucket{le=\""))
        .filter_map(|line| {
            let (bound, count) = line.split_once("\"} ")?;
            Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, count.parse().ok()?))
        })
        .collect();
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    // Between two bounds as if attempts were spread evenly.
    let quantile = |part: f64| {
        let mut below = (0.0, 0.0);
        for (bound, count) in &buckets {
            if *count >= all * part {
                let within = (all * part - below.1) / (count - below.1).max(1.0);
                return ((below.0 + (bound.min(1e3) - below.0) * within) * 1e6).round();
            }
            below = (*bound, *count);
        }
        0.0
    };
    Ok(json!({"attempts": all, "p50_us": quantile(0.5), "p99_us": quantile(0.99)}))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn examples(root: &Path, dev: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join(if dev { "debug/examples" } else { "release/examples" })
}

async fn create(client: &Client, objects: Vec<Value>) -> Result<()> {
    let one = |object: Value| async move {
        let resource = resource(object["kind"].as_str().unwrap_or_default())?;
        let made = client.create(&resource, &Any::from_serialize(&object)?).await;
        match made {
            Err(error) if !error.is_already_exists() => bail!("creating {object}: {error}"),
            _ => anyhow::Ok(()),
        }
    };
    stream::iter(objects.into_iter().map(one)).buffer_unordered(WRITERS).try_collect::<()>().await
}

fn resource(kind: &str) -> Result<Resource> {
    Ok(match kind {
        "Node" => resources::NODES,
        "Pod" => resources::PODS,
        "ServiceAccount" => resources::SERVICE_ACCOUNTS,
        "PriorityClass" => resources::PRIORITY_CLASSES,
        "PersistentVolume" => resources::PERSISTENT_VOLUMES,
        "PersistentVolumeClaim" => resources::PERSISTENT_VOLUME_CLAIMS,
        "StorageClass" => Resource::cluster("storage.k8s.io", "v1", "storageclasses"),
        other => bail!("no {other} is made here"),
    })
}

/// CPU seconds and resident bytes of a process.
pub(crate) fn usage(id: u32) -> Result<(f64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a process's name")?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let pages: u64 = fields[21].parse()?;
    Ok((ticks / 100.0, pages * 4096))
}

/// Resident bytes that are pages of files, its program above all: shared with whoever runs the same, and given back when memory is short.
fn file_pages(id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).context("pages of files")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

impl Running {
    /// Waits for the line that our server prints when it is ready.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let mut line = String::new();
        if let Some(output) = self.child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if line.is_empty() { bail!("the server did not become ready") } else { Ok(()) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}
