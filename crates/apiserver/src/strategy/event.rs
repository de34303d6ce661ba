//! Event, of both groups. Upstream: pkg/registry/core/event, pkg/apis/core/validation events.go.

use std::time::Duration;

use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, has, text};
use super::{Context, Strategy};

const LIFE: Duration = Duration::from_secs(3600);
const NOTE_MAX: usize = 1024;
const SHORT_MAX: usize = 128;

pub(super) struct Event;

impl Strategy for Event {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "events")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn time_to_live(&self) -> Option<Duration> {
        Some(LIFE)
    }

    fn validate(&self, ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let own = new.str_at(&["metadata", "namespace"]).unwrap_or_default();
        let regarding = new.str_at(&["involvedObject", "namespace"]).unwrap_or_default();
        let path = Path::new("involvedObject.namespace");
        // Events about objects outside of all namespaces are kept in `default`, by some clients in `kube-system`.
        if regarding.is_empty() {
            if !matches!(own, "default" | "kube-system") {
                errors.invalid(&path, regarding, "does not match event.namespace");
            }
        } else if regarding != own {
            errors.invalid(&path, regarding, "does not match event.namespace");
        }
        if !has(new, "eventTime") {
            // Whoever changes an event need not know when it was.
            let created = new.str_at(&["metadata", "resourceVersion"]).unwrap_or_default().is_empty();
            if !ctx.group.is_empty() && created {
                errors.required(&Path::new("eventTime"), "");
                kind(new, errors);
            }
            return;
        }
        // Only clients of events.k8s.io say when; they must say more.
        for (key, path) in [
            ("reportingComponent", "reportingController"),
            ("reportingInstance", "reportingInstance"),
            ("action", "action"),
            ("reason", "reason"),
        ] {
            match text(new, key) {
                "" => errors.required(&Path::new(path), ""),
                long if key != "reportingComponent" && long.len() > SHORT_MAX => {
                    errors.invalid(&Path::new(path), "", format!("can have at most {SHORT_MAX} characters"));
                }
                name if key == "reportingComponent" => errors.qualified(&Path::new(path), name),
                _ => {}
            }
        }
        if text(new, "message").len() > NOTE_MAX {
            errors.invalid(&Path::new("message"), "", format!("can have at most {NOTE_MAX} characters"));
        }
        kind(new, errors);
    }
}

fn kind(event: &Value, errors: &mut Errors) {
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
    }
}
