//! Kernel settings below `/proc/sys`, and a record of what they were before.
//!
//! Settings that several scopes of one network namespace need go back to what they were when the last of these gives them up.
//!
//! Keys are paths (`net/ipv4/ip_forward`). Settings below `net` belong to the calling thread's network namespace.

mod shared;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use self::shared::{Released, Shared};
use crate::{Scope, nft};

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting itself.
    #[error("{action} {key}")]
    Setting {
        /// "read" or "write".
        action: &'static str,
        /// The key.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// The note of who needs it.
    #[error("note who needs a setting")]
    Shared(#[from] nft::Error),
    /// The record of former values.
    #[error("record of settings {}", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The setting's value, without the line's end.
pub fn read(key: &str) -> Result<String, Error> {
    match std::fs::read_to_string(path(key)) {
        Ok(value) => Ok(value.trim_end().to_owned()),
        Err(source) => Err(Error::Setting { action: "read", key: key.to_owned(), source }),
    }
}

/// Sets the value.
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    std::fs::write(path(key), value).map_err(|source| Error::Setting { action: "write", key: key.to_owned(), source })
}

/// Values as they were before this scope changed them, kept in a file below the scope's run folder, so that another process
/// can put them back.
#[derive(Clone, Debug)]
pub struct Record {
    path: PathBuf,
    holder: u32,
}

const HEADER: &str = "oxikube-sysctls 1\n";

impl Record {
    /// The scope's record; nothing is read yet.
    pub fn new(scope: &Scope) -> Record {
        Record { path: scope.run("network/sysctls"), holder: scope.mark() }
    }

    /// Sets `key` (below `net`) to `value`, after noting what it was. A setting that has the value already, and not because of
    /// another scope, is left out of the record.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        let now = read(key)?;
        let shared = Shared::open()?;
        let before = match shared.before(key)? {
            None if now == value => return Ok(()),
            None => now,
            Some(before) => before,
        };
        let failed = |source| Error::Record { path: self.path.clone(), source };
        let mut file = self.lock(true).map_err(failed)?.expect("a file was asked for");
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        if text.is_empty() {
            file.write_all(HEADER.as_bytes()).map_err(failed)?;
        }
        if !entries(&text).any(|(recorded, _)| recorded == key) {
            file.write_all(format!("{key}={before}\n").as_bytes()).map_err(failed)?;
        }
        shared.hold(key, &before, self.holder)?;
        write(key, value)
    }

    /// Puts back every recorded value that no other scope needs, newest first, and forgets the record. Settings that exist no
    /// longer are passed over.
    pub fn restore(&self) -> Result<(), Error> {
        let failed = |source| Error::Record { path: self.path.clone(), source };
        let Some(mut file) = self.lock(false).map_err(failed)? else { return Ok(()) };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let shared = Shared::open()?;
        for (key, value) in entries(&text).collect::<Vec<_>>().into_iter().rev() {
            if shared.release(key, self.holder)? == Released::NeededByOthers {
                continue;
            }
            match write(key, value) {
                Err(Error::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        std::fs::remove_file(&self.path).map_err(failed)
    }

    /// The record's file, locked against other processes; `None` when there is none and none is wanted.
    fn lock(&self, create: bool) -> io::Result<Option<File>> {
        if let Some(folder) = self.path.parent().filter(|_| create) {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = match OpenOptions::new().read(true).append(true).create(create).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
            file => file?,
        };
        flock(&file, FlockOperation::LockExclusive)?;
        file.rewind()?;
        Ok(Some(file))
    }
}

fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().skip(1).filter_map(|line| line.split_once('='))
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::NetNs;

    #[test]
    fn the_first_value_comes_back() {
        let folder = std::env::temp_dir().join(format!("oxikube-sysctl-{}", std::process::id()));
        let scope = Scope::new("sysctl", folder.clone(), folder.clone());
        NetNs::unpinned()
            .unwrap()
            .run(|| {
                let (record, key) = (Record::new(&scope), "net/ipv4/conf/default/rp_filter");
                write(key, "2").unwrap();
                record.set(key, "2").unwrap();
                assert!(!record.path.exists(), "nothing was changed");
                record.set(key, "1").unwrap();
                Record::new(&scope).set(key, "0").unwrap();
                assert_eq!(read(key).unwrap(), "0");
                record.restore().unwrap();
                assert_eq!(read(key).unwrap(), "2");
                record.restore().unwrap();
                assert_eq!(nft::Socket::open().unwrap().tables(nft::Family::Ip).unwrap(), Vec::<String>::new());
            })
            .unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_last_scope_puts_it_back() {
        let folder = std::env::temp_dir().join(format!("oxikube-sysctls-{}", std::process::id()));
        let record = |name: &str| Record::new(&Scope::new(name, folder.join(name), folder.join(name)));
        let (a, b, key) = (record("a"), record("b"), "net/ipv4/ip_forward");
        let check = || {
            write(key, "0").unwrap();
            a.set(key, "1").unwrap();
            b.set(key, "1").unwrap();
            a.restore().unwrap();
            assert_eq!(read(key).unwrap(), "1");
            // A firewall that flushed all rules: what a file says still holds.
            a.set(key, "1").unwrap();
            nft::Socket::open().unwrap().delete_table(nft::Family::Ip, shared::TABLE).unwrap();
            b.restore().unwrap();
            assert_eq!(read(key).unwrap(), "0");
            a.restore().unwrap();
            assert_eq!(read(key).unwrap(), "0");
            // On before anybody came: on afterwards.
            write(key, "1").unwrap();
            a.set(key, "1").unwrap();
            a.restore().unwrap();
            assert_eq!(read(key).unwrap(), "1");
        };
        NetNs::unpinned().unwrap().run(check).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
