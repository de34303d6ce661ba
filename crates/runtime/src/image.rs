//! Images: pulled or loaded once, unpacked once, mounted for each container.
//!
//! Content is named by what it is. Blobs are called by their digest, unpacked layers by their chain id, images by the digest
//! of their configuration; each appears under its name by a rename after it has been verified and synced, so a crash
//! leaves nothing half. A layer's compressed blob goes once it is unpacked. The one mutable thing is the catalog, which says
//! what images there are and what they are called.
//!
//! It knows nothing of pods, of CRI's messages or of credentials' sources.
//!
//! ```no_run
//! # async fn example(env: env::Env, scope: linux::Scope) -> Result<(), runtime::image::ImageError> {
//! use runtime::image::{Access, Config, Credentials, ImageStore};
//! let images = ImageStore::open(Config::new(env, &scope)).await?;
//! let id = images.pull("busybox", &Credentials::Anonymous).await?;
//! let root = images.prepare("container-1", &id.to_string(), Access::ReadWrite).await?;
//! # Ok(()) }
//! ```

mod blob;
mod catalog;
mod compression;
mod config;
mod digest;
mod error;
mod layers;
mod load;
mod overlay;
mod pull;
mod reference;
mod registry;
mod rootfs;
mod tarball;
mod trash;
mod unpack;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use parking_lot::Mutex;
use tokio::io::AsyncRead;

pub use config::{ImageConfig, ImageUser};
pub use digest::Digest;
pub use error::{Code, ImageError, UnpackError};
pub use load::Loaded;
pub use pull::{OnProgress, Progress};
pub use reference::Reference;
pub use registry::Credentials;
pub use rootfs::{Access, RootfsInfo};
pub use unpack::{Limits, Usage};

use error::At;
use work::{BlockingReader, KeyedLocks, blocking};

/// What a store is opened with.
#[derive(Clone)]
pub struct Config {
    pub env: Env,
    /// The store's folder; it is created.
    pub folder: PathBuf,
    /// Certificates (PEM) of authorities to trust besides the system's.
    pub extra_ca: Vec<Vec<u8>>,
    /// How much a layer, or an archive of images, may hold.
    pub limits: Limits,
    /// How often a request to a registry is tried again when the failure may pass.
    pub retries: u32,
    /// How long to wait before the first of these; each next one waits twice as long.
    pub retry_delay: Duration,
}

impl Config {
    /// The store of the node `scope`, with the usual limits.
    pub fn new(env: Env, scope: &linux::Scope) -> Config {
        Config::at(env, scope.data("images"))
    }

    /// A store in `folder`, with the usual limits.
    pub fn at(env: Env, folder: PathBuf) -> Config {
        let retry_delay = Duration::from_millis(500);
        Config { env, folder, extra_ca: Vec::new(), limits: Limits::default(), retries: 3, retry_delay }
    }
}

/// One image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration: CRI's image id.
    pub id: Digest,
    /// The digest of its manifest for this machine.
    pub manifest: Digest,
    /// `docker.io/library/busybox:latest` and so on.
    pub tags: Vec<String>,
    /// `docker.io/library/busybox@sha256:…` and so on; an image from an archive has none.
    pub digests: Vec<String>,
    /// Bytes of manifest, configuration and layers as they were transferred.
    pub size: u64,
    /// When it was last pulled, loaded or prepared, in seconds since the epoch.
    pub last_used: i64,
    /// How to run it.
    pub config: ImageConfig,
}

/// What the store takes on disk.
#[derive(Clone, Debug)]
pub struct FsInfo {
    /// The store's folder, by which its file system is found.
    pub folder: PathBuf,
    /// Layers and blobs.
    pub images: Usage,
    /// What containers wrote.
    pub containers: Usage,
}

/// The images of a node. Clones are handles to the same store.
#[derive(Clone)]
pub struct ImageStore(Arc<Inner>);

struct Inner {
    config: Config,
    blobs: blob::Blobs,
    layers: layers::Layers,
    rootfs: rootfs::Rootfs,
    catalog: catalog::Catalog,
    trash: Arc<trash::Trash>,
    locks: KeyedLocks,
    state: Mutex<State>,
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
struct State {
    images: BTreeMap<Digest, Known>,
    /// Blobs and layers that something under way needs, though no image names them yet.
    pins: HashMap<Digest, usize>,
}

#[derive(Clone)]
struct Known {
    record: catalog::Record,
    config: Arc<ImageConfig>,
}

impl ImageStore {
    /// Opens the store, and removes what a crash left unfinished. Fails if another process has it open.
    pub async fn open(config: Config) -> Result<ImageStore, ImageError> {
        blocking(move || Inner::open(config)).await.map(|inner| ImageStore(Arc::new(inner)))
    }

    /// Pulls what `reference` names and gives the image's id. What is here already isn't fetched again; pulls of the same
    /// thing at the same time share the work. Dropping the future gives the pull up.
    pub async fn pull(&self, reference: &str, credentials: &Credentials) -> Result<Digest, ImageError> {
        self.pull_with_progress(reference, credentials, None).await
    }

    /// The same, telling how far it has come.
    pub async fn pull_with_progress(
        &self,
        reference: &str,
        credentials: &Credentials,
        on_progress: Option<OnProgress>,
    ) -> Result<Digest, ImageError> {
        let reference: Reference = reference.parse()?;
        let result = pull::pull(&self.0, &reference, credentials, on_progress).await;
        if !result.as_ref().is_err_and(ImageError::is_transient) {
            self.tidy().await;
        }
        result.map_err(|source| ImageError::Pull { reference: reference.to_string(), source: Box::new(source) })
    }

    /// Loads the images of an archive: `docker save`'s or an OCI layout in a tar file; plain, gzip or zstd. All of them or none.
    pub async fn load(&self, archive: impl AsyncRead + Send + Unpin + 'static) -> Result<Vec<Loaded>, ImageError> {
        let (inner, reader) = (self.0.clone(), BlockingReader::new(archive));
        let result = blocking(move || load::load(&inner, reader)).await;
        self.tidy().await;
        result.map_err(|source| ImageError::Load { source: Box::new(source) })
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        self.0.state.lock().images.values().map(Known::image).collect()
    }

    /// The image that `name` means: an id (`sha256:…`, or at least its first 7 digits), a reference, or `repository@digest`.
    pub fn status(&self, name: &str) -> Option<Image> {
        self.0.find(name).map(|known| known.image())
    }

    /// Removes the image that `name` means, with all its names, as CRI has it. Containers keep running: what they stand on
    /// goes with the last of them. It is no error if there is no such image.
    pub async fn remove(&self, name: &str) -> Result<(), ImageError> {
        let (inner, name) = (self.0.clone(), name.to_owned());
        blocking(move || inner.forget(&name)).await?;
        self.collect_garbage().await
    }

    /// Removes one name; the image goes with its last.
    pub async fn untag(&self, name: &str) -> Result<(), ImageError> {
        let (inner, reference) = (self.0.clone(), name.parse::<Reference>()?.to_string());
        blocking(move || inner.untag(&reference)).await?;
        self.collect_garbage().await
    }

    /// Removes blobs and layers that no image, no container and nothing under way needs.
    pub async fn collect_garbage(&self) -> Result<(), ImageError> {
        let inner = self.0.clone();
        blocking(move || inner.collect_garbage()).await
    }

    /// What the store takes on disk.
    pub async fn fs_info(&self) -> Result<FsInfo, ImageError> {
        let inner = self.0.clone();
        blocking(move || inner.fs_info()).await
    }

    /// Mounts the image's files for the container `id` and gives the folder. Doing it again gives the same folder, mounted;
    /// what the container wrote is kept until [`ImageStore::remove_rootfs`].
    pub async fn prepare(&self, id: &str, image: &str, access: Access) -> Result<PathBuf, ImageError> {
        check_id(id)?;
        let lock = self.0.locks.of(format!("rootfs {id}"));
        let turn = lock.lock_owned().await;
        let (inner, id, image) = (self.0.clone(), id.to_owned(), image.to_owned());
        blocking(move || {
            let _turn = turn;
            inner.prepare(&id, &image, access)
        })
        .await
    }

    /// Unmounts and removes what [`ImageStore::prepare`] made for `id`. It is no error if there is nothing.
    pub async fn remove_rootfs(&self, id: &str) -> Result<(), ImageError> {
        check_id(id)?;
        let lock = self.0.locks.of(format!("rootfs {id}"));
        let turn = lock.lock_owned().await;
        let (inner, id) = (self.0.clone(), id.to_owned());
        blocking(move || {
            let _turn = turn;
            inner.rootfs.remove(&id)?;
            inner.collect_garbage()
        })
        .await
    }

    /// Unmounts the root file systems of all containers but keeps what they wrote: what `stop` wants.
    pub async fn unmount_all(&self) -> Result<(), ImageError> {
        let inner = self.0.clone();
        blocking(move || inner.rootfs.list().iter().try_for_each(|info| inner.rootfs.unmount(&info.id))).await
    }

    /// Every root file system that was prepared and not removed, by this process or an earlier one.
    pub fn rootfs(&self) -> Vec<RootfsInfo> {
        self.0.rootfs.list()
    }

    /// Whose root file systems there are, without a look at the disk.
    pub fn rootfs_names(&self) -> Vec<String> {
        self.0.rootfs.names()
    }

    /// What the container wrote; `None` if nothing was prepared for `id`.
    pub async fn rootfs_usage(&self, id: &str) -> Result<Option<Usage>, ImageError> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        blocking(move || Ok(inner.rootfs.usage(&id))).await
    }

    /// Garbage that can't be removed now is no reason to fail; the next collection tries again.
    async fn tidy(&self) {
        if let Err(error) = self.collect_garbage().await {
            tracing::warn!(error = error.report(), "garbage of images is left");
        }
    }
}

impl Known {
    fn image(&self) -> Image {
        let catalog::Record { id, manifest, tags, digests, size, last_used, .. } = self.record.clone();
        Image { id, manifest, tags, digests, size, last_used, config: ImageConfig::clone(&self.config) }
    }
}

/// Keeps blobs and layers from being collected while it lives.
struct Pins {
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
    fn open(config: Config) -> Result<Inner, ImageError> {
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

    fn root(&self) -> &Path {
        &self.config.folder
    }

    fn io(&self, action: &'static str, source: io::Error) -> ImageError {
        ImageError::Io { action, path: self.config.folder.clone(), source }
    }

    /// The image with its configuration, if all of it is there.
    fn know(&self, record: catalog::Record) -> Result<Known, ImageError> {
        if let Some(missing) = record.layers.iter().find(|chain_id| !self.layers.contains(**chain_id)) {
            return Err(self.io("find a layer below", io::Error::new(io::ErrorKind::NotFound, missing.to_string())));
        }
        let bytes = self.blobs.read(record.id, config::MAX_DOCUMENT)?;
        let config = Arc::new(ImageConfig::parse(&bytes, record.id)?);
        Ok(Known { record, config })
    }

    fn pin(self: &Arc<Self>, digests: Vec<Digest>) -> Pins {
        let mut state = self.state.lock();
        for digest in &digests {
            *state.pins.entry(*digest).or_default() += 1;
        }
        drop(state);
        Pins { store: self.clone(), digests }
    }

    /// Unpacks the last layer of `chain` unless it is there or somebody else is at it.
    fn unpack(&self, blob: &Path, diff_id: Digest, chain: &[Digest]) -> Result<(), ImageError> {
        let Some(chain_id) = chain.last() else { return Ok(()) };
        let lock = self.locks.of(format!("layer {chain_id}"));
        let _turn = lock.blocking_lock();
        match self.layers.contains(*chain_id) {
            true => Ok(()),
            false => self.layers.unpack(blob, diff_id, chain),
        }
    }

    /// Names the images, all or none. A tag leaves the image that had it.
    fn record(&self, records: Vec<catalog::Record>) -> Result<(), ImageError> {
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
    fn change(&self, change: impl FnOnce(&mut BTreeMap<Digest, Known>)) -> Result<(), ImageError> {
        let _writing = self.writing.lock();
        let mut images = self.state.lock().images.clone();
        change(&mut images);
        self.catalog.save(images.values().map(|known| &known.record))?;
        self.state.lock().images = images;
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Known> {
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

    fn forget(&self, name: &str) -> Result<(), ImageError> {
        match self.find(name) {
            Some(known) => self.change(|images| {
                images.remove(&known.record.id);
            }),
            None => Ok(()),
        }
    }

    fn untag(&self, reference: &str) -> Result<(), ImageError> {
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

    fn collect_garbage(&self) -> Result<(), ImageError> {
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

    fn fs_info(&self) -> Result<FsInfo, ImageError> {
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

    fn prepare(&self, id: &str, image: &str, access: Access) -> Result<PathBuf, ImageError> {
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

/// Ids become names of folders.
fn check_id(id: &str) -> Result<(), ImageError> {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    match plain && !id.is_empty() && id.len() <= 200 && !id.starts_with('.') {
        true => Ok(()),
        false => Err(ImageError::InvalidId(id.to_owned())),
    }
}

#[cfg(test)]
mod tests;
