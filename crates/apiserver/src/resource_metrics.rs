//! `metrics.k8s.io`: what nodes and pods use, asked of the kubelets when somebody wants to know. It is answered here until an
//! APIService says that another server does. Upstream: kubernetes-sigs/metrics-server.
//!
//! A rate needs two samples. Whoever asks first waits a second for the second one; as long as somebody goes on asking, each
//! answer's samples are the next one's first. Nothing is asked of nodes when nobody wants to know, and nothing kept.

mod figures;
mod parse;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::Kind;
use apimachinery::{GroupResource, Object, ObjectKey, Status};
use client::ObjectList;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::debug;

pub(crate) use figures::sum;

use crate::answer::{Answer, Content};
use crate::connect::address_of;
use crate::registry::{ListOptions, timestamp};
use crate::server::{Inner, Request};
use crate::strategy::Objects;
use samples::Samples;

/// Samples that are younger are good enough. A bit less than the period of autoscalers.
const FRESH: Duration = Duration::from_secs(10);
/// Older ones say nothing about now.
const KEPT: Duration = Duration::from_secs(60);
/// Between the two samples of somebody who asks first.
const PAUSE: Duration = Duration::from_secs(1);
/// A kubelet that does not answer for this long is left out.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many kubelets are asked at once.
const AT_ONCE: usize = 64;

/// What was heard from the nodes lately.
#[derive(Default)]
pub(crate) struct ResourceMetrics {
    /// By node. Held while the node is asked, so that it is asked once for all who want to know.
    nodes: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Heard>>>>,
    asked: Mutex<Option<Instant>>,
    /// Somebody will let go of what is kept.
    is_kept: AtomicBool,
}

#[derive(Default)]
struct Heard {
    samples: Samples,
    /// When the node was asked, whatever came of it.
    at: Option<Instant>,
}

impl Request<'_> {
    pub(crate) async fn resource_metrics(&self, kind: &'static Kind) -> Result<Answer, Status> {
        let inner = self.inner;
        inner.registry.fresh().await?;
        let of_nodes = kind.resource == "nodes";
        let wanted = if self.info.verb == "get" { self.one(of_nodes)? } else { self.several(of_nodes)? };
        let nodes: BTreeSet<String> = match of_nodes {
            true => wanted.iter().map(|node| node.name().to_owned()).collect(),
            false => wanted.iter().filter_map(|pod| pod.field("spec.nodeName")).map(str::to_owned).collect(),
        };
        hear(inner, &nodes).await;
        let mut items = Vec::new();
        for object in &wanted {
            items.extend(shown(inner, kind, object, of_nodes).await?);
        }
        if self.info.verb != "get" {
            let list = ObjectList { revision: inner.registry.through(), items, ..ObjectList::default() };
            let (api_version, kind) = (kind.api_version(), kind.list_kind.to_owned());
            return Ok(Answer::ok(Content::List { list, api_version, kind }));
        }
        items.pop().map(Answer::object).ok_or_else(|| Status::not_found(&kind.group_resource(), &self.metrics_name()))
    }

    fn metrics_name(&self) -> String {
        let info = &self.info;
        if info.namespace.is_empty() { info.name.clone() } else { format!("{}/{}", info.namespace, info.name) }
    }

    fn one(&self, of_nodes: bool) -> Result<Vec<Arc<Object>>, Status> {
        let resource = if of_nodes { "nodes" } else { "pods" };
        let key = ObjectKey::new(&*self.info.namespace, &*self.info.name);
        let found = Objects::get(&*self.inner.registry, "", resource, &key);
        let found = found.ok_or_else(|| Status::not_found(&GroupResource::new("", resource), &self.metrics_name()))?;
        Ok([found].into_iter().filter(|object| of_nodes || runs(object)).collect())
    }

    fn several(&self, of_nodes: bool) -> Result<Vec<Arc<Object>>, Status> {
        let options = ListOptions::parse(&self.query, false)?;
        for requirement in options.field_selector.requirements() {
            if !matches!(requirement.field.as_str(), "metadata.name" | "metadata.namespace") {
                return Err(Status::bad_request(format!(
                    "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                    requirement.field
                )));
            }
        }
        let resource = if of_nodes { "nodes" } else { "pods" };
        let namespace = if of_nodes { "" } else { &*self.info.namespace };
        let mut objects = Objects::list(&*self.inner.registry, "", resource, namespace);
        objects.retain(|object| {
            (of_nodes || runs(object))
                && options.label_selector.matches(object)
                && options.field_selector.matches(object)
        });
        Ok(objects)
    }
}

fn runs(pod: &Object) -> bool {
    pod.field("status.phase") == Some("Running")
}

/// What is told of an object; nothing if too little was heard of it.
async fn shown(inner: &Inner, kind: &Kind, object: &Object, of_nodes: bool) -> Result<Option<Arc<Object>>, Status> {
    let node = if of_nodes { object.name() } else { object.field("spec.nodeName").unwrap_or_default() };
    let heard = inner.resource_metrics.nodes.lock().get(node).cloned();
    let Some(heard) = heard else { return Ok(None) };
    let heard = heard.lock().await;
    let figures = match of_nodes {
        true => heard.samples.node(),
        false => heard.samples.pod(object.namespace(), object.name()),
    };
    let Some(figures) = figures else { return Ok(None) };
    let value = figures::show(kind, object, &figures, &timestamp(inner.env.now()));
    Ok(Some(Arc::new(Object::new(&value, 0).map_err(Status::internal)?)))
}

/// Sees to it that enough is known of these nodes, as far as they answer.
async fn hear(inner: &Arc<Inner>, nodes: &BTreeSet<String>) {
    *inner.resource_metrics.asked.lock() = Some(inner.env.monotonic());
    let each = nodes.iter().filter_map(|name| {
        let node = Objects::get(&*inner.registry, "", "nodes", &ObjectKey::cluster(name))?;
        is_ready(&node).then_some((name, node))
    });
    stream::iter(each).for_each_concurrent(AT_ONCE, |(name, node)| hear_from(inner, name, node)).await;
    forget_later(inner);
}

fn is_ready(node: &Object) -> bool {
    let value = node.to_value();
    let mut conditions = value.items_at(&["status", "conditions"]).iter();
    conditions.any(|one| one.str_at(&["type"]) == Some("Ready") && one.str_at(&["status"]) == Some("True"))
}

async fn hear_from(inner: &Arc<Inner>, name: &str, node: Arc<Object>) {
    let heard = inner.resource_metrics.nodes.lock().entry(name.to_owned()).or_default().clone();
    let mut heard = heard.lock().await;
    let age = heard.at.map(|at| inner.env.monotonic().duration_since(at));
    match age {
        Some(age) if age < FRESH => return,
        Some(age) if age < KEPT => {}
        _ => heard.samples = Samples::default(),
    }
    let scrape = async || {
        let (host, port) =
            address_of(&node.to_value(), name).map_err(|status| std::io::Error::other(status.message))?;
        let text = inner.env.timeout(PATIENCE, inner.nodes.read(&host, port, "/metrics/resource")).await;
        text.unwrap_or_else(|| Err(std::io::Error::other("the kubelet does not answer")))
    };
    let mut take = async || -> std::io::Result<bool> {
        let text = scrape().await?;
        heard.samples.add(parse::scrape(&String::from_utf8_lossy(&text), inner.env.now()));
        Ok(heard.samples.need_more())
    };
    let taken = async {
        if take().await? {
            inner.env.sleep(PAUSE).await;
            take().await?;
        }
        Ok::<_, std::io::Error>(())
    };
    if let Err(error) = taken.await {
        debug!(node = name, %error, "a kubelet gives no figures");
    }
    heard.at = Some(inner.env.monotonic());
}

/// Lets go of everything when nobody has asked for a while.
fn forget_later(inner: &Arc<Inner>) {
    let metrics = &inner.resource_metrics;
    if metrics.is_kept.swap(true, Ordering::Relaxed) {
        return;
    }
    let weak = Arc::downgrade(inner);
    let env = inner.env.clone();
    inner.env.spawn(async move {
        loop {
            let Some(until) =
                weak.upgrade().and_then(|inner| (*inner.resource_metrics.asked.lock()).map(|at| at + KEPT))
            else {
                return;
            };
            env.sleep_until(until).await;
            let Some(inner) = weak.upgrade() else { return };
            let metrics = &inner.resource_metrics;
            if (*metrics.asked.lock()).is_none_or(|at| at + KEPT <= env.monotonic()) {
                metrics.nodes.lock().clear();
                metrics.is_kept.store(false, Ordering::Relaxed);
                return;
            }
        }
    });
}
