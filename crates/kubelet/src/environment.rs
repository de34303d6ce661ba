//! A container's environment from every source. Upstream: kubelet_pods.go makeEnvironmentVariables, pkg/kubelet/envvars.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};

use crate::expansion::expand;
use crate::fields::{self, Situation};

/// The objects that an environment may refer to, of the pod's namespace.
#[derive(Debug, Default)]
pub struct Referred {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    /// Those that the pod gets addresses of.
    pub services: Vec<Service>,
}

/// Why a container has no environment; shown as `CreateContainerConfigError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey { namespace: String, name: String, key: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey { namespace: String, name: String, key: String },
    #[error(transparent)]
    Field(#[from] fields::FieldError),
}

/// The variables in the order in which the container gets them, each name once.
pub fn environment(
    pod: &Pod,
    container: &Container,
    situation: &Situation,
    referred: &Referred,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let services = service_variables(pod, &referred.services);
    let mut result = Variables::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let entries = if let Some(wanted) = &source.config_map_ref {
            let data = referred.config_maps.get(&wanted.name).map(|map| map.data.clone().unwrap_or_default());
            let missing = || EnvironmentError::NoConfigMap(wanted.name.clone());
            unless_optional(data, wanted.optional, missing)?
        } else if let Some(wanted) = &source.secret_ref {
            let data = referred.secrets.get(&wanted.name).map(secret_text);
            let missing = || EnvironmentError::NoSecret(wanted.name.clone());
            unless_optional(data, wanted.optional, missing)?
        } else {
            None
        };
        for (key, value) in entries.into_iter().flatten() {
            result.set(format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let lookup = |name: &str| result.get(name).or_else(|| services.get(name).cloned());
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), lookup)),
            Some(_) => value_from(pod, container, variable, situation, referred)?,
        };
        if let Some(value) = value {
            result.set(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if result.get(&name).is_none() {
            result.set(name, value);
        }
    }
    Ok(result.0)
}

/// The names of the ConfigMaps and Secrets that the container's environment refers to.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for source in container.env_from.iter().flatten() {
        config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

fn value_from(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    situation: &Situation,
    referred: &Referred,
) -> Result<Option<String>, EnvironmentError> {
    let Some(source) = &variable.value_from else { return Ok(None) };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    if let Some(wanted) = &source.field_ref {
        return Ok(Some(fields::field(pod, &wanted.field_path, situation)?));
    }
    if let Some(wanted) = &source.resource_field_ref {
        return Ok(Some(fields::resource(pod, Some(container), wanted, situation)?));
    }
    if let Some(wanted) = &source.config_map_key_ref {
        let Some(map) = referred.config_maps.get(&wanted.name) else {
            return unless_optional(None, wanted.optional, || EnvironmentError::NoConfigMap(wanted.name.clone()));
        };
        let value = map.data.as_ref().and_then(|data| data.get(&wanted.key)).cloned();
        return unless_optional(value, wanted.optional, || EnvironmentError::NoConfigMapKey {
            namespace,
            name: wanted.name.clone(),
            key: wanted.key.clone(),
        });
    }
    if let Some(wanted) = &source.secret_key_ref {
        let Some(secret) = referred.secrets.get(&wanted.name) else {
            return unless_optional(None, wanted.optional, || EnvironmentError::NoSecret(wanted.name.clone()));
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&wanted.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return unless_optional(value, wanted.optional, || EnvironmentError::NoSecretKey {
            namespace,
            name: wanted.name.clone(),
            key: wanted.key.clone(),
        });
    }
    Ok(None)
}

fn unless_optional<T>(
    value: Option<T>,
    optional: Option<bool>,
    missing: impl FnOnce() -> EnvironmentError,
) -> Result<Option<T>, EnvironmentError> {
    if value.is_none() && optional != Some(true) { Err(missing()) } else { Ok(value) }
}

fn secret_text(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, bytes)| (key.clone(), String::from_utf8_lossy(&bytes.0).into_owned())).collect()
}

/// Variables in order of first setting.
#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

/// `WEB_SERVICE_HOST` and the like, for Services with an address: all of the pod's namespace if it wants them, and always those of
/// the API server.
fn service_variables(pod: &Pod, services: &[Service]) -> BTreeMap<String, String> {
    let wants_links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let namespace = pod.metadata.namespace.as_deref();
    let mut variables = BTreeMap::new();
    let is_master = |s: &Service| {
        s.metadata.namespace.as_deref() == Some("default") && s.metadata.name.as_deref() == Some("kubernetes")
    };
    // A Service of the pod's own namespace wins over the API server's of the same name.
    let masters = services.iter().filter(|s| is_master(s) && s.metadata.namespace.as_deref() != namespace);
    let own = services.iter().filter(|s| s.metadata.namespace.as_deref() == namespace && (wants_links || is_master(s)));
    for service in masters.chain(own) {
        variables.extend(variables_of(service));
    }
    variables
}

fn variables_of(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(first), false) = (ports.first(), matches!(ip, "" | "None")) else { return Vec::new() };
    let upper = |text: &str| text.replace('-', "_").to_uppercase();
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let mut variables =
        vec![(format!("{name}_SERVICE_HOST"), ip.to_owned()), (format!("{name}_SERVICE_PORT"), first.port.to_string())];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|port_name| !port_name.is_empty()) {
            variables.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (lower, number) = (protocol.to_lowercase(), port.port);
        let url = format!("{lower}://{host}:{number}");
        if i == 0 {
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{number}_{}", protocol.to_uppercase());
        variables.extend([
            (prefix.clone(), url),
            (format!("{prefix}_PROTO"), lower),
            (format!("{prefix}_PORT"), number.to_string()),
            (format!("{prefix}_ADDR"), ip.to_owned()),
        ]);
    }
    variables
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn referred() -> Referred {
        let service = |namespace: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}}))
            .unwrap()
        };
        Referred {
            config_maps: [("cm".to_owned(), serde_json::from_value(json!({"data": {"k": "v", "x": "y"}})).unwrap())]
                .into(),
            secrets: [("s".to_owned(), serde_json::from_value(json!({"data": {"p": "c2VjcmV0"}})).unwrap())].into(),
            services: vec![
                service("default", "kubernetes", "10.96.0.1"),
                service("ns", "my-web", "10.96.0.9"),
                service("ns", "headless", "None"),
            ],
        }
    }

    fn run(container: Json, links: bool) -> Result<Vec<(String, String)>, EnvironmentError> {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"enableServiceLinks": links, "containers": []}}))
        .unwrap();
        let mut full = json!({"name": "c"});
        full.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        environment(&pod, &serde_json::from_value(full).unwrap(), &Situation::default(), &referred())
    }

    fn check(container: Json, expect: &[(&str, &str)]) {
        let found: BTreeMap<_, _> = run(container, false).unwrap().into_iter().collect();
        for (name, value) in expect {
            assert_eq!(found.get(*name).map(String::as_str), Some(*value), "{name}");
        }
    }

    #[test]
    fn every_source_is_read() {
        check(
            json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(KUBERNETES_SERVICE_HOST)"}]}),
            &[("A", "1"), ("B", "110.96.0.1")],
        );
        check(
            json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            &[("A", "v"), ("P", "secret"), ("N", "p")],
        );
        check(
            json!({"envFrom": [{"prefix": "X_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
            "env": [{"name": "X_k", "value": "$(X_k)!"}]}),
            &[("X_k", "v!"), ("X_x", "y"), ("p", "secret")],
        );
        check(json!({}), &[("KUBERNETES_PORT_80_TCP_ADDR", "10.96.0.1"), ("KUBERNETES_PORT", "tcp://10.96.0.1:80")]);
    }

    #[test]
    fn links_are_for_those_who_want_them() {
        let has = |links: bool, name: &str| run(json!({}), links).unwrap().iter().any(|(known, _)| known == name);
        assert!(has(true, "MY_WEB_SERVICE_PORT_HTTP") && !has(false, "MY_WEB_SERVICE_PORT_HTTP"));
        assert!(has(false, "KUBERNETES_SERVICE_HOST"));
        assert!(!has(true, "HEADLESS_SERVICE_HOST"));
    }

    #[test]
    fn missing_references_are_named() {
        let check = |container: Json, expect: &str| {
            let result = run(container.clone(), false).map_err(|error| error.to_string());
            assert_eq!(result.err().as_deref(), Some(expect).filter(|e| !e.is_empty()), "{container}");
        };
        let key = |kind: &str, name: &str, key: &str, optional: bool| json!({"env": [{"name": "A", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]});
        check(key("configMapKeyRef", "none", "k", false), "configmap \"none\" not found");
        check(key("configMapKeyRef", "cm", "none", false), "couldn't find key none in ConfigMap ns/cm");
        check(key("configMapKeyRef", "cm", "none", true), "");
        check(key("secretKeyRef", "none", "k", false), "secret \"none\" not found");
        check(key("secretKeyRef", "s", "none", false), "couldn't find key none in Secret ns/s");
        check(json!({"envFrom": [{"secretRef": {"name": "none"}}]}), "secret \"none\" not found");
        check(json!({"envFrom": [{"secretRef": {"name": "none", "optional": true}}]}), "");
    }
}
