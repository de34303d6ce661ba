//! A pod's volumes on the node: made before its containers, kept current while they run, removed after them.
//!
//! Each volume is a folder `pods/<uid>/volumes/<plugin>/<name>` below the kubelet's, or a path of the host. Secrets and tokens lie
//! on tmpfs. A plugin is a function in a file of this folder.

mod atomic;
mod empty_dir;
mod host_path;
pub(crate) mod persistent;
mod projected;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeSpec, Pod, Secret, Volume};

use crate::fields::{FieldError, Situation};

/// What volumes take their contents from, of the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    /// Tokens by volume and by the path in it.
    pub tokens: BTreeMap<(String, String), String>,
    /// What the claims of volumes are bound to, by volume.
    pub claimed: BTreeMap<String, Claimed>,
}

/// A volume that a pod's claim is bound to.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The name of the PersistentVolume.
    pub name: String,
    pub spec: PersistentVolumeSpec,
    /// The pod asked for it to be read only.
    pub read_only: bool,
}

/// A token that a projected volume wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRequest {
    pub volume: String,
    pub path: String,
    /// Empty: the API server's own.
    pub audience: String,
    pub expiration_seconds: i64,
}

/// What a pod's volumes refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: Vec<String>,
    pub secrets: Vec<String>,
    pub tokens: Vec<TokenRequest>,
}

/// Why a volume can't be made; becomes the `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    SetUp { volume: String, source: SetUpError },
    #[error("MountVolume.NewMounter initialization failed for volume {volume:?} : path {path:?} does not exist")]
    NoPath { volume: String, path: String },
}

/// What was wrong with one volume.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("references non-existent {kind} key: {key}")]
    NoKey { kind: &'static str, key: String },
    #[error("hostPath type check failed: {path} is not {expected}")]
    HostPathType { path: String, expected: &'static str },
    #[error("failed to fetch token: {0}")]
    NoToken(String),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("this kubelet has no volumes of the kind {0}")]
    Unsupported(String),
}

/// A volume that containers can mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is on the node.
    pub path: PathBuf,
    /// Written by the kubelet alone.
    pub read_only: bool,
}

/// The folder of all that belongs to a pod.
pub fn pod_folder(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Makes every volume of the pod, or brings it up to date; safe to repeat.
pub fn set_up(
    root: &Path,
    pod: &Pod,
    situation: &Situation,
    contents: &Contents,
) -> Result<BTreeMap<String, Mounted>, VolumeError> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let folder = pod_folder(root, pod.metadata.uid.as_deref().unwrap_or_default()).join("volumes");
    let one = |volume: &Volume| {
        if let Some(claimed) = contents.claimed.get(&volume.name) {
            return persistent::set_up(&folder, pod, claimed).map(|mounted| (volume.name.clone(), mounted));
        }
        let mounted = set_up_one(&folder, pod, volume, situation, contents);
        let named = |source| VolumeError::SetUp { volume: volume.name.clone(), source };
        mounted.map(|mounted| (volume.name.clone(), mounted)).map_err(named)
    };
    // Images are mounted by the runtime.
    volumes.iter().filter(|volume| volume.image.is_none()).map(one).collect()
}

fn set_up_one(
    folder: &Path,
    pod: &Pod,
    volume: &Volume,
    situation: &Situation,
    contents: &Contents,
) -> Result<Mounted, SetUpError> {
    if let Some(source) = &volume.host_path {
        return host_path::check(source).map(|path| Mounted { path, read_only: false });
    }
    let place = |plugin: &str| folder.join(format!("kubernetes.io~{plugin}")).join(&volume.name);
    let group = fs_group(pod);
    if let Some(source) = &volume.empty_dir {
        let path = place("empty-dir");
        empty_dir::set_up(&path, source, group)?;
        return Ok(Mounted { path, read_only: false });
    }
    if let Some(source) = &volume.nfs {
        let path = place("nfs");
        persistent::mount_nfs(source, &path, &[])?;
        return Ok(Mounted { path, read_only: source.read_only == Some(true) });
    }
    let plugin = match volume {
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downward-api",
        Volume { projected: Some(_), .. } => "projected",
        _ => return Err(SetUpError::Unsupported(kind_of(volume))),
    };
    let payload = projected::payload(pod, volume, situation, contents, group)?;
    let path = place(plugin);
    fs::create_dir_all(&path)?;
    // ConfigMaps are no secrets: they may lie on the disk, as upstream's do.
    if plugin != "configmap" && !linux::mount::is_mount_point(&path)? {
        linux::mount::tmpfs(&path, linux::mount::TmpfsFlags::ReadWrite, "mode=755")?;
    }
    atomic::write(&path, &payload, group)?;
    Ok(Mounted { path, read_only: true })
}

/// Takes away all volumes of a pod, with what is in them; host paths stay. Succeeds when there are none.
pub fn tear_down(root: &Path, uid: &str) -> io::Result<()> {
    let folder = pod_folder(root, uid);
    crate::spec::sub_paths::release(&folder)?;
    linux::mount::unmount_below(&folder)?;
    // What should still be mounted there in spite of all is somebody's data.
    linux::tree::remove(&folder)
}

/// The pods that have a folder: those of an earlier run among them.
pub fn pods_with_folders(root: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(root.join("pods")) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Everything that the pod's volumes need from the API.
pub fn references(pod: &Pod) -> References {
    let mut references = References::default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    for volume in volumes {
        references.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        references.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for source in projected {
            references.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            references.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
            references.tokens.extend(source.service_account_token.iter().map(|token| TokenRequest {
                volume: volume.name.clone(),
                path: token.path.clone(),
                audience: token.audience.clone().unwrap_or_default(),
                expiration_seconds: token.expiration_seconds.unwrap_or(3600),
            }));
        }
    }
    references
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|group| u32::try_from(group).ok())
}

/// The member of `volume` that says its kind, for the message.
fn kind_of(volume: &Volume) -> String {
    let members = serde_json::to_value(volume).ok();
    let kind = members.as_ref().and_then(|value| value.as_object()?.keys().find(|key| *key != "name").cloned());
    kind.unwrap_or_else(|| "(none)".into())
}

#[cfg(test)]
mod tests;
