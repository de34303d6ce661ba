//! ControllerRevision. Upstream: pkg/apis/apps/validation ValidateControllerRevision.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, has, immutable, int};
use super::{Context, Strategy};

pub(super) struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn resource(&self) -> (&'static str, &'static str) {
        ("apps", "controllerrevisions")
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        if int(new, "revision") < 0 {
            errors.invalid(&Path::new("revision"), int(new, "revision"), "must be greater than or equal to 0");
        }
        if !has(new, "data") {
            errors.required(&Path::new("data"), "data is mandatory");
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
        immutable(errors, &Path::new("data"), new.get("data"), old.get("data"));
    }
}
