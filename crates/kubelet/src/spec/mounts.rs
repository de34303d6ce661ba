//! What containers see of volumes. Upstream: kubelet_pods.go makeMounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cri::v1::{Device, ImageSpec, Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, VolumeDevice, VolumeMount};

use super::{SpecError, sub_paths};
use crate::expansion::expand;
use crate::volumes::Mounted;

/// The volumes of a pod, as its containers find them.
pub(crate) struct Volumes<'a> {
    pub(crate) mounted: &'a BTreeMap<String, Mounted>,
    /// The ids of images that are volumes.
    pub(crate) images: &'a BTreeMap<String, String>,
    /// The pod's folder, below which parts of volumes are held.
    pub(crate) pod: &'a Path,
}

/// The container's volume mounts. Folders that a `subPath` names are made where they are missing.
pub(super) fn volume_mounts(
    container: &Container,
    volumes: &Volumes<'_>,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, SpecError> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    mounts.iter().enumerate().map(|(index, mount)| one(container, (index, mount), volumes, environment)).collect()
}

/// The container's block devices, as they are on the node. Upstream: makeBlockVolumes.
pub(super) fn volume_devices(container: &Container, volumes: &Volumes<'_>) -> Result<Vec<Device>, SpecError> {
    let one = |device: &VolumeDevice| {
        let volume = volumes.mounted.get(&device.name).ok_or_else(|| SpecError::NoVolume(device.name.clone()))?;
        Ok(Device {
            container_path: device.device_path.clone(),
            host_path: volume.path.to_string_lossy().into_owned(),
            permissions: if volume.read_only { "r" } else { "mrw" }.to_owned(),
        })
    };
    container.volume_devices.iter().flatten().map(one).collect()
}

fn one(
    container: &Container,
    (index, mount): (usize, &VolumeMount),
    volumes: &Volumes<'_>,
    environment: &[(String, String)],
) -> Result<Mount, SpecError> {
    let lookup = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let sub_path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => expand(expression, lookup),
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    let container_path =
        if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    };
    let wants_recursive = match mount.recursive_read_only.as_deref() {
        Some("Enabled") => true,
        Some("IfPossible") => mount.read_only == Some(true) && propagation == MountPropagation::PropagationPrivate,
        _ => false,
    };
    let common = Mount { container_path, propagation: propagation.into(), ..Default::default() };
    if let Some(image) = volumes.images.get(&mount.name) {
        let image = Some(ImageSpec { image: image.clone(), ..Default::default() });
        return Ok(Mount { image, image_sub_path: sub_path, readonly: true, ..common });
    }
    let volume = volumes.mounted.get(&mount.name).ok_or_else(|| SpecError::NoVolume(mount.name.clone()))?;
    let host_path = if sub_path.is_empty() {
        volume.path.clone()
    } else {
        held(container, index, mount, volume, &sub_path, volumes.pod)?
    };
    let readonly = mount.read_only == Some(true) || volume.read_only;
    Ok(Mount {
        host_path: host_path.to_string_lossy().into_owned(),
        readonly,
        recursive_read_only: readonly && wants_recursive,
        ..common
    })
}

/// Where the part of the volume is held for this container.
fn held(
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    volume: &Mounted,
    sub_path: &str,
    pod: &Path,
) -> Result<PathBuf, SpecError> {
    let place = sub_paths::folder(pod).join(&mount.name).join(&container.name).join(index.to_string());
    sub_paths::hold(&volume.path, Path::new(sub_path), &place).map_err(|error| {
        tracing::debug!(volume = mount.name, sub_path, %error, "a part of a volume can't be mounted");
        SpecError::SubPath { mount: mount.name.clone(), container: container.name.clone() }
    })?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn volumes_are_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let (root, pod) = (folder.path().canonicalize().unwrap().join("volume"), folder.path().join("pod"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        let volumes: BTreeMap<_, _> = [("v".to_owned(), Mounted { path: root.clone(), read_only: false })].into();
        let images: BTreeMap<_, _> = [("i".to_owned(), "sha256:1".to_owned())].into();
        let env = vec![("A".to_owned(), "from-env".to_owned())];
        let check = |mount: Json, expect: Result<&str, &str>| {
            let mut full = json!({"name": "v", "mountPath": "/m"});
            full.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
            let container = serde_json::from_value(json!({"name": "c", "volumeMounts": [full]})).unwrap();
            let with = Volumes { mounted: &volumes, images: &images, pod: &pod };
            let found = volume_mounts(&container, &with, &env).map_err(|error| error.to_string());
            let inode = |path: &Path| fs::metadata(path).unwrap().ino();
            let found = found.map(|found| inode(Path::new(&found[0].host_path)));
            let expect = expect.map(|path| inode(&root.join(path)));
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
        let container = json!({"name": "c", "volumeMounts": [{"name": "i", "mountPath": "/i", "subPath": "part"}]});
        let with = Volumes { mounted: &volumes, images: &images, pod: &pod };
        let found = &volume_mounts(&serde_json::from_value(container).unwrap(), &with, &env).unwrap()[0];
        assert_eq!((found.image_sub_path.as_str(), found.readonly), ("part", true));
        assert_eq!(found.image.as_ref().unwrap().image, "sha256:1");
        sub_paths::release(&pod).unwrap();
    }
}
