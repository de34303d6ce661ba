//! Answers commands.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use apimachinery::ObjectKey;
use client::{Client, ListOptions, Selection, resources};
use cluster::Settings;
use cluster::control::{Answer, Ask, ClusterStatus, Daemon, DaemonStatus, ImageRow, NodeStatus};
use env::Env;
use futures_util::future::BoxFuture;
use runtime::image::ImageStore;
use tokio::sync::{mpsc, oneshot};

use super::memory;

/// What commands are answered from.
pub(super) struct Control {
    settings: Arc<Settings>,
    since: String,
    client: Client,
    images: ImageStore,
    stop: mpsc::Sender<Stop>,
}

/// A command to stop, to be answered when that is done.
pub(super) struct Stop(oneshot::Sender<Result<()>>);

impl Stop {
    pub(super) fn answer(self, outcome: Result<()>) {
        // Nobody may wait any more.
        let _ = self.0.send(outcome);
    }
}

impl Control {
    pub(super) fn new(
        env: &Env,
        settings: Arc<Settings>,
        client: Client,
        images: ImageStore,
        stop: mpsc::Sender<Stop>,
    ) -> Control {
        let since = env.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Control { settings, since, client, images, stop }
    }

    async fn status(&self) -> Result<ClusterStatus> {
        let mut status = cluster::described(&self.settings);
        status.daemon = DaemonStatus {
            pid: Some(std::process::id()),
            since: Some(self.since.clone()),
            memory_bytes: memory::proportional_set_size(&self.settings),
        };
        let name = &self.settings.node_name;
        let node = self.client.find(&resources::NODES, &ObjectKey::cluster(name)).await?;
        let mine = Selection::all().fields(format!("spec.nodeName={name},status.phase=Running"));
        let pods = self.client.list(&resources::PODS, &mine, &ListOptions::default()).await?.items;
        let containers = pods.iter().map(|pod| running(&pod.to_value())).sum();
        status.node = NodeStatus {
            name: name.clone(),
            ready: node.is_some_and(|node| super::steps::is_ready(&node.to_value())),
            pods: pods.len(),
            containers,
        };
        Ok(status)
    }

    async fn load(&self, path: &Path) -> Result<Vec<String>> {
        let named = || path.display().to_string();
        let file = tokio::fs::File::open(path).await.with_context(named)?;
        let loaded = self.images.load(file).await.map_err(|error| anyhow::anyhow!("{}", error.report()));
        Ok(loaded.with_context(named)?.into_iter().flat_map(|image| image.references).collect())
    }

    fn images(&self) -> Vec<ImageRow> {
        let rows = self.images.list().into_iter().map(|image| ImageRow {
            id: image.id.to_string(),
            references: image.tags,
            bytes: image.size,
        });
        rows.collect()
    }

    async fn answer_to(&self, ask: Ask) -> Result<Answer> {
        Ok(match ask {
            Ask::Hello => Answer::Hello,
            Ask::Status => Answer::Status(Box::new(self.status().await?)),
            Ask::Stop => {
                let (tx, rx) = oneshot::channel();
                self.stop.send(Stop(tx)).await.context("the daemon is stopping already")?;
                rx.await.context("the daemon ended while it stopped")??;
                Answer::Stopped
            }
            Ask::ImageList => Answer::Images { images: self.images() },
            Ask::ImageLoad { path } => Answer::Loaded { references: self.load(&path).await? },
        })
    }
}

impl Daemon for Control {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            self.answer_to(ask).await.unwrap_or_else(|error| Answer::Error { message: format!("{error:#}") })
        })
    }
}

/// How many of the pod's containers run.
fn running(pod: &apimachinery::Value) -> usize {
    let statuses = pod.items_at(&["status", "containerStatuses"]);
    statuses.iter().filter(|status| status.at(&["state", "running"]).is_some()).count()
}
