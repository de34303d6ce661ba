//! What a Service must satisfy. Upstream: validation.ValidateService and what it calls.

use apimachinery::validation::{cidr_legacy, dns1123_subdomain, ip, ip_legacy, validate_labels};
use apimachinery::{FieldError, Value};

use super::super::field::{Errors, Path, Report, has, int, items, member, text};
use super::super::pod::containers::PROTOCOLS;
use super::{is_balanced, is_externally_accessible, is_headless, needs_cluster_ip, needs_health_check};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const BALANCED_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const FIXED: &str = "may not change once set";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const AFFINITY_MAX: i64 = 86400;

pub(super) fn service(service: &Value, errors: &mut Errors) {
    let empty = Value::object();
    let spec = service.get("spec").unwrap_or(&empty);
    let path = Path::new("spec");
    let kind = text(spec, "type");
    if items(spec, "ports").is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let addresses = path.child("clusterIPs");
            errors.invalid(&addresses.index(0), "None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => external_name(spec, &path, errors),
        _ => {}
    }
    ports(spec, &path.child("ports"), errors);
    errors.extend(validate_labels(spec.get("selector"), "spec.selector"));
    session_affinity(spec, &path, errors);
    errors.extend(cluster_ips(spec));
    let external = path.child("externalIPs");
    for (i, address) in items(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate() {
        let path = external.index(i);
        if errors.ip(&path, address) {
            special_ip(address, &path, errors);
        }
    }
    errors.needs_one_of(&path.child("type"), kind, &TYPES);
    node_ports(spec, kind, &path.child("ports"), errors);
    source_ranges(service, spec, &path, errors);
    match (has(spec, "allocateLoadBalancerNodePorts"), is_balanced(spec)) {
        (true, false) => errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), BALANCED_ONLY),
        (false, true) => errors.required(&Path::new("allocateLoadBalancerNodePorts"), ""),
        _ => {}
    }
    if let Some(class) = spec.str_at(&["loadBalancerClass"]) {
        let path = path.child("loadBalancerClass");
        if is_balanced(spec) { errors.qualified(&path, class) } else { errors.forbidden(&path, BALANCED_ONLY) }
    }
    traffic(spec, &path, errors);
}

fn external_name(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const WHY: &str = "may not be set for ExternalName services";
    for key in ["clusterIPs", "ipFamilies"] {
        if !items(spec, key).is_empty() {
            errors.forbidden(&path.child(key), WHY);
        }
    }
    if has(spec, "ipFamilyPolicy") {
        errors.forbidden(&path.child("ipFamilyPolicy"), WHY);
    }
    let name = text(spec, "externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.required(&path.child("externalName"), ""),
        name => errors.subdomain(&path.child("externalName"), name),
    }
}

fn ports(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ports = items(spec, "ports");
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.label(&path.child("name"), name);
            if names.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            names.push(name);
        } else if ports.len() > 1 {
            errors.required(&path.child("name"), "");
        }
        errors.port(&path.child("port"), int(port, "port"));
        errors.needs_one_of(&path.child("protocol"), text(port, "protocol"), &PROTOCOLS);
        errors.port_or_name(&path.child("targetPort"), member(port, "targetPort"));
        if let Some(protocol) = port.str_at(&["appProtocol"]) {
            errors.qualified(&path.child("appProtocol"), protocol);
        }
    }
}

fn node_ports(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let ports = items(spec, "ports");
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| int(port, "nodePort") != 0) {
            let path = path.index(i);
            errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let same =
        |a: &Value, b: &Value, key: &str| int(a, key) == int(b, key) && text(a, "protocol") == text(b, "protocol");
    for (i, port) in ports.iter().enumerate().filter(|(_, port)| int(port, "nodePort") != 0) {
        if ports[..i].iter().any(|earlier| same(earlier, port, "nodePort")) {
            let path = path.index(i);
            errors.duplicate(&path.child("nodePort"), int(port, "nodePort"));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if ports[..i].iter().any(|earlier| same(earlier, port, "port")) {
            let mut error = FieldError::duplicate(path.index(i).to_string(), "");
            // Shown as upstream's internal type, in its order.
            error.shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{:?},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                text(port, "protocol"),
                int(port, "port")
            );
            errors.add(error);
        }
    }
}

fn session_affinity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(spec, "sessionAffinity");
    errors.needs_one_of(&path.child("sessionAffinity"), kind, &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig");
    let seconds = spec.i64_at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
    let client = path.child("clientIP");
    match (kind, seconds) {
        ("ClientIP", Some(seconds)) if !(1..=AFFINITY_MAX).contains(&seconds) => {
            let why = format!("must be greater than 0 and less than {AFFINITY_MAX}");
            errors.invalid(&client.child("timeoutSeconds"), seconds, why);
        }
        ("ClientIP", None) => errors.required(&path, "when session affinity type is ClientIP"),
        ("None", _) if has(spec, "sessionAffinityConfig") => {
            errors.forbidden(&path, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` together. Upstream: ValidateServiceClusterIPsRelatedFields.
pub(super) fn cluster_ips(spec: &Value) -> Errors {
    let mut errors = Errors::new();
    if text(spec, "type") == "ExternalName" {
        return errors;
    }
    let path = Path::new("spec");
    let (addresses_path, families_path) = (path.child("clusterIPs"), path.child("ipFamilies"));
    let addresses: Vec<&str> = items(spec, "clusterIPs").iter().filter_map(Value::as_str).collect();
    let shown = || items(spec, "clusterIPs").to_vec();
    match (text(spec, "clusterIP"), addresses.first()) {
        ("", None) => {}
        ("", Some(_)) => errors.invalid(&addresses_path, shown(), "must be empty when `clusterIP` is not specified"),
        (_, None) => errors.required(&addresses_path, ""),
        (single, Some(first)) if single != *first => {
            errors.invalid(&addresses_path, shown(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families: Vec<&str> = items(spec, "ipFamilies").iter().filter_map(Value::as_str).collect();
    for (i, family) in families.iter().enumerate() {
        errors.one_of(&families_path.index(i), family, &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            errors.duplicate(&families_path.index(i), *family);
        }
    }
    if let Some(policy) = spec.str_at(&["ipFamilyPolicy"]) {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.one_of(&path.child("ipFamilyPolicy"), policy, &known);
    }
    let mut readable = true;
    for (i, address) in addresses.iter().enumerate() {
        if i == 0 && *address == "None" {
            if addresses.len() > 1 {
                readable = false;
                errors.invalid(&addresses_path, shown(), "'None' must be the first and only value");
            }
            continue;
        }
        readable &= errors.ip(&addresses_path.index(i), address);
    }
    if addresses.len() > 2 {
        errors.invalid(&addresses_path, shown(), "may only hold up to 2 values");
    }
    if !readable {
        return errors;
    }
    let sixes = addresses.iter().filter(|address| address.contains(':')).count();
    if addresses.len() > 1 && (sixes == 0 || sixes == addresses.len()) {
        errors.invalid(&addresses_path, shown(), "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return errors;
    }
    for (i, (address, family)) in addresses.iter().zip(&families).enumerate() {
        if (*family == "IPv6") != address.contains(':') && matches!(*family, "IPv4" | "IPv6") {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&addresses_path.index(i), *address, why);
        }
    }
    errors
}

fn source_ranges(service: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ranges = items(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        let path = path.child("LoadBalancerSourceRanges");
        if !is_balanced(spec) {
            errors.forbidden(&path, BALANCED_ONLY);
        }
        for (i, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
            errors.problems(&path.index(i), range.trim(), cidr_legacy(range.trim()));
        }
    } else if let Some(value) = service.str_at(&["metadata", "annotations", SOURCE_RANGES]) {
        let metadata = Path::new("metadata");
        let annotations = metadata.child("annotations");
        let path = annotations.key(SOURCE_RANGES);
        if !is_balanced(spec) {
            errors.forbidden(&path, BALANCED_ONLY);
        }
        for range in value.trim().split(',').map(str::trim).filter(|_| !value.trim().is_empty()) {
            errors.problems(&path, range, cidr_legacy(range));
        }
    }
}

fn traffic(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let external = text(spec, "externalTrafficPolicy");
    let external_path = path.child("externalTrafficPolicy");
    if is_externally_accessible(spec) {
        errors.needs_one_of(&external_path, external, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        errors.invalid(&external_path, external, "may only be set for externally-accessible services");
    }
    let port = int(spec, "healthCheckNodePort");
    if port != 0 {
        let path = path.child("healthCheckNodePort");
        if needs_health_check(spec) {
            errors.port(&path, port);
        } else {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&path, port, why);
        }
    }
    let internal = path.child("internalTrafficPolicy");
    match spec.str_at(&["internalTrafficPolicy"]) {
        Some(policy) => errors.one_of(&internal, policy, &["Cluster", "Local"]),
        None if needs_cluster_ip(spec) => errors.required(&internal, ""),
        None => {}
    }
    if let Some(distribution) = spec.str_at(&["trafficDistribution"]) {
        let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.one_of(&path.child("trafficDistribution"), distribution, &known);
    }
}

/// Addresses that make no sense as an endpoint. Upstream: ValidateNonSpecialIP.
pub(in crate::strategy) fn special_ip(address: &str, path: &Path<'_>, errors: &mut Errors) {
    let Ok(parsed) = address.parse::<std::net::IpAddr>() else {
        return errors.invalid(path, address, "must be a valid IP address");
    };
    if parsed.is_unspecified() {
        errors.invalid(path, address, format!("may not be unspecified ({address})"));
    }
    if parsed.is_loopback() {
        errors.invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match parsed {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        errors.invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// What an update may not change. Upstream: ValidateServiceUpdate.
pub(super) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let empty = Value::object();
    let (new, old) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
    let path = Path::new("spec");
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if !external(new) && !external(old) {
        addresses_stay(new, old, &path, errors);
        families_stay(new, old, &path, errors);
    }
    if is_balanced(new) && is_balanced(old) && new.get("loadBalancerClass") != old.get("loadBalancerClass") {
        let class = new.get("loadBalancerClass").cloned().unwrap_or_default();
        errors.invalid(&path.child("loadBalancerClass"), class, FIXED);
    }
    if needs_health_check(new)
        && needs_health_check(old)
        && int(new, "healthCheckNodePort") != int(old, "healthCheckNodePort")
    {
        errors.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
}

fn addresses_stay(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    if is_headless(new) && is_headless(old) {
        return;
    }
    let (after, before) = (items(new, "clusterIPs"), items(old, "clusterIPs"));
    let path_of = path.child("clusterIPs");
    if after.len() == before.len() {
        for (i, _) in before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after) {
            errors.invalid(&path_of.index(i), after.to_vec(), FIXED);
        }
        return;
    }
    match (before.first(), after.first()) {
        (Some(_), None) => errors.invalid(&path_of.index(0), Value::Null, "primary clusterIP can not be unset"),
        (Some(before), Some(after_first)) if before != after_first => {
            errors.invalid(&path_of.index(0), after.to_vec(), FIXED)
        }
        _ => {}
    }
    let single = text(new, "ipFamilyPolicy") == "SingleStack";
    if after.len() < before.len() && after.len() == 1 && !single {
        let policy = new.get("ipFamilyPolicy").cloned().unwrap_or_default();
        let why = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&path.child("ipFamilyPolicy"), policy, why);
    }
}

fn families_stay(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    if is_headless(new) || is_headless(old) {
        return;
    }
    let (after, before) = (items(new, "ipFamilies"), items(old, "ipFamilies"));
    // Families that were left out are filled in with the addresses' when they are allocated.
    if after.is_empty() {
        return;
    }
    let path_of = path.child("ipFamilies");
    let changed = before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
    for _ in changed {
        errors.invalid(&path_of.index(0), after.to_vec(), FIXED);
    }
    if after.len() < before.len() && text(new, "ipFamilyPolicy") != "SingleStack" {
        let policy = new.get("ipFamilyPolicy").cloned().unwrap_or_default();
        let why = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.invalid(&path.child("ipFamilyPolicy"), policy, why);
    }
}

/// Upstream: ValidateLoadBalancerStatus.
pub(super) fn status(service: &Value, errors: &mut Errors) {
    let points = service.items_at(&["status", "loadBalancer", "ingress"]);
    let status = Path::new("status");
    let balancer = status.child("loadBalancer");
    let path = balancer.child("ingress");
    if service.str_at(&["spec", "type"]) != Some("LoadBalancer") && !points.is_empty() {
        return errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (i, point) in points.iter().enumerate() {
        let path = path.index(i);
        let (address, mode) = (text(point, "ip"), point.str_at(&["ipMode"]));
        if !address.is_empty() {
            errors.problems(&path.child("ip"), address, ip_legacy(address));
        }
        let mode_path = path.child("ipMode");
        match mode {
            None if !address.is_empty() => errors.required(&mode_path, "must be specified when `ip` is set"),
            None => {}
            Some(_) if address.is_empty() => errors.forbidden(&mode_path, "may not be specified when `ip` is not set"),
            Some(mode) => errors.one_of(&mode_path, mode, &["Proxy", "VIP"]),
        }
        let name = text(point, "hostname");
        if !name.is_empty() {
            errors.problems(&path.child("hostname"), name, dns1123_subdomain(name));
            if ip_legacy(name).is_empty() {
                errors.invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address");
            }
        }
    }
}

/// Upstream: GetWarningsForService.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(spec) = new.get("spec") else { return warnings };
    if text(spec, "sessionAffinity") != "None" && is_headless(spec) {
        warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
    }
    if !text(spec, "externalName").is_empty() && text(spec, "type") != "ExternalName" {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    for key in ["clusterIPs", "externalIPs"] {
        for (i, address) in items(spec, key).iter().filter_map(Value::as_str).enumerate() {
            if address != "None" && ip_legacy(address).is_empty() && !ip(address).is_empty() && old.is_none() {
                warnings.push(format!("spec.{key}[{i}]: non-standard IP address {address:?} will be considered invalid in a future Kubernetes release"));
            }
        }
    }
    warnings
}
