//! What a pod's author may leave out. Upstream: pkg/apis/core/v1/defaults.go.

use apimachinery::{Quantity, Value};

use super::super::field::{entries, fill, fill_absent, flag, items, items_mut, text};
use super::resources::{aggregate_requests, is_hugepages, is_pod_level};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const FILE_MODE: i64 = 0o644;

/// A pod: its spec, and what templates do not get.
pub(crate) fn pod(value: &mut Value) {
    if let Some(status) = value.get_mut("status") {
        addresses(status);
    }
    let Some(spec) = value.get_mut("spec") else { return };
    self::spec(spec);
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
        }
    }
    pod_level(spec);
    fill_absent(spec, "enableServiceLinks", true);
    if flag(spec, "hostNetwork") {
        for list in ["containers", "initContainers"] {
            for port in items_mut(spec, list).flat_map(|container| items_mut(container, "ports")) {
                let number = port.i64_at(&["containerPort"]).unwrap_or_default();
                if number != 0 {
                    fill(port, "hostPort", number);
                }
            }
        }
    }
}

/// `podIP` is the first of `podIPs`, and counts where they differ. Upstream: Convert_v1_PodStatus_To_core_PodStatus.
fn addresses(status: &mut Value) {
    let (single, first) = (text(status, "podIP").to_owned(), items(status, "podIPs").first());
    let first = first.and_then(|address| address.str_at(&["ip"])).unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        status.set(&["podIP"], first);
    } else if single != first {
        let mut address = Value::object();
        address.set(&["ip"], single);
        status.set(&["podIPs"], vec![address]);
    }
}

/// A pod template, wherever it is.
pub(crate) fn template(value: &mut Value) {
    if let Some(spec) = value.get_mut("spec") {
        self::spec(spec);
    }
}

/// A pod's or a template's spec.
pub(crate) fn spec(spec: &mut Value) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill_absent(spec, "securityContext", Value::object());
    fill_absent(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    // `serviceAccount` is the older name of `serviceAccountName`; what is stored has both.
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !account.is_empty() && text(spec, "serviceAccount") != account || text(spec, "serviceAccountName") != account {
        let account = account.to_owned();
        spec.set(&["serviceAccountName"], account.as_str());
        spec.set(&["serviceAccount"], account);
    }
    for list in CONTAINERS {
        items_mut(spec, list).for_each(container);
    }
    items_mut(spec, "volumes").for_each(volume);
}

fn container(container: &mut Value) {
    if text(container, "imagePullPolicy").is_empty() {
        let policy = pull_policy(text(container, "image"));
        container.set(&["imagePullPolicy"], policy);
    }
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key).filter(|probe| !probe.is_null()) {
            fill(probe, "timeoutSeconds", 1);
            fill(probe, "periodSeconds", 10);
            fill(probe, "successThreshold", 1);
            fill(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    for key in ["postStart", "preStop"] {
        if let Some(value) = container.at_mut(&["lifecycle", key]) {
            handler(value);
        }
    }
    for port in items_mut(container, "ports") {
        fill(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(selector) = variable.at_mut(&["valueFrom", "fieldRef"]) {
            fill(selector, "apiVersion", "v1");
        }
    }
    for list in ["requests", "limits"] {
        if let Some(list) = container.at_mut(&["resources", list]) {
            round_up(list);
        }
    }
}

/// Upstream: SetDefaults_ResourceList.
fn round_up(list: &mut Value) {
    for (_, quantity) in list.as_object_mut().into_iter().flat_map(|map| map.iter_mut()) {
        let fine = quantity.as_str().is_some_and(|text| text.ends_with(['n', 'u']) || text.contains(['.', 'e', 'E']));
        if !fine {
            continue;
        }
        if let Some(Ok(parsed)) = Quantity::from_value(quantity)
            && Quantity::from_milli(parsed.milli_value()) != parsed
            && parsed.milli_value() < i64::MAX
        {
            *quantity = Quantity::from_milli(parsed.milli_value()).to_string().into();
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet").filter(|http| !http.is_null()) {
        fill(http, "path", "/");
        fill(http, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc").filter(|grpc| !grpc.is_null()) {
        fill_absent(grpc, "service", "");
    }
}

fn volume(volume: &mut Value) {
    let has_source =
        volume.as_object().is_some_and(|map| map.iter().any(|(key, value)| key != "name" && !value.is_null()));
    if !has_source {
        volume.set(&["emptyDir"], Value::object());
        return;
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key).filter(|source| !source.is_null()) {
            fill_absent(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = volume.get_mut("hostPath").filter(|source| !source.is_null()) {
        fill_absent(source, "type", "");
    }
    if let Some(source) = volume.get_mut("image").filter(|source| !source.is_null())
        && text(source, "pullPolicy").is_empty()
    {
        let policy = pull_policy(text(source, "reference"));
        source.set(&["pullPolicy"], policy);
    }
    if let Some(source) = volume.get_mut("downwardAPI") {
        items_mut(source, "items").for_each(field_reference);
    }
    for source in volume.get_mut("projected").into_iter().flat_map(|projected| items_mut(projected, "sources")) {
        if let Some(downward) = source.get_mut("downwardAPI") {
            items_mut(downward, "items").for_each(field_reference);
        }
        if let Some(token) = source.get_mut("serviceAccountToken").filter(|token| !token.is_null()) {
            fill_absent(token, "expirationSeconds", 3600);
        }
    }
    if let Some(claim) = volume.at_mut(&["ephemeral", "volumeClaimTemplate", "spec"]) {
        fill_absent(claim, "volumeMode", "Filesystem");
    }
}

fn field_reference(file: &mut Value) {
    if let Some(selector) = file.get_mut("fieldRef").filter(|selector| !selector.is_null()) {
        fill(selector, "apiVersion", "v1");
    }
}

fn requests_from_limits(container: &mut Value) {
    let missing: Vec<(String, Value)> = container
        .at(&["resources", "limits"])
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|limits| limits.iter())
        .filter(|(name, _)| container.at(&["resources", "requests", name]).is_none())
        .map(|(name, limit)| (name.to_owned(), limit.clone()))
        .collect();
    for (name, limit) in missing {
        container.set(&["resources", "requests", &name], limit);
    }
}

/// Requests and limits of the pod as a whole, where it has some. Upstream: defaultPodRequests, defaultHugePagePodLimits.
fn pod_level(spec: &mut Value) {
    let Some(resources) = spec.get("resources").filter(|resources| !resources.is_null()) else { return };
    let mut requests: Vec<(String, Value)> = Vec::new();
    if entries(resources, "limits").next().is_some() {
        let known = |requests: &[(String, Value)], name: &str| {
            resources.at(&["requests", name]).is_some() || requests.iter().any(|(known, _)| known == name)
        };
        for (name, quantity) in aggregate_requests(items(spec, "containers"), items(spec, "initContainers")) {
            if is_pod_level(&name) && !is_hugepages(&name) && !known(&requests, &name) {
                requests.push((name, quantity.to_string().into()));
            }
        }
        for (name, limit) in entries(resources, "limits") {
            if is_pod_level(name) && !known(&requests, name) {
                requests.push((name.to_owned(), limit.clone()));
            }
        }
    }
    for (name, quantity) in requests {
        spec.set(&["resources", "requests", &name], quantity);
    }
}

/// `Always` for the tag `latest`, given or meant. Upstream: parsers.ParseImageName.
fn pull_policy(image: &str) -> &'static str {
    let (reference, digest) = match image.split_once('@') {
        Some((reference, _)) => (reference, true),
        None => (image, false),
    };
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let (name, tag) = match last.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (last, None),
    };
    let readable = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && tag.is_none_or(|tag| !tag.is_empty());
    match tag {
        Some("latest") if readable => "Always",
        None if readable && !digest => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn pull_policies_follow_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/a/nginx", "Always"),
            ("localhost:5000/a/nginx:v1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("nginx:latest@sha256:0123", "Always"),
            ("", "IfNotPresent"),
            ("NGINX", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
