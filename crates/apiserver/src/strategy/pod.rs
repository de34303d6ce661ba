//! Pod. Upstream: pkg/registry/core/pod.

pub(super) mod containers;
pub(super) mod defaults;
mod environment;
mod probes;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
mod subresource;
#[cfg(test)]
mod tests;
mod update;
pub(super) mod validation;
pub(super) mod volumes;

use apimachinery::{FieldError, Value};

use super::{Context, Strategy, keep, keep_all_but_status};

pub(super) struct Pod;

impl Strategy for Pod {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "pods")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        defaults::pod(value);
    }

    fn prepare_create(&self, ctx: &Context<'_>, new: &mut Value) {
        // Counted here and not by the registry: binding a pod to a node does not count.
        new.set(&["metadata", "generation"], 1);
        let grace = ["spec", "terminationGracePeriodSeconds"];
        if new.i64_at(&grace).is_some_and(|seconds| seconds < 0) {
            new.set(&grace, 1);
        }
        let class = resources::qos(new.get("spec").unwrap_or(&Value::Null));
        let mut status = Value::object();
        status.set(&["phase"], "Pending");
        status.set(&["qosClass"], class.as_str());
        if !new.items_at(&["spec", "schedulingGates"]).is_empty() {
            status.set(&["conditions"], vec![gated_condition(ctx)]);
        }
        new.set(&["status"], status);
        scheduling::expand_label_keys(new);
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["status"]);
        count(new, old);
    }

    fn prepare_subresource(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        match ctx.subresource {
            "status" => subresource::prepare_status(new, old),
            "ephemeralcontainers" => {
                subresource::prepare_ephemeral(new, old);
                count(new, old);
            }
            "resize" => {
                subresource::prepare_resize(new, old);
                count(new, old);
            }
            _ => keep_all_but_status(new, old),
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        validation::pod(new, errors);
        validation::creation(new, errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        match ctx.subresource {
            "binding" => {}
            "status" => subresource::validate_status(new, old, errors),
            "ephemeralcontainers" => {
                validation::pod(new, errors);
                subresource::validate_ephemeral(new, old, errors);
            }
            "resize" => {
                validation::pod(new, errors);
                subresource::validate_resize(new, old, errors);
            }
            _ => {
                validation::pod(new, errors);
                update::validate(new, old, errors);
            }
        }
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { validation::warnings(new, "") }
    }

    fn deletes_in_steps(&self) -> bool {
        true
    }

    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let unassigned = object.str_at(&["spec", "nodeName"]).unwrap_or_default().is_empty();
        let ended = matches!(object.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
        if unassigned || ended {
            return Some(0);
        }
        let own = object.i64_at(&["spec", "terminationGracePeriodSeconds"]).unwrap_or_default();
        Some(match requested.unwrap_or(own) {
            negative if negative < 0 => 1,
            seconds => seconds,
        })
    }
}

/// Raises the generation when the spec changed.
fn count(new: &mut Value, old: &Value) {
    let generation = old.i64_at(&["metadata", "generation"]).unwrap_or_default();
    if new.get("spec") != old.get("spec") {
        new.set(&["metadata", "generation"], generation + 1);
    }
}

fn gated_condition(ctx: &Context<'_>) -> Value {
    let mut condition = Value::object();
    condition.set(&["type"], "PodScheduled");
    condition.set(&["status"], "False");
    condition.set(&["reason"], "SchedulingGated");
    condition.set(&["message"], "Scheduling is blocked due to non-empty scheduling gates");
    condition.set(&["lastProbeTime"], Value::Null);
    condition.set(&["lastTransitionTime"], crate::registry::timestamp(ctx.env.now()));
    condition
}
