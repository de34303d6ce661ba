//! Volumes that outlive pods: `local` and `hostPath` folders of this node, and NFS shares. Upstream: pkg/volume/local, host_path, nfs.

use std::fs;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{LocalVolumeSource, NFSVolumeSource, PersistentVolumeSpec, Pod};

use super::{Claimed, Mounted, SetUpError, VolumeError, fs_group, host_path};

/// Makes the volume ready for the pod; `folder` is that of the pod's volumes. Safe to repeat.
pub(super) fn set_up(folder: &Path, pod: &Pod, claimed: &Claimed) -> Result<Mounted, VolumeError> {
    let failed = |source| VolumeError::SetUp { volume: claimed.name.clone(), source };
    let Claimed { name, spec, read_only } = claimed;
    let place = |plugin: &str| folder.join(format!("kubernetes.io~{plugin}")).join(name);
    let options = spec.mount_options.as_deref().unwrap_or_default();
    if let Some(source) = &spec.host_path {
        let path = host_path::check(source).map_err(failed)?;
        return Ok(Mounted { path, read_only: *read_only });
    }
    if let Some(source) = &spec.local {
        if !Path::new(&source.path).exists() {
            return Err(VolumeError::NoPath { volume: name.clone(), path: source.path.clone() });
        }
        return local(pod, source, claimed, &place("local-volume")).map_err(failed);
    }
    if let Some(source) = &spec.nfs {
        let path = place("nfs");
        let read_only = *read_only || source.read_only == Some(true);
        mount_nfs(source, &path, options).map_err(failed)?;
        return Ok(Mounted { path, read_only });
    }
    Err(failed(SetUpError::Unsupported(kind_of(spec))))
}

fn local(pod: &Pod, source: &LocalVolumeSource, claimed: &Claimed, place: &Path) -> Result<Mounted, SetUpError> {
    let path = fs::canonicalize(&source.path)?;
    let kind = fs::metadata(&path)?.file_type();
    let read_only = claimed.read_only;
    if claimed.spec.volume_mode.as_deref() == Some("Block") {
        if !kind.is_block_device() {
            let problem = format!("path {:?} is not a block device", source.path);
            return Err(SetUpError::Io(io::Error::other(problem)));
        }
        return Ok(Mounted { path, read_only });
    }
    if !kind.is_dir() {
        let problem = format!("path {:?} is not a directory, and filesystems are not made here", source.path);
        return Err(SetUpError::Io(io::Error::other(problem)));
    }
    let options = claimed.spec.mount_options.as_deref().unwrap_or_default();
    // Being there, it tells that the pod has had the volume before.
    let first = !place.exists();
    if let Some(group) = fs_group(pod)
        && first
        && !read_only
    {
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
        let done = policy == Some("OnRootMismatch") && linux::tree::belongs_to_group(&path, group, false)?;
        if !done {
            linux::tree::give_to_group(&path, group, false)?;
        }
    }
    fs::create_dir_all(place)?;
    if options.is_empty() {
        return Ok(Mounted { path, read_only });
    }
    if !linux::mount::is_mount_point(place)? {
        linux::mount::bind_with(&path, place, options)?;
    }
    Ok(Mounted { path: place.to_owned(), read_only })
}

/// Mounts the share at `path`, unless it is.
pub(super) fn mount_nfs(source: &NFSVolumeSource, path: &Path, options: &[String]) -> Result<(), SetUpError> {
    fs::create_dir_all(path)?;
    if linux::mount::is_mount_point(path)? {
        return Ok(());
    }
    let address = (source.server.as_str(), 2049).to_socket_addrs()?.next();
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("{:?} has no address", source.server));
    let address = address.ok_or_else(unknown)?.ip();
    Ok(linux::mount::nfs(&format!("{}:{}", source.server, source.path), address, path, options)?)
}

/// The member of `spec` that says what the volume is, for the message.
fn kind_of(spec: &PersistentVolumeSpec) -> String {
    const OTHERS: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let members = serde_json::to_value(spec).ok();
    let mut keys = members.as_ref().and_then(|value| value.as_object()).into_iter().flat_map(|map| map.keys());
    keys.find(|key| !OTHERS.contains(&key.as_str())).cloned().unwrap_or_else(|| "(none)".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use serde_json::{Value as Json, json};

    use super::*;

    fn claimed(spec: Json) -> Claimed {
        Claimed { name: "pv".into(), spec: serde_json::from_value(spec).unwrap(), read_only: false }
    }

    #[test]
    fn local_folders_are_given() {
        let root = tempfile::tempdir().unwrap();
        let (data, volumes) = (root.path().join("data"), root.path().join("volumes"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), "").unwrap();
        let pod = |policy: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [],
                "securityContext": {"fsGroup": 4321, "fsGroupChangePolicy": policy}}}))
            .unwrap()
        };
        let volume = claimed(json!({"local": {"path": data}}));
        let mounted = set_up(&volumes, &pod("Always"), &volume).unwrap();
        assert_eq!((mounted.path, mounted.read_only), (data.clone(), false));
        assert_eq!(fs::metadata(data.join("file")).unwrap().gid(), 4321);
        std::os::unix::fs::chown(data.join("file"), None, Some(0)).unwrap();
        set_up(&volumes, &pod("Always"), &volume).unwrap();
        assert_eq!(fs::metadata(data.join("file")).unwrap().gid(), 0, "the pod has it already");
        let other = root.path().join("of-another-pod");
        set_up(&other, &pod("OnRootMismatch"), &volume).unwrap();
        assert_eq!(fs::metadata(data.join("file")).unwrap().gid(), 0, "the root is the group's");
    }

    #[test]
    fn options_are_for_the_mount() {
        let root = tempfile::tempdir().unwrap();
        let (data, volumes) = (root.path().join("data"), root.path().join("volumes"));
        fs::create_dir(&data).unwrap();
        let volume = claimed(json!({"local": {"path": data}, "mountOptions": ["ro", "noexec"]}));
        let mounted = set_up(&volumes, &Pod::default(), &volume).unwrap();
        set_up(&volumes, &Pod::default(), &volume).unwrap();
        let refused = fs::write(mounted.path.join("file"), "").map_err(|error| error.kind());
        linux::mount::unmount_below(&volumes).unwrap();
        assert_eq!(refused, Err(io::ErrorKind::ReadOnlyFilesystem));
        fs::write(data.join("file"), "").unwrap();
    }

    #[test]
    fn what_is_not_there_is_told() {
        let root = tempfile::tempdir().unwrap();
        let check = |spec: Json, expect: &str| {
            let found = set_up(root.path(), &Pod::default(), &claimed(spec.clone())).unwrap_err().to_string();
            assert_eq!(found, expect, "{spec}");
        };
        check(
            json!({"local": {"path": "/no/such"}}),
            "MountVolume.NewMounter initialization failed for volume \"pv\" : path \"/no/such\" does not exist",
        );
        check(
            json!({"local": {"path": "/dev/null"}, "volumeMode": "Block"}),
            "MountVolume.SetUp failed for volume \"pv\" : path \"/dev/null\" is not a block device",
        );
        check(
            json!({"csi": {"driver": "d", "volumeHandle": "h"}, "accessModes": ["ReadWriteOnce"]}),
            "MountVolume.SetUp failed for volume \"pv\" : this kubelet has no volumes of the kind csi",
        );
        check(
            json!({"hostPath": {"path": "/dev/null", "type": "Directory"}}),
            "MountVolume.SetUp failed for volume \"pv\" : hostPath type check failed: /dev/null is not a directory",
        );
    }
}
