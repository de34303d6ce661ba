//! What an APIService says, as requests need it.

use apimachinery::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Another server's group version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub service: String,
    pub port: u16,
    pub trust: Trust,
    pub group_priority: i64,
    pub version_priority: i64,
    pub available: bool,
}

/// Which certificates of the server are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those that these authorities signed, PEM.
    Bundle(Vec<u8>),
    Anything,
}

impl Route {
    /// `None` for what this server answers for itself.
    pub(super) fn of(object: &Object) -> Option<Route> {
        let value = object.to_value();
        let spec = value.get("spec")?;
        let service = spec.get("service").filter(|service| !service.is_null())?;
        let text = |value: &Value, name: &str| value.str_at(&[name]).unwrap_or_default().to_owned();
        let bundle = STANDARD.decode(text(spec, "caBundle")).unwrap_or_default();
        let trust = match spec.bool_at(&["insecureSkipTLSVerify"]) {
            Some(true) => Trust::Anything,
            _ => Trust::Bundle(bundle),
        };
        Some(Route {
            group: text(spec, "group"),
            version: text(spec, "version"),
            namespace: text(service, "namespace"),
            service: text(service, "name"),
            port: service.i64_at(&["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            trust,
            group_priority: spec.i64_at(&["groupPriorityMinimum"]).unwrap_or_default(),
            version_priority: spec.i64_at(&["versionPriority"]).unwrap_or_default(),
            available: is_available(&value),
        })
    }

    /// The name of its APIService.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.version, self.group)
    }

    /// `/apis/GROUP/VERSION`
    pub(super) fn path(&self) -> String {
        format!("/{}", api::openapi::root(&self.group, &self.version))
    }

    /// The name that the server's certificate must be for.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    pub(super) fn key(&self) -> (String, String) {
        (self.group.clone(), self.version.clone())
    }

    /// Whether both lead to the same place in the same way.
    pub(super) fn leads_as(&self, other: &Route) -> bool {
        Route { available: other.available, ..self.clone() } == *other
    }
}

fn is_available(service: &Value) -> bool {
    let conditions = service.items_at(&["status", "conditions"]).iter();
    conditions
        .filter(|condition| condition.str_at(&["type"]) == Some("Available"))
        .any(|condition| condition.str_at(&["status"]) == Some("True"))
}
