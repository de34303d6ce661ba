//! A new node takes no pods until a controller has seen it ready.

use apimachinery::{Status, Value};

use super::{Plugin, Write, push};
use crate::registry::Operation;

pub(super) struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

impl Plugin for TaintNodesByCondition {
    fn admit(&self, write: &Write<'_>, node: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        if write.operation != Operation::Create || !write.is_of("", "nodes") || !write.subresource.is_empty() {
            return Ok(());
        }
        let is_it = |taint: &Value| {
            taint.str_at(&["key"]) == Some(NOT_READY) && taint.str_at(&["effect"]) == Some("NoSchedule")
        };
        if !node.items_at(&["spec", "taints"]).iter().any(is_it) {
            let mut taint = Value::object();
            taint.set(&["key"], NOT_READY);
            taint.set(&["effect"], "NoSchedule");
            push(node, &["spec", "taints"], taint);
        }
        Ok(())
    }
}
