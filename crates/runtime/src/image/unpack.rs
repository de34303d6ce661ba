//! Unpacks one layer's archive into a folder that becomes a lower folder of an overlay.
//!
//! Every path is resolved by the kernel inside the folder (`openat2` with `RESOLVE_IN_ROOT`), so a symbolic link of the
//! layer can lead anywhere within the layer and nowhere else; names with `..` that climb out are refused. Whiteouts
//! become overlayfs's own. It knows nothing of images: an archive comes in, files come out.

mod copy_up;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, readlinkat, renameat,
    statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::UnpackError;
use super::tarball::{Entry, Kind, Tarball};

/// How much one layer may hold when unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Files, folders, links and so on.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 128 << 30, entries: 4_000_000 }
    }
}

/// What a folder takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// Unpacks `archive` (already decompressed) into the empty folder `root`.
///
/// `parents` are the unpacked layers below, nearest first: a folder this layer doesn't mention takes mode and owner from
/// them. `trash`, on the same file system, receives folders that the archive itself replaces. The archive is read to its
/// very end, so that a caller may hash it on the way.
pub(crate) fn unpack(
    archive: impl Read,
    root: &Path,
    parents: &[PathBuf],
    trash: &Path,
    limits: Limits,
) -> Result<Usage, UnpackError> {
    let folder = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| UnpackError::Entry {
            action: "open",
            path: path.display().to_string(),
            source: error.into(),
        })
    };
    let mut layer = Layer {
        root: folder(root)?,
        trash: folder(trash)?,
        trashed: 0,
        parents: parents.iter().map(|parent| folder(parent)).collect::<Result<_, _>>()?,
        cached: None,
        folders: Vec::new(),
        usage: Usage { bytes: 0, inodes: 1 },
        buffer: vec![0; 128 << 10],
        limits,
    };
    let mut tarball = Tarball::new(archive);
    let mut entries = 0;
    while let Some(entry) = tarball.next_entry().map_err(UnpackError::Archive)? {
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::Limit { what: "entries", limit: limits.entries });
        }
        layer.entry(&entry, &mut tarball)?;
    }
    // Compressors pad; what follows the archive's end belongs to the digest.
    let mut rest = tarball.into_inner();
    loop {
        match rest.read(&mut layer.buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(UnpackError::Archive(error)),
        }
    }
    layer.finish();
    Ok(layer.usage)
}

struct Layer {
    root: OwnedFd,
    trash: OwnedFd,
    trashed: u64,
    parents: Vec<OwnedFd>,
    /// The folder the last entry was put into; dropped whenever something is removed.
    cached: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Folders and the times they get once nothing is put into them any more.
    folders: Vec<(PathBuf, Timestamps)>,
    usage: Usage,
    buffer: Vec<u8>,
    limits: Limits,
}

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE: &str = "trusted.overlay.opaque";

impl Layer {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        let path = clean(&entry.path)?;
        let fail = |action| {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            move |error: Errno| UnpackError::Entry { action, path, source: error.into() }
        };
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The layer's own root.
            return match entry.kind {
                Kind::Directory => {
                    let root =
                        openat(&self.root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                            .map_err(fail("open"))?;
                    self.attributes(&root, entry).map_err(fail("set the attributes of"))?;
                    self.folders.push((path, times(entry)));
                    Ok(())
                }
                _ => Err(UnpackError::Escapes { path: String::from_utf8_lossy(&entry.path).into_owned() }),
            };
        };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let folder = self.folder(&parent).map_err(fail("make the folder of"))?;
        let bytes = name.as_bytes();
        if bytes == WHITEOUT_OPAQUE {
            make_opaque(&folder, OsStr::new(".")).map_err(fail("make opaque the folder of"))
        } else if bytes.starts_with(WHITEOUT_META) {
            Ok(())
        } else if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
            self.whiteout(&folder, OsStr::from_bytes(hidden)).map_err(fail("make whiteout"))
        } else {
            self.make(entry, &path, &folder, &name, content)
        }
    }

    /// The folder at `path`, made with all above it where missing.
    fn folder(&mut self, path: &Path) -> Result<Rc<OwnedFd>, Errno> {
        match &self.cached {
            Some((cached, folder)) if cached == path => Ok(folder.clone()),
            _ => {
                let folder = Rc::new(self.make_folder(path, 0)?);
                self.cached = Some((path.to_owned(), folder.clone()));
                Ok(folder)
            }
        }
    }

    fn resolve(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how)
    }

    fn make_folder(&mut self, path: &Path, depth: u32) -> Result<OwnedFd, Errno> {
        match self.resolve(path) {
            Err(Errno::NOENT) if depth < 40 => {}
            other => return other,
        }
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Err(Errno::NOENT) };
        let above = self.make_folder(parent, depth)?;
        match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                self.usage.inodes += 1;
                if let Some(stat) = self.inherited(path) {
                    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
                    chownat(&above, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                    let folder =
                        openat(&above, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                    fchmod(&folder, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                }
            }
            Err(Errno::EXIST) => {
                // A link to what doesn't exist yet: make what it leads to, inside the root.
                let target = OsString::from_vec(readlinkat(&above, name, Vec::new())?.into_bytes());
                let target = match Path::new(&target).is_absolute() {
                    true => PathBuf::from(target),
                    false => parent.join(target),
                };
                self.make_folder(&clean_in_root(&target), depth + 1)?;
            }
            Err(error) => return Err(error),
        }
        self.resolve(path)
    }

    /// How the folder at `path` looks in the nearest layer below that has it.
    fn inherited(&self, path: &Path) -> Option<Stat> {
        for parent in &self.parents {
            let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(stat) = openat2(parent, path, flags, Mode::empty(), how).and_then(rustix::fs::fstat) {
                return (FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(stat);
            }
        }
        None
    }

    /// Hides `name` of the layers below. What this layer itself has there stays.
    fn whiteout(&mut self, folder: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        if name.is_empty() || name == "." || name == ".." {
            return Err(Errno::INVAL);
        }
        match mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Ok(()) => {
                self.usage.inodes += 1;
                Ok(())
            }
            Err(Errno::EXIST) => match file_type(folder, name)? {
                Some(FileType::Directory) => make_opaque(folder, name),
                _ => Ok(()),
            },
            Err(error) => Err(error),
        }
    }

    fn make(
        &mut self,
        entry: &Entry,
        path: &Path,
        folder: &OwnedFd,
        name: &OsStr,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let text = || String::from_utf8_lossy(&entry.path).into_owned();
        let fail = |action| move |error: Errno| UnpackError::Entry { action, path: text(), source: error.into() };
        let existing = file_type(folder, name).map_err(fail("look at"))?;
        let merge = entry.kind == Kind::Directory && existing == Some(FileType::Directory);
        let hidden = existing.is_some() && is_whiteout(folder, name).map_err(fail("look at"))?;
        let link = match entry.kind {
            Kind::HardLink => {
                self.copy_up(entry, &clean(&entry.link)?)?;
                let (folder, name) = self.link_target(entry)?;
                if is_whiteout(&folder, &name).map_err(fail("link"))? {
                    return Err(fail("link")(Errno::NOENT));
                }
                Some((folder, name))
            }
            _ => None,
        };
        if let (Some((target_folder, target_name)), Some(_)) = (&link, existing) {
            // A link to itself would lose the file.
            let same = |stat: &Stat| (stat.st_dev, stat.st_ino);
            let target = statat(target_folder, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("link"))?;
            let present = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("look at"))?;
            if same(&target) == same(&present) {
                return Ok(());
            }
        }
        if existing.is_some() && !merge {
            self.remove(folder, name).map_err(fail("replace"))?;
        }
        match entry.kind {
            Kind::Directory => {
                if !merge {
                    mkdirat(folder, name, Mode::from_raw_mode(0o700)).map_err(fail("make folder"))?;
                    self.usage.inodes += 1;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(folder, name, flags, Mode::empty()).map_err(fail("open"))?;
                self.attributes(&made, entry).map_err(fail("set the attributes of"))?;
                if hidden {
                    make_opaque(folder, name).map_err(fail("make opaque"))?;
                }
                self.folders.push((path.to_owned(), times(entry)));
                Ok(())
            }
            Kind::File => self.file(entry, folder, name, content),
            Kind::HardLink => {
                let (target_folder, target_name) = link.expect("resolved above for every hard link");
                linkat(&target_folder, &target_name, folder, name, AtFlags::empty()).map_err(fail("link"))
            }
            Kind::Symlink => {
                symlinkat(OsStr::from_bytes(&entry.link), folder, name).map_err(fail("make symbolic link"))?;
                self.special(entry, folder, name).map_err(fail("set the attributes of"))
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let file_type = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = makedev(entry.device.0, entry.device.1);
                mknodat(folder, name, file_type, Mode::from_raw_mode(0o600), device).map_err(fail("make device"))?;
                self.special(entry, folder, name).map_err(fail("set the attributes of"))
            }
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        folder: &OwnedFd,
        name: &OsStr,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let text = || String::from_utf8_lossy(&entry.path).into_owned();
        let fail = |action| move |error: io::Error| UnpackError::Entry { action, path: text(), source: error };
        if self.usage.bytes.saturating_add(entry.size) > self.limits.bytes {
            return Err(UnpackError::Limit { what: "bytes", limit: self.limits.bytes });
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| fail("create")(e.into()))?;
        let mut file = File::from(file);
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => file.write_all(&self.buffer[..n]).map_err(fail("write"))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Archive(error)),
            }
        }
        self.usage.bytes += entry.size.next_multiple_of(4096);
        self.usage.inodes += 1;
        self.attributes(&file, entry).map_err(|e| fail("set the attributes of")(e.into()))?;
        futimens(&file, &times(entry)).map_err(|e| fail("set the times of")(e.into()))
    }

    /// Owner, mode and extended attributes, in this order: a change of owner clears suid and capabilities.
    fn attributes(&self, made: impl std::os::fd::AsFd, entry: &Entry) -> Result<(), Errno> {
        fchown(&made, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        fchmod(&made, Mode::from_raw_mode(entry.mode))?;
        for (key, value) in wanted_xattrs(entry) {
            tolerate(fsetxattr(&made, key, value, XattrFlags::empty()))?;
        }
        Ok(())
    }

    /// The same for what can't be opened: symbolic links, devices, pipes.
    fn special(&mut self, entry: &Entry, folder: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        self.usage.inodes += 1;
        let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        chownat(folder, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            rustix::fs::chmodat(folder, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        if !entry.xattrs.is_empty() {
            use std::os::fd::AsRawFd;
            let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
            for (key, value) in wanted_xattrs(entry) {
                tolerate(lsetxattr(&path, key, value, XattrFlags::empty()))?;
            }
        }
        utimensat(folder, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The folder and name a hard link leads to; the name itself isn't followed.
    fn link_target(&self, entry: &Entry) -> Result<(OwnedFd, OsString), UnpackError> {
        let target = clean(&entry.link)?;
        let text = || String::from_utf8_lossy(&entry.path).into_owned();
        let Some(name) = target.file_name() else {
            return Err(UnpackError::Escapes { path: String::from_utf8_lossy(&entry.link).into_owned() });
        };
        let folder = self.resolve(target.parent().unwrap_or(Path::new("")));
        let folder =
            folder.map_err(|error| UnpackError::Entry { action: "link", path: text(), source: error.into() })?;
        Ok((folder, name.to_owned()))
    }

    fn remove(&mut self, folder: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        self.cached = None;
        match unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                self.trashed += 1;
                renameat(folder, name, &self.trash, self.trashed.to_string())
            }
            other => other,
        }
    }

    /// Sets the folders' times, innermost first.
    fn finish(&self) {
        for (path, times) in self.folders.iter().rev() {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // A folder that the archive replaced later on is no longer there, and its time doesn't matter.
            if let Ok(folder) = openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                let _ = futimens(&folder, times);
            }
        }
    }
}

/// `path` relative to the layer's root, without `.` and `..`; one that climbs out is refused.
fn clean(path: &[u8]) -> Result<PathBuf, UnpackError> {
    let mut clean = PathBuf::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if !clean.pop() {
                    return Err(UnpackError::Escapes { path: String::from_utf8_lossy(path).into_owned() });
                }
            }
            name => clean.push(OsStr::from_bytes(name)),
        }
    }
    Ok(clean)
}

/// Where a link's target lies, `..` at the root staying at the root.
fn clean_in_root(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

fn file_type(folder: &OwnedFd, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_whiteout(folder: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0))
}

/// Makes overlayfs show nothing of the layers below in `folder/name`.
fn make_opaque(folder: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(folder, name, flags, Mode::empty())?;
    fsetxattr(&folder, OPAQUE, b"y", XattrFlags::empty())
}

/// The entry's extended attributes but for overlayfs's own, with which an image could reach into other layers.
fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&OsStr, &[u8])> {
    let own = |key: &[u8]| key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.");
    entry.xattrs.iter().filter(move |(key, _)| !own(key)).map(|(key, value)| (OsStr::from_bytes(key), value.as_slice()))
}

/// Extended attributes that the file system can't keep are left out, as containerd does.
fn tolerate(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
