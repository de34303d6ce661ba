//! What containers see of volumes. Upstream: kubelet_pods.go makeMounts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::SpecError;
use crate::expansion::expand;
use crate::volumes::Mounted;

/// The container's volume mounts. Folders that a `subPath` names are made where they are missing.
pub(super) fn volume_mounts(
    container: &Container,
    volumes: &BTreeMap<String, Mounted>,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, SpecError> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    mounts.iter().map(|mount| one(container, mount, volumes, environment)).collect()
}

fn one(
    container: &Container,
    mount: &VolumeMount,
    volumes: &BTreeMap<String, Mounted>,
    environment: &[(String, String)],
) -> Result<Mount, SpecError> {
    let volume = volumes.get(&mount.name).ok_or_else(|| SpecError::NoVolume(mount.name.clone()))?;
    let lookup = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let sub_path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => expand(expression, lookup),
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    let host_path = if sub_path.is_empty() {
        volume.path.clone()
    } else {
        let failed = || SpecError::SubPath { mount: mount.name.clone(), container: container.name.clone() };
        inside(&volume.path, Path::new(&sub_path)).ok_or_else(failed)?
    };
    let container_path =
        if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    };
    let readonly = mount.read_only == Some(true) || volume.read_only;
    Ok(Mount {
        container_path,
        host_path: host_path.to_string_lossy().into_owned(),
        readonly,
        propagation: propagation.into(),
        recursive_read_only: readonly && mount.recursive_read_only.as_deref() == Some("Enabled"),
        ..Default::default()
    })
}

/// The path `sub` of a volume, links followed, as long as it stays in it.
fn inside(volume: &Path, sub: &Path) -> Option<PathBuf> {
    if !sub.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return None;
    }
    let root = fs::canonicalize(volume).ok()?;
    // The deepest part that exists must lie inside before anything is made below it.
    let mut existing = root.join(sub);
    while !existing.exists() {
        existing = existing.parent()?.to_owned();
    }
    if !fs::canonicalize(&existing).ok()?.starts_with(&root) {
        return None;
    }
    let full = root.join(sub);
    if !full.exists() {
        fs::create_dir_all(&full).ok()?;
    }
    fs::canonicalize(full).ok().filter(|full| full.starts_with(&root))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn volumes_are_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        let volumes: BTreeMap<_, _> = [("v".to_owned(), Mounted { path: root.clone(), read_only: false })].into();
        let env = vec![("A".to_owned(), "from-env".to_owned())];
        let check = |mount: Json, expect: Result<&str, &str>| {
            let mut full = json!({"name": "v", "mountPath": "/m"});
            full.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
            let container = serde_json::from_value(json!({"name": "c", "volumeMounts": [full]})).unwrap();
            let found = volume_mounts(&container, &volumes, &env).map_err(|error| error.to_string());
            let found = found.map(|found| found[0].host_path.clone());
            let expect = expect.map(|path| root.join(path).to_string_lossy().trim_end_matches('/').to_owned());
            assert_eq!(found, expect.map_err(str::to_owned), "{mount}");
        };
        check(json!({}), Ok(""));
        check(json!({"subPath": "file"}), Ok("file"));
        check(json!({"subPath": "new/folder"}), Ok("new/folder"));
        check(json!({"subPathExpr": "$(A)"}), Ok("from-env"));
        let refused = "failed to prepare subPath for volumeMount \"v\" of container \"c\"";
        check(json!({"subPath": "../x"}), Err(refused));
        check(json!({"subPath": "out"}), Err(refused));
        check(json!({"subPath": "out/made"}), Err(refused));
        check(json!({"name": "w"}), Err("volume \"w\" is not mounted"));
        assert!(!Path::new("/etc/made").exists());
    }
}
