//! Writes through the API of a whole cluster, while pods come and go and images are loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use apimachinery::ObjectKey;
use client::{Client, DeleteOptions, Kubeconfig, ListOptions, Selection, Tls, WatchEvent, WatchOptions, resources};
use env::Env;
use futures_util::StreamExt;
use serde_json::{Value, json};
use sha2::Digest;
use testkit::image::{Image, Layer, Packing, busybox_layer, oci_layout};

use super::{content, read_content, say};
use crate::powercut::SLOTS;

const WRITERS: u32 = 3;
const DATA: &str = "/var/lib/oxikube/oxikube";
/// Emulated, a pod takes its time.
const POD: Duration = Duration::from_secs(90);

/// Checks what is there after `revision` was the last that was acknowledged, then writes for ever.
pub async fn run(revision: u64, round: u64) -> Result<()> {
    let env = Env::system();
    let home = std::env::var_os("HOME").context("HOME says where the kubeconfig is")?;
    let config = Kubeconfig::load(&[PathBuf::from(home).join(".kube/config")])?.access(None)?;
    let transport = Tls::new(env.clone(), &config)?;
    let client = Client::new(env.clone(), Arc::new(transport), "powercut");

    let mut last = check_writes(&client).await?;
    if revision > 0 {
        watch_continues(&client, revision).await?;
    }
    check_layers(Path::new(DATA))?;
    let images = images().await?;
    images.iter().try_for_each(|image| say(&format!("image {image}")))?;
    check_pods(&env, &client, &images, round).await?;
    say("ready")?;

    let writers = (0..WRITERS).map(|writer| {
        let (client, from) = (client.clone(), last.remove(&writer).unwrap_or_default());
        env.spawn(async move { write(&client, writer, from).await })
    });
    let mut tasks: Vec<_> = writers.collect();
    tasks.push(env.spawn(async move { load_images(round).await }));
    let churning = client.clone();
    tasks.push(env.spawn(async move { churn(&churning, round).await }));
    for task in futures_util::future::join_all(tasks).await {
        task??;
    }
    Ok(())
}

fn name(writer: u32, n: u64) -> String {
    format!("written-{writer}-{}", n % SLOTS)
}

fn config_map(writer: u32, n: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name(writer, n), "namespace": "default", "labels": {"written": "yes"}},
        "data": {"text": content(writer, n)},
    })
}

async fn check_writes(client: &Client) -> Result<BTreeMap<u32, u64>> {
    let mut last = BTreeMap::new();
    let list = client.list(&resources::CONFIG_MAPS, &ours(), &ListOptions::default()).await?;
    for object in &list.items {
        let value = object.to_value();
        let text = value.str_at(&["data", "text"]).unwrap_or_default();
        let (writer, n) = read_content(text).with_context(|| format!("{} is no value of ours", object.name()))?;
        ensure!(object.name() == name(writer, n), "{} holds {n} of {writer}", object.name());
        say(&format!("key {writer} {n} {}", object.revision()))?;
        let last = last.entry(writer).or_default();
        *last = n.max(*last);
    }
    Ok(last)
}

fn ours() -> Selection {
    Selection::all().namespace("default").labels("written=yes")
}

/// A client that had seen `revision` goes on from there, and misses nothing, or is sent back to the list, as upstream's server does
/// if it began after that revision.
async fn watch_continues(client: &Client, revision: u64) -> Result<()> {
    let now = client.list(&resources::CONFIG_MAPS, &ours(), &ListOptions::default()).await?;
    let mut missing: BTreeSet<u64> = now.items.iter().map(|o| o.revision()).filter(|r| *r > revision).collect();
    let options = WatchOptions { revision, ..WatchOptions::default() };
    let mut events = client.watch(&resources::CONFIG_MAPS, &ours(), &options).await?;
    while !missing.is_empty() {
        match tokio::time::timeout(POD, events.next()).await.context("the watch tells nothing")? {
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => drop(missing.remove(&object.revision())),
            // The list, which was read just now, tells what this watch can't.
            Some(WatchEvent::Error(status)) if status.code == 410 => return Ok(()),
            Some(WatchEvent::Error(status)) => bail!("the watch from {revision} fails: {status:?}"),
            Some(_) => {}
            None => bail!("the watch from {revision} ends"),
        }
    }
    Ok(())
}

/// Every unpacked layer of ours holds what it should.
fn check_layers(data: &Path) -> Result<()> {
    let layers = data.join("images/layers");
    for layer in std::fs::read_dir(&layers).into_iter().flatten().flatten() {
        let root = layer.path().join("fs");
        let Ok(sums) = std::fs::read_to_string(root.join("sums")) else { continue };
        for line in sums.lines() {
            let (sum, path) = line.split_once("  ").context("a sum and a path")?;
            let content = std::fs::read(root.join(path.trim_start_matches('/')));
            let content = content.with_context(|| format!("{path} of layer {}", layer.path().display()))?;
            ensure!(
                hex(&content) == sum,
                "{path} of layer {} is another: {} bytes",
                layer.path().display(),
                content.len()
            );
        }
    }
    Ok(())
}

fn hex(content: &[u8]) -> String {
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Busybox, and files whose sums are known.
fn image(name: &str) -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    let mut sums = String::new();
    for n in 0..12u64 {
        let mut rng =
            fastrand::Rng::with_seed(name.bytes().fold(n, |seed, byte| seed.wrapping_mul(31) + u64::from(byte)));
        let length = rng.usize(0..200_000);
        let content: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        sums += &format!("{}  /files-{n}\n", hex(&content));
        layer = layer.file(&format!("files-{n}"), 0o644, content);
    }
    let layer = layer.file("sums", 0o644, sums);
    let image = Image::new().layer(busybox_layer()?, Packing::Gzip).layer(layer, Packing::Gzip).env(["PATH=/bin"]);
    Ok(oci_layout(&[(&reference(name), &image.cmd(["sha256sum", "-c", "/sums"]))]))
}

fn reference(name: &str) -> String {
    format!("power.test/cut:{name}")
}

/// Runs one of oxikube's commands; what it printed.
async fn oxikube(args: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new("oxikube").args(args).stdin(Stdio::null()).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "oxikube {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

/// The names of our images that the cluster has.
async fn images() -> Result<BTreeSet<String>> {
    let list = oxikube(&["image", "ls"]).await?;
    let prefix = reference("");
    Ok(list.split_whitespace().filter_map(|word| word.strip_prefix(&prefix)).map(str::to_owned).collect())
}

async fn load_images(round: u64) -> Result<()> {
    for n in 0.. {
        let name = format!("{round}-{n}");
        let archive = format!("/tmp/{name}.tar");
        std::fs::write(&archive, image(&name)?)?;
        oxikube(&["image", "load", &archive]).await?;
        say(&format!("loaded {name}"))?;
        std::fs::remove_file(&archive)?;
    }
    Ok(())
}

async fn write(client: &Client, writer: u32, from: u64) -> Result<()> {
    for n in from + 1.. {
        let body = config_map(writer, n).into();
        let object = if n <= SLOTS {
            client.create(&resources::CONFIG_MAPS, &body).await
        } else {
            client.update(&resources::CONFIG_MAPS, &body).await
        };
        say(&format!("ack {writer} {n} {}", object?.revision()))?;
    }
    Ok(())
}

fn pod(name: &str, image: &str, command: &[&str], restart: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"written": "pod"}},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": image, "command": command, "imagePullPolicy": "Never"}],
        },
    })
}

/// Pods without end: made, waited for, deleted.
async fn churn(client: &Client, round: u64) -> Result<()> {
    for n in 0.. {
        let name = format!("churn-{round}-{n}");
        client.create(&resources::PODS, &pod(&name, BASE, &["sleep", "1000"], "Always").into()).await?;
        comes(client, &name, "it runs", is_ready).await?;
        client.delete(&resources::PODS, &ObjectKey::new("default", &name), &DeleteOptions::default()).await?;
    }
    Ok(())
}

const BASE: &str = "power.test/cut:base";
const STEADY: &str = "steady";

fn is_ready(pod: &apimachinery::Value) -> bool {
    let mut conditions = pod.items_at(&["status", "conditions"]).iter();
    conditions.any(|c| c.str_at(&["type"]) == Some("Ready") && c.str_at(&["status"]) == Some("True"))
}

/// The steady pod runs in this life of the machine, and an image that was there before gives a pod that finds all its files.
async fn check_pods(env: &Env, client: &Client, images: &BTreeSet<String>, round: u64) -> Result<()> {
    if !images.contains("base") {
        std::fs::write("/tmp/base.tar", image("base")?)?;
        oxikube(&["image", "load", "/tmp/base.tar"]).await?;
        say("loaded base")?;
    }
    let key = ObjectKey::new("default", STEADY);
    if client.find(&resources::PODS, &key).await?.is_none() {
        client.create(&resources::PODS, &pod(STEADY, BASE, &["sleep", "100000"], "Always").into()).await?;
    }
    comes(client, STEADY, "it runs", is_ready).await?;
    if !images.is_empty() {
        let chosen = images.iter().nth(env.random_below(images.len() as u64) as usize).context("one of them")?;
        let name = format!("sums-{round}");
        let command = ["sha256sum", "-c", "/sums"];
        client.create(&resources::PODS, &pod(&name, &reference(chosen), &command, "Never").into()).await?;
        let done = |pod: &apimachinery::Value| matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
        let pod = comes(client, &name, "it ends", done).await?;
        ensure!(pod.str_at(&["status", "phase"]) == Some("Succeeded"), "image {chosen} is not whole: {pod:?}");
        client.delete(&resources::PODS, &ObjectKey::new("default", &name), &DeleteOptions::default()).await?;
    }
    leftovers(env, client).await
}

/// What no pod of the API owns is gone: pods that came and went before the power did.
async fn leftovers(env: &Env, client: &Client) -> Result<()> {
    let all = Selection::all();
    let mut begun = client.list(&resources::PODS, &all.clone().labels("written=pod"), &ListOptions::default()).await?;
    begun.items.retain(|pod| pod.name().starts_with("churn-"));
    for churned in &begun.items {
        let key = ObjectKey::new("default", churned.name());
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        let _ = client.delete(&resources::PODS, &key, &options).await;
    }
    let options = WatchOptions { send_initial_events: true, ..WatchOptions::default() };
    let mut events = client.watch(&resources::PODS, &all, &options).await?;
    let mut there: BTreeMap<String, String> = BTreeMap::new();
    let mut complete = false;
    while !complete || there.keys().any(|name| name.starts_with("churn-") || name.starts_with("sums-")) {
        match tokio::time::timeout(POD, events.next()).await.with_context(|| format!("these stay: {there:?}"))? {
            Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                there.insert(pod.name().to_owned(), pod.uid().to_owned());
            }
            Some(WatchEvent::Deleted(pod)) => drop(there.remove(pod.name())),
            Some(WatchEvent::Bookmark { initial_events_end: true, .. }) => complete = true,
            Some(WatchEvent::Bookmark { .. }) => {}
            other => bail!("the watch of pods: {other:?}"),
        }
    }
    let known: BTreeSet<&String> = there.values().collect();
    let deadline = env.monotonic() + POD / 3;
    loop {
        // Folders go after the objects do.
        let nobodys = nobodys(&known);
        if nobodys.is_empty() {
            return Ok(());
        }
        if env.monotonic() > deadline {
            return say(&format!("left {nobodys:?}"));
        }
        env.sleep(Duration::from_millis(200)).await;
    }
}

/// What lies in folders of pods that are not known.
fn nobodys(known: &BTreeSet<&String>) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(Path::new(DATA).join("kubelet/pods")).into_iter().flatten().flatten();
    let nobodys = folders.filter(|folder| !known.contains(&folder.file_name().to_string_lossy().into_owned()));
    let content = |folder: std::fs::DirEntry| {
        let inside: Vec<PathBuf> =
            std::fs::read_dir(folder.path()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        if inside.is_empty() { vec![folder.path()] } else { inside }
    };
    nobodys.flat_map(content).collect()
}

/// Waits until the pod is as it should be.
async fn comes(
    client: &Client,
    name: &str,
    what: &str,
    is_so: impl Fn(&apimachinery::Value) -> bool,
) -> Result<apimachinery::Value> {
    let selection = Selection::all().namespace("default").fields(format!("metadata.name={name}"));
    let options = WatchOptions { send_initial_events: true, ..WatchOptions::default() };
    let mut events = client.watch(&resources::PODS, &selection, &options).await?;
    let mut last = None;
    let waiting = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                let value = object.to_value();
                if is_so(&value) {
                    return Ok(value);
                }
                last = Some(value);
            }
        }
        bail!("the watch of pod {name} ends")
    };
    match tokio::time::timeout(POD, waiting).await {
        Ok(value) => value,
        Err(_) => bail!("pod {name}: {what}: not within {} s: {last:?}", POD.as_secs()),
    }
}
