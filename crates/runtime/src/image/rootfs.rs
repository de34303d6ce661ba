//! The root file systems of containers: an image's layers below a folder of the container's own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::Env;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::error::At;
use super::layers::inherit_root;
use super::overlay::{Overlay, is_mounted, unmount_all};
use super::trash::Trash;
use super::unpack::Usage;
use super::{Digest, ImageError};

const FORMAT: u32 = 1;

/// Whether a container may write to its image's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Writes go to the container's own folder.
    ReadWrite,
    /// The mount itself is read-only: for images as volumes.
    ReadOnly,
}

/// One root file system, as it is found in the folder of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsInfo {
    /// Whose it is: the id it was prepared for.
    pub id: String,
    /// The image's id.
    pub image: Digest,
    /// Where it is, or would be, mounted.
    pub path: PathBuf,
    /// Whether it is mounted now; after a reboot nothing is.
    pub mounted: bool,
}

/// `ID/rootfs.json` is a [`Record`], `ID/merged` the mount.
pub(crate) struct Rootfs {
    env: Env,
    folder: PathBuf,
    /// Empty folders: overlayfs wants two layers where nothing is writable, and one where an image has none.
    nothing: [PathBuf; 2],
    trash: Arc<Trash>,
    known: Mutex<BTreeMap<String, Record>>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    image: Digest,
    /// Chain ids, base first.
    layers: Vec<Digest>,
    access: Access,
}

impl Record {
    pub(crate) fn new(image: Digest, layers: Vec<Digest>, access: Access) -> Record {
        Record { format: FORMAT, image, layers, access }
    }
}

impl Rootfs {
    /// Finds what earlier processes prepared; what they left half made or half removed goes.
    pub(crate) fn open(env: Env, root: &Path, trash: Arc<Trash>) -> Result<Rootfs, ImageError> {
        let (folder, nothing) = (root.join("rootfs"), ["nothing/a", "nothing/b"].map(|path| root.join(path)));
        for path in [&folder, &nothing[0], &nothing[1]] {
            fs::create_dir_all(path).at("create", path)?;
        }
        let rootfs = Rootfs { env, folder, nothing, trash, known: Mutex::default() };
        for entry in fs::read_dir(&rootfs.folder).at("list", &rootfs.folder)? {
            let name = entry.at("list", &rootfs.folder)?.file_name();
            let Some(id) = name.to_str() else { continue };
            let path = rootfs.folder.join(id).join("rootfs.json");
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            match record {
                Some(record) if record.format > FORMAT => {
                    return Err(ImageError::Format { path, found: record.format, known: FORMAT });
                }
                Some(record) => {
                    rootfs.known.lock().insert(id.to_owned(), record);
                }
                None => rootfs.clear(id)?,
            }
        }
        Ok(rootfs)
    }

    /// Notes that `id` uses the layers, before anything is made of it. Whoever removes layers asks [`Rootfs::in_use`].
    pub(crate) fn reserve(&self, id: &str, record: Record) -> Record {
        self.known.lock().entry(id.to_owned()).or_insert(record).clone()
    }

    /// Mounts what was reserved; `layer` says where a layer's root is. Gives the mount point. Doing it again changes nothing.
    pub(crate) fn mount(
        &self,
        id: &str,
        record: &Record,
        layer: impl Fn(Digest) -> PathBuf,
    ) -> Result<PathBuf, ImageError> {
        let result = self.try_mount(id, record, layer);
        if result.is_err() && !self.folder.join(id).join("rootfs.json").exists() {
            self.known.lock().remove(id);
            let _ = self.clear(id);
        }
        result
    }

    fn try_mount(&self, id: &str, record: &Record, layer: impl Fn(Digest) -> PathBuf) -> Result<PathBuf, ImageError> {
        let home = self.folder.join(id);
        let path = |name: &str| home.join(name);
        let merged = path("merged");
        if is_mounted(&merged) {
            return Ok(merged);
        }
        let mut lowers: Vec<PathBuf> = record.layers.iter().rev().map(|chain_id| layer(*chain_id)).collect();
        let nearest = lowers.first().cloned();
        let wanted = if record.access == Access::ReadOnly { 2 } else { 1 };
        lowers.extend(self.nothing.iter().take(usize::saturating_sub(wanted, lowers.len())).cloned());
        for name in ["", "merged", "upper", "work"] {
            match fs::create_dir(path(name)) {
                Ok(()) if name == "upper" => inherit_root(&path(name), nearest.as_ref())?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.at("create", &path(name))?,
            }
        }
        let json = serde_json::to_vec(record).expect("a record of digests serialises");
        fs::write(path("rootfs.new"), json).at("write", &path("rootfs.new"))?;
        fs::rename(path("rootfs.new"), path("rootfs.json")).at("rename to", &path("rootfs.json"))?;
        self.env.failpoint("image.rootfs.mount")?;
        let (upper, work) = (path("upper"), path("work"));
        let writable = (record.access == Access::ReadWrite).then_some((upper.as_path(), work.as_path()));
        let mounted = Overlay { lowers: &lowers, writable }.mount(&merged);
        mounted.map_err(|source| ImageError::Mount { path: merged.clone(), source })?;
        Ok(merged)
    }

    /// Unmounts and removes. It is no error if there is nothing.
    pub(crate) fn remove(&self, id: &str) -> Result<(), ImageError> {
        self.clear(id)?;
        self.known.lock().remove(id);
        Ok(())
    }

    /// Unmounts, but keeps what the container wrote.
    pub(crate) fn unmount(&self, id: &str) -> Result<(), ImageError> {
        let merged = self.folder.join(id).join("merged");
        unmount_all(&merged).at("unmount", &merged)
    }

    fn clear(&self, id: &str) -> Result<(), ImageError> {
        self.unmount(id)?;
        self.env.failpoint("image.rootfs.remove")?;
        self.trash.take(&self.folder.join(id))?;
        self.trash.empty()
    }

    /// The layers that some root file system stands on.
    pub(crate) fn in_use(&self) -> Vec<Digest> {
        self.known.lock().values().flat_map(|record| record.layers.clone()).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.known.lock().keys().cloned().collect()
    }

    pub(crate) fn list(&self) -> Vec<RootfsInfo> {
        let known = self.known.lock().clone();
        let info = |(id, record): (String, Record)| {
            let path = self.folder.join(&id).join("merged");
            RootfsInfo { id, image: record.image, mounted: is_mounted(&path), path }
        };
        known.into_iter().map(info).collect()
    }

    /// What the container wrote. `None` if there is no such root file system.
    pub(crate) fn usage(&self, id: &str) -> Option<Usage> {
        self.known.lock().contains_key(id).then(|| disk_usage(&self.folder.join(id).join("upper")))
    }
}

/// What is below `root`, counting a file with several names once. What vanishes meanwhile doesn't count.
fn disk_usage(root: &Path) -> Usage {
    use std::os::unix::fs::MetadataExt;
    let mut usage = Usage::default();
    let mut links = std::collections::HashSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.nlink() == 1 || meta.is_dir() || links.insert(meta.ino()) {
                usage += Usage { bytes: meta.blocks() * 512, inodes: 1 };
            }
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    usage
}
