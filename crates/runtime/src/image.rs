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
mod inner;
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

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use env::Env;
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

use inner::{Inner, Known};
use work::{BlockingReader, blocking};

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
