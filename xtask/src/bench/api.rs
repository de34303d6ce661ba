//! Requests of one client over TLS, one after the other.

use anyhow::Result;
use apimachinery::{ObjectKey, Value};
use client::{Client, DeleteOptions, ListOptions, PatchKind, Selection, resources};
use serde_json::json;

use super::{new_machine, summary, with_client};
use crate::now;

const N: usize = 500;

pub(super) fn run() -> Result<serde_json::Value> {
    let machine = new_machine("api");
    machine.oxikube("start").ok();
    with_client(&machine, async |client| measure(&client).await)
}

async fn measure(client: &Client) -> Result<serde_json::Value> {
    let key = |i: usize| ObjectKey::new("default", format!("bench-{i}"));
    let body = |i: usize| -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("bench-{i}"), "namespace": "default"},
            "data": {"text": "x".repeat(2000)}})
        .into()
    };
    let change: Value = json!({"data": {"other": "y"}}).into();
    let (mut create, mut get, mut patch, mut delete, mut list) = (vec![], vec![], vec![], vec![], vec![]);
    for i in 0..N {
        let body = body(i);
        create.push(timed(client.create(&resources::CONFIG_MAPS, &body)).await?);
    }
    for i in 0..N {
        get.push(timed(client.get(&resources::CONFIG_MAPS, &key(i))).await?);
        patch.push(timed(client.patch(&resources::CONFIG_MAPS, &key(i), PatchKind::Merge, &change)).await?);
    }
    let all = Selection::all().namespace("default");
    for _ in 0..20 {
        list.push(timed(client.list(&resources::CONFIG_MAPS, &all, &ListOptions::default())).await?);
    }
    for i in 0..N {
        delete.push(timed(client.delete(&resources::CONFIG_MAPS, &key(i), &DeleteOptions::default())).await?);
    }
    Ok(json!({
        "create_2kb": summary(create),
        "get": summary(get),
        "merge_patch": summary(patch),
        "list_500_of_2kb": summary(list),
        "delete": summary(delete),
    }))
}

async fn timed<T>(request: impl Future<Output = Result<T, client::Error>>) -> Result<f64> {
    let begin = now();
    request.await?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}
