//! Endpoints. Upstream: validation.ValidateEndpoints.

use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, fill, int, items, items_mut, text};
use super::pod::containers::PROTOCOLS;
use super::service::special_ip;
use super::{Context, Strategy};

pub(super) struct Endpoints;

impl Strategy for Endpoints {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "endpoints")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        for subset in items_mut(value, "subsets") {
            items_mut(subset, "ports").for_each(|port| fill(port, "protocol", "TCP"));
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let path = Path::new("subsets");
        for (i, subset) in items(new, "subsets").iter().enumerate() {
            let path = path.index(i);
            if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for key in ["addresses", "notReadyAddresses"] {
                let path = path.child(key);
                for (i, address) in items(subset, key).iter().enumerate() {
                    validate_address(address, &path.index(i), errors);
                }
            }
            let ports = items(subset, "ports");
            let ports_path = path.child("ports");
            for (i, port) in ports.iter().enumerate() {
                validate_port(port, ports.len() > 1, &ports_path.index(i), errors);
            }
        }
    }

    fn warnings(&self, _ctx: &Context<'_>, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
    }
}

fn validate_address(address: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ip = text(address, "ip");
    errors.ip(&path.child("ip"), ip);
    let hostname = text(address, "hostname");
    if !hostname.is_empty() {
        errors.label(&path.child("hostname"), hostname);
    }
    if let Some(node) = address.str_at(&["nodeName"]) {
        errors.subdomain(&path.child("nodeName"), node);
    }
    special_ip(ip, &path.child("ip"), errors);
}

fn validate_port(port: &Value, needs_name: bool, path: &Path<'_>, errors: &mut Errors) {
    match text(port, "name") {
        "" if needs_name => errors.required(&path.child("name"), ""),
        "" => {}
        name => errors.label(&path.child("name"), name),
    }
    errors.port(&path.child("port"), int(port, "port"));
    errors.needs_one_of(&path.child("protocol"), text(port, "protocol"), &PROTOCOLS);
    if let Some(protocol) = port.str_at(&["appProtocol"]) {
        errors.qualified(&path.child("appProtocol"), protocol);
    }
}
