//! What each metric of an autoscaler asks for; the largest size counts.

use std::sync::Arc;

use apimachinery::{Format, Object, ObjectKey, Quantity, Selector, SelectorError, Value};
use client::{EventRecorder, ReconcileContext};
use k8s_openapi::api::core::v1::Pod;

use super::Scale;
use super::metrics::{self, MetricsError, milli};
use super::replicas::{self, Aim, NoSize};
use super::view::{Spec, Status};
use crate::go_selector;

/// Everything that a proposal is made from.
pub(super) struct Asked<'a> {
    pub ctx: &'a ReconcileContext,
    pub namespace: &'a str,
    pub scale: &'a Scale,
    pub pods: &'a [Pod],
    pub spec: &'a Spec,
}

/// A size and the metric that asks for it.
pub(super) struct Proposal {
    pub replicas: i64,
    pub metric: String,
}

/// Why there is no proposal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unable {
    #[error("selector is required")]
    NoSelector,
    #[error("couldn't convert selector into a corresponding internal selector object: {0}")]
    Selector(SelectorError),
    #[error("pods by selector {selector} are controlled by multiple HPAs: [{autoscalers}]")]
    Ambiguous { selector: String, autoscalers: String },
    #[error("invalid metrics ({invalid} invalid out of {of}), first error is: {first}")]
    Metrics { invalid: usize, of: usize, first: Box<Failed> },
}

/// A metric that could not be had; `prefix` says for whom.
#[derive(Debug, thiserror::Error)]
#[error("{prefix}: {why}")]
pub(super) struct Failed {
    reason: &'static str,
    prefix: String,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{what}: {error}")]
    Metrics { what: String, error: MetricsError },
    /// Upstream's words are out of order.
    #[error("{what}/{error}")]
    MetricsOf { what: String, error: MetricsError },
    #[error(transparent)]
    Size(#[from] NoSize),
    #[error("{what}: {error}")]
    SizeOf { what: String, error: NoSize },
    #[error("{0}")]
    Selector(#[from] SelectorError),
    #[error("{0}")]
    Source(&'static str),
}

/// A proposal and the metric's status.
struct Found {
    proposal: Proposal,
    status: Value,
}

impl Asked<'_> {
    pub(super) async fn propose(
        &self,
        events: &EventRecorder,
        object: &Arc<Object>,
        status: &mut Status,
    ) -> Result<Proposal, Unable> {
        let now = self.ctx.env().now();
        let (mut best, mut first, mut invalid): (Option<Proposal>, Option<Failed>, usize) = (None, None, 0);
        let mut statuses = Vec::new();
        for metric in &self.spec.metrics {
            match self.ask(metric).await {
                Ok(found) => {
                    statuses.push(found.status);
                    if best.as_ref().is_none_or(|best| found.proposal.replicas > best.replicas) {
                        best = Some(found.proposal);
                    }
                }
                Err(failed) => {
                    events.warning(object, failed.reason, failed.why.to_string());
                    // Each metric has its place, also one that is not known.
                    let mut unknown = Value::object();
                    unknown.set(&["type"], "");
                    statuses.push(unknown);
                    invalid += 1;
                    first.get_or_insert(failed);
                }
            }
        }
        status.current_metrics = statuses;
        // Nothing shrinks by half of what is asked.
        let enough = best.filter(|best| invalid == 0 || best.replicas >= self.scale.current);
        match (enough, first) {
            (Some(best), _) => {
                let message =
                    format!("the HPA was able to successfully calculate a replica count from {}", best.metric);
                status.set("ScalingActive", "True", "ValidMetricFound", message, now);
                Ok(best)
            }
            (None, Some(first)) => {
                let message = format!("the HPA was unable to compute the replica count: {}", first.why);
                status.set("ScalingActive", "False", first.reason, message, now);
                Err(Unable::Metrics { invalid, of: self.spec.metrics.len(), first: Box::new(first) })
            }
            // No metrics at all: the size stays.
            (None, None) => Ok(Proposal { replicas: self.scale.current, metric: String::new() }),
        }
    }

    async fn ask(&self, metric: &Value) -> Result<Found, Failed> {
        let source = metric.str_at(&["type"]).unwrap_or_default();
        let (member, reason) = match source {
            "Resource" => ("resource", "FailedGetResourceMetric"),
            "ContainerResource" => ("containerResource", "FailedGetContainerResourceMetric"),
            "Pods" => ("pods", "FailedGetPodsMetric"),
            "Object" => ("object", "FailedGetObjectMetric"),
            "External" => ("external", "FailedGetExternalMetric"),
            _ => ("", "InvalidMetricSourceType"),
        };
        let spec = metric.get(member).cloned().unwrap_or_default();
        let text = |path: &[&str]| spec.str_at(path).unwrap_or_default();
        let (answer, prefix) = match source {
            "Resource" | "ContainerResource" => {
                let container = spec.str_at(&["container"]);
                let prefix = match container {
                    Some(container) => format!("failed to get {container} container metric value"),
                    None => format!("failed to get {} resource metric value", text(&["name"])),
                };
                (self.by_resource(&spec, container).await, prefix)
            }
            "Pods" => (self.by_pods(&spec).await, "failed to get pods metric value".to_owned()),
            "Object" => {
                let prefix = match spec.at(&["target", "averageValue"]) {
                    Some(_) => format!(": failed to get {} object metric", text(&["metric", "name"])),
                    None => String::new(),
                };
                (self.by_object(&spec).await, format!("failed to get object metric value{prefix}"))
            }
            "External" => {
                let name = text(&["metric", "name"]);
                let prefix = match spec.at(&["target", "averageValue"]) {
                    Some(_) => format!("failed to get {name} external metric"),
                    None => format!("failed to get external metric {name}"),
                };
                (self.by_external(&spec).await, format!("failed to get {name} external metric value: {prefix}"))
            }
            _ => (Err(Why::Source("unknown metric source type")), "invalid metric".to_owned()),
        };
        let (proposal, shown) = answer.map_err(|why| Failed { reason, prefix, why })?;
        let mut status = Value::object();
        status.set(&["type"], source);
        status.set(&[member], shown);
        Ok(Found { proposal, status })
    }

    async fn by_resource(&self, spec: &Value, container: Option<&str>) -> Result<(Proposal, Value), Why> {
        let name = spec.str_at(&["name"]).unwrap_or_default();
        let target = spec.at(&["target", "averageValue"]).and_then(milli);
        let percent = spec.i64_at(&["target", "averageUtilization"]);
        let what = if target.is_some() { "usage" } else { "utilization" };
        let get = format!("failed to get {name} {what}");
        let (client, selector) = (self.ctx.client(), &self.scale.selector);
        let samples = metrics::of_resource(client, self.namespace, selector, name, container).await;
        let what = format!("{get}: unable to get metrics for resource {name}");
        let unable = |error| Why::Metrics { what, error };
        let samples = samples.map_err(unable)?;
        let no_size = |error| Why::SizeOf { what: get.clone(), error };
        let aim = match (target, percent) {
            (Some(target), _) => Aim::Average(target),
            (None, Some(percent)) => Aim::Utilization { percent, resource: name, container },
            (None, None) => {
                return Err(Why::Source(
                    "invalid resource metric source: neither an average utilization target nor an average value (usage) target was \
                     set",
                ));
            }
        };
        let (now, current) = (self.ctx.env().now(), self.scale.current);
        let tolerances = self.spec.tolerances();
        let outcome = replicas::by_pods(self.pods, samples, &aim, current, tolerances, name == "cpu", now);
        let outcome = outcome.map_err(no_size)?;
        let metric = match (percent.filter(|_| target.is_none()), container) {
            (None, _) => format!("{name} resource"),
            (Some(_), None) => format!("{name} resource utilization (percentage of request)"),
            (Some(_), Some(_)) => format!("{name} container resource utilization (percentage of request)"),
        };
        let mut shown = Value::object();
        shown.set(&["name"], name);
        if let Some(container) = container {
            shown.set(&["container"], container);
        }
        shown.set(&["current", "averageValue"], amount(name, outcome.average));
        if let Some(percent) = outcome.percent {
            shown.set(&["current", "averageUtilization"], percent);
        }
        Ok((Proposal { replicas: outcome.replicas, metric }, shown))
    }

    async fn by_pods(&self, spec: &Value) -> Result<(Proposal, Value), Why> {
        let name = spec.str_at(&["metric", "name"]).unwrap_or_default();
        let metric_selector = selector(spec)?;
        let (client, pods) = (self.ctx.client(), &self.scale.selector);
        let samples = metrics::of_pods(client, self.namespace, pods, name, &metric_selector).await;
        let unable = |error| Why::Metrics { what: format!("unable to get metric {name}"), error };
        let samples = samples.map_err(unable)?;
        let target = spec.at(&["target", "averageValue"]).and_then(milli).unwrap_or_default();
        let (now, current) = (self.ctx.env().now(), self.scale.current);
        let tolerances = self.spec.tolerances();
        let aim = Aim::Average(target);
        let outcome = replicas::by_pods(self.pods, samples, &aim, current, tolerances, false, now)?;
        let shown = identified(spec, "averageValue", outcome.average);
        Ok((Proposal { replicas: outcome.replicas, metric: format!("pods metric {name}") }, shown))
    }

    async fn by_object(&self, spec: &Value) -> Result<(Proposal, Value), Why> {
        let name = spec.str_at(&["metric", "name"]).unwrap_or_default();
        let object = spec.get("describedObject").cloned().unwrap_or_default();
        let text = |key: &str| object.str_at(&[key]).unwrap_or_default();
        let key = ObjectKey::new(self.namespace, text("name"));
        let value = metrics::of_object(self.ctx.client(), &object, &key, name, &selector(spec)?).await;
        let unable = |error| Why::MetricsOf {
            what: format!("unable to get metric {name}: {} on {} {}", text("kind"), key.namespace, key.name),
            error,
        };
        // Upstream calls a share of an object's value external.
        let metric = match spec.at(&["target", "averageValue"]) {
            Some(_) => external_metric(spec),
            None => format!("{} metric {name}", text("kind")),
        };
        let (proposal, mut shown) = self.by_one_value(spec, value.map_err(unable)?, metric)?;
        shown.set(&["describedObject"], object);
        Ok((proposal, shown))
    }

    async fn by_external(&self, spec: &Value) -> Result<(Proposal, Value), Why> {
        let name = spec.str_at(&["metric", "name"]).unwrap_or_default();
        let value = metrics::external(self.ctx.client(), self.namespace, name, &selector(spec)?).await;
        let unable = |error| {
            let selector = go_selector::shown(spec.at(&["metric", "selector"]));
            let what = format!("unable to get external metric {}/{name}/{selector}", self.namespace);
            Why::Metrics { what, error }
        };
        self.by_one_value(spec, value.map_err(unable)?, external_metric(spec))
    }

    /// The size for one value: shared by all pods, or so much for each.
    fn by_one_value(&self, spec: &Value, value: i64, metric: String) -> Result<(Proposal, Value), Why> {
        let tolerances = self.spec.tolerances();
        let target = |name: &str| spec.at(&["target", name]).and_then(milli);
        if let Some(target) = target("averageValue") {
            let (replicas, share) = replicas::by_share(value, target, self.scale.actual, tolerances);
            return Ok((Proposal { replicas, metric }, identified(spec, "averageValue", share)));
        }
        let target = target("value")
            .ok_or(Why::Source("invalid metric source: neither a value target nor an average value target was set"))?;
        let replicas = replicas::by_value(self.pods, value, target, self.scale.current, tolerances)?;
        Ok((Proposal { replicas, metric }, identified(spec, "value", value)))
    }
}

fn external_metric(spec: &Value) -> String {
    let name = spec.str_at(&["metric", "name"]).unwrap_or_default();
    format!("external metric {name}({})", go_selector::shown(spec.at(&["metric", "selector"])))
}

/// The metric's status: what it is and how much of it there is.
fn identified(spec: &Value, name: &str, thousandths: i64) -> Value {
    let mut shown = Value::object();
    shown.set(&["metric"], spec.get("metric").cloned().unwrap_or_default());
    shown.set(&["current", name], Quantity::from_milli(thousandths).to_string());
    shown
}

/// Memory is told in powers of two, as metrics-server tells it.
fn amount(resource: &str, thousandths: i64) -> String {
    if resource == "memory" && thousandths % 1000 == 0 {
        return Quantity::new(thousandths / 1000, Format::BinarySi).to_string();
    }
    Quantity::from_milli(thousandths).to_string()
}

fn selector(spec: &Value) -> Result<String, SelectorError> {
    match spec.at(&["metric", "selector"]) {
        None => Ok(String::new()),
        Some(selector) => Ok(Selector::from_label_selector(Some(selector))?.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_as_metrics_server_tells_them() {
        let check = |resource: &str, thousandths: i64, expect: &str| {
            assert_eq!(amount(resource, thousandths), expect, "{resource} {thousandths}");
        };
        check("cpu", 150, "150m");
        check("cpu", 2000, "2");
        check("memory", (100 << 20) * 1000, "100Mi");
        check("memory", 86_571_733_667, "86571733667m");
        check("memory", 500_333, "500333m");
    }

    #[test]
    fn external_metrics_are_named_with_their_selectors() {
        let check = |spec: &str, expect: &str| {
            assert_eq!(
                external_metric(&Value::parse(spec.as_bytes()).unwrap()),
                format!("external metric queue({expect})")
            );
        };
        check(r#"{"metric":{"name":"queue"}}"#, "nil");
        check(
            r#"{"metric":{"name":"queue","selector":{"matchLabels":{"a":"b"}}}}"#,
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{},}",
        );
    }
}
