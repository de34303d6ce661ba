//! The store behind every handle: which images there are, what they need, and what may go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::At;
use super::rootfs::Access;
use super::work::KeyedLocks;
use super::{Config, Digest, FsInfo, Image, ImageConfig, ImageError, Reference, Usage};
use super::{blob, catalog, config, layers, rootfs, trash};

/// Everything that handles share.
pub(super) struct Inner {
    pub config: Config,
    pub blobs: blob::Blobs,
    pub layers: layers::Layers,
    pub rootfs: rootfs::Rootfs,
    pub catalog: catalog::Catalog,
    pub trash: Arc<trash::Trash>,
    pub locks: KeyedLocks,
    pub state: Mutex<State>,
    /// Held while the catalog is replaced, so that `state` needn't be.
    writing: Mutex<()>,
    /// Keeps other processes out.
    _lock: FolderLock,
}

/// Unlocks when dropped, not when closed: a child between fork and exec holds the file open for a moment longer.
struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

#[derive(Default)]
pub(super) struct State {
    pub images: BTreeMap<Digest, Known>,
    /// Blobs and layers that something under way needs, though no image names them yet.
    pub pins: HashMap<Digest, usize>,
}

#[derive(Clone)]
pub(super) struct Known {
    pub record: catalog::Record,
    pub config: Arc<ImageConfig>,
}

impl Known {
    pub(super) fn image(&self) -> Image {
        let catalog::Record { id, manifest, tags, digests, size, last_used, .. } = self.record.clone();
        Image { id, manifest, tags, digests, size, last_used, config: ImageConfig::clone(&self.config) }
    }
}

/// Keeps blobs and layers from being collected while it lives.
pub(super) struct Pins {
    store: Arc<Inner>,
    digests: Vec<Digest>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        for digest in &self.digests {
            if let Some(count) = state.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(digest);
                }
            }
        }
    }
}

impl Inner {
    pub(super) fn open(config: Config) -> Result<Inner, ImageError> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let (env, root) = (config.env.clone(), config.folder.clone());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).at("create", &root)?;
        // Layers hold other people's suid programs.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).at("protect", &root)?;
        let lock = File::create(root.join("lock")).at("create", &root.join("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| ImageError::Locked(root.clone()))?;
        let trash = Arc::new(trash::Trash::open(&env, root.join("trash"))?);
        trash.take(&root.join("ingest"))?;
        let ingest = root.join("ingest");
        fs::create_dir(&ingest).at("create", &ingest)?;
        let store = Inner {
            blobs: blob::Blobs::open(env.clone(), &root)?,
            layers: layers::Layers::open(env.clone(), &root, trash.clone(), config.limits)?,
            rootfs: rootfs::Rootfs::open(env.clone(), &root, trash.clone())?,
            catalog: catalog::Catalog::new(env, &root),
            trash,
            locks: KeyedLocks::default(),
            state: Mutex::default(),
            writing: Mutex::default(),
            config,
            _lock: FolderLock(lock),
        };
        for (id, record) in store.catalog.load()? {
            match store.know(record) {
                Ok(known) => {
                    store.state.lock().images.insert(id, known);
                }
                // Somebody removed parts of it behind our back; it can be pulled again.
                Err(error) => tracing::warn!(image = %id, error = error.report(), "an image is damaged and not listed"),
            }
        }
        if let Err(error) = store.collect_garbage() {
            tracing::warn!(error = error.report(), "garbage of images is left");
        }
        Ok(store)
    }

    pub(super) fn root(&self) -> &Path {
        &self.config.folder
    }

    pub(super) fn io(&self, action: &'static str, source: io::Error) -> ImageError {
        ImageError::Io { action, path: self.config.folder.clone(), source }
    }

    /// The image with its configuration, if all of it is there.
    pub(super) fn know(&self, record: catalog::Record) -> Result<Known, ImageError> {
        if let Some(missing) = record.layers.iter().find(|chain_id| !self.layers.contains(**chain_id)) {
            return Err(self.io("find a layer below", io::Error::new(io::ErrorKind::NotFound, missing.to_string())));
        }
        let bytes = self.blobs.read(record.id, config::MAX_DOCUMENT)?;
        let config = Arc::new(ImageConfig::parse(&bytes, record.id)?);
        Ok(Known { record, config })
    }

    pub(super) fn pin(self: &Arc<Self>, digests: Vec<Digest>) -> Pins {
        let mut state = self.state.lock();
        for digest in &digests {
            *state.pins.entry(*digest).or_default() += 1;
        }
        drop(state);
        Pins { store: self.clone(), digests }
    }

    /// Unpacks the last layer of `chain` unless it is there or somebody else is at it.
    pub(super) fn unpack(&self, blob: &Path, diff_id: Digest, chain: &[Digest]) -> Result<(), ImageError> {
        let Some(chain_id) = chain.last() else { return Ok(()) };
        let lock = self.locks.of(format!("layer {chain_id}"));
        let _turn = lock.blocking_lock();
        match self.layers.contains(*chain_id) {
            true => Ok(()),
            false => self.layers.unpack(blob, diff_id, chain),
        }
    }

    /// Names the images, all or none. A tag leaves the image that had it.
    pub(super) fn record(&self, records: Vec<catalog::Record>) -> Result<(), ImageError> {
        let known = records.into_iter().map(|record| self.know(record)).collect::<Result<Vec<_>, _>>()?;
        self.change(|images| {
            for new in known {
                for image in images.values_mut() {
                    image.record.tags.retain(|tag| !new.record.tags.contains(tag));
                }
                match images.get_mut(&new.record.id) {
                    Some(present) => {
                        let names = |old: &[String], new: &[String]| {
                            old.iter().chain(new).cloned().collect::<BTreeSet<_>>().into_iter().collect()
                        };
                        present.record.tags = names(&present.record.tags, &new.record.tags);
                        present.record.digests = names(&present.record.digests, &new.record.digests);
                        present.record.last_used = new.record.last_used;
                    }
                    None => {
                        images.insert(new.record.id, new);
                    }
                }
            }
        })
    }

    /// Changes the catalog, durably before it is seen.
    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeMap<Digest, Known>)) -> Result<(), ImageError> {
        let _writing = self.writing.lock();
        let mut images = self.state.lock().images.clone();
        change(&mut images);
        self.catalog.save(images.values().map(|known| &known.record))?;
        self.state.lock().images = images;
        Ok(())
    }

    pub(super) fn find(&self, name: &str) -> Option<Known> {
        let state = self.state.lock();
        let hex = ["sha256:", "sha512:"].iter().find_map(|algorithm| name.strip_prefix(algorithm)).unwrap_or(name);
        if let Ok(id) = Digest::from_hex(hex)
            && let Some(known) = state.images.get(&id)
        {
            return Some(known.clone());
        }
        if let Ok(reference) = name.parse::<Reference>() {
            let wanted = match reference.digest() {
                Some(digest) => reference.with_digest(digest),
                None => reference.to_string(),
            };
            let named = |known: &&Known| known.record.tags.contains(&wanted) || known.record.digests.contains(&wanted);
            if let Some(known) = state.images.values().find(named) {
                return Some(known.clone());
            }
        }
        let digits = hex.len() >= 7 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut matching = state.images.values().filter(|known| digits && known.record.id.hex().starts_with(hex));
        match (matching.next(), matching.next()) {
            (Some(known), None) => Some(known.clone()),
            _ => None,
        }
    }

    pub(super) fn forget(&self, name: &str) -> Result<(), ImageError> {
        match self.find(name) {
            Some(known) => self.change(|images| {
                images.remove(&known.record.id);
            }),
            None => Ok(()),
        }
    }

    pub(super) fn untag(&self, reference: &str) -> Result<(), ImageError> {
        let Some(known) = self.find(reference) else { return Err(ImageError::NoSuchImage(reference.to_owned())) };
        self.change(|images| {
            let Some(image) = images.get_mut(&known.record.id) else { return };
            image.record.tags.retain(|tag| tag != reference);
            image.record.digests.retain(|digest| digest != reference);
            if image.record.tags.is_empty() {
                images.remove(&known.record.id);
            }
        })
    }

    pub(super) fn collect_garbage(&self) -> Result<(), ImageError> {
        {
            // New pins wait for this lock, and look for what they pinned only then.
            let state = self.state.lock();
            let mut needed: BTreeSet<Digest> = state.pins.keys().copied().collect();
            for known in state.images.values() {
                needed.extend([known.record.id, known.record.manifest]);
                needed.extend(&known.record.layers);
            }
            needed.extend(self.rootfs.in_use());
            for (digest, _) in self.blobs.list()? {
                if !needed.contains(&digest) {
                    self.blobs.remove(digest)?;
                }
            }
            for chain_id in self.layers.list()? {
                if !needed.contains(&chain_id) {
                    self.layers.discard(chain_id)?;
                }
            }
        }
        self.trash.empty()
    }

    pub(super) fn fs_info(&self) -> Result<FsInfo, ImageError> {
        let mut images = Usage::default();
        for (_, size) in self.blobs.list()? {
            images += Usage { bytes: size.next_multiple_of(4096), inodes: 1 };
        }
        for chain_id in self.layers.list()? {
            images += self.layers.usage(chain_id);
        }
        let mut containers = Usage::default();
        for info in self.rootfs.list() {
            containers += self.rootfs.usage(&info.id).unwrap_or_default();
        }
        Ok(FsInfo { folder: self.config.folder.clone(), images, containers })
    }

    pub(super) fn prepare(&self, id: &str, image: &str, access: Access) -> Result<PathBuf, ImageError> {
        let reserved = {
            // Under the lock that garbage collection takes, so that no layer goes between finding and reserving it.
            let known = self.find(image).ok_or_else(|| ImageError::NoSuchImage(image.to_owned()))?;
            let mut state = self.state.lock();
            let Some(known) = state.images.get_mut(&known.record.id) else {
                return Err(ImageError::NoSuchImage(image.to_owned()));
            };
            known.record.last_used = self.config.env.now().as_second();
            let record = rootfs::Record::new(known.record.id, known.record.layers.clone(), access);
            self.rootfs.reserve(id, record)
        };
        self.rootfs.mount(id, &reserved, |chain_id| self.layers.path(chain_id))
    }
}
