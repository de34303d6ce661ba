//! Pods stay five minutes on a node that is not ready or not reachable, unless they say otherwise.

use apimachinery::{Status, Value};

use super::{Plugin, Write, push};
use crate::registry::Operation;

pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn admit(&self, write: &Write<'_>, pod: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        let concerned = matches!(write.operation, Operation::Create | Operation::Update)
            && write.is_of("", "pods")
            && write.subresource.is_empty();
        if !concerned {
            return Ok(());
        }
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerates = |toleration: &Value| {
                let text = |name: &str| toleration.str_at(&[name]).unwrap_or_default();
                [key, ""].contains(&text("key")) && ["NoExecute", ""].contains(&text("effect"))
            };
            if !pod.items_at(&["spec", "tolerations"]).iter().any(tolerates) {
                let mut toleration = Value::object();
                toleration.set(&["key"], key);
                toleration.set(&["operator"], "Exists");
                toleration.set(&["effect"], "NoExecute");
                toleration.set(&["tolerationSeconds"], 300);
                push(pod, &["spec", "tolerations"], toleration);
            }
        }
        Ok(())
    }
}
