//! Lease. Upstream: pkg/apis/coordination/validation.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report};
use super::{Context, Strategy};

pub(super) struct Lease;

impl Strategy for Lease {
    fn resource(&self) -> (&'static str, &'static str) {
        ("coordination.k8s.io", "leases")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let path = Path::new("spec");
        let number = |key: &str| new.i64_at(&["spec", key]);
        if let Some(seconds) = number("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(count) = number("leaseTransitions").filter(|count| *count < 0) {
            errors.invalid(&path.child("leaseTransitions"), count, "must be greater than or equal to 0");
        }
        let text = |key: &str| new.str_at(&["spec", key]);
        if text("preferredHolder").is_some_and(|holder| !holder.is_empty())
            && text("strategy").is_none_or(str::is_empty)
        {
            let why = "may only be specified if `strategy` is defined";
            errors.forbidden(&path.child("preferredHolder"), why);
        }
    }
}
