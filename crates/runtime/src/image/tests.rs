//! The store as its users see it: pulls from a registry in this process, archives, root file systems, crashes.

mod crash;
mod crowd;
mod load;
mod pull;
mod rootfs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::image::{Image, Layer, Packing};

use super::*;

/// A store in a folder of its own; what it mounted goes with it.
struct Place {
    env: Env,
    folder: tempfile::TempDir,
    store: Option<ImageStore>,
    extra_ca: Vec<Vec<u8>>,
}

impl Place {
    async fn new() -> Place {
        let mut place =
            Place { env: Env::system(), folder: tempfile::tempdir().unwrap(), store: None, extra_ca: Vec::new() };
        place.reopen().await;
        place
    }

    fn config(&self) -> Config {
        let mut config = Config::at(self.env.clone(), self.folder.path().join("images"));
        config.retry_delay = Duration::from_millis(1);
        config.extra_ca = self.extra_ca.clone();
        config
    }

    /// Ends the store, as a crash of its owner would, and opens it again.
    async fn reopen(&mut self) {
        self.store = None;
        // Work that was given up may still hold the lock for a moment.
        let deadline = self.env.monotonic() + Duration::from_secs(60);
        loop {
            match ImageStore::open(self.config()).await {
                Ok(store) => break self.store = Some(store),
                Err(ImageError::Locked(_)) if self.env.monotonic() < deadline => {
                    self.env.sleep(Duration::from_millis(5)).await
                }
                Err(error) => panic!("{}", error.report()),
            }
        }
    }

    fn store(&self) -> &ImageStore {
        self.store.as_ref().unwrap()
    }

    /// What lies in the store's folders.
    fn content(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for folder in ["blobs/sha256", "layers", "ingest", "trash", "rootfs"] {
            for entry in std::fs::read_dir(self.folder.path().join("images").join(folder)).unwrap() {
                found.insert(format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap()));
            }
        }
        found
    }

    /// Collects garbage until downloads that were given up, or had just ended, have left nothing.
    async fn becomes_empty(&self, what: &str) {
        let deadline = self.env.monotonic() + Duration::from_secs(60);
        loop {
            self.store().collect_garbage().await.unwrap();
            if self.content().is_empty() || self.env.monotonic() >= deadline {
                break;
            }
            self.env.sleep(Duration::from_millis(5)).await;
        }
        self.assert_empty(what);
    }

    fn assert_empty(&self, what: &str) {
        assert_eq!(self.content(), BTreeSet::new(), "{what}");
        assert!(self.store().list().is_empty(), "{what}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for info in self.store.iter().flat_map(ImageStore::rootfs) {
            let _ = overlay::unmount_all(&info.path);
        }
    }
}

/// Three layers in three packings, the upper ones hiding some of the lower.
fn layered() -> Image {
    let base =
        Layer::new().dir("etc", 0o755).dir("tmp", 0o1777).file("etc/gone", 0o644, "1").file("etc/kept", 0o644, "base");
    let base = base.dir("opq", 0o755).file("opq/old", 0o644, "old").file("bin/suid", 0o4755, "#!");
    let middle = Layer::new().whiteout("etc/gone").dir("opq", 0o755).opaque("opq").file("opq/new", 0o644, "new");
    let top = Layer::new().file("etc/kept", 0o644, "top").file("tmp/f", 0o644, "");
    Image::new()
        .layer(base, Packing::Gzip)
        .layer(middle, Packing::Zstd)
        .layer(top, Packing::Plain)
        .cmd(["sh"])
        .env(["PATH=/bin"])
        .user("1000:1000")
}

/// An image of one small layer.
fn small(content: &str) -> Image {
    Image::new().layer(Layer::new().file("f", 0o644, content), Packing::Gzip)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn root(place: &Place) -> PathBuf {
    place.folder.path().join("images")
}

#[tokio::test]
async fn one_process_at_a_time_has_the_store() {
    let place = Place::new().await;
    assert!(matches!(ImageStore::open(place.config()).await, Err(ImageError::Locked(_))));
}

#[tokio::test]
async fn a_later_release_s_catalog_is_left_alone() {
    let mut place = Place::new().await;
    place.store = None;
    let path = root(&place).join("images.json");
    std::fs::write(&path, r#"{"format":2,"pictures":[]}"#).unwrap();
    let error = ImageStore::open(place.config()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ImageError::Format { found: 2, known: 1, .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), r#"{"format":2,"pictures":[]}"#);
}
