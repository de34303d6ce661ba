//! From creating a pod to seeing it run.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Result, bail};
use apimachinery::{ObjectKey, Value};
use client::{Client, DeleteOptions, ListOptions, Selection, WatchEvent, WatchOptions, resources};
use futures_util::StreamExt;
use serde_json::json;

use super::{load_images, new_machine, summary, with_client};
use crate::now;

const ALONE: usize = 20;
const AT_ONCE: usize = 50;

pub(super) fn run() -> Result<serde_json::Value> {
    let machine = new_machine("pod");
    machine.oxikube("start").ok();
    load_images(&machine)?;
    with_client(&machine, async |client| {
        let mut alone = Vec::new();
        for i in 0..ALONE {
            alone.extend(running(&client, &format!("alone-{i}-"), 1).await?);
        }
        let together = running(&client, "together-", AT_ONCE).await?;
        Ok(json!({
            "one_pod_until_running": summary(alone),
            "fifty_at_once_until_running": summary(together),
            "upstream": {"one_pod_ms": 1000, "fifty_at_once_ms": 7500},
        }))
    })
}

/// Creates `n` pods at once and returns how long each took until it ran; removes them again.
async fn running(client: &Client, prefix: &str, n: usize) -> Result<Vec<f64>> {
    let selection = Selection::all().namespace("default").labels(format!("bench={prefix}end"));
    let list = client.list(&resources::PODS, &selection, &ListOptions::default()).await?;
    let options = WatchOptions { revision: list.revision, ..WatchOptions::default() };
    let mut events = client.watch(&resources::PODS, &selection, &options).await?;
    let mut began: HashMap<String, Instant> = HashMap::new();
    let creations = (0..n).map(|i| {
        let name = format!("{prefix}{i}");
        began.insert(name.clone(), now());
        let body = pod(&name, prefix);
        async move { client.create(&resources::PODS, &body).await }
    });
    for created in futures_util::future::join_all(creations.collect::<Vec<_>>()).await {
        created?;
    }
    let mut took = Vec::new();
    while took.len() < n {
        let event = client.env().timeout(std::time::Duration::from_secs(120), events.next()).await;
        let Some(Some(event)) = event else { bail!("only {} of {n} pods ran within two minutes", took.len()) };
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
            && pod.to_value().str_at(&["status", "phase"]) == Some("Running")
            && let Some(begin) = began.remove(pod.name())
        {
            took.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
    }
    for i in 0..n {
        let key = ObjectKey::new("default", format!("{prefix}{i}"));
        client.delete(&resources::PODS, &key, &DeleteOptions::default().grace(0)).await?;
    }
    Ok(took)
}

fn pod(name: &str, prefix: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"bench": format!("{prefix}end")}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "oxikube.local/busybox:1",
            "imagePullPolicy": "IfNotPresent", "command": ["sleep", "10000"]}]},
    })
    .into()
}
