//! From CRI's words to OCI's: the configuration that libcontainer runs, and what the shim's executor adds.

mod devices;
mod mounts;
mod process;
pub(crate) mod program;
pub(crate) mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use linux::cgroup::{DeviceRule, Hierarchies, Limits};
use linux::process::Capabilities;
use serde_json::{Value, json};
use shim::protocol::Execution;

use cri::paths::{MASKED, READ_ONLY};
use cri::v1::{
    ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption,
    SecurityProfile, security_profile::ProfileType,
};

use crate::error::Error;
use crate::image::ImageConfig;
use crate::record::UserRecord;
use crate::seccomp;

pub(crate) use process::stop_signal;

/// Everything a container is made from.
pub(crate) struct Ingredients<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) rootfs: &'a Path,
    pub(crate) user: &'a UserRecord,
    pub(crate) hierarchies: &'a Hierarchies,
    /// Where the images that are mounted as volumes lie, by their place among the container's mounts.
    pub(crate) images: &'a BTreeMap<usize, PathBuf>,
    pub(crate) sandbox: SandboxParts<'a>,
}

/// What the sandbox lends its containers.
pub(crate) struct SandboxParts<'a> {
    pub(crate) hostname: &'a str,
    /// The folder with its pinned namespaces.
    pub(crate) namespaces: PathBuf,
    /// The folder with `hostname`, `hosts`, `resolv.conf` and `shm`.
    pub(crate) folder: &'a Path,
    pub(crate) options: &'a NamespaceOption,
    /// A process in the pid namespace to join, if it is not to be a new one.
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) cgroup: &'a Path,
}

/// Which processes a container sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PidNamespace {
    /// Its own.
    New,
    /// The machine's.
    Host,
    /// Those of this process' namespace.
    Of(i32),
}

/// What a container is run with.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// OCI's configuration.
    pub(crate) oci: Value,
    pub(crate) execution: Execution,
    /// The profile to compile to [`Execution::seccomp`].
    pub(crate) seccomp: Option<seccomp::Source>,
    pub(crate) capabilities: Capabilities,
    /// Those that its program keeps although the user is not root.
    pub(crate) ambient: Capabilities,
    /// Where the control group lies.
    pub(crate) cgroup: PathBuf,
}

/// Prepares a container.
pub(crate) fn prepare(parts: &Ingredients<'_>) -> Result<Prepared, Error> {
    let config = parts.config;
    let linux = config.linux.clone().unwrap_or_default();
    let resources = linux.resources.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let privileged = security.privileged;
    let capabilities = process::capabilities(&security)?;
    let ambient = process::ambient(&security, capabilities)?;
    let mounts = mounts::mounts(parts, &security)?;
    let devices = devices::devices(config, privileged)?;
    let cgroup = parts.sandbox.cgroup.join(parts.id);
    let apparmor = apparmor(&security)?;
    reject_unsupported(config, &security)?;

    let oci = json!({
        "ociVersion": "1.0.2",
        "process": process::process(parts, &security)?,
        "root": {"path": parts.rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts.oci,
        "linux": {
            "cgroupsPath": Path::new("/").join(&cgroup),
            "namespaces": namespaces(parts),
            "devices": devices.nodes,
            "maskedPaths": paths(privileged, config, &security.masked_paths, &MASKED),
            "readonlyPaths": paths(privileged, config, &security.readonly_paths, &READ_ONLY),
            "rootfsPropagation": mounts.root_propagation,
        },
    });
    let execution = Execution {
        capabilities: Some(capabilities.0),
        ambient: ambient.0,
        seccomp: None,
        no_new_privileges: security.no_new_privs,
        oom_score_adj: Some(i32::try_from(resources.oom_score_adj).unwrap_or(0)),
        apparmor: if privileged { None } else { apparmor },
        cwd: process::cwd(config, parts.image),
        propagation: mounts.propagation,
    };
    Ok(Prepared {
        oci,
        execution,
        seccomp: if privileged { None } else { seccomp_source(&security)? },
        capabilities,
        ambient,
        cgroup,
    })
}

/// The devices the container may use.
pub(crate) fn device_rules(config: &ContainerConfig, privileged: bool) -> Result<Vec<DeviceRule>, Error> {
    Ok(devices::devices(config, privileged)?.rules)
}

/// A client that sends a security context means its lists, also when they are empty.
fn paths(privileged: bool, config: &ContainerConfig, given: &[String], default: &[&str]) -> Vec<String> {
    let said = config.linux.as_ref().is_some_and(|linux| linux.security_context.is_some());
    match (privileged, said) {
        (true, _) => Vec::new(),
        (false, true) => given.to_vec(),
        (false, false) => default.iter().map(|path| (*path).to_owned()).collect(),
    }
}

fn namespaces(parts: &Ingredients<'_>) -> Vec<Value> {
    let sandbox = &parts.sandbox;
    let mut all = vec![json!({"type": "mount"})];
    let pinned = |name: &str| sandbox.namespaces.join(name);
    if sandbox.options.network() != NamespaceMode::Node {
        all.push(json!({"type": "network", "path": pinned("net")}));
        all.push(json!({"type": "uts", "path": pinned("uts")}));
    }
    if sandbox.options.ipc() != NamespaceMode::Node {
        all.push(json!({"type": "ipc", "path": pinned("ipc")}));
    }
    match sandbox.pid_namespace {
        PidNamespace::New => all.push(json!({"type": "pid"})),
        PidNamespace::Of(pid) => all.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
        PidNamespace::Host => {}
    }
    if mounts::has_private_cgroups(parts.hierarchies) {
        all.push(json!({"type": "cgroup"}));
    }
    all
}

fn seccomp_source(security: &LinuxContainerSecurityContext) -> Result<Option<seccomp::Source>, Error> {
    let Some(SecurityProfile { localhost_ref, .. }) = &security.seccomp else { return Ok(None) };
    match security.seccomp.as_ref().map(SecurityProfile::profile_type) {
        Some(ProfileType::RuntimeDefault) => Ok(Some(seccomp::Source::RuntimeDefault)),
        Some(ProfileType::Localhost) if localhost_ref.is_empty() => {
            Err(Error::Invalid("seccomp config error: localhost profile needs a file".to_owned()))
        }
        Some(ProfileType::Localhost) => {
            let path = localhost_ref.strip_prefix("localhost/").unwrap_or(localhost_ref);
            Ok(Some(seccomp::Source::Localhost(path.into())))
        }
        Some(ProfileType::Unconfined) | None => Ok(None),
    }
}

/// The AppArmor profile that was asked for by name; it must not be passed over in silence. The runtime's own is nothing here:
/// this runtime brings none. Upstream: containerd's `generateApparmorSpecOpts`.
fn apparmor(security: &LinuxContainerSecurityContext) -> Result<Option<String>, Error> {
    let by_field = security.apparmor.as_ref().filter(|profile| profile.profile_type() == ProfileType::Localhost);
    #[allow(deprecated)]
    let old = security.apparmor_profile.as_str();
    let named = by_field.map(|profile| profile.localhost_ref.as_str()).or_else(|| old.strip_prefix("localhost/"));
    let Some(name) = named.map(|name| name.strip_prefix("localhost/").unwrap_or(name)) else { return Ok(None) };
    let failed = |why: String| Error::Unsupported(format!("failed to generate apparmor spec opts: {why}"));
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|answer| answer.starts_with('Y')) {
        return Err(failed("apparmor is not supported".to_owned()));
    }
    let loaded = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    // Each line is a name and a mode in parentheses.
    let known = loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name));
    if known { Ok(Some(name.to_owned())) } else { Err(failed(format!("apparmor profile not found {name}"))) }
}

fn reject_unsupported(config: &ContainerConfig, security: &LinuxContainerSecurityContext) -> Result<(), Error> {
    let unsupported = |what: &str| Err(Error::Unsupported(format!("{what} not supported by this runtime")));
    let mapped = config.mounts.iter().any(|mount| !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty());
    let userns = security.namespace_options.as_ref().and_then(|options| options.userns_options.as_ref());
    if mapped || userns.is_some_and(|userns| userns.mode() == NamespaceMode::Pod) {
        return unsupported("user namespaces are");
    }
    Ok(())
}

/// The control group's limits for CRI's resources. Upstream: containerd's `WithResources`.
pub(crate) fn limits(resources: &LinuxContainerResources) -> Limits {
    let positive = |value: i64| (value > 0).then_some(value);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let memory = (resources.memory_limit_in_bytes != 0).then_some(resources.memory_limit_in_bytes);
    let swap = (resources.memory_swap_limit_in_bytes != 0).then_some(resources.memory_swap_limit_in_bytes);
    Limits {
        cpu_shares: positive(resources.cpu_shares).map(|shares| shares as u64),
        cpu_quota: (resources.cpu_quota != 0).then_some(resources.cpu_quota),
        cpu_period: positive(resources.cpu_period).map(|period| period as u64),
        memory,
        // Without a word about it there is none.
        memory_swap: swap.or(memory),
        pids: None,
        cpuset_cpus: text(&resources.cpuset_cpus),
        cpuset_mems: text(&resources.cpuset_mems),
        hugepages: resources.hugepage_limits.iter().map(|page| (page.page_size.clone(), page.limit)).collect(),
        unified: resources.unified.iter().map(|(file, value)| (file.clone(), value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests;
