//! Which images there are and what they are called: one file, replaced whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use env::Env;
use serde::{Deserialize, Serialize};

use super::blob::{Temporary, sync_folder};
use super::error::At;
use super::{Digest, ImageError};

/// Written first in the file; a release reads its own and the one before.
const FORMAT: u32 = 1;

/// The durable part of an image. What its configuration says is read from its blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The configuration's digest.
    pub id: Digest,
    pub manifest: Digest,
    /// `docker.io/library/busybox:latest`.
    pub tags: Vec<String>,
    /// `docker.io/library/busybox@sha256:…`.
    pub digests: Vec<String>,
    /// Manifest, configuration and layers as transferred.
    pub size: u64,
    /// Chain ids, base first.
    pub layers: Vec<Digest>,
    /// Seconds since the epoch.
    pub last_used: i64,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    format: u32,
    images: Vec<Record>,
}

/// The file.
pub(crate) struct Catalog {
    env: Env,
    path: PathBuf,
}

impl Catalog {
    pub(crate) fn new(env: Env, root: &Path) -> Catalog {
        Catalog { env, path: root.join("images.json") }
    }

    pub(crate) fn load(&self) -> Result<BTreeMap<Digest, Record>, ImageError> {
        #[derive(Deserialize)]
        struct Probe {
            format: u32,
        }
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            other => other.at("read", &self.path)?,
        };
        let malformed = |error: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let probe: Probe = serde_json::from_slice(&bytes).map_err(malformed).at("read", &self.path)?;
        if probe.format > FORMAT {
            return Err(ImageError::Format { path: self.path.clone(), found: probe.format, known: FORMAT });
        }
        let contents: Contents = serde_json::from_slice(&bytes).map_err(malformed).at("read", &self.path)?;
        Ok(contents.images.into_iter().map(|record| (record.id, record)).collect())
    }

    /// Durable when it returns; a crash before leaves the old file.
    pub(crate) fn save<'a>(&self, images: impl Iterator<Item = &'a Record>) -> Result<(), ImageError> {
        let contents = Contents { format: FORMAT, images: images.cloned().collect() };
        let json = serde_json::to_vec(&contents).expect("records of strings and numbers serialise");
        let temporary = Temporary(self.path.with_extension("json.new"));
        let mut file = File::create(&temporary.0).at("create", &temporary.0)?;
        file.write_all(&json).and_then(|()| file.sync_all()).at("write", &temporary.0)?;
        self.env.failpoint("image.catalog.rename")?;
        fs::rename(&temporary.0, &self.path).at("rename to", &self.path)?;
        sync_folder(self.path.parent().unwrap_or(Path::new("/")))
    }
}
