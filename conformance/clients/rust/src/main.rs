//! What programs on the public crate `kube` do: `kube-client STEP...`, with a pod `talks` to talk to.

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let client = Client::try_default().await?;
    for step in std::env::args().skip(1) {
        match step.as_str() {
            "objects" => objects(&client).await,
            "watch" => watches(&client).await,
            "apply" => applies(&client).await,
            "streams" => streams(&client).await,
            other => bail!("no step {other}"),
        }
        .with_context(|| step.clone())?;
        println!("{step}: done");
    }
    Ok(())
}

fn map(name: &str, value: &str) -> Result<ConfigMap> {
    let body = json!({"metadata": {"name": name, "labels": {"from": "kube"}}, "data": {"key": value}});
    Ok(serde_json::from_value(body)?)
}

/// The reason for which the server refused.
fn refused<T>(result: Result<T, Error>) -> Result<String> {
    match result {
        Err(Error::Api(status)) => Ok(status.reason.clone()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("not refused"),
    }
}

async fn objects(client: &Client) -> Result<()> {
    ensure!(client.apiserver_version().await?.minor == "35");
    let (maps, post) = (Api::<ConfigMap>::default_namespaced(client.clone()), PostParams::default());
    let made = maps.create(&post, &map("one", "a")?).await?;
    ensure!(refused(maps.create(&post, &map("one", "a")?).await)? == "AlreadyExists");
    let merge = Patch::Merge(json!({"data": {"other": "b"}}));
    let patched = maps.patch("one", &PatchParams::default(), &merge).await?;
    ensure!(patched.data.is_some_and(|data| data.len() == 2));
    // Whoever saw the first one only may not write.
    ensure!(refused(maps.replace("one", &post, &made).await)? == "Conflict");
    for page in [1, 2] {
        maps.create(&post, &map(&format!("page-{page}"), "a")?).await?;
    }
    let ours = ListParams::default().labels("from=kube");
    let first = maps.list(&ours.clone().limit(2)).await?;
    let rest = first.metadata.continue_.context("no second page")?;
    let rest = maps.list(&ours.clone().limit(2).continue_token(&rest)).await?;
    ensure!((first.items.len(), rest.items.len()) == (2, 1));
    ensure!(maps.list_metadata(&ours).await?.items.len() == 3);
    maps.delete_collection(&DeleteParams::default(), &ours).await?;
    ensure!(maps.get_opt("one").await?.is_none());
    Ok(())
}

/// What is there and what comes, by a list and a watch and by a watch alone.
async fn watches(client: &Client) -> Result<()> {
    let (maps, post) = (Api::<ConfigMap>::default_namespaced(client.clone()), PostParams::default());
    maps.create(&post, &map("early", "a")?).await?;
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (reader, writer) = reflector::store();
        let watch = reflector::reflector(writer, watcher(maps.clone(), config.labels("from=kube")));
        let mut events = watch.applied_objects().boxed();
        let name = |seen: Option<ConfigMap>| seen.and_then(|seen| seen.metadata.name).unwrap_or_default();
        ensure!(name(events.try_next().await?) == "early");
        maps.create(&post, &map("late", "a")?).await?;
        ensure!(name(events.try_next().await?) == "late");
        ensure!(reader.len() == 2);
        maps.delete("late", &DeleteParams::default()).await?;
    }
    maps.delete("early", &DeleteParams::default()).await?;
    Ok(())
}

async fn applies(client: &Client) -> Result<()> {
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let body = |replicas: u32| {
        Patch::Apply(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "applied"}}, "template": {
                "metadata": {"labels": {"app": "applied"}},
                "spec": {"containers": [{"name": "main", "image": "oxikube.local/busybox:1"}]}}},
        }))
    };
    let (mine, other) = (PatchParams::apply("mine"), PatchParams::apply("other"));
    let first = deployments.patch("applied", &mine, &body(0)).await?;
    let owner =
        first.metadata.managed_fields.and_then(|fields| fields.into_iter().next()).context("nobody manages it")?;
    ensure!((owner.manager.as_deref(), owner.operation.as_deref()) == (Some("mine"), Some("Apply")));
    ensure!(refused(deployments.patch("applied", &other, &body(1)).await)? == "Conflict");
    let forced = deployments.patch("applied", &other.force(), &body(1)).await?;
    ensure!(forced.spec.and_then(|spec| spec.replicas) == Some(1));
    let scale = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments.patch_scale("applied", &PatchParams::default(), &scale).await?;
    let size = deployments.get_scale("applied").await?.spec.and_then(|spec| spec.replicas);
    ensure!(size.unwrap_or_default() == 0);
    deployments.delete("applied", &DeleteParams::foreground()).await?;
    Ok(())
}

async fn streams(client: &Client) -> Result<()> {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    ensure!(pods.logs("talks", &LogParams::default()).await? == "said\n");

    let mut talk = pods.exec("talks", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await?;
    let (mut input, mut output) = (talk.stdin().context("no input")?, talk.stdout().context("no output")?);
    input.write_all(b"hello").await?;
    input.shutdown().await?;
    drop(input);
    let mut said = String::new();
    output.read_to_string(&mut said).await?;
    ensure!(said == "hello", "{said:?}");
    let status = talk.take_status().context("no status")?.await.context("the status did not come")?;
    ensure!(status.status.as_deref() == Some("Success"));

    let mut fails = pods.exec("talks", ["sh", "-c", "exit 3"], &AttachParams::default()).await?;
    let status = fails.take_status().context("no status")?.await.context("the status did not come")?;
    ensure!(status.reason.as_deref() == Some("NonZeroExitCode"));

    let mut forward = pods.portforward("talks", &[9000]).await?;
    let mut stream = forward.take_stream(9000).context("no stream")?;
    stream.write_all(b"through").await?;
    let mut back = [0; 7];
    stream.read_exact(&mut back).await?;
    ensure!(&back == b"through");
    drop(stream);
    forward.join().await?;
    Ok(())
}
