//! Ingress. Upstream: pkg/apis/networking/validation ValidateIngress.

use apimachinery::validation::{dns1035_label, ip_legacy, wildcard_dns1123_subdomain};
use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, has, int, items, member, text};
use super::{Context, Strategy, keep};

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const CLASS: &str = "kubernetes.io/ingress.class";

pub(super) struct Ingress;

impl Strategy for Ingress {
    fn resource(&self) -> (&'static str, &'static str) {
        ("networking.k8s.io", "ingresses")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let annotated = old.is_none() && new.at(&["metadata", "annotations", CLASS]).is_some();
        let why = "is deprecated, please use 'spec.ingressClassName' instead";
        annotated.then(|| format!("annotation {CLASS:?} {why}")).into_iter().collect()
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let annotation = new.str_at(&["metadata", "annotations", CLASS]);
        if let (Some(annotation), Some(_)) = (annotation, new.str_at(&["spec", "ingressClassName"])) {
            let path = Path::new("annotations");
            errors.invalid(&path.child(CLASS), annotation, "can not be set when the class field is also set");
        }
        check(new, errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource.is_empty() {
            check(new, errors);
        }
    }
}

fn check(ingress: &Value, errors: &mut Errors) {
    let empty = Value::object();
    let spec = ingress.get("spec").unwrap_or(&empty);
    let path = Path::new("spec");
    let rules = items(spec, "rules");
    for (i, rule) in rules.iter().enumerate() {
        let rules_path = path.child("rules");
        validate_rule(rule, &rules_path.index(i), errors);
    }
    match member(spec, "defaultBackend") {
        Some(value) => backend(value, &path.child("defaultBackend"), errors),
        None if rules.is_empty() => {
            let shown = spec.get("rules").cloned().unwrap_or_default();
            errors.invalid(&path, shown, "either `defaultBackend` or `rules` must be specified");
        }
        None => {}
    }
    let tls_path = path.child("tls");
    for (i, tls) in items(spec, "tls").iter().enumerate() {
        let path = tls_path.index(i);
        let hosts = path.child("hosts");
        for (i, name) in items(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
            host(name, &hosts.index(i), errors);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            errors.subdomain(&path.child("secretName"), secret);
        }
    }
    if let Some(class) = spec.str_at(&["ingressClassName"]) {
        errors.subdomain(&path.child("ingressClassName"), class);
    }
}

fn validate_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = text(rule, "host");
    if !name.is_empty() {
        if ip_legacy(name).is_empty() {
            errors.invalid(&path.child("host"), name, "must be a DNS name, not an IP address");
        }
        host(name, &path.child("host"), errors);
    }
    let Some(http) = member(rule, "http") else { return };
    let http_path = path.child("http");
    let paths_path = http_path.child("paths");
    let paths = items(http, "paths");
    if paths.is_empty() {
        errors.required(&paths_path, "");
    }
    for (i, entry) in paths.iter().enumerate() {
        let path = paths_path.index(i);
        let (kind, value) = (text(entry, "pathType"), text(entry, "path"));
        match kind {
            // Nothing more can be said of such a path.
            "" => {
                errors.required(&path.child("pathType"), "pathType must be specified");
                continue;
            }
            other => errors.one_of(&path.child("pathType"), other, &PATH_TYPES),
        }
        match kind {
            "Exact" | "Prefix" => {
                if !value.starts_with('/') {
                    errors.invalid(&path.child("path"), value, "must be an absolute path");
                } else {
                    for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| value.contains(bad)) {
                        errors.invalid(&path.child("path"), value, format!("must not contain '{bad}'"));
                    }
                }
            }
            "ImplementationSpecific" if !value.is_empty() && !value.starts_with('/') => {
                errors.invalid(&path.child("path"), value, "must be an absolute path");
            }
            _ => {}
        }
        backend(entry.get("backend").unwrap_or(&Value::Null), &path.child("backend"), errors);
    }
}

fn host(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.contains('*') {
        errors.problems(path, name, wildcard_dns1123_subdomain(name));
    } else {
        errors.subdomain(path, name);
    }
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    let service = member(backend, "service");
    match (has(backend, "resource"), service) {
        (true, Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (true, None) => {}
        (false, None) => errors.invalid(path, "", "resource or service backend is required"),
        (false, Some(service)) => {
            let service_path = path.child("service");
            match text(service, "name") {
                "" => errors.required(&service_path.child("name"), ""),
                name => errors.problems(&service_path.child("name"), name, dns1035_label(name)),
            }
            let empty = Value::object();
            let port = service.get("port").unwrap_or(&empty);
            let (name, number) = (text(port, "name"), int(port, "number"));
            let port_path = service_path.child("port");
            match (name, number) {
                ("", 0) => errors.required(path, "port name or number is required"),
                ("", number) => errors.port(&port_path.child("number"), number),
                (name, 0) => errors.problems(&port_path.child("name"), name, apimachinery::validation::port_name(name)),
                _ => errors.invalid(path, "", "cannot set both port name & port number"),
            }
        }
    }
}
