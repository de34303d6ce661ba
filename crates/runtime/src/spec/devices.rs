//! Device files and the right to use them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use linux::cgroup::{DeviceKind, DeviceRule};
use serde_json::{Value, json};

use cri::v1::ContainerConfig;

use crate::error::{Context, Error};

pub(super) struct Devices {
    /// OCI's `linux.devices`.
    pub(super) nodes: Vec<Value>,
    pub(super) rules: Vec<DeviceRule>,
}

/// The devices of the container besides those every container has.
pub(super) fn devices(config: &ContainerConfig, privileged: bool) -> Result<Devices, Error> {
    if privileged {
        let mut nodes = Vec::new();
        host_nodes(Path::new("/dev"), Path::new("/dev"), &mut nodes)?;
        return Ok(Devices {
            nodes: nodes.into_iter().map(|(node, _)| node).collect(),
            rules: vec![DeviceRule::all()],
        });
    }
    let mut all = Devices { nodes: Vec::new(), rules: default_rules() };
    for device in &config.devices {
        let host = fs::canonicalize(&device.host_path).context(|| format!("device {}", device.host_path))?;
        let inside = Path::new(&device.container_path);
        let mut found = Vec::new();
        if host.is_dir() {
            host_nodes(&host, inside, &mut found)?;
        } else {
            found.extend(node(&host, inside)?);
        }
        if found.is_empty() {
            return Err(Error::Invalid(format!("{:?} is not a device", device.host_path)));
        }
        for (node, rule) in found {
            all.nodes.push(node);
            let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
            all.rules.push(DeviceRule { access: access.to_owned(), ..rule });
        }
    }
    Ok(all)
}

/// Every container may make any device file, and use these. Upstream: runc's `AllowedDevices`.
fn default_rules() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, access: &str| DeviceRule { kind, major, minor, access: access.to_owned() };
    let mut rules = vec![rule(DeviceKind::Character, None, None, "m"), rule(DeviceKind::Block, None, None, "m")];
    // null, zero, full, random, urandom, tty, console, ptmx; pseudo-terminals.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(DeviceKind::Character, Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(DeviceKind::Character, Some(136), None, "rwm"));
    rules
}

/// Every device file below `host`. Upstream: runc's `HostDevices`.
fn host_nodes(host: &Path, inside: &Path, nodes: &mut Vec<(Value, DeviceRule)>) -> Result<(), Error> {
    const SKIPPED: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
    for entry in fs::read_dir(host).context(|| format!("list {}", host.display()))? {
        let entry = entry.context(|| format!("list {}", host.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                host_nodes(&path, &inside.join(&name), nodes)?;
            }
        } else if name != "console" && !about.file_type().is_symlink() {
            nodes.extend(node(&path, &inside.join(&name))?);
        }
    }
    Ok(())
}

/// The device file at `host`, if it is one.
fn node(host: &Path, inside: &Path) -> Result<Option<(Value, DeviceRule)>, Error> {
    let about = fs::symlink_metadata(host).context(|| format!("device {}", host.display()))?;
    let (letter, kind) = match about.file_type() {
        kind if kind.is_char_device() => ("c", DeviceKind::Character),
        kind if kind.is_block_device() => ("b", DeviceKind::Block),
        _ => return Ok(None),
    };
    let (major, minor) = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
    let value = json!({
        "path": inside, "type": letter, "major": major, "minor": minor,
        "fileMode": about.mode() & 0o7777, "uid": about.uid(), "gid": about.gid(),
    });
    Ok(Some((value, DeviceRule { kind, major: Some(major), minor: Some(minor), access: "rwm".to_owned() })))
}
