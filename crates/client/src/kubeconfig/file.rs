//! One file of a kubeconfig: read, edited in place, replaced atomically.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use serde_yaml_ng::{Mapping, Value as Yaml};

use super::KubeconfigError;

pub(super) struct File {
    pub path: PathBuf,
    pub existed: bool,
    root: Mapping,
    changed: bool,
    /// The file is to go, and this folder with it if it is empty.
    gone: Option<Option<PathBuf>>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<File, KubeconfigError> {
        let (text, existed) = match fs::read_to_string(path) {
            Ok(text) => (text, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), false),
            Err(source) => return Err(KubeconfigError::Io { path: path.to_owned(), source }),
        };
        let yaml = |source| KubeconfigError::Yaml { path: path.to_owned(), source };
        let root = match serde_yaml_ng::from_str(&text).map_err(yaml)? {
            Yaml::Mapping(root) => root,
            Yaml::Null => Mapping::new(),
            _ => return Err(KubeconfigError::Shape { path: path.to_owned() }),
        };
        Ok(File { path: path.to_owned(), existed, root, changed: false, gone: None })
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.root.get(field)?.as_str().filter(|text| !text.is_empty())
    }

    pub(super) fn set(&mut self, field: &str, text: &str) {
        self.changed = true;
        self.root.insert(field.into(), text.into());
    }

    pub(super) fn entry(&self, list: &str, name: &str) -> Option<&Mapping> {
        let entries = self.root.get(list)?.as_sequence()?;
        entries.iter().filter_map(Yaml::as_mapping).find(|entry| is_named(entry, name))
    }

    /// The entry, added if it was not there.
    pub(super) fn entry_mut(&mut self, list: &str, name: &str) -> &mut Mapping {
        self.changed = true;
        for (field, text) in [("apiVersion", "v1"), ("kind", "Config")] {
            self.root.entry(field.into()).or_insert_with(|| text.into());
        }
        let entries = self.root.entry(list.into()).or_insert_with(|| Yaml::Sequence(Vec::new()));
        if !entries.is_sequence() {
            *entries = Yaml::Sequence(Vec::new());
        }
        let Yaml::Sequence(entries) = entries else { unreachable!("made a sequence above") };
        let at = entries.iter().position(|entry| entry.as_mapping().is_some_and(|entry| is_named(entry, name)));
        let at = at.unwrap_or_else(|| {
            entries.push(Yaml::Mapping(Mapping::from_iter([("name".into(), name.into())])));
            entries.len() - 1
        });
        let Yaml::Mapping(entry) = &mut entries[at] else { unreachable!("found or made a mapping above") };
        entry
    }

    pub(super) fn remove_entry(&mut self, list: &str, name: &str) {
        let Some(Yaml::Sequence(entries)) = self.root.get_mut(list) else { return };
        let before = entries.len();
        entries.retain(|entry| !entry.as_mapping().is_some_and(|entry| is_named(entry, name)));
        self.changed |= entries.len() != before;
    }

    /// Marks the file to go if it says nothing any more.
    pub(super) fn remove_if_empty(&mut self, folder: Option<PathBuf>) {
        let says_nothing = |(field, value): (&Yaml, &Yaml)| match field.as_str() {
            Some("apiVersion" | "kind") => true,
            _ => {
                value.is_null()
                    || value.as_str() == Some("")
                    || value.as_sequence().is_some_and(Vec::is_empty)
                    || value.as_mapping().is_some_and(Mapping::is_empty)
            }
        };
        if self.root.iter().all(says_nothing) {
            self.gone = Some(folder);
        }
    }

    /// Writes what changed: beside the file, then over it, readable by its owner only.
    pub(super) fn write(&self) -> Result<(), KubeconfigError> {
        let result = match &self.gone {
            Some(folder) => self.unlink(folder.as_deref()),
            None if self.changed => self.replace(),
            None => Ok(()),
        };
        result.map_err(|source| KubeconfigError::Io { path: self.path.clone(), source })
    }

    fn replace(&self) -> io::Result<()> {
        // A link stays one: what it leads to is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_yaml_ng::to_string(&self.root).map_err(io::Error::other)?;
        let beside = with_suffix(&path, &format!(".{}.tmp", std::process::id()));
        let written = (|| {
            drop(fs::remove_file(&beside));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            if let Ok(metadata) = fs::metadata(&path) {
                use std::os::unix::fs::MetadataExt;
                std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
            }
            file.sync_all()?;
            fs::rename(&beside, &path)
        })();
        if written.is_err() {
            drop(fs::remove_file(&beside));
        }
        written
    }

    fn unlink(&self, folder: Option<&Path>) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(folder) = folder {
            // The lock beside the file goes first; its own removal is then nothing.
            drop(fs::remove_file(lock_path(&self.path)));
            drop(fs::remove_dir(folder)); // not if somebody put something there
        }
        Ok(())
    }
}

/// Keeps other programs from editing the file meanwhile, as upstream's tools do.
pub(super) struct Lock(PathBuf);

impl Lock {
    /// Waits up to two seconds for another holder. No lock is needed where the folder does not exist.
    pub(super) fn take(path: &Path) -> Result<Lock, KubeconfigError> {
        let lock = lock_path(path);
        if !path.parent().is_some_and(|folder| folder.as_os_str().is_empty() || folder.is_dir()) {
            return Ok(Lock(lock));
        }
        for _ in 0..40 {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock) {
                Ok(_) => return Ok(Lock(lock)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(source) => return Err(KubeconfigError::Io { path: lock, source }),
            }
        }
        Err(KubeconfigError::Locked { path: lock })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn lock_path(path: &Path) -> PathBuf {
    with_suffix(path, ".lock")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn is_named(entry: &Mapping, name: &str) -> bool {
    entry.get("name").and_then(Yaml::as_str) == Some(name)
}

pub(super) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}
