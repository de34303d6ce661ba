//! `cargo xtask bench controllers`: upstream's controller manager and ours, one after the other, against our API server with fake nodes.
//!
//! Writes are those that the API server counted, told by who makes them: the fake kubelet writes the status of pods and deletes those that
//! are ending, the scheduler binds and writes its events; the rest is the controllers'.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apimachinery::{Object, ObjectKey, Value as Any};
use client::trim::keep;
use client::{Client, DeleteOptions, Informer, Resource, Selection, resources};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::stack::{self, Manager, Stack, usage, usage_of};

/// What `cargo xtask` says of it.
pub const USAGE: &str = "  bench controllers  upstream's controller manager and ours at the same work
    --only A,B                         of deployments, namespace, garbage (default: all)
    --deployments N  --replicas N      (default: 1000 of 10)  --nodes N (default: 100)
    --objects N                        in the namespace that is deleted (default: 10000)
    --dependents N                     of the owner that is deleted (default: 100000)
    --managers A,B                     of ours, upstream, limited (default: ours,upstream); limited is upstream with its default limits of
                                       20 requests a second
    --limited-objects N                in the namespace and of the owner, for limited (default: 1000)
    --dev                              development builds: to try it, not to measure
    --no-build                         programs that are built already
";

/// Writers that fill the API server.
const WRITERS: usize = 16;
const LONG: Duration = Duration::from_secs(3600);

struct Options {
    only: Vec<String>,
    deployments: usize,
    replicas: usize,
    nodes: usize,
    objects: usize,
    dependents: usize,
    managers: Vec<String>,
    limited_objects: usize,
    dev: bool,
    build: bool,
}

pub fn run(root: &Path, args: &[&str]) -> Result<()> {
    let options = options(args)?;
    let examples = if options.build { stack::build(root, options.dev)? } else { stack::examples(root, options.dev) };
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?;
    let managers = [
        ("ours", Manager::Ours),
        ("upstream", Manager::Upstream { limited: false }),
        ("limited", Manager::Upstream { limited: true }),
    ];
    let managers = managers.into_iter().filter(|(name, _)| options.managers.iter().any(|wanted| wanted == name));
    let managers: Vec<Manager> = managers.map(|(_, manager)| manager).collect();
    let mut results = serde_json::Map::new();
    for manager in managers.iter().copied() {
        let logs = root.join("target/controllers-bench").join(manager.name().replace([' ', ','], "-"));
        let mut figures = serde_json::Map::new();
        for what in &options.only {
            // What the others did is told, whatever becomes of this one.
            let figure = runtime.block_on(measure(&examples, &logs, manager, what, &options));
            let figure = figure.unwrap_or_else(|error| json!({"gave_up": format!("{error:#}")}));
            eprintln!("{} {what}: {figure}", manager.name());
            figures.insert(what.clone(), figure);
        }
        results.insert(manager.name().to_owned(), figures.into());
    }
    let results = Value::from(results);
    let ours = &results[Manager::Ours.name()];
    let mut ratios = serde_json::Map::new();
    for manager in managers.iter().filter(|manager| **manager != Manager::Ours) {
        ratios.insert(manager.name().to_owned(), ratio(&results[manager.name()], ours));
    }
    let sizes = json!({"deployments": options.deployments, "replicas": options.replicas, "nodes": options.nodes,
        "objects": options.objects, "dependents": options.dependents, "limited_objects": options.limited_objects, "development_build": options.dev});
    let all =
        json!({"benchmark": "controllers", "sizes": sizes, "result": results, "upstream_divided_by_ours": ratios});
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}

fn options(args: &[&str]) -> Result<Options> {
    let mut options = Options {
        only: ["deployments", "namespace", "garbage"].map(str::to_owned).to_vec(),
        deployments: 1000,
        replicas: 10,
        nodes: 100,
        objects: 10_000,
        dependents: 100_000,
        managers: ["ours", "upstream"].map(str::to_owned).to_vec(),
        limited_objects: 1000,
        dev: false,
        build: true,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().copied().with_context(|| format!("{arg} takes a value"));
        match *arg {
            "--dev" => options.dev = true,
            "--no-build" => options.build = false,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--deployments" => options.deployments = value()?.parse()?,
            "--replicas" => options.replicas = value()?.parse()?,
            "--nodes" => options.nodes = value()?.parse()?,
            "--objects" => options.objects = value()?.parse()?,
            "--managers" => options.managers = value()?.split(',').map(str::to_owned).collect(),
            "--limited-objects" => options.limited_objects = value()?.parse()?,
            "--dependents" => options.dependents = value()?.parse()?,
            other => bail!("unknown option {other}"),
        }
    }
    Ok(options)
}

/// Upstream's figures divided by ours, member by member.
fn ratio(upstream: &Value, ours: &Value) -> Value {
    match (upstream, ours) {
        (Value::Object(upstream), Value::Object(_)) => {
            upstream.iter().map(|(key, value)| (key.clone(), ratio(value, &ours[key]))).collect()
        }
        (upstream, ours) => match (upstream.as_f64(), ours.as_f64().filter(|ours| *ours > 0.0)) {
            (Some(upstream), Some(ours)) => round(upstream / ours).into(),
            _ => Value::Null,
        },
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Does one piece of work in a stack of its own.
async fn measure(examples: &Path, logs: &Path, manager: Manager, what: &str, options: &Options) -> Result<Value> {
    let stack = Stack::start(examples, logs, manager).await?;
    let client = &stack.client;
    for node in 0..options.nodes {
        let zone = [("topology.kubernetes.io/zone".to_owned(), format!("z{}", node % 3))].into();
        stack.nodes.add(&format!("node-{node}"), &zone, &Value::Null).await?;
    }
    let work = Work { stack: &stack, client };
    let limit = if manager == (Manager::Upstream { limited: true }) { options.limited_objects } else { usize::MAX };
    match what {
        "deployments" => work.deployments(options).await,
        "namespace" => work.namespace(options.objects.min(limit)).await,
        "garbage" => work.garbage(options.dependents.min(limit)).await,
        other => bail!("no work is called {other:?}"),
    }
}

struct Work<'a> {
    stack: &'a Stack,
    client: &'a Client,
}

impl Work<'_> {
    /// Many Deployments at once, until every pod is ready and told so.
    async fn deployments(&self, options: &Options) -> Result<Value> {
        let deployments = Informer::start(&self.client.trimming(counted), resources::DEPLOYMENTS, Selection::all());
        let ready = Arc::new(AtomicI64::new(0));
        let _count = deployments.on_event({
            let ready = ready.clone();
            let of = |one: &Object| one.to_value().i64_at(&["status", "readyReplicas"]).unwrap_or(0);
            move |event| {
                ready.fetch_add(of(event.object()) - event.old().map_or(0, |old| of(old)), Ordering::Relaxed);
            }
        });
        let objects = (0..options.deployments).map(|i| deployment(i, options.replicas));
        let (before, mut begun) = (self.writes().await?, self.begin()?);
        self.create(&resources::DEPLOYMENTS, objects.collect()).await?;
        begun.created = self.stack.env.monotonic();
        let pods = options.deployments * options.replicas;
        let done = deployments.until(|_| ready.load(Ordering::Relaxed) == pods as i64);
        self.stack.env.timeout(LONG, done).await.context("not all became ready")?;
        let figures = self.end(&begun)?;
        Ok(with_writes(figures, &before, &self.writes().await?, pods))
    }

    /// A namespace with as many objects, deleted.
    async fn namespace(&self, objects: usize) -> Result<Value> {
        let key = ObjectKey::cluster("full");
        let ns = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "full"}});
        self.create(&resources::NAMESPACES, vec![ns]).await?;
        let one = |i: usize| {
            let kind = ["ConfigMap", "Secret", "ServiceAccount"][i % 3];
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": format!("o-{i}"), "namespace": "full"}})
        };
        for (at, resource) in
            [resources::CONFIG_MAPS, resources::SECRETS, resources::SERVICE_ACCOUNTS].iter().enumerate()
        {
            self.create(resource, (0..objects).filter(|i| i % 3 == at).map(one).collect()).await?;
        }
        self.quiet().await?;
        let namespaces = Informer::start(self.client, resources::NAMESPACES, Selection::all());
        namespaces.synced().await;
        let (before, begun) = (self.writes().await?, self.begin()?);
        self.client.delete(&resources::NAMESPACES, &key, &DeleteOptions::default()).await?;
        let gone = namespaces.until(|namespaces| namespaces.get(&key).is_none());
        self.stack.env.timeout(LONG, gone).await.context("the namespace stays")?;
        Ok(with_writes(self.end(&begun)?, &before, &self.writes().await?, objects))
    }

    /// An owner with as many dependents, deleted in the background.
    async fn garbage(&self, dependents: usize) -> Result<Value> {
        let map = |name: String, owners: Value| {
            json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": "default", "labels": {"bench": "garbage"}, "ownerReferences": owners}})
        };
        let owner = self.client.create(&resources::CONFIG_MAPS, &body(&map("owner".to_owned(), json!([])))).await?;
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]);
        let maps = (0..dependents).map(|i| map(format!("o-{i}"), owners.clone())).collect();
        self.create(&resources::CONFIG_MAPS, maps).await?;
        self.quiet().await?;
        let left = Informer::start(self.client, resources::CONFIG_MAPS, Selection::all().labels("bench=garbage"));
        left.synced().await;
        let (before, begun) = (self.writes().await?, self.begin()?);
        self.client.delete(&resources::CONFIG_MAPS, owner.key(), &DeleteOptions::default()).await?;
        let gone = left.until(Informer::is_empty);
        self.stack.env.timeout(LONG, gone).await.context("dependents stay")?;
        Ok(with_writes(self.end(&begun)?, &before, &self.writes().await?, dependents))
    }

    async fn create(&self, resource: &Resource, objects: Vec<Value>) -> Result<()> {
        let one = |object: Value| async move { self.client.create(resource, &body(&object)).await.map(drop) };
        stream::iter(objects.into_iter().map(one)).buffer_unordered(WRITERS).try_collect::<()>().await?;
        Ok(())
    }

    /// Waits until the manager has nothing more to do with what was made: its CPU time stands still.
    async fn quiet(&self) -> Result<()> {
        let mut last = usage(&self.stack.manager)?.0;
        loop {
            self.stack.env.sleep(Duration::from_secs(2)).await;
            let now = usage(&self.stack.manager)?.0;
            if now - last < 0.2 {
                return Ok(());
            }
            last = now;
        }
    }

    fn begin(&self) -> Result<Begun> {
        let now = self.stack.env.monotonic();
        Ok(Begun { at: now, created: now, cpu: self.cpu()? })
    }

    fn end(&self, begun: &Begun) -> Result<Value> {
        let now = self.stack.env.monotonic();
        let (cpu, (_, memory)) = (self.cpu()?, usage(&self.stack.manager)?);
        let cpu: Vec<f64> = cpu.iter().zip(begun.cpu).map(|(after, before)| round(after - before)).collect();
        Ok(
            json!({"seconds": round((now - begun.at).as_secs_f64()), "seconds_after_the_last_create": round((now - begun.created).as_secs_f64()),
            "cpu_seconds": cpu[0], "api_server_cpu_seconds": cpu[1], "scheduler_cpu_seconds": cpu[2], "bench_cpu_seconds": cpu[3],
            "peak_rss_mib": round(memory as f64 / f64::from(1 << 20))}),
        )
    }

    /// CPU seconds so far of the manager, of the API server, of the scheduler, and of this program with its fake kubelet.
    fn cpu(&self) -> Result<[f64; 4]> {
        let Stack { manager, server, scheduler, .. } = self.stack;
        Ok([usage(manager)?.0, usage(server)?.0, usage(scheduler)?.0, usage_of(std::process::id())?.0])
    }

    /// The writes that the API server has counted, by verb and resource.
    async fn writes(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.client.get_bytes("/metrics").await?;
        let mut writes = BTreeMap::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((labels, count)) =
                line.strip_prefix("apiserver_request_total{").and_then(|rest| rest.split_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value)
            };
            let verb = label("verb").unwrap_or_default();
            let written = label("code").is_some_and(|code| code.starts_with('2'));
            if written && matches!(verb, "CREATE" | "UPDATE" | "PATCH" | "DELETE" | "DELETECOLLECTION") {
                let names =
                    [label("resource"), label("subresource")].into_iter().flatten().filter(|name| !name.is_empty());
                let what = format!("{verb} {}", names.collect::<Vec<_>>().join("/"));
                *writes.entry(what).or_default() += count.parse::<f64>()?;
            }
        }
        Ok(writes)
    }
}

struct Begun {
    at: tokio::time::Instant,
    created: tokio::time::Instant,
    cpu: [f64; 4],
}

/// Leaves what is counted here.
fn counted(deployment: &mut Any) -> Vec<(&'static str, String)> {
    keep(deployment, &[], &["apiVersion", "kind", "metadata", "status"]);
    keep(deployment, &["metadata"], &["name", "namespace", "resourceVersion", "uid"]);
    keep(deployment, &["status"], &["readyReplicas"]);
    Vec::new()
}

fn body(value: &Value) -> Any {
    Any::from_serialize(value).unwrap_or_default()
}

fn deployment(i: usize, replicas: usize) -> Value {
    let name = format!("web-{i}");
    let labels = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "1m"}}}]}}}})
}

/// Whose write it is.
fn writer(what: &str) -> &'static str {
    match what {
        "PATCH pods/status" | "DELETE pods" | "PATCH leases" | "CREATE leases" | "PATCH nodes/status"
        | "CREATE nodes" => "kubelet",
        "CREATE pods/binding" => "scheduler",
        "CREATE deployments" | "CREATE configmaps" | "CREATE secrets" | "CREATE namespaces" | "DELETE namespaces" => {
            "bench"
        }
        what if what.ends_with(" events") => "events",
        _ => "controllers",
    }
}

fn with_writes(mut figures: Value, before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, of: usize) -> Value {
    let mut by_writer: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for (what, count) in after {
        let count = count - before.get(what).copied().unwrap_or(0.0);
        if count > 0.0 {
            by_writer.entry(writer(what)).or_default().insert(what, count);
        }
    }
    let controllers: f64 = by_writer.get("controllers").into_iter().flat_map(|writes| writes.values()).sum();
    let each = |what: &str| round(figures[what].as_f64().unwrap_or(0.0) / of.max(1) as f64 * 1000.0);
    let (time, cpu) = (each("seconds"), each("cpu_seconds"));
    figures["count"] = of.into();
    figures["milliseconds_each"] = time.into();
    figures["cpu_milliseconds_each"] = cpu.into();
    figures["controllers_writes_each"] = ((controllers / of.max(1) as f64 * 1000.0).round() / 1000.0).into();
    figures["writes"] = json!(by_writer);
    figures
}
