//! The file under redb, with the places where tests make it fail, and a way to read it when it can't be written.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use env::Env;
use parking_lot::Mutex;
use redb::StorageBackend;
use rustix::fs::Advice;

/// A file as redb's storage. Who may open it is decided by the folder's lock, so it has no locks of its own.
pub(super) struct Disk {
    file: File,
    env: Env,
    /// When the file can't be written: what would have been, so that redb can still repair and read it.
    overlay: Option<Mutex<Overlay>>,
}

struct Overlay {
    len: u64,
    /// Pages by their number.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

const PAGE: usize = 4096;

impl Disk {
    pub(super) fn new(file: File, env: Env) -> Disk {
        Disk { file, env, overlay: None }
    }

    /// The same, never writing to the file.
    pub(super) fn read_only(file: File, env: Env) -> io::Result<Disk> {
        let overlay = Overlay { len: file.metadata()?.len(), pages: BTreeMap::new() };
        Ok(Disk { file, env, overlay: Some(Mutex::new(overlay)) })
    }
}

/// Makes the kernel forget what it keeps of the file: after a failed sync that may differ from the disk.
pub(super) fn drop_cache(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        match &self.overlay {
            Some(overlay) => Ok(overlay.lock().len),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.env.failpoint("store.disk.read")?;
        match &self.overlay {
            Some(overlay) => overlay.lock().read(&self.file, offset, out),
            None => self.file.read_exact_at(out, offset),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.overlay {
            Some(overlay) => {
                overlay.lock().len = len;
                Ok(())
            }
            None => {
                self.env.failpoint("store.disk.grow").map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
                self.file.set_len(len)
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.overlay.is_some() {
            return Ok(());
        }
        self.env.failpoint("store.disk.sync")?;
        self.file.sync_data()?;
        self.env.failpoint("store.disk.synced")?;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.overlay {
            Some(overlay) => overlay.lock().write(&self.file, offset, data),
            None => {
                self.env.failpoint("store.disk.write")?;
                self.file.write_all_at(data, offset)
            }
        }
    }
}

impl Overlay {
    fn read(&self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for_pages(offset, out.len(), |page, within, range| match self.pages.get(&page) {
            Some(bytes) => {
                let length = range.len();
                out[range].copy_from_slice(&bytes[within..within + length]);
                Ok(())
            }
            None => read_padded(file, page * PAGE as u64 + within as u64, &mut out[range]),
        })
    }

    fn write(&mut self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        for_pages(offset, data.len(), |page, within, range| {
            let bytes = match self.pages.entry(page) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let mut bytes = Box::new([0; PAGE]);
                    read_padded(file, page * PAGE as u64, &mut bytes[..])?;
                    new.insert(bytes)
                }
            };
            bytes[within..within + range.len()].copy_from_slice(&data[range]);
            Ok(())
        })
    }
}

/// Calls `each` with every page that a stretch touches, where in the page it begins, and which part of the stretch it is.
fn for_pages(
    offset: u64,
    length: usize,
    mut each: impl FnMut(u64, usize, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let part = (PAGE - within).min(length - done);
        each(at / PAGE as u64, within, done..done + part)?;
        done += part;
    }
    Ok(())
}

/// Reads what the file has; zeros beyond its end.
fn read_padded(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < out.len() {
        match file.read_at(&mut out[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out[filled..].fill(0);
    Ok(())
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("read_only", &self.overlay.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_hides_the_file_and_leaves_it_alone() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, vec![1; 10_000]).unwrap();
        let disk = Disk::read_only(File::open(&path).unwrap(), Env::system()).unwrap();
        let read = |offset, length| {
            let mut out = vec![9; length];
            disk.read(offset, &mut out).map(|()| out)
        };
        disk.write(4_000, &[2; 5_000]).unwrap();
        assert_eq!(read(3_999, 5_002).unwrap(), [&[1][..], &[2; 5_000], &[1]].concat());
        assert!(read(9_999, 2).is_err());
        disk.set_len(20_000).unwrap();
        assert_eq!(disk.len().unwrap(), 20_000);
        assert_eq!(read(9_999, 2).unwrap(), [1, 0]);
        disk.write(19_999, &[3]).unwrap();
        assert_eq!(read(19_998, 2).unwrap(), [0, 3]);
        disk.sync_data().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![1; 10_000]);
    }
}
