//! Versions whose shapes differ: Events in two groups, HorizontalPodAutoscaler v1 and v2.

mod autoscaler;
mod event;

use api::Kind;
use apimachinery::Value;

/// Edits a value from one version's shape into the other's; `apiVersion` is the caller's.
#[derive(Clone, Copy)]
pub(super) struct Conversion {
    pub to_storage: fn(&mut Value),
    pub from_storage: fn(&mut Value),
}

/// How `kind` differs from the row it is stored as; `None` where only `apiVersion` does.
pub(super) fn between(kind: &Kind, storage: &Kind) -> Option<Conversion> {
    match (kind.kind, kind.group, kind.version, storage.group, storage.version) {
        ("Event", "events.k8s.io", "v1", "", "v1") => {
            Some(Conversion { to_storage: event::to_core, from_storage: event::from_core })
        }
        ("HorizontalPodAutoscaler", _, "v1", _, "v2") => {
            Some(Conversion { to_storage: autoscaler::to_v2, from_storage: autoscaler::to_v1 })
        }
        ("HorizontalPodAutoscaler", _, "v2", _, "v1") => {
            Some(Conversion { to_storage: autoscaler::to_v1, from_storage: autoscaler::to_v2 })
        }
        _ => None,
    }
}

/// The stored form's name of a field that selectors name in this version.
pub(super) fn stored_field(kind: &Kind, field: &str) -> String {
    if (kind.group, kind.kind) != ("events.k8s.io", "Event") {
        return field.to_owned();
    }
    match field.strip_prefix("regarding.") {
        Some(rest) => format!("involvedObject.{rest}"),
        None if field == "reportingController" => "reportingComponent".to_owned(),
        None => field.to_owned(),
    }
}

/// Moves the member `from` to `to`, where it is there.
fn rename(value: &mut Value, from: &str, to: &str) {
    if let Some(member) = value.remove(&[from]) {
        value.set(&[to], member);
    }
}
