//! Unpacked layers, each once, in folders named by chain id.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::Env;
use serde::{Deserialize, Serialize};

use super::blob::sync_folder;
use super::compression::decompress;
use super::digest::Hashing;
use super::error::{At, UnpackError};
use super::trash::Trash;
use super::unpack::{Limits, Usage, unpack};
use super::{Digest, ImageError};

const FORMAT: u32 = 1;

/// The folder of layers: `HEX/fs` is one's root, `HEX/layer.json` its [`Record`].
pub(crate) struct Layers {
    env: Env,
    folder: PathBuf,
    ingest: PathBuf,
    trash: Arc<Trash>,
    limits: Limits,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    diff_id: Digest,
    bytes: u64,
    inodes: u64,
}

impl Layers {
    pub(crate) fn open(env: Env, root: &Path, trash: Arc<Trash>, limits: Limits) -> Result<Layers, ImageError> {
        let layers = Layers { env, folder: root.join("layers"), ingest: root.join("ingest"), trash, limits };
        fs::create_dir_all(&layers.folder).at("create", &layers.folder)?;
        Ok(layers)
    }

    fn home(&self, chain_id: Digest) -> PathBuf {
        self.folder.join(chain_id.hex())
    }

    /// The root of an unpacked layer.
    pub(crate) fn path(&self, chain_id: Digest) -> PathBuf {
        self.home(chain_id).join("fs")
    }

    pub(crate) fn contains(&self, chain_id: Digest) -> bool {
        self.home(chain_id).join("layer.json").exists()
    }

    /// Unpacks the archive in the file `blob` as the last layer of `chain`, which is base first; `diff_id` is what its
    /// uncompressed content must hash to. The layer is there whole and durable afterwards, or not at all.
    pub(crate) fn unpack(&self, blob: &Path, diff_id: Digest, chain: &[Digest]) -> Result<(), ImageError> {
        let Some((chain_id, below)) = chain.split_last() else { return Ok(()) };
        let extract = |source| ImageError::Extract { diff_id, source: Box::new(source) };
        let temporary =
            Staging { path: self.ingest.join(format!("layer-{:016x}", self.env.random_u64())), layers: self };
        let (root, replaced) = (temporary.path.join("fs"), temporary.path.join("replaced"));
        for folder in [&temporary.path, &root, &replaced] {
            fs::create_dir(folder).at("create", folder)?;
        }
        let parents: Vec<PathBuf> = below.iter().rev().map(|chain_id| self.path(*chain_id)).collect();
        inherit_root(&root, parents.first())?;

        let file = File::open(blob).at("open", blob)?;
        let plain = decompress(file).map_err(|error| extract(UnpackError::Archive(error)))?;
        let mut content = Hashing::expecting(plain, diff_id);
        let usage = unpack(&mut content as &mut dyn Read, &root, &parents, &replaced, self.limits).map_err(extract)?;
        let (_, actual, _) = content.finish();
        if actual != diff_id {
            return Err(ImageError::WrongDigest { expected: diff_id, actual });
        }

        self.trash.take(&replaced)?;
        let record = Record { format: FORMAT, diff_id, bytes: usage.bytes, inodes: usage.inodes };
        let path = temporary.path.join("layer.json");
        let json = serde_json::to_vec(&record).expect("a record of numbers and digests serialises");
        fs::write(&path, json).at("write", &path)?;
        self.env.failpoint("image.layer.sync")?;
        let handle = File::open(&temporary.path).at("open", &temporary.path)?;
        rustix::fs::syncfs(&handle).at("sync", &temporary.path)?;
        self.env.failpoint("image.layer.rename")?;
        let home = self.home(*chain_id);
        match fs::rename(&temporary.path, &home) {
            // Someone else was faster; theirs is the same.
            Err(_) if self.contains(*chain_id) => Ok(()),
            other => {
                other.at("rename to", &home)?;
                sync_folder(&self.folder)
            }
        }
    }

    /// Takes the layer away; [`Trash::empty`] frees its space.
    pub(crate) fn discard(&self, chain_id: Digest) -> Result<(), ImageError> {
        self.trash.take(&self.home(chain_id))
    }

    /// Every layer there is.
    pub(crate) fn list(&self) -> Result<Vec<Digest>, ImageError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).at("list", &self.folder)? {
            let name = entry.at("list", &self.folder)?.file_name();
            found.extend(name.to_str().and_then(|name| Digest::from_hex(name).ok()));
        }
        Ok(found)
    }

    /// What the layer takes on disk, as counted when it was unpacked.
    pub(crate) fn usage(&self, chain_id: Digest) -> Usage {
        let record = fs::read(self.home(chain_id).join("layer.json")).ok();
        let record = record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        record.map_or(Usage::default(), |record| Usage { bytes: record.bytes, inodes: record.inodes })
    }
}

/// A layer in the making. Dropping it before it is renamed leaves nothing.
struct Staging<'a> {
    path: PathBuf,
    layers: &'a Layers,
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if self.path.exists() && self.layers.trash.take(&self.path).and_then(|()| self.layers.trash.empty()).is_err() {
            tracing::warn!(path = %self.path.display(), "left an unfinished layer for the next start to remove");
        }
    }
}

/// The root of a new upper layer looks like the one it will cover, until the layer says otherwise.
pub(crate) fn inherit_root(root: &Path, below: Option<&PathBuf>) -> Result<(), ImageError> {
    let (mode, uid, gid) = match below {
        Some(below) => {
            let meta = fs::metadata(below).at("look at", below)?;
            (meta.mode() & 0o7777, meta.uid(), meta.gid())
        }
        None => (0o755, 0, 0),
    };
    std::os::unix::fs::chown(root, Some(uid), Some(gid)).at("change the owner of", root)?;
    fs::set_permissions(root, fs::Permissions::from_mode(mode)).at("change the mode of", root)
}
