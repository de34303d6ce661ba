//! Pods that were to be disrupted and stayed: their `DisruptionTarget` condition is taken back.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{Controller, Event, Informer, PatchKind, ReconcileContext, ReconcileError, Requeue, Watch, resources};
use jiff::Timestamp;

use crate::Setup;
use crate::meta::{mentions, now, parsed, time};

const CONDITION: &str = "DisruptionTarget";
/// How long the condition may stand without a deletion.
const TIMEOUT: Duration = Duration::from_secs(2 * 60);

pub(crate) struct StaleTargets {
    pods: Informer,
}

impl StaleTargets {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        StaleTargets { pods: setup.pods.informer.clone() }
    }
}

fn is_target(condition: &Value) -> bool {
    condition.str_at(&["type"]) == Some(CONDITION)
}

/// How long until the pod's condition is stale; `None` where it cannot become so. What the kubelet says stands until it acts.
fn stale_in(pod: &Arc<Object>, now: Timestamp) -> Option<Duration> {
    if pod.is_deleting() || !mentions(pod, CONDITION) {
        return None;
    }
    let value = parsed(pod);
    let condition = value.items_at(&["status", "conditions"]).iter().find(|condition| is_target(condition))?;
    let stands = condition.str_at(&["status"]) == Some("True")
        && condition.str_at(&["reason"]) != Some("TerminationByKubelet")
        && !matches!(value.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
    let since = time(condition.str_at(&["lastTransitionTime"]));
    let left = since.saturating_add(TIMEOUT).unwrap_or(now).duration_since(now);
    stands.then(|| Duration::try_from(left).unwrap_or_default())
}

impl Controller for StaleTargets {
    fn name(&self) -> &'static str {
        "stale-disruption-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let concerned = |event: &Event| {
            let pod = event.object();
            let stays = !matches!(event, Event::Deleted(_)) && !pod.is_deleting() && mentions(pod, CONDITION);
            stays.then(|| pod.key().clone()).into_iter().collect()
        };
        vec![Watch::new(self.pods.clone(), concerned)]
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(pod) = self.pods.get(key) else { return Ok(Requeue::No) };
        let Some(left) = stale_in(&pod, ctx.env().now()) else { return Ok(Requeue::No) };
        if !left.is_zero() {
            return Ok(Requeue::After(left + Duration::from_millis(1)));
        }
        let mut conditions = pod.to_value().items_at(&["status", "conditions"]).to_vec();
        for condition in conditions.iter_mut().filter(|condition| is_target(condition)) {
            condition.set(&["status"], "False");
            condition.set(&["lastTransitionTime"], now(ctx.env()));
            condition.set(&["observedGeneration"], pod.generation());
            condition.remove(&["reason"]);
            condition.remove(&["message"]);
        }
        let mut patch = Value::object();
        patch.set(&["metadata", "uid"], pod.uid());
        patch.set(&["metadata", "resourceVersion"], pod.revision().to_string());
        patch.set(&["status", "conditions"], Value::Array(conditions));
        match ctx.client().patch_status(&resources::PODS, key, PatchKind::Merge, &patch).await {
            Err(error) if error.is_not_found() => Ok(Requeue::No),
            result => Ok(result.map(|_| Requeue::No)?),
        }
    }
}
