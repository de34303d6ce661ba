//! Security contexts of pods and containers.

use apimachinery::Value;
use apimachinery::validation::user_id;

use super::super::field::{Errors, Path, Report, flag, has, items, member, text};
use super::volumes::descending_path;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Upstream: validatePodSpecSecurityContext.
pub(super) fn of_pod(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(context) = member(spec, "securityContext") else { return };
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context, key, path, errors);
    }
    for (i, group) in items(context, "supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or_default();
        let groups = path.child("supplementalGroups");
        for problem in user_id(group) {
            errors.invalid(&groups.index(i), group, problem);
        }
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    sysctls(context, spec, &path.child("sysctls"), errors);
    if let Some(policy) = context.str_at(&["fsGroupChangePolicy"]) {
        errors.one_of(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    profiles(context, path, errors);
    if let Some(policy) = context.str_at(&["supplementalGroupsPolicy"]) {
        errors.one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = context.str_at(&["seLinuxChangePolicy"]) {
        errors.one_of(&path.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
    }
}

/// Upstream: ValidateSecurityContext.
pub(super) fn of_container(container: &Value, host_users: bool, path: &Path<'_>, errors: &mut Errors) {
    let Some(context) = member(container, "securityContext") else { return };
    for key in ["runAsUser", "runAsGroup"] {
        id(context, key, path, errors);
    }
    if let Some(mount) = context.str_at(&["procMount"]) {
        errors.one_of(&path.child("procMount"), mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.invalid(&path.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(context, &path.child("seccompProfile"), errors);
    if context.bool_at(&["allowPrivilegeEscalation"]) == Some(false) {
        if flag(context, "privileged") {
            errors.invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if context.items_at(&["capabilities", "add"]).iter().any(|added| added.as_str() == Some("CAP_SYS_ADMIN")) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context, why);
        }
    }
    app_armor(context, &path.child("appArmorProfile"), errors);
}

/// What a user namespace of its own does not go together with. Upstream: validateHostUsers.
pub(super) fn host_users(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if spec.bool_at(&["hostUsers"]) != Some(false) {
        return;
    }
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, key) {
            errors.forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false");
        }
    }
}

/// What only the other operating system has. Upstream: validateOS, validateLinux.
pub(super) fn operating_system(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(os) = member(spec, "os") else { return };
    let name = text(os, "name");
    let os_path = path.child("os");
    if name.is_empty() {
        errors.required(&os_path.child("name"), "cannot be empty");
    } else {
        errors.one_of(&os_path, name, &["linux", "windows"]);
    }
    if name != "linux" {
        return;
    }
    let why = "windows options cannot be set for a linux pod";
    if spec.at(&["securityContext", "windowsOptions"]).is_some() {
        let context = path.child("securityContext");
        errors.forbidden(&context.child("windowsOptions"), why);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = path.child(list);
        for (i, container) in items(spec, list).iter().enumerate() {
            if container.at(&["securityContext", "windowsOptions"]).is_some() {
                let container = containers.index(i);
                let context = container.child("securityContext");
                errors.forbidden(&context.child("windowsOptions"), why);
            }
        }
    }
}

fn id(context: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    let Some(id) = context.i64_at(&[key]) else { return };
    for problem in user_id(id) {
        errors.invalid(&path.child(key), id, problem);
    }
}

fn profiles(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    seccomp(context, &path.child("seccompProfile"), errors);
    app_armor(context, &path.child("appArmorProfile"), errors);
}

fn seccomp(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(profile) = member(context, "seccompProfile") else { return };
    let kind = text(profile, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "type is required when seccompProfile is set");
    } else {
        errors.one_of(&path.child("type"), kind, &PROFILES);
    }
    let local = profile.str_at(&["localhostProfile"]);
    let path = path.child("localhostProfile");
    match (kind, local) {
        ("Localhost", None) => errors.required(&path, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(local)) => descending_path(local, &path, errors),
        (_, Some(_)) => errors.invalid(&path, profile, "can only be set when seccomp type is Localhost"),
        (_, None) => {}
    }
}

fn app_armor(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = member(context, "appArmorProfile") else { return };
    let (kind, local) = (text(profile, "type"), profile.str_at(&["localhostProfile"]));
    let local_path = path.child("localhostProfile");
    match (kind, local) {
        ("Localhost", None) => errors.required(&local_path, NEEDED),
        ("Localhost", Some(local)) if local.trim() != local => {
            errors.invalid(&local_path, local, "must not be padded with whitespace");
        }
        ("Localhost", Some("")) => errors.required(&local_path, NEEDED),
        ("RuntimeDefault" | "Unconfined", Some(local)) => {
            errors.invalid(&local_path, local, "can only be set when AppArmor type is Localhost");
        }
        ("Localhost" | "RuntimeDefault" | "Unconfined", _) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => errors.not_supported(&path.child("type"), other, &PROFILES),
    }
}

fn sysctls(context: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (i, sysctl) in items(context, "sysctls").iter().enumerate() {
        let name = text(sysctl, "name");
        let path = path.index(i);
        let path = path.child("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            errors.invalid(&path, name, format!("must have at most 253 characters and match regex {SYSCTL}"));
        } else if seen.contains(&name) {
            errors.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        let ipc = dotted.starts_with("fs.mqueue.")
            || ["kernel.shm", "kernel.msg", "kernel.sem"].iter().any(|known| dotted.starts_with(known));
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if flag(spec, "hostIPC") && ipc {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
        seen.push(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            matches!((bytes.first(), bytes.last()), (Some(a), Some(b)) if edge(*a) && edge(*b))
                && bytes.iter().all(|b| edge(*b) || matches!(b, b'-' | b'_'))
        })
}

/// Whether the pod's containers see the users of the node.
pub(super) fn uses_host_users(spec: &Value) -> bool {
    !has(spec, "hostUsers") || flag(spec, "hostUsers")
}
