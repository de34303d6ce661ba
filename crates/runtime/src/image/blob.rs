//! Content by digest: one file per blob, there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use env::Env;

use super::digest::Hashing;
use super::error::At;
use super::{Digest, ImageError};

const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// The folder of blobs, by algorithm, and the one where they are written before they have a name.
pub(crate) struct Blobs {
    env: Env,
    folder: PathBuf,
    ingest: PathBuf,
}

impl Blobs {
    pub(crate) fn open(env: Env, root: &Path) -> Result<Blobs, ImageError> {
        let blobs = Blobs { env, folder: root.join("blobs"), ingest: root.join("ingest") };
        for algorithm in ALGORITHMS {
            let folder = blobs.folder.join(algorithm);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        Ok(blobs)
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn contains(&self, digest: Digest) -> bool {
        self.path(digest).exists()
    }

    /// A new blob that is to be called so; it appears with [`Ingest::commit`].
    pub(crate) fn ingest(&self, expected: Digest) -> Result<Ingest, ImageError> {
        let path = self.ingest.join(format!("blob-{:016x}", self.env.random_u64()));
        let file = File::create_new(&path).at("create", &path)?;
        Ok(Ingest { guard: Temporary(path), content: Hashing::expecting(file, expected), expected })
    }

    /// Keeps `bytes`, whose digest is `digest`.
    pub(crate) fn put(&self, bytes: &[u8], digest: Digest) -> Result<(), ImageError> {
        if !self.contains(digest) {
            let mut ingest = self.ingest(digest)?;
            ingest.write_all(bytes).at("write", &ingest.guard.0)?;
            ingest.commit(self)?;
        }
        Ok(())
    }

    /// A small blob's content, checked again: a disk may lie.
    pub(crate) fn read(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, ImageError> {
        let path = self.path(digest);
        let file = File::open(&path).at("open", &path)?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).at("read", &path)?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge { what: "document", size: bytes.len() as u64, limit });
        }
        match digest.like(&bytes) {
            actual if actual == digest => Ok(bytes),
            actual => Err(ImageError::WrongDigest { expected: digest, actual }),
        }
    }

    /// Removes the blob if it is there.
    pub(crate) fn remove(&self, digest: Digest) -> Result<(), ImageError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(()),
        }
    }

    /// Every blob there is.
    pub(crate) fn list(&self) -> Result<Vec<(Digest, u64)>, ImageError> {
        let mut found = Vec::new();
        for folder in ALGORITHMS.map(|algorithm| self.folder.join(algorithm)) {
            for entry in fs::read_dir(&folder).at("list", &folder)? {
                let entry = entry.at("list", &folder)?;
                let digest = entry.file_name().to_str().map(Digest::from_hex);
                if let (Some(Ok(digest)), Ok(meta)) = (digest, entry.metadata()) {
                    found.push((digest, meta.len()));
                }
            }
        }
        Ok(found)
    }
}

/// A blob being written, hashed on the way. Dropping it leaves nothing.
pub(crate) struct Ingest {
    guard: Temporary,
    content: Hashing<File>,
    expected: Digest,
}

impl Ingest {
    /// How much has been written.
    pub(crate) fn bytes(&self) -> u64 {
        self.content.count()
    }

    /// Makes the content durable under its digest, which must be the expected one.
    pub(crate) fn commit(self, blobs: &Blobs) -> Result<(), ImageError> {
        let Ingest { guard, content, expected } = self;
        let (file, actual, _) = content.finish();
        if actual != expected {
            return Err(ImageError::WrongDigest { expected, actual });
        }
        file.sync_all().at("sync", &guard.0)?;
        blobs.env.failpoint("image.blob.rename")?;
        let path = blobs.path(expected);
        fs::rename(&guard.0, &path).at("rename to", &path)?;
        sync_folder(&blobs.folder.join(expected.algorithm()))
    }
}

impl Write for Ingest {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.content.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.content.flush()
    }
}

/// A file that goes when this does, unless it was renamed.
pub(crate) struct Temporary(pub PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), ImageError> {
    File::open(folder).and_then(|folder| folder.sync_all()).at("sync", folder)
}
