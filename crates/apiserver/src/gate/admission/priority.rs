//! Pods get the number behind their priority class.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Status, Value};
use memchr::memmem;

use super::{Plugin, Write};
use crate::registry::Operation;

pub(super) struct Priority;

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";

impl Plugin for Priority {
    fn admit(&self, write: &Write<'_>, pod: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        if !write.is_of("", "pods") || !write.subresource.is_empty() {
            return Ok(());
        }
        match (write.operation, old) {
            (Operation::Create, _) => create(write, pod),
            (Operation::Update, Some(old)) => {
                for path in [["spec", "priority"], ["spec", "preemptionPolicy"]] {
                    let given = pod.at(&path).is_some_and(|value| !value.is_null());
                    if let Some(value) = old.at(&path).filter(|_| !given) {
                        pod.set(&path, value);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(&self, write: &Write<'_>, new: Option<&Value>, _old: Option<&Value>) -> Result<(), Status> {
        let Some(class) = new.filter(|_| write.is_of(GROUP, CLASSES) && write.subresource.is_empty()) else {
            return Ok(());
        };
        if class.bool_at(&["globalDefault"]) != Some(true) {
            return Ok(());
        }
        let name = class.str_at(&["metadata", "name"]);
        match default_class(write) {
            Some((other, _)) if write.operation == Operation::Create || Some(other.name()) != name => {
                let why =
                    format!("PriorityClass {} is already marked as default. Only one default can exist", other.name());
                Err(write.forbidden(new, &why))
            }
            _ => Ok(()),
        }
    }
}

fn create(write: &Write<'_>, pod: &mut Value) -> Result<(), Status> {
    let name = pod.str_at(&["spec", "priorityClassName"]).unwrap_or_default().to_owned();
    let class = if name.is_empty() {
        default_class(write).map(|(object, class)| {
            pod.set(&["spec", "priorityClassName"], object.name());
            class
        })
    } else {
        let Some(object) = write.objects.get(GROUP, CLASSES, &ObjectKey::cluster(&name)) else {
            return Err(write.forbidden(Some(pod), &format!("no PriorityClass with name {name} was found")));
        };
        Some(object.to_value())
    };
    let priority = class.as_ref().and_then(|class| class.i64_at(&["value"])).unwrap_or(0);
    let policy = class.as_ref().and_then(|class| class.str_at(&["preemptionPolicy"])).unwrap_or("PreemptLowerPriority");
    if let Some(given) = pod.i64_at(&["spec", "priority"]).filter(|given| *given != priority) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed \
             {priority} from the given PriorityClass name"
        );
        return Err(write.forbidden(Some(pod), &why));
    }
    if let Some(given) = pod.str_at(&["spec", "preemptionPolicy"]).filter(|given| *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller \
             computed {policy} from the given PriorityClass name"
        );
        return Err(write.forbidden(Some(pod), &why));
    }
    pod.set(&["spec", "priority"], priority);
    pod.set(&["spec", "preemptionPolicy"], policy);
    Ok(())
}

/// The class of pods that name none: of several defaults the least.
fn default_class(write: &Write<'_>) -> Option<(Arc<Object>, Value)> {
    let perhaps = |object: &Arc<Object>| memmem::find(object.body(), b"\"globalDefault\":true").is_some();
    let classes = write.objects.list(GROUP, CLASSES, "").into_iter().filter(perhaps).map(|object| {
        let value = object.to_value();
        (object, value)
    });
    classes
        .filter(|(_, class)| class.bool_at(&["globalDefault"]) == Some(true))
        .min_by_key(|(_, class)| class.i64_at(&["value"]).unwrap_or(0))
}
