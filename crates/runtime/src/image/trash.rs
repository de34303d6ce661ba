//! Removing trees that an image or a container made as deep as it liked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use env::Env;

use super::ImageError;
use super::error::At;

/// A folder on the store's file system whose content is about to go. Moving something here takes it out of sight at once;
/// [`Trash::empty`] frees the space, and so does the next start after a crash.
pub(crate) struct Trash {
    folder: PathBuf,
    next: AtomicU64,
}

impl Trash {
    pub(crate) fn open(env: &Env, folder: PathBuf) -> Result<Trash, ImageError> {
        fs::create_dir_all(&folder).at("create", &folder)?;
        // What an earlier process left may carry small numbers.
        Ok(Trash { folder, next: AtomicU64::new(env.random_u64() >> 8 << 4) })
    }

    /// Moves `path` here. It is no error if it isn't there.
    pub(crate) fn take(&self, path: &Path) -> Result<(), ImageError> {
        match fs::rename(path, self.slot()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("move away", path),
            _ => Ok(()),
        }
    }

    /// Removes all content: folders within folders are moved up first, so depth costs neither stack nor path length.
    pub(crate) fn empty(&self) -> Result<(), ImageError> {
        loop {
            let mut found = false;
            for entry in fs::read_dir(&self.folder).at("list", &self.folder)? {
                found = true;
                self.remove(&entry.at("list", &self.folder)?.path())?;
            }
            if !found {
                return Ok(());
            }
        }
    }

    fn remove(&self, path: &Path) -> Result<(), ImageError> {
        // Another thread may be emptying as well.
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let entries = match fs::read_dir(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    other => other.at("list", path)?,
                };
                for entry in entries {
                    let entry = entry.at("list", path)?;
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        gone(fs::rename(entry.path(), self.slot())).at("move", path)?;
                    } else {
                        gone(fs::remove_file(entry.path())).at("remove", path)?;
                    }
                }
                match fs::remove_dir(path) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                    other => gone(other).at("remove", path),
                }
            }
            Ok(_) => gone(fs::remove_file(path)).at("remove", path),
            Err(_) => Ok(()),
        }
    }

    fn slot(&self) -> PathBuf {
        self.folder.join(format!("{:x}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}
