//! NetworkPolicy. Upstream: pkg/apis/networking v1 defaults, validation ValidateNetworkPolicySpec.

use apimachinery::validation::{cidr_legacy, port_name, validate_label_selector};
use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, fill, has, items, items_mut, member, text};
use super::{Context, Strategy};

pub(super) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn resource(&self) -> (&'static str, &'static str) {
        ("networking.k8s.io", "networkpolicies")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        for rules in ["ingress", "egress"] {
            for port in items_mut(spec, rules).flat_map(|rule| items_mut(rule, "ports")) {
                fill(port, "protocol", "TCP");
            }
        }
        if items(spec, "policyTypes").is_empty() {
            let mut types = vec!["Ingress"];
            if !items(spec, "egress").is_empty() {
                types.push("Egress");
            }
            spec.set(&["policyTypes"], types);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        if let Some(selector) = member(spec, "podSelector") {
            errors.extend(validate_label_selector(selector, "spec.podSelector", false));
        }
        for (key, peers) in [("ingress", "from"), ("egress", "to")] {
            let path = path.child(key);
            for (i, rule) in items(spec, key).iter().enumerate() {
                let path = path.index(i);
                let ports = path.child("ports");
                for (i, port) in items(rule, "ports").iter().enumerate() {
                    validate_port(port, &ports.index(i), errors);
                }
                let peers_path = path.child(peers);
                for (i, peer) in items(rule, peers).iter().enumerate() {
                    validate_peer(peer, &peers_path.index(i), errors);
                }
            }
        }
        let types: Vec<&str> = items(spec, "policyTypes").iter().filter_map(Value::as_str).collect();
        let path = path.child("policyTypes");
        if types.len() > 2 {
            errors.invalid(&path, items(spec, "policyTypes").to_vec(), "may not specify more than two policyTypes");
        }
        for (i, kind) in types.iter().enumerate() {
            errors.one_of(&path.index(i), kind, &["Ingress", "Egress"]);
        }
    }
}

fn validate_port(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(protocol) = port.str_at(&["protocol"]) {
        errors.one_of(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let end = port.i64_at(&["endPort"]);
    match member(port, "port") {
        Some(Value::String(name)) => {
            if end.is_some() {
                errors.invalid(&path.child("endPort"), end, "may not be specified when `port` is non-numeric");
            }
            errors.problems(&path.child("port"), name, port_name(name));
        }
        Some(number) => {
            let number = number.as_i64().unwrap_or_default();
            errors.port(&path.child("port"), number);
            if let Some(end) = end {
                if end < number {
                    // Upstream shows the port here.
                    errors.invalid(&path.child("endPort"), number, "must be greater than or equal to `port`");
                }
                errors.port(&path.child("endPort"), end);
            }
        }
        None if end.is_some() => {
            errors.invalid(&path.child("endPort"), end, "may not be specified when `port` is not specified");
        }
        None => {}
    }
}

fn validate_peer(peer: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = member(peer, key) {
            count += 1;
            errors.extend(validate_label_selector(selector, &path.child(key).to_string(), false));
        }
    }
    if let Some(block) = member(peer, "ipBlock") {
        let path = path.child("ipBlock");
        match block.str_at(&["cidr"]).unwrap_or_default() {
            "" => errors.required(&path.child("cidr"), ""),
            cidr => errors.problems(&path.child("cidr"), cidr, cidr_legacy(cidr)),
        }
        let except = path.child("except");
        let whole = text(block, "cidr");
        for (i, cidr) in items(block, "except").iter().filter_map(Value::as_str).enumerate() {
            let problems = cidr_legacy(cidr);
            if problems.is_empty() && cidr_legacy(whole).is_empty() && !is_within(cidr, whole) {
                errors.invalid(&except.index(i), cidr, "must be a strict subset of `cidr`");
            }
            errors.problems(&except.index(i), cidr, problems);
        }
    }
    match (count, has(peer, "ipBlock")) {
        (0, false) => errors.required(path, "must specify a peer"),
        (1.., true) => errors.forbidden(path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

/// Whether one block of addresses is a part of another, and not all of it.
fn is_within(part: &str, whole: &str) -> bool {
    let read = |block: &str| -> Option<(u128, u32, u32)> {
        let (address, bits) = block.split_once('/')?;
        let bits: u32 = bits.parse().ok()?;
        Some(match address.parse().ok()? {
            std::net::IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, bits, 32),
            std::net::IpAddr::V6(address) => (u128::from(address), bits, 128),
        })
    };
    let (Some((part, part_bits, width)), Some((whole, bits, other))) = (read(part), read(whole)) else { return true };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or_default();
    width == other && part_bits > bits && part & mask == whole & mask
}
