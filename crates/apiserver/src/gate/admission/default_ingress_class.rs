//! Ingresses that name no class get the default one.

use apimachinery::{Status, Value};

use super::{Plugin, Write};
use crate::registry::Operation;

pub(super) struct DefaultIngressClass;

const GROUP: &str = "networking.k8s.io";
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

impl Plugin for DefaultIngressClass {
    fn admit(&self, write: &Write<'_>, new: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        let creates = write.operation == Operation::Create && write.subresource.is_empty();
        if !creates || !write.is_of(GROUP, "ingresses") {
            return Ok(());
        }
        let named = new.str_at(&["spec", "ingressClassName"]).is_some()
            || new.at(&["metadata", "annotations", OLD_CLASS]).is_some();
        if !named && let Some(class) = default_class(write) {
            new.set(&["spec", "ingressClassName"], class);
        }
        Ok(())
    }
}

/// Of several the newest, and of those the first by name.
fn default_class(write: &Write<'_>) -> Option<String> {
    let classes = write.objects.list(GROUP, "ingressclasses", "").into_iter().map(|class| class.to_value());
    let defaults = classes.filter(|class| class.str_at(&["metadata", "annotations", IS_DEFAULT]) == Some("true"));
    let key = |class: &Value| {
        let text = |key: &str| class.str_at(&["metadata", key]).unwrap_or_default().to_owned();
        (std::cmp::Reverse(text("creationTimestamp")), text("name"))
    };
    defaults.map(|class| key(&class)).min().map(|(_, name)| name)
}
