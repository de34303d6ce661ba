//! A pull: resolve, fetch what is missing, unpack in order, and only then give it its name.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};

use super::catalog;
use super::config::{Descriptor, Document, ImageConfig, MAX_DOCUMENT, Manifest, chain_ids};
use super::registry::{Registry, stream_error};
use super::work::{Task, blocking};
use super::{Credentials, Digest, ImageError, Inner, Reference};

/// How far a pull has come, in bytes of the layers that weren't here yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// Receives [`Progress`], possibly from several threads.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// How many layers one pull fetches at a time; containerd's default.
const DOWNLOADS: usize = 3;

/// What the parts of one pull share.
struct Pull {
    store: Arc<Inner>,
    registry: Registry,
    slots: Semaphore,
    done: AtomicU64,
    total: AtomicU64,
    on_progress: Option<OnProgress>,
}

/// Pulls and gives the image's id.
pub(crate) async fn pull(
    store: &Arc<Inner>,
    reference: &Reference,
    credentials: &Credentials,
    on_progress: Option<OnProgress>,
) -> Result<Digest, ImageError> {
    let lock = store.locks.of(format!("pull {reference}"));
    let _turn = lock.lock().await;
    let (inner, asked, credentials) = (store.clone(), reference.clone(), credentials.clone());
    let registry = blocking(move || Registry::new(&asked, &credentials, &inner.config.extra_ca)).await?;
    let pull = Arc::new(Pull {
        store: store.clone(),
        registry,
        slots: Semaphore::new(DOWNLOADS),
        done: AtomicU64::new(0),
        total: AtomicU64::new(0),
        on_progress,
    });
    let resolve = |source| ImageError::Resolve { reference: reference.to_string(), source: Box::new(source) };
    let (named, manifest_digest, manifest_bytes, manifest) = pull.resolve().await.map_err(resolve)?;

    let mut pinned = vec![manifest_digest, manifest.config.digest];
    pinned.extend(manifest.layers.iter().map(|layer| layer.digest));
    let pins = store.pin(pinned);
    let config_bytes = pull.config(&manifest.config).await?;
    let config = ImageConfig::parse(&config_bytes, manifest.config.digest)?;
    let diff_ids = config.diff_ids().to_vec();
    if diff_ids.len() != manifest.layers.len() {
        let message = format!("{} layers in the manifest, {} diff ids", manifest.layers.len(), diff_ids.len());
        return Err(ImageError::Malformed { what: "image configuration", digest: manifest.config.digest, message });
    }
    let chain = chain_ids(&diff_ids);
    let _chain_pins = store.pin(chain.clone());

    let id = manifest.config.digest;
    let size = manifest_bytes.len() as u64 + manifest.config.size + manifest.layers.iter().map(|l| l.size).sum::<u64>();
    pull.layers(&manifest, &diff_ids, &chain).await?;
    let record = catalog::Record {
        id,
        manifest: manifest_digest,
        tags: reference.tagged().into_iter().collect(),
        digests: vec![reference.with_digest(named)],
        size,
        layers: chain,
        last_used: store.config.env.now().as_second(),
    };
    let inner = store.clone();
    blocking(move || {
        inner.blobs.put(&manifest_bytes, manifest_digest)?;
        inner.blobs.put(&config_bytes, id)?;
        inner.record(vec![record])
    })
    .await?;
    drop(pins);
    Ok(id)
}

impl Pull {
    /// What the reference names, and the manifest for this machine: the same unless an index lies between.
    async fn resolve(&self) -> Result<(Digest, Digest, Vec<u8>, Manifest), ImageError> {
        self.retrying(|| self.registry.authenticate()).await?;
        let (bytes, named) = self.retrying(|| self.registry.manifest(None)).await?;
        let index = match Document::parse(&bytes, named)? {
            Document::Manifest(manifest) => return Ok((named, named, bytes, *manifest)),
            Document::Index(index) => index,
        };
        let chosen = index.select(named)?.digest;
        let (bytes, digest) = self.retrying(|| self.registry.manifest(Some(chosen))).await?;
        match Document::parse(&bytes, digest)? {
            Document::Manifest(manifest) => Ok((named, digest, bytes, *manifest)),
            Document::Index(_) => {
                let message = "an index within an index".to_owned();
                Err(ImageError::Malformed { what: "index", digest, message })
            }
        }
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        if descriptor.size > MAX_DOCUMENT {
            let (size, limit) = (descriptor.size, MAX_DOCUMENT);
            return Err(ImageError::TooLarge { what: "image configuration", size, limit });
        }
        self.fetch(descriptor, false).await?;
        let (inner, digest) = (self.store.clone(), descriptor.digest);
        blocking(move || inner.blobs.read(digest, MAX_DOCUMENT)).await
    }

    /// Fetches several layers at a time, unpacks them one upon the other.
    async fn layers(
        self: &Arc<Self>,
        manifest: &Manifest,
        diff_ids: &[Digest],
        chain: &[Digest],
    ) -> Result<(), ImageError> {
        let mut tasks = Vec::new();
        for (descriptor, chain_id) in manifest.layers.iter().zip(chain) {
            if !self.store.layers.contains(*chain_id) {
                self.total.fetch_add(descriptor.size, Ordering::Relaxed);
            }
            let (pull, descriptor, chain_id) = (self.clone(), descriptor.clone(), *chain_id);
            tasks.push(Task(self.store.config.env.spawn(async move {
                let _slot = pull.slots.acquire().await;
                match pull.store.layers.contains(chain_id) {
                    true => Ok(()),
                    false => pull.fetch(&descriptor, true).await,
                }
            })));
        }
        for (n, mut task) in tasks.into_iter().enumerate() {
            (&mut task.0).await.map_err(|_| ImageError::Interrupted)??;
            let (inner, digest, diff_id) = (self.store.clone(), manifest.layers[n].digest, diff_ids[n]);
            let chain = chain[..=n].to_vec();
            blocking(move || inner.unpack(&inner.blobs.path(digest), diff_id, &chain)).await?;
        }
        Ok(())
    }

    /// Makes sure that the blob is here.
    async fn fetch(&self, descriptor: &Descriptor, counts: bool) -> Result<(), ImageError> {
        let lock = self.store.locks.of(format!("blob {}", descriptor.digest));
        let _turn = lock.lock().await;
        if self.store.blobs.contains(descriptor.digest) {
            return Ok(());
        }
        let fetched = self.retrying(|| self.fetch_once(descriptor, counts)).await;
        fetched.map_err(|source| ImageError::Fetch { digest: descriptor.digest, source: Box::new(source) })
    }

    async fn fetch_once(&self, descriptor: &Descriptor, counts: bool) -> Result<(), ImageError> {
        let mut stream = self.registry.blob(descriptor).await?;
        let (tx, mut rx) = mpsc::channel::<Bytes>(16);
        let (inner, expected) = (self.store.clone(), descriptor.clone());
        let writer = blocking(move || {
            let mut ingest = inner.blobs.ingest(expected.digest)?;
            while let Some(bytes) = rx.blocking_recv() {
                ingest.write_all(&bytes).map_err(|source| inner.io("write a blob below", source))?;
                if ingest.bytes() > expected.size {
                    return Err(ImageError::WrongSize { expected: expected.size, actual: ingest.bytes() });
                }
            }
            Ok(ingest)
        });
        let mut counted = 0;
        let reader = async {
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|error| stream_error(&error))?;
                counted += chunk.len() as u64;
                if counts {
                    self.advance(chunk.len() as u64);
                }
                if tx.send(chunk).await.is_err() {
                    break; // the writer tells why it stopped
                }
            }
            drop(tx);
            Ok(())
        };
        let (read, written): (Result<(), ImageError>, _) = tokio::join!(reader, writer);
        let result = match (read, written) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(()), Ok(ingest)) if ingest.bytes() != descriptor.size => {
                Err(ImageError::WrongSize { expected: descriptor.size, actual: ingest.bytes() })
            }
            (Ok(()), Ok(ingest)) => {
                let inner = self.store.clone();
                blocking(move || ingest.commit(&inner.blobs)).await
            }
        };
        if result.is_err() && counts {
            self.done.fetch_sub(counted, Ordering::Relaxed);
        }
        result
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(on_progress) = &self.on_progress {
            on_progress(Progress { done, total: self.total.load(Ordering::Relaxed) });
        }
    }

    /// Tries again, a few times and ever later, what failed for reasons that may pass.
    async fn retrying<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, ImageError>>,
    {
        let (env, config) = (&self.store.config.env, &self.store.config);
        let mut delay = config.retry_delay;
        for _ in 0..config.retries {
            match attempt().await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(error = error.report(), "trying again");
                    env.sleep(env.jitter(delay, 0.5)).await;
                    delay *= 2;
                }
                other => return other,
            }
        }
        attempt().await
    }
}
