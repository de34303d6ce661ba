//! A hard link to a file of a layer below: as in a mounted overlay, the file comes up into this layer first, so that both names
//! are one file. Upstream: containerd's `archive.Apply` on mounted layers.

use std::io::Seek;

use rustix::fs::{fgetxattr, flistxattr, fstat};

use super::*;

/// What a layer says about a path.
enum Below {
    File(File, Stat),
    /// Nothing, and layers below may have it.
    Unknown,
    /// It is not there, whatever layers below have.
    Hidden,
}

impl Layer {
    /// Makes sure that `target`, if a layer below has it as a file, is in this layer too.
    pub(super) fn copy_up(&mut self, entry: &Entry, target: &Path) -> Result<(), UnpackError> {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let fail = |error: io::Error| UnpackError::Entry { action: "link", path: path.clone(), source: error };
        // In this layer, or hidden by it: nothing to bring up. What is wrong then is told by the link itself.
        let found = match look(&self.root, target).map_err(|error| fail(error.into()))? {
            Below::Unknown => self.find_below(target).map_err(|error| fail(error.into()))?,
            Below::File(..) | Below::Hidden => None,
        };
        let Some((mut file, stat)) = found else { return Ok(()) };
        let size = stat.st_size as u64;
        if self.usage.bytes.saturating_add(size) > self.limits.bytes {
            return Err(UnpackError::Limit { what: "bytes", limit: self.limits.bytes });
        }
        let folder = self.folder(target.parent().unwrap_or(Path::new(""))).map_err(|error| fail(error.into()))?;
        let name = target.file_name().unwrap_or_default();
        copy(&mut file, &stat, &folder, name).map_err(fail)?;
        self.usage.bytes += size.next_multiple_of(4096);
        self.usage.inodes += 1;
        Ok(())
    }

    fn find_below(&self, target: &Path) -> Result<Option<(File, Stat)>, Errno> {
        for parent in &self.parents {
            match look(parent, target)? {
                Below::File(file, stat) => return Ok(Some((file, stat))),
                Below::Hidden => return Ok(None),
                Below::Unknown => {}
            }
        }
        Ok(None)
    }
}

fn look(layer: &OwnedFd, target: &Path) -> Result<Below, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path, flags| openat2(layer, path, flags | OFlags::CLOEXEC, Mode::empty(), how);
    match open(target, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(found) => {
            let stat = fstat(&found)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                // A whiteout, or what has no content to share.
                return Ok(Below::Hidden);
            }
            Ok(Below::File(File::from(open(target, OFlags::RDONLY | OFlags::NOFOLLOW)?), stat))
        }
        Err(Errno::NOENT) => hides_below(target, open),
        // Something else than a folder is in the way.
        Err(Errno::NOTDIR) => Ok(Below::Hidden),
        Err(error) => Err(error),
    }
}

/// Whether a folder on the way to `target` is one that shows nothing of the layers below.
fn hides_below(target: &Path, open: impl Fn(&Path, OFlags) -> Result<OwnedFd, Errno>) -> Result<Below, Errno> {
    for folder in target.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        match open(folder, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => {
                if fgetxattr(&folder, OPAQUE, &mut [0u8; 8][..]).is_ok() {
                    return Ok(Below::Hidden);
                }
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) => return Ok(Below::Hidden),
            Err(error) => return Err(error),
        }
    }
    Ok(Below::Unknown)
}

/// The file with its attributes, under `name` in `folder`.
fn copy(from: &mut File, stat: &Stat, folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = File::from(openat(folder, name, flags, Mode::from_raw_mode(0o600))?);
    from.rewind()?;
    io::copy(from, &mut to)?;
    fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(from, &to)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds as _, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(&to, &times)?)
}

fn copy_xattrs(from: &File, to: &File) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0u8; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let size = fgetxattr(from, name, &mut value[..])?;
        tolerate(fsetxattr(to, name, &value[..size], XattrFlags::empty()))?;
    }
    Ok(())
}
