//! The strategy of kinds that have none of their own: upstream's switches for them, and nothing more.

use std::time::Duration;

use api::Kind;
use apimachinery::schema::{Shape, Type};
use apimachinery::validation::NameFormat;
use apimachinery::{FieldError, Value};

use crate::strategy::{Context, Strategy};

pub(super) struct Plain {
    kind: &'static Kind,
}

/// Upstream: `metadata.generation` is set by the strategies of these.
const WITH_GENERATION: &[&str] = &[
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "replicationcontrollers",
    "pods",
    "ingresses",
    "ingressclasses",
    "networkpolicies",
    "poddisruptionbudgets",
    "endpointslices",
    "flowschemas",
    "prioritylevelconfigurations",
    "priorityclasses",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "deviceclasses",
    "resourceslices",
];
/// Upstream: `AllowCreateOnUpdate`.
const CREATED_BY_UPDATE: &[&str] = &["endpoints", "events", "leases", "limitranges", "services"];
/// Upstream: `AllowUnconditionalUpdate` is false.
const CONDITIONAL: &[&str] = &[
    "leases",
    "poddisruptionbudgets",
    "runtimeclasses",
    "csinodes",
    "csidrivers",
    "csistoragecapacities",
    "volumeattachments",
    "serviceaccounts",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];
/// Upstream: `ReturnDeletedObject`.
const RETURNED: &[&str] = &[
    "pods",
    "podtemplates",
    "services",
    "serviceaccounts",
    "resourcequotas",
    "persistentvolumes",
    "persistentvolumeclaims",
    "storageclasses",
    "volumeattachments",
    "volumeattributesclasses",
    "csidrivers",
    "csinodes",
    "csistoragecapacities",
];
const ORPHANING: &[&str] = &["replicationcontrollers", "jobs"];
const EVENT_LIFE: Duration = Duration::from_secs(3600);

impl Plain {
    pub(super) fn new(kind: &'static Kind) -> Plain {
        Plain { kind }
    }

    fn is_in(&self, list: &[&str]) -> bool {
        list.contains(&self.kind.resource)
    }

    fn is_rbac(&self) -> bool {
        self.kind.group == "rbac.authorization.k8s.io"
    }
}

impl Strategy for Plain {
    fn resource(&self) -> (&'static str, &'static str) {
        (self.kind.group, self.kind.resource)
    }

    fn name_format(&self) -> NameFormat {
        match self.kind.resource {
            _ if self.is_rbac() => NameFormat::PathSegment,
            "services" => NameFormat::Dns1035Label,
            _ => NameFormat::DnsSubdomain,
        }
    }

    fn has_generation(&self) -> bool {
        self.is_in(WITH_GENERATION)
    }

    fn allow_create_on_update(&self) -> bool {
        self.is_rbac() || self.is_in(CREATED_BY_UPDATE)
    }

    fn allow_unconditional_update(&self) -> bool {
        !self.is_in(CONDITIONAL)
    }

    fn returns_deleted_object(&self) -> bool {
        self.is_in(RETURNED)
    }

    fn orphans_by_default(&self) -> bool {
        self.is_in(ORPHANING)
    }

    fn time_to_live(&self) -> Option<Duration> {
        (self.kind.resource == "events").then_some(EVENT_LIFE)
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        if let Some(spec) = new.get("spec") {
            let schema = self.kind.ty();
            if let Some(schema) = schema.child("spec") {
                check_enums(schema, spec, "spec", errors);
            }
        }
    }
}

/// Refuses strings that are not among the values the schema declares.
fn check_enums(schema: Type<'_>, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (schema.shape(), value) {
        (Shape::String { values }, Value::String(text))
            if !values.is_empty() && !text.is_empty() && !values.iter().any(|known| known.as_ref() == text) =>
        {
            let known: Vec<&str> = values.iter().map(|known| known.as_ref()).collect();
            errors.push(FieldError::not_supported(path, text, &known));
        }
        (_, Value::Object(map)) => {
            let is_map = matches!(schema.shape(), Shape::Map { .. });
            for (key, member) in map.iter() {
                if let Some(child) = schema.child(key) {
                    let path = if is_map { format!("{path}[{key}]") } else { format!("{path}.{key}") };
                    check_enums(child, member, &path, errors);
                }
            }
        }
        (_, Value::Array(items)) => {
            if let Some(child) = schema.item() {
                for (index, item) in items.iter().enumerate() {
                    check_enums(child, item, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}
