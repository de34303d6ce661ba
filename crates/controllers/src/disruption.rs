//! How many pods may be disrupted: keeps the status of PodDisruptionBudgets, which evictions go by. Upstream:
//! pkg/controller/disruption.

mod expected;
mod stale;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Selector, Value};
use client::{Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Watch, resources};
use jiff::Timestamp;
use serde::Deserialize;

use crate::Setup;
use crate::go_selector;
use crate::meta::{scaled, time};
use crate::pod_view::Pods;
use crate::scale::ScaleError;
use expected::Scales;
pub(crate) use stale::StaleTargets;
use status::Status;

/// When a pod that was to be evicted is believed to stay.
const DELETION_TIMEOUT: Duration = Duration::from_secs(2 * 60);

pub(crate) struct Budgets {
    budgets: Informer,
    pods: Pods,
    scales: Scales,
    events: EventRecorder,
}

/// What is read of a budget.
#[derive(Deserialize)]
struct View {
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<Value>,
    min_available: Option<Value>,
    max_unavailable: Option<Value>,
}

/// Why a budget's pods cannot be counted.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Selector(#[from] apimachinery::SelectorError),
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error(transparent)]
    Scale(#[from] ScaleError),
    #[error(transparent)]
    Client(#[from] client::Error),
}

/// How many pods there should be and how many must be healthy.
#[derive(Default)]
struct Counted {
    expected: i64,
    desired: i64,
    unmanaged: Vec<String>,
}

impl Budgets {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        Budgets {
            budgets: setup.informers.of(&resources::POD_DISRUPTION_BUDGETS),
            pods: setup.pods.clone(),
            scales: Scales::new(setup),
            events: setup.recorder("disruption-controller", "controllermanager"),
        }
    }

    async fn try_sync(
        &self,
        ctx: &ReconcileContext,
        budget: &Arc<Object>,
        view: &View,
    ) -> Result<Option<Duration>, Failure> {
        let selector = match Selector::from_label_selector(view.spec.selector.as_ref()) {
            Ok(selector) => selector,
            Err(error) => {
                self.events.warning(budget, "NoPods", format!("Failed to get pods: {error}"));
                return Err(error.into());
            }
        };
        let pods = self.pods.informer.list(budget.namespace());
        let pods: Vec<_> = pods.into_iter().filter(|pod| selector.matches(pod)).collect();
        if pods.is_empty() {
            self.events.normal(budget, "NoPods", "No matching pods found");
        }
        let counted = match self.count(ctx, &view.spec, &pods).await {
            Ok(counted) => counted,
            Err(failure) => {
                let message = format!("Failed to calculate the number of expected pods: {failure}");
                self.events.warning(budget, "CalculateExpectedPodCountFailed", message);
                return Err(failure);
            }
        };
        if !counted.unmanaged.is_empty() {
            self.events.warning(budget, "UnmanagedPods", unmanaged(view.spec.selector.as_ref()));
        }
        let now = ctx.env().now();
        let (disrupted, recheck) = self.still_disrupted(budget, view, &pods, now);
        let healthy = pods
            .iter()
            .filter(|pod| !pod.is_deleting() && !disrupted.contains_key(pod.name()) && self.pods.view(pod).is_ready());
        let status = view.status.counted(budget, &counted, healthy.count() as i64, disrupted, now);
        status.write(ctx.client(), budget).await?;
        Ok(recheck)
    }

    async fn count(&self, ctx: &ReconcileContext, spec: &Spec, pods: &[Arc<Object>]) -> Result<Counted, Failure> {
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(limit), _) => {
                let (expected, unmanaged) = self.scales.expected(ctx.client(), pods).await?;
                let desired = (expected - scaled(limit, expected, f64::ceil)).max(0);
                Ok(Counted { expected, desired, unmanaged })
            }
            (None, Some(limit @ Value::String(_))) => {
                let (expected, unmanaged) = self.scales.expected(ctx.client(), pods).await?;
                Ok(Counted { expected, desired: scaled(limit, expected, f64::ceil), unmanaged })
            }
            (None, Some(limit)) => Ok(Counted {
                expected: pods.len() as i64,
                desired: limit.as_i64().unwrap_or_default(),
                unmanaged: Vec::new(),
            }),
            (None, None) => Ok(Counted::default()),
        }
    }

    /// The pods whose eviction was allowed and that are not going yet; and when to look again.
    fn still_disrupted(
        &self,
        budget: &Object,
        view: &View,
        pods: &[Arc<Object>],
        now: Timestamp,
    ) -> (BTreeMap<String, String>, Option<Duration>) {
        let (mut still, mut recheck) = (BTreeMap::new(), None::<Duration>);
        for pod in pods.iter().filter(|pod| !pod.is_deleting()) {
            let Some(since) = view.status.disrupted_pods.get(pod.name()) else { continue };
            let left = time(Some(since)).saturating_add(DELETION_TIMEOUT).unwrap_or(now).duration_since(now);
            match Duration::try_from(left) {
                Ok(left) => {
                    recheck = Some(recheck.map_or(left, |recheck| recheck.min(left)));
                    still.insert(pod.name().to_owned(), since.clone());
                }
                Err(_) => {
                    // Upstream names the namespace twice.
                    let namespace = budget.namespace();
                    let message =
                        format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't");
                    self.events.warning(pod, "NotDeleted", message);
                }
            }
        }
        (still, recheck.map(|recheck| recheck + Duration::from_millis(1)))
    }
}

fn unmanaged(selector: Option<&Value>) -> String {
    let selector = go_selector::shown(selector);
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the \
         PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
         \".spec.minAvailable\" field of the PDB to an integer value."
    )
}

impl Controller for Budgets {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let (budgets, events) = (self.budgets.clone(), self.events.clone());
        let of_pod = move |event: &Event| {
            let states = [Some(event.object()), event.old()];
            let mut keys = Vec::new();
            for pod in states.into_iter().flatten() {
                let found = matching(&budgets, pod);
                if found.len() > 1 && !matches!(event, Event::Deleted(_)) && Arc::ptr_eq(pod, event.object()) {
                    let message = format!(
                        "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
                        pod.namespace(),
                        pod.name(),
                        found[0].name
                    );
                    events.warning(pod, "MultiplePodDisruptionBudgets", message);
                }
                keys.extend(found);
            }
            keys.sort();
            keys.dedup();
            keys
        };
        let mut watches = vec![Watch::objects(self.budgets.clone()), Watch::new(self.pods.informer.clone(), of_pod)];
        watches.extend(self.scales.informers().map(Watch::only));
        watches
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.budgets.get(key) else { return Ok(Requeue::No) };
        let view: View = serde_json::from_slice(object.body())?;
        match self.try_sync(ctx, &object, &view).await {
            Ok(recheck) => Ok(recheck.map_or(Requeue::No, Requeue::After)),
            // The budget was evicted from meanwhile, or edited.
            Err(Failure::Client(error)) if error.is_conflict() => Err(error.into()),
            Err(failure) => {
                tracing::debug!(budget = %key, %failure, "a budget's pods cannot be counted");
                // Nothing may be evicted that nobody can count.
                let failed = view.status.failed(&failure.to_string(), ctx.env().now());
                failed.write(ctx.client(), &object).await?;
                Ok(Requeue::No)
            }
        }
    }
}

/// The budgets whose selectors match the pod.
fn matching(budgets: &Informer, pod: &Object) -> Vec<ObjectKey> {
    let matches = |budget: &Arc<Object>| {
        let value = budget.to_value();
        Selector::from_label_selector(value.at(&["spec", "selector"])).is_ok_and(|selector| selector.matches(pod))
    };
    budgets.list(pod.namespace()).iter().filter(|budget| matches(budget)).map(|budget| budget.key().clone()).collect()
}
