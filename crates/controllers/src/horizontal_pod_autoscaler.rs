//! A HorizontalPodAutoscaler gives its target the size that metrics ask for. Upstream: pkg/controller/podautoscaler.
//!
//! Metrics can be asked for and not watched: each autoscaler is looked at every 15 seconds, as upstream does.

mod behavior;
mod metrics;
mod propose;
mod replicas;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Selector};
use client::{
    Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch,
    WriteOptions,
};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::Setup;
use crate::meta::{now, write_status};
use crate::pod_view::Pods;
use crate::scale::{ScaleError, scale_of_group};
use behavior::{Bounds, Memory};
use propose::{Proposal, Unable};
use view::{Status, View};

const AUTOSCALERS: Resource = Resource::namespaced("autoscaling", "v2", "horizontalpodautoscalers");
const PERIOD: Duration = Duration::from_secs(15);
/// How often a scale is written again that somebody else wrote meanwhile.
const ATTEMPTS: usize = 5;

pub(crate) struct Autoscalers {
    autoscalers: Informer,
    pods: Pods,
    events: EventRecorder,
    /// By the autoscaler's uid.
    memories: Mutex<HashMap<String, Memory>>,
}

/// The target's scale.
struct Scale {
    resource: Resource,
    object: Arc<Object>,
    current: i64,
    /// How many pods there are.
    actual: i64,
    selector: String,
}

impl Autoscalers {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        Autoscalers {
            autoscalers: setup.informers.of(&AUTOSCALERS),
            pods: setup.pods.clone(),
            events: setup.recorder("horizontal-pod-autoscaler", "horizontal-pod-autoscaler"),
            memories: Mutex::default(),
        }
    }

    async fn scale(
        &self,
        ctx: &ReconcileContext,
        object: &Arc<Object>,
        view: &View,
        status: &mut Status,
    ) -> Result<(), ReconcileError> {
        let at = ctx.env().now();
        let scale = match self.find_scale(ctx, object, view).await {
            Ok(scale) => scale,
            Err(error) => {
                self.events.warning(object, "FailedGetScale", error.to_string());
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                status.set("AbleToScale", "False", "FailedGetScale", message, at);
                return Err(error.into());
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        status.set("AbleToScale", "True", "SucceededGetScale", message, at);
        let bounds = Bounds { min: view.spec.min_replicas, max: view.spec.max_replicas, current: scale.current };
        self.memories.lock().entry(object.uid().to_owned()).or_default().begin(scale.current, at);
        let (wanted, reason) = match self.wanted(ctx, object, view, status, &scale, &bounds).await {
            Ok(wanted) => wanted,
            Err(unable) => {
                status.current_replicas = scale.current;
                self.events.warning(object, "FailedComputeMetricsReplicas", unable.to_string());
                return Err(unable.into());
            }
        };
        status.current_replicas = scale.current;
        if wanted == scale.current {
            status.desired_replicas = wanted;
            return Ok(());
        }
        if let Err(error) = resize(ctx, &scale, wanted).await {
            let message = format!("New size: {wanted}; reason: {reason}; error: {error}");
            self.events.warning(object, "FailedRescale", message);
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            status.set("AbleToScale", "False", "FailedUpdateScale", message, at);
            return Err(error.into());
        }
        let message = format!("the HPA controller was able to update the target scale to {wanted}");
        status.set("AbleToScale", "True", "SucceededRescale", message, at);
        self.events.normal(object, "SuccessfulRescale", format!("New size: {wanted}; reason: {reason}"));
        if let Some(memory) = self.memories.lock().get_mut(object.uid()) {
            memory.scaled(view.spec.behavior.as_ref(), scale.current, wanted, at);
        }
        status.desired_replicas = wanted;
        status.last_scale_time = Some(now(ctx.env()));
        Ok(())
    }

    async fn find_scale(&self, ctx: &ReconcileContext, object: &Object, view: &View) -> Result<Scale, ScaleError> {
        let target = &view.spec.scale_target_ref;
        let key = ObjectKey::new(object.namespace(), &*target.name);
        let (resource, scale) = scale_of_group(ctx.client(), &target.api_version, &target.kind, &key).await?;
        let value = scale.to_value();
        Ok(Scale {
            resource,
            current: value.i64_at(&["spec", "replicas"]).unwrap_or_default(),
            actual: value.i64_at(&["status", "replicas"]).unwrap_or_default(),
            selector: value.str_at(&["status", "selector"]).unwrap_or_default().to_owned(),
            object: scale,
        })
    }

    /// The size and why it is another than the current one.
    async fn wanted(
        &self,
        ctx: &ReconcileContext,
        object: &Arc<Object>,
        view: &View,
        status: &mut Status,
        scale: &Scale,
        bounds: &Bounds,
    ) -> Result<(i64, String), Unable> {
        let at = ctx.env().now();
        status.current_metrics = Vec::new();
        if bounds.current == 0 && bounds.min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            status.set("ScalingActive", "False", "ScalingDisabled", message, at);
            return Ok((0, String::new()));
        }
        if bounds.current > bounds.max {
            return Ok((bounds.max, "Current number of replicas above Spec.MaxReplicas".to_owned()));
        }
        if bounds.current < bounds.min {
            return Ok((bounds.min, "Current number of replicas below Spec.MinReplicas".to_owned()));
        }
        let selector = self.selector(object, status, scale, at)?;
        let mut pods = self.pods.informer.list(object.namespace());
        pods.retain(|pod| selector.matches(pod));
        self.is_alone(object, status, scale, selector, &pods, at)?;
        let pods: Vec<_> = pods.iter().filter_map(|pod| pod.view().ok()).collect();
        let asked = propose::Asked { ctx, namespace: object.namespace(), scale, pods: &pods, spec: &view.spec };
        let Proposal { replicas, metric } = asked.propose(&self.events, object, status).await?;
        let reason = match replicas.cmp(&bounds.current) {
            std::cmp::Ordering::Greater => format!("{metric} above target"),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let decision = {
            let mut memories = self.memories.lock();
            let memory = memories.entry(object.uid().to_owned()).or_default();
            memory.decide(view.spec.behavior.as_ref(), replicas, bounds, at)
        };
        status.set("AbleToScale", "True", decision.able.0, decision.able.1, at);
        let (limited, why, message) = decision.limited;
        status.set("ScalingLimited", if limited { "True" } else { "False" }, why, message, at);
        Ok((decision.replicas, reason))
    }

    fn selector(
        &self,
        object: &Arc<Object>,
        status: &mut Status,
        scale: &Scale,
        at: Timestamp,
    ) -> Result<Selector, Unable> {
        if scale.selector.is_empty() {
            self.events.warning(object, "SelectorRequired", "selector is required");
            let message = "the HPA target's scale is missing a selector";
            status.set("ScalingActive", "False", "InvalidSelector", message, at);
            return Err(Unable::NoSelector);
        }
        Selector::parse(&scale.selector).map_err(|error| {
            let unable = Unable::Selector(error);
            self.events.warning(object, "InvalidSelector", unable.to_string());
            status.set("ScalingActive", "False", "InvalidSelector", unable.to_string(), at);
            unable
        })
    }

    /// Two autoscalers of the same pods would pull at them in turns: neither does anything.
    fn is_alone(
        &self,
        object: &Arc<Object>,
        status: &mut Status,
        scale: &Scale,
        selector: Selector,
        pods: &[Arc<Object>],
        at: Timestamp,
    ) -> Result<(), Unable> {
        let others = {
            let mut memories = self.memories.lock();
            memories.entry(object.uid().to_owned()).or_default().selects = Some((object.key().clone(), selector));
            let mut selecting: Vec<String> = memories
                .values()
                .filter_map(|memory| memory.selects.as_ref())
                .filter(|(key, _)| key.namespace == object.namespace())
                .filter(|(_, selector)| pods.iter().any(|pod| selector.matches(pod)))
                .map(|(key, _)| key.to_string())
                .collect();
            selecting.sort();
            selecting
        };
        if others.len() < 2 {
            return Ok(());
        }
        let unable = Unable::Ambiguous { selector: scale.selector.clone(), autoscalers: others.join(" ") };
        self.events.warning(object, "AmbiguousSelector", unable.to_string());
        status.set("ScalingActive", "False", "AmbiguousSelector", unable.to_string(), at);
        Err(unable)
    }
}

async fn resize(ctx: &ReconcileContext, scale: &Scale, replicas: i64) -> Result<(), client::Error> {
    let (client, resource) = (ctx.client(), &scale.resource);
    let mut value = scale.object.to_value();
    for attempt in 1.. {
        value.set(&["spec", "replicas"], replicas);
        match client.update_subresource(resource, "scale", &value, &WriteOptions::default()).await {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {
                value = client.get_subresource(resource, scale.object.key(), "scale").await?.to_value();
            }
            result => return result.map(drop),
        }
    }
    Ok(())
}

impl Controller for Autoscalers {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn watches(&self) -> Vec<Watch> {
        // Its own status is no news.
        let changed = |event: &Event| {
            let spec = |object: &Object| object.to_value().get("spec").cloned();
            let same = event.old().is_some_and(|old| spec(old) == spec(event.object()));
            (!same || matches!(event, Event::Deleted(_))).then(|| event.object().key().clone()).into_iter().collect()
        };
        vec![Watch::new(self.autoscalers.clone(), changed)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.autoscalers.get(key) else {
            let live = self.autoscalers.list("");
            self.memories.lock().retain(|uid, _| live.iter().any(|object| object.uid() == uid));
            return Ok(Requeue::No);
        };
        let view = view::read(&object)?;
        let mut status = view.status.clone();
        let done = self.scale(ctx, &object, &view, &mut status).await;
        write_status(ctx.client(), &AUTOSCALERS, &object, status.fields()).await?;
        if let Err(error) = done {
            tracing::debug!(autoscaler = %key, %error, "not scaled");
        }
        Ok(Requeue::After(PERIOD))
    }
}
