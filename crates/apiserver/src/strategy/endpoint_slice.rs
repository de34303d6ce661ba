//! EndpointSlice. Upstream: pkg/apis/discovery/validation.

use apimachinery::validation::{dns1123_label, ip_legacy};
use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, fill, fill_absent, immutable, items, items_mut, text};
use super::pod::containers::PROTOCOLS;
use super::service::special_ip;
use super::{Context, Strategy};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;

pub(super) struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn resource(&self) -> (&'static str, &'static str) {
        ("discovery.k8s.io", "endpointslices")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        for port in items_mut(value, "ports") {
            fill_absent(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let kind = text(new, "addressType");
        errors.needs_one_of(&Path::new("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
        ports(new, &Path::new("ports"), errors);
        endpoints(new, kind, &Path::new("endpoints"), errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        // Nothing else fits once the type is another.
        if new.get("addressType") == old.get("addressType") {
            self.validate(ctx, new, errors);
        }
        immutable(errors, &Path::new("addressType"), new.get("addressType"), old.get("addressType"));
    }
}

fn endpoints(slice: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let endpoints = items(slice, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return errors.add(FieldError::too_many(path.to_string(), endpoints.len(), MAX_ENDPOINTS));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(i);
        let addresses = items(endpoint, "addresses");
        let addresses_path = path.child("addresses");
        if addresses.is_empty() {
            errors.required(&addresses_path, "must contain at least 1 address");
        } else if addresses.len() > MAX_ADDRESSES {
            errors.add(FieldError::too_many(addresses_path.to_string(), addresses.len(), MAX_ADDRESSES));
        }
        for (i, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            let path = addresses_path.index(i);
            match kind {
                "IPv4" | "IPv6" => {
                    let valid = ip_legacy(address).is_empty() && address.contains(':') == (kind == "IPv6");
                    if !valid {
                        errors.invalid(&addresses_path, address, format!("must be an {kind} address"));
                        continue;
                    }
                    special_ip(address, &path, errors);
                }
                _ => errors.subdomain(&path, address),
            }
        }
        if let Some(node) = endpoint.str_at(&["nodeName"]) {
            errors.subdomain(&path.child("nodeName"), node);
        }
        if let Some(hostname) = endpoint.str_at(&["hostname"]) {
            errors.problems(&path.child("hostname"), hostname, dns1123_label(hostname));
        }
    }
}

fn ports(slice: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ports = items(slice, "ports");
    if ports.len() > MAX_PORTS {
        return errors.add(FieldError::too_many(path.to_string(), ports.len(), MAX_PORTS));
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.label(&path.child("name"), name);
        }
        if names.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        names.push(name);
        if let Some(number) = port.i64_at(&["port"]) {
            errors.port(&path.child("port"), number);
        }
        errors.needs_one_of(&path.child("protocol"), text(port, "protocol"), &PROTOCOLS);
        if let Some(protocol) = port.str_at(&["appProtocol"]) {
            errors.qualified(&path.child("appProtocol"), protocol);
        }
    }
}
