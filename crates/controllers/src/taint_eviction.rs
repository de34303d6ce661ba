//! Pods leave nodes whose `NoExecute` taints they do not tolerate, or no longer. Upstream: pkg/controller/tainteviction.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, DeleteOptions, Event, EventRecorder, EventType, IgnoreNotFound, Informer, ObjectReference, PatchKind,
    ReconcileContext, ReconcileError, Requeue, Watch, resources,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use parking_lot::Mutex;

use crate::Setup;
use crate::meta::{NODE_INDEX, between, by_node, mentions, node_of, now, parsed};

pub(crate) struct TaintEviction {
    nodes: Informer,
    pods: Informer,
    events: EventRecorder,
    /// Which pods are to leave later.
    waiting: Mutex<BTreeMap<ObjectKey, Waiting>>,
}

struct Waiting {
    uid: String,
    due: Timestamp,
}

impl TaintEviction {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.informers.of(&resources::PODS);
        pods.index(NODE_INDEX, by_node);
        TaintEviction {
            nodes: setup.informers.of(&resources::NODES),
            pods,
            events: setup.recorder("node-controller", "taint-eviction-controller"),
            waiting: Mutex::default(),
        }
    }

    /// When the pod is to leave a node with these taints, if ever. Once it is known, another time that it may stay for
    /// changes nothing, whether shorter or longer; only that it may not stay at all, or for ever, does.
    fn due(&self, pod: &Object, taints: &[Taint], now: Timestamp) -> Result<Option<Timestamp>, ReconcileError> {
        let stay = if taints.is_empty() { Stay::Forever } else { stay(taints, &pod.view::<Pod>()?) };
        let duration = match stay {
            Stay::For(duration) => duration,
            other => {
                self.cancel(pod.key());
                return Ok((other == Stay::Not).then_some(now));
            }
        };
        let due = now.checked_add(duration).unwrap_or(Timestamp::MAX);
        let mut waiting = self.waiting.lock();
        let waiting = waiting.entry(pod.key().clone()).or_insert_with(|| Waiting { uid: pod.uid().to_owned(), due });
        if waiting.uid != pod.uid() {
            *waiting = Waiting { uid: pod.uid().to_owned(), due };
        }
        Ok(Some(waiting.due))
    }

    /// The pod no longer waits to leave, if it did. It may be gone.
    fn cancel(&self, key: &ObjectKey) {
        if self.waiting.lock().remove(key).is_none() {
            return;
        }
        self.tell(key, format!("Cancelling deletion of Pod {key}"));
    }

    /// As upstream, by the name alone: the pod may be gone.
    fn tell(&self, key: &ObjectKey, message: String) {
        let about = ObjectReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            ..ObjectReference::default()
        };
        self.events.event(about, EventType::Normal, "TaintManagerEviction", message);
    }

    async fn evict(&self, ctx: &ReconcileContext, pod: &Arc<Object>) -> Result<(), ReconcileError> {
        self.tell(pod.key(), format!("Marking for deletion Pod {}", pod.key()));
        evict(ctx, pod, ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")).await
    }
}

/// Deletes the pod, with the reason and message in its status.
pub(crate) async fn evict(ctx: &ReconcileContext, pod: &Object, why: (&str, &str)) -> Result<(), ReconcileError> {
    mark_disrupted(ctx, pod, why, None).await?;
    Ok(ctx.client().delete(&resources::PODS, pod.key(), &DeleteOptions::uid(pod.uid())).await.ignore_not_found()?)
}

/// Says in the pod's status why it is taken away, and its phase if that changes.
pub(crate) async fn mark_disrupted(
    ctx: &ReconcileContext,
    pod: &Object,
    (reason, message): (&str, &str),
    phase: Option<&str>,
) -> Result<(), ReconcileError> {
    let value = pod.to_value();
    let mut conditions = value.items_at(&["status", "conditions"]).to_vec();
    let is_target = |condition: &Value| condition.str_at(&["type"]) == Some("DisruptionTarget");
    let known = conditions.iter().position(is_target).map(|index| conditions.remove(index));
    let known_since = known.filter(|known| known.str_at(&["status"]) == Some("True"));
    let since = known_since.and_then(|known| known.str_at(&["lastTransitionTime"]).map(str::to_owned));
    let mut condition = Value::object();
    condition.set(&["type"], "DisruptionTarget");
    condition.set(&["status"], "True");
    condition.set(&["reason"], reason);
    condition.set(&["message"], message);
    condition.set(&["lastTransitionTime"], since.unwrap_or_else(|| now(ctx.env())));
    let generation = pod.generation();
    if generation > 0 {
        condition.set(&["observedGeneration"], generation);
    }
    conditions.push(condition);
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], pod.uid());
    patch.set(&["metadata", "resourceVersion"], pod.revision().to_string());
    patch.set(&["status", "conditions"], Value::Array(conditions));
    if let Some(phase) = phase {
        patch.set(&["status", "phase"], phase);
        if generation > 0 {
            patch.set(&["status", "observedGeneration"], generation);
        }
    }
    Ok(ctx.client().patch_status(&resources::PODS, pod.key(), PatchKind::Merge, &patch).await.ignore_not_found()?)
}

/// How long a pod may stay.
#[derive(Debug, PartialEq)]
enum Stay {
    Forever,
    For(SignedDuration),
    Not,
}

fn stay(taints: &[Taint], pod: &Pod) -> Stay {
    let tolerations: Vec<Toleration> = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let mut shortest: Option<i64> = None;
    for taint in taints {
        // Of several that tolerate it the first counts.
        let first = tolerations.iter().find(|toleration| rules::tolerates(toleration, taint));
        let Some(toleration) = first else { return Stay::Not };
        shortest = [shortest, toleration.toleration_seconds].into_iter().flatten().min();
    }
    match shortest {
        None => Stay::Forever,
        Some(seconds) => Stay::For(SignedDuration::from_secs(seconds.max(0))),
    }
}

fn no_execute(node: &Object) -> Vec<Taint> {
    // Nearly always there are none, which the whole need not be read for.
    if !mentions(node, "\"taints\"") || parsed(node).items_at(&["spec", "taints"]).is_empty() {
        return Vec::new();
    }
    let taints = node.view::<Node>().ok().and_then(|node| node.spec?.taints).unwrap_or_default();
    taints.into_iter().filter(|taint| taint.effect == "NoExecute").collect()
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let tolerations = |pod: &Object| parsed(pod).at(&["spec", "tolerations"]).cloned();
        let is_same = move |old: &Object, new: &Object| {
            // What a pod is to be changes with its generation, where servers count it.
            old.generation() == new.generation() && new.generation() > 0 || tolerations(old) == tolerations(new)
        };
        let of_pod = move |event: &Event| match event {
            Event::Modified { old, new } if node_of(old) == node_of(new) && is_same(old, new) => Vec::new(),
            event => vec![event.object().key().clone()],
        };
        let pods = self.pods.clone();
        let of_node = move |event: &Event| {
            let changed = match event {
                Event::Added(node) => !no_execute(node).is_empty(),
                Event::Modified { old, new } => no_execute(old) != no_execute(new),
                Event::Deleted(_) => true,
            };
            let here = if changed { pods.by_index(NODE_INDEX, event.object().name()) } else { Vec::new() };
            here.iter().map(|pod| pod.key().clone()).collect()
        };
        vec![Watch::new(self.pods.clone(), of_pod), Watch::new(self.nodes.clone(), of_node)]
    }

    fn workers(&self) -> usize {
        8
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        // One that is going already is told to go again, as upstream has it.
        let Some(object) = self.pods.get(key) else {
            self.cancel(key);
            return Ok(Requeue::No);
        };
        let now = ctx.env().now();
        let due = match node_of(&object).map(|node| self.nodes.get(&ObjectKey::cluster(node))) {
            None => {
                self.cancel(key);
                None
            }
            Some(Some(node)) => self.due(&object, &no_execute(&node), now)?,
            // What was begun before the node went goes on.
            Some(None) => match self.waiting.lock().get(key) {
                Some(waiting) if waiting.uid == object.uid() => Some(waiting.due),
                _ => None,
            },
        };
        let Some(due) = due else { return Ok(Requeue::No) };
        if due > now {
            return Ok(Requeue::After(between(now, due)));
        }
        self.evict(ctx, &object).await?;
        self.waiting.lock().remove(key);
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_first_toleration_of_each_taint_the_shortest_counts() {
        let check = |tolerations: &str, expect: Stay| {
            let json = format!(r#"{{"spec":{{"containers":[],"tolerations":{tolerations}}}}}"#);
            let pod: Pod = Value::parse(json.as_bytes())
                .map(|mut pod| {
                    pod.set(&["apiVersion"], "v1");
                    pod.set(&["kind"], "Pod");
                    pod.view().unwrap()
                })
                .unwrap();
            let taint = |key: &str| Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() };
            assert_eq!(stay(&[taint("a"), taint("b")], &pod), expect);
        };
        let seconds = |n| Stay::For(SignedDuration::from_secs(n));
        check("[]", Stay::Not);
        check(r#"[{"key":"a","operator":"Exists"}]"#, Stay::Not);
        check(r#"[{"operator":"Exists"}]"#, Stay::Forever);
        check(r#"[{"operator":"Exists","tolerationSeconds":0}]"#, seconds(0));
        check(r#"[{"operator":"Exists","tolerationSeconds":-3}]"#, seconds(0));
        check(
            r#"[{"operator":"Exists","tolerationSeconds":300},{"key":"b","operator":"Exists","tolerationSeconds":9}]"#,
            seconds(300),
        );
        check(
            r#"[{"key":"b","operator":"Exists","tolerationSeconds":9},{"operator":"Exists","tolerationSeconds":300}]"#,
            seconds(9),
        );
        check(r#"[{"operator":"Exists"},{"key":"b","operator":"Exists","tolerationSeconds":9}]"#, Stay::Forever);
        check(
            r#"[{"key":"a","operator":"Exists","effect":"NoExecute"},{"key":"b","operator":"Exists","tolerationSeconds":5}]"#,
            seconds(5),
        );
    }
}
