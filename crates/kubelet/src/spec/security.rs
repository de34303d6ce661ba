//! Users, groups, namespaces, capabilities and filters. Upstream: pkg/kubelet/kuberuntime/security_context.go.

use std::path::Path;

use cri::paths::{MASKED, READ_ONLY};
use cri::v1::security_profile::ProfileType;
use cri::v1::{
    Capability, Image, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, UserNamespace,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use super::{SpecError, full_name, init_containers, spec};

pub(super) fn sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let context = spec(pod).security_context.clone().unwrap_or_default();
    let containers = spec(pod).containers.iter().chain(init_containers(pod));
    let privileged = containers.into_iter().any(is_privileged);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(number),
        run_as_group: context.run_as_group.map(number),
        readonly_rootfs: false,
        supplemental_groups: groups(&context),
        supplemental_groups_policy: groups_policy(&context).into(),
        privileged,
        seccomp: Some(profile(ProfileType::RuntimeDefault)),
        ..Default::default()
    }
}

/// The security context of a container; `image` says the user where the spec does not.
pub(super) fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    target: Option<&str>,
    profiles: &Path,
) -> Result<LinuxContainerSecurityContext, SpecError> {
    let of_pod = spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user);
    check_non_root(pod, container, &of_pod, &own, user, image)?;
    let mut namespace_options = namespaces(pod);
    if let Some(target) = target {
        namespace_options.pid = NamespaceMode::Target.into();
        namespace_options.target_id = target.to_owned();
    }
    let (run_as_user, run_as_username) = match (user, &image.uid) {
        (Some(user), _) => (Some(number(user)), String::new()),
        (None, Some(uid)) => (Some(*uid), String::new()),
        (None, None) => (None, image.username.clone()),
    };
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |all: &[&str]| if unmasked { Vec::new() } else { all.iter().map(|path| (*path).to_owned()).collect() };
    Ok(LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: is_privileged(container),
        namespace_options: Some(namespace_options),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_user,
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(number),
        run_as_username,
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(&of_pod),
        supplemental_groups_policy: groups_policy(&of_pod).into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        apparmor: own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref()).map(apparmor),
        seccomp: Some(seccomp(own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()), profiles)),
        ..Default::default()
    })
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged) == Some(true)
}

fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec(pod);
    let mode = |host: Option<bool>| if host == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: mode(spec.host_network).into(),
        pid: pid.into(),
        ipc: mode(spec.host_ipc).into(),
        target_id: String::new(),
        // Mappings are the runtime's to choose.
        userns_options: (spec.host_users == Some(false))
            .then(|| UserNamespace { mode: NamespaceMode::Pod.into(), ..UserNamespace::default() }),
    }
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    of_pod: &PodSecurityContext,
    own: &SecurityContext,
    user: Option<i64>,
    image: &Image,
) -> Result<(), SpecError> {
    if own.run_as_non_root.or(of_pod.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let (pod, container) = (full_name(pod), container.name.clone());
    match (user, &image.uid) {
        (Some(0), _) => Err(SpecError::UserBreaksPolicy { pod, container }),
        (Some(_), _) => Ok(()),
        (None, Some(uid)) if uid.value == 0 => Err(SpecError::ImageRunsAsRoot { pod, container }),
        (None, Some(_)) => Ok(()),
        (None, None) if image.username.is_empty() => Err(SpecError::ImageRunsAsRoot { pod, container }),
        (None, None) => Err(SpecError::UserUnknown { user: image.username.clone(), pod, container }),
    }
}

fn groups(context: &PodSecurityContext) -> Vec<i64> {
    let mut groups = context.supplemental_groups.clone().unwrap_or_default();
    groups.extend(context.fs_group);
    groups
}

fn groups_policy(context: &PodSecurityContext) -> SupplementalGroupsPolicy {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

fn seccomp(wanted: Option<&SeccompProfile>, profiles: &Path) -> SecurityProfile {
    match wanted.map(|wanted| wanted.type_.as_str()) {
        Some("RuntimeDefault") => profile(ProfileType::RuntimeDefault),
        Some("Localhost") => {
            let name = wanted.and_then(|wanted| wanted.localhost_profile.clone()).unwrap_or_default();
            let localhost_ref = profiles.join(name).to_string_lossy().into_owned();
            SecurityProfile { localhost_ref, ..profile(ProfileType::Localhost) }
        }
        _ => profile(ProfileType::Unconfined),
    }
}

fn apparmor(wanted: &AppArmorProfile) -> SecurityProfile {
    match wanted.type_.as_str() {
        "RuntimeDefault" => profile(ProfileType::RuntimeDefault),
        "Localhost" => SecurityProfile {
            localhost_ref: wanted.localhost_profile.clone().unwrap_or_default(),
            ..profile(ProfileType::Localhost)
        },
        _ => profile(ProfileType::Unconfined),
    }
}

fn profile(profile: ProfileType) -> SecurityProfile {
    SecurityProfile { profile_type: profile.into(), localhost_ref: String::new() }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

fn number(value: i64) -> Int64Value {
    Int64Value { value }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn run(pod: Json, own: Json, image: Image) -> Result<LinuxContainerSecurityContext, SpecError> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}}))
        .unwrap();
        container(&pod, &pod.spec.as_ref().unwrap().containers[0], &image, None, Path::new("/p"))
    }

    #[test]
    fn users_are_checked() {
        let check = |pod: Json, own: Json, image: Image, expect: Result<(Option<i64>, &str), &str>| {
            let found = run(pod.clone(), own.clone(), image).map_err(|error| error.to_string());
            let found = found.map(|found| (found.run_as_user.map(|user| user.value), found.run_as_username));
            let expect = expect.map(|(uid, name)| (uid, name.to_owned())).map_err(str::to_owned);
            assert_eq!(found, expect, "{pod} {own}");
        };
        let image =
            |uid: Option<i64>, name: &str| Image { uid: uid.map(number), username: name.into(), ..Image::default() };
        check(json!({}), json!({}), image(None, ""), Ok((None, "")));
        check(json!({}), json!({}), image(None, "redis"), Ok((None, "redis")));
        check(json!({"runAsUser": 5}), json!({"runAsUser": 6}), image(Some(7), ""), Ok((Some(6), "")));
        check(json!({"runAsNonRoot": true}), json!({}), image(Some(7), ""), Ok((Some(7), "")));
        check(
            json!({"runAsNonRoot": true}),
            json!({}),
            image(Some(0), ""),
            Err("container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"),
        );
        check(
            json!({"runAsNonRoot": true}),
            json!({"runAsUser": 0}),
            image(None, ""),
            Err("container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)"),
        );
        check(
            json!({}),
            json!({"runAsNonRoot": true}),
            image(None, "redis"),
            Err(
                "container has runAsNonRoot and image has non-numeric user (redis), cannot verify user is non-root (pod: \"p_n(u)\", container: c)",
            ),
        );
    }

    #[test]
    fn the_rest_is_taken_over() {
        let own = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "procMount": "Unmasked",
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}});
        let found = run(json!({"fsGroup": 3, "supplementalGroups": [2]}), own, Image::default()).unwrap();
        assert!(found.no_new_privs && found.readonly_rootfs && found.masked_paths.is_empty());
        assert_eq!(found.supplemental_groups, [2, 3]);
        assert_eq!(found.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(found.seccomp.unwrap().profile_type(), ProfileType::RuntimeDefault);
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
        let found = run(local, json!({}), Image::default()).unwrap();
        assert_eq!(found.seccomp.unwrap().localhost_ref, "/p/a/b.json");
        assert!(found.masked_paths.contains(&"/proc/kcore".to_owned()));
    }
}
