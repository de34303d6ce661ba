//! One pod on each node that suits, none elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use apimachinery::{Object, Value};
use client::{DeleteOptions, Error, resources};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Node;

use super::view::{Daemon, REVISION, TEMPLATE_GENERATION};
use super::{Sync, sooner};
use crate::replica_set::pod_from;

/// No more pods than this at a time.
const BURST: usize = 250;
/// The first batch of creations; each later one is twice as large, as long as all succeed.
const FIRST_BATCH: usize = 1;

/// What is to be done.
#[derive(Default)]
pub(super) struct Plan<'a> {
    /// The nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<&'a Daemon>,
    /// When to look again at failed pods that must wait.
    retry: Option<Duration>,
}

impl Plan<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

impl Sync<'_> {
    /// Puts pods where they belong; where they all do already, the rollout goes on. Says when failed pods can be looked at again.
    pub(super) async fn manage(&self) -> Result<Option<Duration>, Error> {
        let plan = self.plan();
        let retry = plan.retry;
        let settled = plan.is_empty();
        self.carry_out(plan).await?;
        if settled && self.set.is_rolling() {
            self.carry_out(self.roll()).await?;
        }
        Ok(retry)
    }

    fn plan(&self) -> Plan<'_> {
        let mut plan = Plan::default();
        for node in self.nodes {
            self.plan_node(node, &mut plan);
        }
        // Nobody else deletes what waits for a node that is no more.
        let known: BTreeSet<&str> = self.nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        let elsewhere = self.pods.iter().filter(|(node, _)| !known.contains(node.as_str()));
        plan.delete
            .extend(elsewhere.flat_map(|(_, pods)| pods).filter(|pod| pod.view.node.is_none() && !pod.is_going()));
        plan
    }

    fn plan_node<'s>(&'s self, node: &Node, plan: &mut Plan<'s>) {
        let Some(name) = node.metadata.name.as_deref() else { return };
        let (starts, stays) = self.set.fits(node);
        let pods = self.pods.get(name);
        match pods {
            None if starts => plan.create.push(name.to_owned()),
            Some(pods) if stays => self.plan_pods(name, pods, starts, plan),
            Some(pods) => plan.delete.extend(pods.iter().filter(|pod| !pod.is_going())),
            None => {}
        }
    }

    /// Ended pods go, with a pause between failed ones; of the others one stays, or while surging an old and a new one.
    fn plan_pods<'s>(&'s self, node: &str, pods: &'s [Daemon], starts: bool, plan: &mut Plan<'s>) {
        let mut running: Vec<&Daemon> = Vec::new();
        for pod in pods.iter().filter(|pod| !pod.is_going()) {
            match pod.view.phase.as_str() {
                "Failed" => {
                    let uid = self.set.object.uid().to_owned();
                    let key = (uid, self.set.status.observed_generation, node.to_owned());
                    match self.failed.delete_now(key, self.now) {
                        Ok(()) => {
                            self.tell_ended(pod, node, true);
                            plan.delete.push(pod);
                        }
                        Err(pause) => plan.retry = sooner(plan.retry, pause),
                    }
                }
                "Succeeded" => {
                    self.tell_ended(pod, node, false);
                    plan.delete.push(pod);
                }
                _ => running.push(pod),
            }
        }
        running.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        if !self.set.surges() {
            plan.delete.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() && starts {
            plan.create.push(node.to_owned());
        }
        if running.len() > 1 {
            self.plan_pair(running, plan);
        }
    }

    /// The new pod replaces the old one once it is available, or when the old one is not even ready.
    fn plan_pair<'s>(&'s self, running: Vec<&'s Daemon>, plan: &mut Plan<'s>) {
        let (mut new, mut old) = (None, None);
        for pod in running {
            let place = if pod.object.label(REVISION) == Some(&self.hash) { &mut new } else { &mut old };
            match place {
                None => *place = Some(pod),
                Some(_) => plan.delete.push(pod),
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!old.view.is_ready() || new.is_available(self.set.min_ready(), self.now))
        {
            plan.delete.push(old);
        }
    }

    fn tell_ended(&self, pod: &Daemon, node: &str, failed: bool) {
        let set = &self.set.object;
        if failed {
            let message = format!("Found failed daemon pod {} on node {node}, will try to kill it", pod.object.key());
            self.events.warning(set, "FailedDaemonPod", message);
        } else {
            let message =
                format!("Found succeeded daemon pod {} on node {node}, will try to delete it", pod.object.key());
            self.events.normal(set, "SucceededDaemonPod", message);
        }
    }

    pub(super) async fn carry_out(&self, plan: Plan<'_>) -> Result<(), Error> {
        let template = self.template();
        let created = self.create(&template, &plan.create[..plan.create.len().min(BURST)]).await;
        let deletions = plan.delete.into_iter().take(BURST).map(|pod| self.delete(&pod.object));
        let deleted: Result<(), Error> = join_all(deletions).await.into_iter().collect();
        created.and(deleted)
    }

    async fn create(&self, template: &Value, nodes: &[String]) -> Result<(), Error> {
        let (mut left, mut batch) = (nodes, FIRST_BATCH);
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let results = join_all(now.iter().map(|node| self.create_one(template, node))).await;
            results.into_iter().collect::<Result<(), Error>>()?;
            (left, batch) = (later, 2 * batch);
        }
        Ok(())
    }

    async fn create_one(&self, template: &Value, node: &str) -> Result<(), Error> {
        let mut pod = pod_from(template, &self.set.object);
        pin(&mut pod, node);
        match self.client.create(&resources::PODS, &pod).await {
            Ok(pod) => {
                self.events.normal(&self.set.object, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                Ok(())
            }
            // Nothing can be created there any more, and nothing need be.
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.events.warning(&self.set.object, "FailedCreate", format!("Error creating: {error}"));
                Err(error)
            }
        }
    }

    async fn delete(&self, pod: &Object) -> Result<(), Error> {
        match self.client.delete(&resources::PODS, pod.key(), &DeleteOptions::uid(pod.uid())).await {
            Ok(_) => {
                self.events.normal(&self.set.object, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.events.warning(&self.set.object, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
    }

    /// The set's template with the labels of its revision and the tolerations of every daemon.
    fn template(&self) -> Value {
        let mut template = self.set.spec.template.clone();
        if let Some(generation) = self.set.generation {
            template.set(&["metadata", "labels", TEMPLATE_GENERATION], generation.to_string());
        }
        template.set(&["metadata", "labels", REVISION], &self.hash);
        let tolerations = self.set.pod.tolerations.as_ref().map(Value::from_serialize);
        if let Some(Ok(tolerations)) = tolerations {
            template.set(&["spec", "tolerations"], tolerations);
        }
        template
    }

    /// The nodes that have pods or should have one, and how many should.
    pub(super) fn concerned_nodes(&self) -> (BTreeSet<&str>, usize) {
        let suitable = self.nodes.iter().filter(|node| self.set.fits(node).0);
        let wanted: BTreeSet<&str> = suitable.filter_map(|node| node.metadata.name.as_deref()).collect();
        let count = wanted.len();
        (self.pods.keys().map(String::as_str).chain(wanted).collect(), count)
    }
}

/// Sees to it that the scheduler chooses `node` and no other.
fn pin(pod: &mut Value, node: &str) {
    let mut field = Value::object();
    field.set(&["key"], "metadata.name");
    field.set(&["operator"], "In");
    field.set(&["values"], vec![node]);
    let mut term = Value::object();
    term.set(&["matchFields"], vec![field]);
    let required = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let mut selector = pod.at(&required).cloned().unwrap_or_else(Value::object);
    selector.set(&["nodeSelectorTerms"], vec![term]);
    pod.set(&required, selector);
}
