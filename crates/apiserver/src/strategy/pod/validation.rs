//! What a pod and a pod template must satisfy. Upstream: pkg/apis/core/validation, ValidatePodSpec.

use apimachinery::Value;
use apimachinery::validation::{dns1123_label, dns1123_subdomain, ip_legacy, validate_annotations, validate_labels};

use super::super::field::{Errors, Path, Report, entries, flag, has, int, items, member, text};
use super::{containers, resources, scheduling, security, volumes};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod, at creation and at update alike. Upstream: validatePodMetadataAndSpec, without the metadata every object has.
pub(super) fn pod(pod: &Value, errors: &mut Errors) {
    let empty = Value::object();
    let spec = pod.get("spec").unwrap_or(&empty);
    let metadata = Path::new("metadata");
    annotations(pod, spec, &metadata.child("annotations"), errors);
    let path = Path::new("spec");
    self::spec(spec, pod.str_at(&["metadata", "name"]).unwrap_or_default(), true, &path, errors);
    if text(spec, "serviceAccountName").is_empty() {
        tokens_need_an_account(spec, &path.child("volumes"), errors);
    }
    for list in ["containers", "initContainers"] {
        let path = path.child(list);
        for (i, container) in items(spec, list).iter().enumerate() {
            containers::trimmed_image(container, &path.index(i), errors);
        }
    }
}

/// What only holds at creation. Upstream: ValidatePodCreate.
pub(super) fn creation(pod: &Value, errors: &mut Errors) {
    let empty = Value::object();
    let spec = pod.get("spec").unwrap_or(&empty);
    let path = Path::new("spec");
    if !items(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&path.child("nodeName"), why);
    }
}

/// A template found at `path`. Upstream: ValidatePodTemplateSpec.
pub(crate) fn template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let empty = Value::object();
    let spec = template.get("spec").unwrap_or(&empty);
    errors.extend(validate_labels(template.at(&["metadata", "labels"]), &path.child("labels").to_string()));
    let annotations_path = path.child("annotations");
    errors.extend(validate_annotations(template.at(&["metadata", "annotations"]), &annotations_path.to_string()));
    annotations(template, spec, &annotations_path, errors);
    let path = path.child("spec");
    self::spec(spec, "", false, &path, errors);
    if !items(spec, "ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.forbidden(&path.child("ephemeralContainers"), why);
    }
}

/// Upstream: ValidatePodSpecificAnnotations.
fn annotations(holder: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let annotation = |key: &str| holder.str_at(&["metadata", "annotations", key]);
    if let Some(value) = annotation(MIRROR).filter(|_| text(spec, "nodeName").is_empty()) {
        errors.invalid(&path.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(cost) = annotation(DELETION_COST) {
        let canonical =
            cost.parse::<i32>().is_ok() && !cost.starts_with('+') && (cost == "0" || !cost.starts_with('0'));
        if !canonical {
            errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
        }
    }
}

/// The spec of a pod (`is_pod`) or of a template. `name` is the pod's, where it is known.
pub(crate) fn spec(spec: &Value, name: &str, is_pod: bool, path: &Path<'_>, errors: &mut Errors) {
    let grace = spec.i64_at(&["terminationGracePeriodSeconds"]);
    if grace.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::validate(spec, name, &path.child("volumes"), errors);
    resource_claims(spec, &path.child("resourceClaims"), errors);
    let around = containers::Surroundings { spec, volumes: &volumes, grace };
    containers::regular(&around, &path.child("containers"), errors);
    containers::init(&around, &path.child("initContainers"), errors);
    containers::ephemeral(&around, &path.child("ephemeralContainers"), errors);
    resources::of_pod(spec, &path.child("resources"), errors);
    host_network_ports(spec, is_pod, &path.child("containers"), errors);
    let policy = text(spec, "restartPolicy");
    errors.needs_one_of(&path.child("restartPolicy"), policy, &["Always", "OnFailure", "Never"]);
    let policy = text(spec, "dnsPolicy");
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.needs_one_of(&path.child("dnsPolicy"), policy, &policies);
    errors.extend(validate_labels(spec.get("nodeSelector"), &path.child("nodeSelector").to_string()));
    security::of_pod(spec, &path.child("securityContext"), errors);
    scheduling::affinity(spec, &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    scheduling::gates(spec, path, errors);
    scheduling::topology_spread(spec, &path.child("topologySpreadConstraints"), errors);
    security::host_users(spec, path, errors);
    object_names(spec, path, errors);
    if let Some(seconds) = spec.i64_at(&["activeDeadlineSeconds"]) {
        for problem in apimachinery::validation::in_range(seconds, 1, i32::MAX.into()) {
            errors.invalid(&path.child("activeDeadlineSeconds"), seconds, problem);
        }
    }
    host_names(spec, path, errors);
    scheduling::tolerations(items(spec, "tolerations"), &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    if let Some(policy) = spec.str_at(&["preemptionPolicy"]) {
        let known = ["PreemptLowerPriority", "Never"];
        errors.needs_one_of(&path.child("preemptionPolicy"), policy, &known);
    }
    if let Some(overhead) = member(spec, "overhead") {
        let mut limits = Value::object();
        limits.set(&["limits"], overhead);
        resources::requirements(&limits, &[], &path.child("overhead"), errors);
    }
    security::operating_system(spec, path, errors);
}

/// A port that another of the same container is already.
fn duplicate_ports(at: &str, container: &Value, warnings: &mut Vec<String>) {
    let same = |a: &Value, b: &Value| {
        let of = |port: &Value, key: &str| port.get(key).cloned().unwrap_or_default();
        ["containerPort", "hostPort", "protocol", "hostIP"].iter().all(|key| of(a, key) == of(b, key))
    };
    let ports = items(container, "ports");
    for (j, port) in ports.iter().enumerate() {
        if let Some(first) = ports[..j].iter().position(|earlier| same(earlier, port)) {
            warnings.push(format!("{at}.ports[{j}]: duplicate port definition with {at}.ports[{first}]"));
        }
    }
}

/// Names of other objects.
fn object_names(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let subdomains = ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"];
    for key in subdomains {
        let name = text(spec, key);
        if !name.is_empty() || key == "runtimeClassName" && has(spec, key) {
            errors.problems(&path.child(key), name, dns1123_subdomain(name));
        }
    }
}

/// Names of the host.
fn host_names(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["hostname", "subdomain"] {
        let name = text(spec, key);
        if !name.is_empty() {
            errors.problems(&path.child(key), name, dns1123_label(name));
        }
    }
    if let Some(name) = spec.str_at(&["hostnameOverride"]) {
        let path = path.child("hostnameOverride");
        if name.len() > 64 {
            errors.add(apimachinery::FieldError::too_long(path.to_string(), 64));
        }
        errors.problems(&path, name, dns1123_subdomain(name));
    }
}

fn resource_claims(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, claim) in items(spec, "resourceClaims").iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if seen.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            errors.label(&path.child("name"), name);
            seen.push(name);
        }
        let (own, template) = (claim.str_at(&["resourceClaimName"]), claim.str_at(&["resourceClaimTemplateName"]));
        match (own, template) {
            (Some(_), Some(_)) => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&path, claim, why);
            }
            (None, None) => {
                errors.invalid(&path, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for (key, name) in [("resourceClaimName", own), ("resourceClaimTemplateName", template)] {
            if let Some(name) = name {
                errors.subdomain(&path.child(key), name);
            }
        }
    }
}

fn host_network_ports(spec: &Value, is_pod: bool, path: &Path<'_>, errors: &mut Errors) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (i, container) in items(spec, "containers").iter().enumerate() {
        let path = path.index(i);
        let path = path.child("ports");
        for (i, port) in items(container, "ports").iter().enumerate() {
            let (host, own) = (int(port, "hostPort"), int(port, "containerPort"));
            if (is_pod || host != 0) && host != own {
                let path = path.index(i);
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.child("hostPort"), host, why);
            }
        }
    }
}

fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let config = member(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        match config {
            None => return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if items(config, "nameservers").is_empty() => {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return errors.required(&path.child("nameservers"), why);
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let (servers, searches) = (items(config, "nameservers"), items(config, "searches"));
    let servers_path = path.child("nameservers");
    if servers.len() > 3 {
        errors.invalid(&servers_path, servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        errors.problems(&servers_path.index(i), server, ip_legacy(server));
    }
    let searches_path = path.child("searches");
    if searches.len() > 32 {
        errors.invalid(&searches_path, searches.to_vec(), "must not have more than 32 search paths");
    }
    let length: usize = searches.iter().filter_map(Value::as_str).map(|search| search.len() + 1).sum();
    if length > 2049 {
        let why = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&searches_path, searches.to_vec(), why);
    }
    for (i, search) in searches.iter().filter_map(Value::as_str).enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        // Underscores are allowed within, as in SRV names.
        errors.problems(&searches_path.index(i), search, dns1123_subdomain(&search.replace('_', "x")));
    }
    let options = path.child("options");
    for (i, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&options.index(i), "must not be empty");
        }
    }
}

fn host_aliases(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, alias) in items(spec, "hostAliases").iter().enumerate() {
        let path = path.index(i);
        errors.ip(&path.child("ip"), text(alias, "ip"));
        let names = path.child("hostnames");
        for (i, name) in items(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            errors.subdomain(&names.index(i), name);
        }
    }
}

fn tokens_need_an_account(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        for (j, source) in volume.items_at(&["projected", "sources"]).iter().enumerate() {
            if has(source, "serviceAccountToken") {
                let path = path.index(i);
                let path = path.child("projected");
                let path = path.child("sources");
                let path = path.index(j);
                let why = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&path.child("serviceAccountToken"), why);
            }
        }
    }
}

/// Advice for authors. Upstream: GetWarningsForPod.
pub(in super::super) fn warnings(pod: &Value, at: &str) -> Vec<String> {
    const SECCOMP_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const RENAMED: [(&str, &str); 5] = [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ];
    let mut warnings = Vec::new();
    let name = pod.str_at(&["metadata", "name"]).unwrap_or_default();
    let problems = dns1123_label(name);
    if at.is_empty() && !problems.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        ));
    }
    let Some(spec) = pod.get("spec") else { return warnings };
    for (key, _) in entries(spec, "nodeSelector") {
        if let Some((old, new)) = RENAMED.iter().find(|(old, _)| *old == key) {
            let since = if old.starts_with("failure") || old.ends_with("type") { "v1.17" } else { "v1.14" };
            warnings.push(format!("{at}spec.nodeSelector[{old}]: deprecated since {since}; use \"{new}\" instead"));
        }
    }
    if spec.i64_at(&["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{at}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        if has(volume, "gitRepo") {
            warnings
                .push(format!("{at}spec.volumes[{i}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"));
        }
    }
    if pod.at(&["metadata", "annotations", SECCOMP_ANNOTATION]).is_some() {
        warnings.push(format!(
            "{at}metadata.annotations[{SECCOMP_ANNOTATION}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"
        ));
    }
    for list in ["initContainers", "containers"] {
        for (i, container) in items(spec, list).iter().enumerate() {
            let variables = items(container, "env");
            for (j, variable) in variables.iter().enumerate() {
                let name = text(variable, "name");
                if variables[..j].iter().any(|earlier| text(earlier, "name") == name) {
                    warnings.push(format!(
                        "{at}spec.{list}[{i}].env[{j}]: hides previous definition of {name:?}, which may be dropped when using apply"
                    ));
                }
            }
            duplicate_ports(&format!("{at}spec.{list}[{i}]"), container, &mut warnings);
        }
    }
    warnings
}
