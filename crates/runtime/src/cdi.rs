//! Devices that are described in files: what they change about a container. Upstream: the Container Device Interface, version 1.0, and what containerd
//! makes of it.
//!
//! `vendor.com/class=name` means the device `name` of the file whose `kind` is `vendor.com/class`. What a device asks for becomes part of the container's
//! own configuration, as if the client had asked for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cri::v1::{ContainerConfig, Device, KeyValue, Mount};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Error;

/// Where the files lie; later folders count more.
pub(crate) const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    kind: String,
    devices: Vec<Described>,
    /// For every container that has any of the devices.
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Described {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<IgnoredAny>,
    intel_rdt: Option<IgnoredAny>,
    net_devices: Vec<IgnoredAny>,
    #[serde(rename = "additionalGids")]
    groups: Vec<i64>,
}

/// Number and rights of the file on the machine are the container's, too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bind {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

/// The configuration with its devices in it.
pub(crate) fn inject(folders: &[PathBuf], mut config: ContainerConfig) -> Result<ContainerConfig, Error> {
    let wanted = std::mem::take(&mut config.cdi_devices);
    if wanted.is_empty() {
        return Ok(config);
    }
    let specs: Vec<(usize, Spec)> = folders.iter().enumerate().flat_map(|(i, folder)| read(i, folder)).collect();
    let (mut seen, mut whole, mut missing) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for wanted in &wanted {
        if !seen.insert(&wanted.name) {
            continue;
        }
        let Some((at, device)) = find(&specs, &wanted.name)? else {
            missing.push(wanted.name.as_str());
            continue;
        };
        if whole.insert(at) {
            apply(&mut config, &specs[at].1.container_edits, &wanted.name)?;
        }
        apply(&mut config, &device.container_edits, &wanted.name)?;
    }
    if !missing.is_empty() {
        return Err(failed(format!("unresolvable CDI devices {}", missing.join(", "))));
    }
    Ok(config)
}

fn failed(why: String) -> Error {
    Error::Invalid(format!("CDI device injection failed: {why}"))
}

/// The files of a folder; those that can't be read are passed over, as they may be somebody else's.
fn read(rank: usize, folder: &Path) -> Vec<(usize, Spec)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut specs = Vec::new();
    for path in paths {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !matches!(extension, "json" | "yaml" | "yml") {
            continue;
        }
        let parsed = fs::read_to_string(&path).map_err(|error| error.to_string());
        // JSON is YAML, too.
        match parsed.and_then(|text| serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())) {
            Ok(spec) => specs.push((rank, spec)),
            Err(error) => tracing::warn!(file = %path.display(), error, "a description of devices can't be read"),
        }
    }
    specs
}

/// The device called so in the folder that counts most, and the place of its file among all.
fn find<'s>(specs: &'s [(usize, Spec)], name: &str) -> Result<Option<(usize, &'s Described)>, Error> {
    let Some((kind, device)) = name.split_once('=') else { return Ok(None) };
    let mut found: Option<(usize, usize, &Described)> = None;
    for (at, (rank, spec)) in specs.iter().enumerate().filter(|(_, (_, spec))| spec.kind == kind) {
        let Some(described) = spec.devices.iter().find(|described| described.name == device) else { continue };
        match found {
            Some((known, ..)) if known == *rank => {
                return Err(failed(format!("conflicting device {name:?}")));
            }
            _ => found = Some((*rank, at, described)),
        }
    }
    Ok(found.map(|(_, at, described)| (at, described)))
}

fn apply(config: &mut ContainerConfig, edits: &Edits, device: &str) -> Result<(), Error> {
    for (what, there) in [
        ("hooks", !edits.hooks.is_empty()),
        ("RDT classes", edits.intel_rdt.is_some()),
        ("network devices", !edits.net_devices.is_empty()),
    ] {
        if there {
            return Err(Error::Unsupported(format!("CDI device {device}: {what} are not supported")));
        }
    }
    for variable in &edits.env {
        let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
        config.envs.retain(|known| known.key != key);
        config.envs.push(KeyValue { key: key.to_owned(), value: value.to_owned() });
    }
    for node in &edits.device_nodes {
        let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
        config.devices.retain(|known| known.container_path != node.path);
        config.devices.push(Device {
            container_path: node.path.clone(),
            host_path: host.clone(),
            permissions: node.permissions.clone(),
        });
    }
    for bind in &edits.mounts {
        config.mounts.retain(|known| known.container_path != bind.container_path);
        config.mounts.push(Mount {
            container_path: bind.container_path.clone(),
            host_path: bind.host_path.clone(),
            readonly: bind.options.iter().any(|option| option == "ro"),
            ..Mount::default()
        });
    }
    for group in edits.groups.iter().filter(|group| **group > 0) {
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().supplemental_groups.push(*group);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cri::v1::CdiDevice;

    use super::*;

    fn check(devices: &[&str], expect: Result<&[&str], &str>) {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("etc"), folder.path().join("run"), folder.path().join("absent")];
        for folder in &folders[..2] {
            fs::create_dir(folder).unwrap();
        }
        let write = |folder: usize, name: &str, text: &str| fs::write(folders[folder].join(name), text).unwrap();
        write(
            0,
            "a.json",
            r#"{"cdiVersion": "0.6.0", "kind": "d.io/gpu", "containerEdits": {"env": ["ALL=1"]}, "devices": [
            {"name": "0", "containerEdits": {"env": ["GPU=old"]}},
            {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu1", "hostPath": "/dev/null", "permissions": "r"}]}},
            {"name": "h", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x"}]}}]}"#,
        );
        write(
            1,
            "b.yaml",
            "kind: d.io/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    env: [GPU=new]\n    mounts:\n    - {hostPath: /lib, containerPath: /gpu, options: [ro, bind]}\n",
        );
        write(1, "c.yaml", "kind: d.io/twice\ndevices: [{name: a}]\n");
        write(1, "d.yaml", "kind: d.io/twice\ndevices: [{name: a}]\n");
        write(1, "e.yaml", "kind: [");
        write(1, "ignored.txt", "kind: d.io/other\ndevices: [{name: a}]\n");
        let cdi_devices = devices.iter().map(|name| CdiDevice { name: (*name).to_owned() }).collect();
        let own = KeyValue { key: "OWN".into(), value: "1".into() };
        let config = ContainerConfig { cdi_devices, envs: vec![own], ..ContainerConfig::default() };
        let told = inject(&folders, config).map(|config| {
            assert!(config.cdi_devices.is_empty());
            let mut told: Vec<String> = config.envs.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
            told.extend(
                config.devices.iter().map(|d| format!("{}:{}:{}", d.host_path, d.container_path, d.permissions)),
            );
            told.extend(config.mounts.iter().map(|m| format!("{}:{}:{}", m.host_path, m.container_path, m.readonly)));
            told
        });
        match expect {
            Ok(expect) => assert_eq!(told.unwrap(), expect),
            Err(expect) => assert!(told.unwrap_err().to_string().contains(expect)),
        }
    }

    #[test]
    fn devices_are_what_their_files_say() {
        check(&[], Ok(&["OWN=1"]));
        check(&["d.io/gpu=1"], Ok(&["OWN=1", "ALL=1", "/dev/null:/dev/gpu1:r"]));
        check(&["d.io/gpu=0", "d.io/gpu=0"], Ok(&["OWN=1", "GPU=new", "/lib:/gpu:true"]));
        check(&["d.io/gpu=9", "d.io/other=a", "x"], Err("unresolvable CDI devices d.io/gpu=9, d.io/other=a, x"));
        check(&["d.io/twice=a"], Err("conflicting device \"d.io/twice=a\""));
        check(&["d.io/gpu=h"], Err("hooks are not supported"));
    }
}
