//! What a container sees of files besides its image's.

use std::fs;
use std::path::{Path, PathBuf};

use linux::cgroup::{Hierarchies, Version};
use serde_json::{Value, json};
use shim::protocol::Propagation;

use cri::v1::{LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode};

use super::Ingredients;
use crate::error::{Context, Error};

pub(super) struct Mounts {
    /// OCI's `mounts`.
    pub(super) oci: Vec<Value>,
    /// libcontainer changes no mount's propagation; the executor does.
    pub(super) propagation: Vec<(PathBuf, Propagation)>,
    /// OCI's `rootfsPropagation`.
    pub(super) root_propagation: &'static str,
}

/// Whether containers get a cgroup namespace of their own (upstream: on v2 only).
pub(super) fn has_private_cgroups(hierarchies: &Hierarchies) -> bool {
    hierarchies.version() == Version::V2
}

pub(super) fn mounts(parts: &Ingredients<'_>, security: &LinuxContainerSecurityContext) -> Result<Mounts, Error> {
    let config = parts.config;
    let wanted: Vec<PathBuf> = config.mounts.iter().map(|mount| normal(&mount.container_path)).collect();
    let is_wanted = |path: &str| wanted.iter().any(|wanted| wanted == Path::new(path));
    let access = if security.privileged { "rw" } else { "ro" };
    let mut oci = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", access]}),
    ];
    oci.retain(|mount| !mount["destination"].as_str().is_some_and(is_wanted));
    if !is_wanted("/sys") && !is_wanted("/sys/fs/cgroup") {
        oci.extend(cgroups(parts, access)?);
    }
    let mut own = Vec::new();
    let of_sandbox = |name: &str| parts.sandbox.folder.join(name);
    let root_access = if security.readonly_rootfs { "ro" } else { "rw" };
    for (path, name) in [("/etc/hostname", "hostname"), ("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf")] {
        if !is_wanted(path) {
            own.push((PathBuf::from(path), of_sandbox(name), root_access, Propagation::Private));
        }
    }
    if !is_wanted("/dev/shm") {
        let host = parts.sandbox.options.ipc() == NamespaceMode::Node;
        let source = if host { PathBuf::from("/dev/shm") } else { of_sandbox("shm") };
        own.push((PathBuf::from("/dev/shm"), source, "rw", Propagation::Private));
    }
    for (index, (mount, path)) in config.mounts.iter().zip(wanted).enumerate() {
        if let Some(image) = parts.images.get(&index) {
            own.push((path, image.clone(), "ro", Propagation::Private));
            continue;
        }
        let source = source(mount)?;
        let propagation = propagation(mount, &source)?;
        own.push((path, source, mount_access(mount)?, propagation));
    }
    // Outer folders before what lies in them; otherwise in the given order.
    own.sort_by_key(|(path, ..)| path.components().count());
    let bidirectional = own.iter().any(|(.., propagation)| *propagation == Propagation::Bidirectional);
    let mut changes = Vec::new();
    if bidirectional {
        changes.push((PathBuf::from("/"), Propagation::Private));
    }
    for (path, source, access, propagation) in own {
        oci.push(json!({"destination": path, "type": "bind", "source": source, "options": ["rbind", access]}));
        changes.push((path, propagation));
    }
    // Shared mounts stay shared with the machine until the executor sets each mount's own propagation.
    let root_propagation = if bidirectional { "shared" } else { "slave" };
    Ok(Mounts { oci, propagation: changes, root_propagation })
}

/// On v1 the library's own mount can be written to, so each hierarchy's folder of the container is bound by itself.
fn cgroups(parts: &Ingredients<'_>, access: &str) -> Result<Vec<Value>, Error> {
    const ROOT: &str = "/sys/fs/cgroup";
    if has_private_cgroups(parts.hierarchies) {
        let options = ["nosuid", "noexec", "nodev", "relatime", access];
        return Ok(vec![json!({"destination": ROOT, "type": "cgroup", "source": "cgroup", "options": options})]);
    }
    let mut mounts = vec![json!({"destination": ROOT, "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "noexec", "nodev", "mode=755"]})];
    let group = parts.sandbox.cgroup.join(parts.id);
    let mut seen: Vec<&Path> = Vec::new();
    for (_, folder) in parts.hierarchies.controllers() {
        let Some(name) = folder.file_name() else { continue };
        if !seen.contains(&folder.as_path()) {
            seen.push(folder);
            mounts
                .push(json!({"destination": Path::new(ROOT).join(name), "type": "bind", "source": folder.join(&group),
                "options": ["bind", access, "nosuid", "noexec", "nodev"]}));
        }
    }
    Ok(mounts)
}

fn normal(path: &str) -> PathBuf {
    // A trailing slash or a doubled one makes no other path.
    Path::new("/").join(path).components().collect()
}

/// The file or folder on the machine; a folder is made where there is nothing, as upstream's runtimes do.
fn source(mount: &Mount) -> Result<PathBuf, Error> {
    if mount.host_path.is_empty() {
        return Err(Error::Invalid(format!("mount {:?} has no source", mount.container_path)));
    }
    let path = Path::new(&mount.host_path);
    if fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        fs::create_dir_all(path).context(|| format!("failed to mkdir {:?}", mount.host_path))?;
    }
    fs::canonicalize(path).context(|| format!("failed to resolve symlink {:?}", mount.host_path))
}

fn mount_access(mount: &Mount) -> Result<&'static str, Error> {
    match (mount.readonly, mount.recursive_read_only) {
        (false, true) => Err(Error::Invalid("recursive read-only mount needs to be read-only".to_owned())),
        (true, true) if mount.propagation() != MountPropagation::PropagationPrivate => {
            Err(Error::Invalid("recursive read-only mount needs private propagation".to_owned()))
        }
        (true, true) => Ok("rro"),
        (true, false) => Ok("ro"),
        (false, false) => Ok("rw"),
    }
}

fn propagation(mount: &Mount, source: &Path) -> Result<Propagation, Error> {
    let on = || linux::mount::containing(source).context(|| format!("find the mount of {}", source.display()));
    let refuse = |kind: &str, on: &Path| {
        let (source, on) = (source.display(), on.display());
        Err(Error::Invalid(format!("path {source:?} is mounted on {on:?} but it is not a {kind} mount")))
    };
    match mount.propagation() {
        MountPropagation::PropagationPrivate => Ok(Propagation::Private),
        MountPropagation::PropagationHostToContainer => match on()? {
            on if !on.shared && !on.slave => refuse("shared or slave", &on.path),
            _ => Ok(Propagation::HostToContainer),
        },
        MountPropagation::PropagationBidirectional => match on()? {
            on if !on.shared => refuse("shared", &on.path),
            _ => Ok(Propagation::Bidirectional),
        },
    }
}
