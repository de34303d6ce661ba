//! Containers of all three sorts.

use apimachinery::Value;
use apimachinery::validation::port_name;

use super::super::field::{Errors, Path, Report, flag, has, int, items, member, text};
use super::volumes::{descending_path, has_backsteps};
use super::{environment, probes, resources, security};

pub(crate) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// What containers are checked against.
pub(super) struct Surroundings<'a> {
    pub spec: &'a Value,
    pub volumes: &'a [&'a Value],
    pub grace: Option<i64>,
}

/// Upstream: validateContainers.
pub(super) fn regular(around: &Surroundings<'_>, path: &Path<'_>, errors: &mut Errors) {
    let containers = items(around.spec, "containers");
    if containers.is_empty() {
        return errors.required(path, "");
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(container, around, &path, errors);
        let name = text(container, "name");
        if names.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        names.push(name);
        probes::of_container(container, around.grace, &path, errors);
        restart_policy(container, &path, errors);
    }
    let mut taken = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        host_ports(container, &path.index(i), &mut taken, errors);
    }
}

/// Upstream: validateInitContainers.
pub(super) fn init(around: &Surroundings<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut names: Vec<&str> =
        items(around.spec, "containers").iter().map(|container| text(container, "name")).collect();
    for (i, container) in items(around.spec, "initContainers").iter().enumerate() {
        let here = path.index(i);
        common(container, around, &here, errors);
        restart_policy(container, &here, errors);
        let name = text(container, "name");
        if names.contains(&name) {
            errors.duplicate(&here.child("name"), name);
        } else if !name.is_empty() {
            names.push(name);
        }
        // They run one after the other, so each is checked alone; upstream names all of them by the first index.
        host_ports(container, &path.index(0), &mut Vec::new(), errors);
        if text(container, "restartPolicy") == "Always" {
            probes::of_container(container, around.grace, &here, errors);
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(container, key) {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(&here.child(key), why);
            }
        }
    }
}

/// Upstream: validateEphemeralContainers.
pub(super) fn ephemeral(around: &Surroundings<'_>, path: &Path<'_>, errors: &mut Errors) {
    let others: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| items(around.spec, list))
        .map(|container| text(container, "name"))
        .collect();
    let mut names = others.clone();
    for (i, container) in items(around.spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        common(container, around, &path, errors);
        trimmed_image(container, &path, errors);
        let name = text(container, "name");
        if names.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        names.push(name);
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        for key in
            ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy", "restartPolicy"]
        {
            if has(container, key) {
                errors.forbidden(&path.child(key), EPHEMERAL);
            }
        }
        let resources = member(container, "resources").and_then(Value::as_object);
        if resources.is_some_and(|resources| !resources.is_empty()) {
            errors.forbidden(&path.child("resources"), EPHEMERAL);
        }
        let mounts = path.child("volumeMounts");
        for (i, mount) in items(container, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"].into_iter().filter(|key| !text(mount, key).is_empty()) {
                let mount = mounts.index(i);
                errors.forbidden(&mount.child(key), EPHEMERAL);
            }
        }
    }
}

/// What pods are checked for and templates are not. Upstream: validateContainerOnlyForPod.
pub(super) fn trimmed_image(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let image = text(container, "image");
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

/// Upstream: validateContainerCommon.
fn common(container: &Value, around: &Surroundings<'_>, path: &Path<'_>, errors: &mut Errors) {
    match text(container, "name") {
        "" => errors.required(&path.child("name"), ""),
        name => errors.label(&path.child("name"), name),
    }
    errors.needs(path, container, "image");
    let policy = text(container, "terminationMessagePolicy");
    errors.needs_one_of(&path.child("terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"]);
    ports(container, &path.child("ports"), errors);
    environment::validate(container, path, errors);
    volume_mounts(container, around.volumes, &path.child("volumeMounts"), errors);
    volume_devices(container, around.volumes, &path.child("volumeDevices"), errors);
    let policy = text(container, "imagePullPolicy");
    errors.needs_one_of(&path.child("imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    if let Some(value) = member(container, "resources") {
        resources::requirements(value, items(around.spec, "resourceClaims"), &path.child("resources"), errors);
    }
    resize_policy(container, text(around.spec, "restartPolicy"), &path.child("resizePolicy"), errors);
    let host_users = security::uses_host_users(around.spec);
    security::of_container(container, host_users, &path.child("securityContext"), errors);
}

fn restart_policy(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rules = items(container, "restartPolicyRules");
    match container.str_at(&["restartPolicy"]) {
        Some(policy) => errors.one_of(&path.child("restartPolicy"), policy, &RESTART_POLICIES),
        None if !rules.is_empty() => {
            errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        None => {}
    }
    let path = path.child("restartPolicyRules");
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        errors.needs_one_of(&path.child("action"), text(rule, "action"), &["Restart", "RestartAllContainers"]);
        let codes = path.child("exitCodes");
        match member(rule, "exitCodes") {
            None => errors.required(&codes, "must be specified"),
            Some(value) => errors.needs_one_of(&codes.child("operator"), text(value, "operator"), &["In", "NotIn"]),
        }
    }
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in items(container, "ports").iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let problems = port_name(name);
            if !problems.is_empty() {
                errors.problems(&path.child("name"), name, problems);
            } else if names.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            } else {
                names.push(name);
            }
        }
        match int(port, "containerPort") {
            0 => errors.required(&path.child("containerPort"), ""),
            number => errors.port(&path.child("containerPort"), number),
        }
        match int(port, "hostPort") {
            0 => {}
            number => errors.port(&path.child("hostPort"), number),
        }
        errors.needs_one_of(&path.child("protocol"), text(port, "protocol"), &PROTOCOLS);
    }
}

fn host_ports(container: &Value, path: &Path<'_>, taken: &mut Vec<String>, errors: &mut Errors) {
    let path = path.child("ports");
    for (i, port) in items(container, "ports").iter().enumerate().filter(|(_, port)| int(port, "hostPort") != 0) {
        let key = format!("{}/{}/{}", text(port, "protocol"), text(port, "hostIP"), int(port, "hostPort"));
        if taken.contains(&key) {
            let path = path.index(i);
            errors.duplicate(&path.child("hostPort"), key.as_str());
        } else {
            taken.push(key);
        }
    }
}

/// Upstream: ValidateVolumeMounts; it names some fields without the mount's index.
fn volume_mounts(container: &Value, volumes: &[&Value], path: &Path<'_>, errors: &mut Errors) {
    let devices = items(container, "volumeDevices");
    let mut points: Vec<&str> = Vec::new();
    for (i, mount) in items(container, "volumeMounts").iter().enumerate() {
        let here = path.index(i);
        let (name, point) = (text(mount, "name"), text(mount, "mountPath"));
        errors.needs(&here, mount, "name");
        let volume = volumes.iter().find(|volume| text(volume, "name") == name);
        if volume.is_none() {
            errors.not_found(&here.child("name"), name);
        }
        errors.needs(&here, mount, "mountPath");
        if points.contains(&point) {
            errors.invalid(&here.child("mountPath"), point, "must be unique");
        }
        points.push(point);
        if devices.iter().any(|device| text(device, "name") == name) {
            errors.invalid(&here.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| text(device, "devicePath") == point) {
            errors.invalid(&here.child("mountPath"), point, "must not already exist as a path in volumeDevices");
        }
        sub_path(mount, volume.is_some_and(|volume| has(volume, "image")), path, &here, errors);
        if let Some(mode) = mount.str_at(&["mountPropagation"]) {
            let path = path.child("mountPropagation");
            errors.one_of(&path, mode, &["Bidirectional", "HostToContainer", "None"]);
            if mode == "Bidirectional" && container.bool_at(&["securityContext", "privileged"]) != Some(true) {
                let why = "Bidirectional mount propagation is available only to privileged containers";
                errors.forbidden(&path, why);
            }
        }
        recursive_read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
}

fn sub_path(mount: &Value, of_image: bool, list: &Path<'_>, here: &Path<'_>, errors: &mut Errors) {
    let (plain, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !plain.is_empty() {
        descending_path(plain, &list.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&here.child("subPathExpr"), expression, why);
        }
        descending_path(expression, &list.child("subPathExpr"), errors);
    }
    // Images support `subPath` since 1.33, but not expressions that leave the image.
    if of_image && has_backsteps(expression) {
        errors.invalid(&here.child("subPathExpr"), expression, "not allowed in image volume sources");
    }
}

fn recursive_read_only(mount: &Value, path: &Path<'_>, errors: &mut Errors) {
    match mount.str_at(&["recursiveReadOnly"]) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                errors.forbidden(path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn volume_devices(container: &Value, volumes: &[&Value], path: &Path<'_>, errors: &mut Errors) {
    let mounts = items(container, "volumeMounts");
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = Default::default();
    for (i, device) in items(container, "volumeDevices").iter().enumerate() {
        let path = path.index(i);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        errors.needs(&path, device, "name");
        if names.contains(&name) {
            errors.invalid(&path.child("name"), name, "must be unique");
        }
        match volumes.iter().find(|volume| text(volume, "name") == name) {
            None => errors.not_found(&path.child("name"), name),
            Some(volume) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&path.child("name"), name, why);
            }
            Some(_) => {}
        }
        errors.needs(&path, device, "devicePath");
        if paths.contains(&target) {
            errors.invalid(&path.child("devicePath"), target, "must be unique");
        }
        if has_backsteps(target) {
            errors.invalid(&path.child("devicePath"), target, "can not contain backsteps ('..')");
        } else {
            paths.push(target);
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == target) {
            errors.invalid(&path.child("devicePath"), target, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
}

fn resize_policy(container: &Value, pod_policy: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, policy) in items(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if seen.contains(&resource) {
            errors.duplicate(&path.index(i), resource);
        }
        seen.push(resource);
        errors.needs_one_of(path, resource, &["cpu", "memory"]);
        errors.needs_one_of(path, restart, &["NotRequired", "RestartContainer"]);
        if pod_policy == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}
