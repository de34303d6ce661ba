//! Folders that strangers wrote to: removed, or given to a group. Links are not followed, and nothing that is mounted in them is
//! touched. However deep a folder is that is removed, neither the stack nor the descriptors run out.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Removes the folder `path` with all that is in it. Succeeds when it is not there.
///
/// # Errors
/// `CrossesDevices` or `ResourceBusy` when something is mounted in it: what lies outside that may be gone then, the rest is untouched.
pub fn remove(path: &Path) -> io::Result<()> {
    let root = match open_root(path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut moved = 0;
    loop {
        let folders = empty_of_files(&root)?;
        if folders.is_empty() {
            break;
        }
        for name in folders {
            flatten(&root, &name, &mut moved)?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How deep a folder may be that is given to a group.
const DEEPEST: usize = 400;

/// Gives the folder and all in it to `group`, which may read and write it too (only read with `read_only`), and whose everything made
/// in it will be. Upstream: pkg/volume SetVolumeOwnership.
pub fn give_to_group(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let root = open_root(path)?;
    give(&root, group, read_only)?;
    give_inner(&root, group, read_only, DEEPEST)
}

/// Whether the folder itself is as [`give_to_group`] leaves it.
pub fn belongs_to_group(path: &Path, group: u32, read_only: bool) -> io::Result<bool> {
    let found = rustix::fs::stat(path)?;
    let bits = group_bits(true, read_only);
    Ok(found.st_gid == group && found.st_mode & bits == bits)
}

fn group_bits(is_folder: bool, read_only: bool) -> u32 {
    let files = if read_only { 0o440 } else { 0o660 };
    if is_folder { files | 0o2110 } else { files }
}

fn give(entry: &OwnedFd, group: u32, read_only: bool) -> io::Result<()> {
    let found = rustix::fs::fstat(entry)?;
    let gid = Some(Gid::from_raw(group));
    rustix::fs::chownat(entry, "", None, gid, AtFlags::EMPTY_PATH)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if kind != FileType::Symlink {
        let mode = found.st_mode & 0o7777 | group_bits(kind == FileType::Directory, read_only);
        // By way of the descriptor, as whoever owns the folder may put a link where a file was.
        rustix::fs::chmod(format!("/proc/self/fd/{}", entry.as_raw_fd()), Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

fn give_inner(folder: &OwnedFd, group: u32, read_only: bool, deeper: usize) -> io::Result<()> {
    if deeper == 0 {
        return Err(io::Error::other(format!("folders are nested more than {DEEPEST} deep")));
    }
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        let opened = match rustix::fs::openat2(folder, name, flags, Mode::empty(), how) {
            // Gone meanwhile, or somebody else's filesystem.
            Err(Errno::NOENT | Errno::XDEV) => continue,
            opened => opened?,
        };
        give(&opened, group, read_only)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            give_inner(&rustix::fs::openat(&opened, ".", flags, Mode::empty())?, group, read_only, deeper - 1)?;
        }
    }
    Ok(())
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Moves the folders in `name` up beside it, and removes it with its files: so no path gets longer than two names.
fn flatten(root: &OwnedFd, name: &CString, moved: &mut u64) -> io::Result<()> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat2(root, name.as_c_str(), flags, Mode::empty(), how)?;
    for inner in empty_of_files(&folder)? {
        loop {
            *moved += 1;
            let beside = format!(".{moved}");
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&folder, inner.as_c_str(), root, &*beside, flags) {
                Err(Errno::EXIST) => {}
                renamed => break renamed?,
            }
        }
    }
    Ok(rustix::fs::unlinkat(root, name.as_c_str(), AtFlags::REMOVEDIR)?)
}

/// Removes what is no folder, and returns the folders.
fn empty_of_files(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut folders = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_folder = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        if is_folder {
            folders.push(name.to_owned());
        } else {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, gone) = (folder.path().join("kept"), folder.path().join("gone"));
        fs::create_dir_all(gone.join("a/b")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "mine").unwrap();
        fs::write(gone.join("a/b/file"), "").unwrap();
        symlink(&kept, gone.join("link")).unwrap();
        symlink(&kept, gone.join("a/link")).unwrap();
        remove(&gone).unwrap();
        remove(&gone).unwrap();
        assert!(!gone.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "mine");
        symlink(&kept, &gone).unwrap();
        assert!(remove(&gone).is_err(), "a link is no folder");
    }

    #[test]
    fn depth_is_no_matter() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep");
        fs::create_dir(&root).unwrap();
        let mut at = open_root(&root).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        remove(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_group_gets_everything() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&other, root.join("a/link")).unwrap();
        assert!(!belongs_to_group(&root, 4321, false).unwrap());
        give_to_group(&root, 4321, false).unwrap();
        assert!(belongs_to_group(&root, 4321, false).unwrap());
        let check = |path: &Path, expect: (u32, u32)| {
            let found = fs::symlink_metadata(path).unwrap();
            assert_eq!((found.gid(), found.mode() & 0o7777 & expect.1), expect, "{}", path.display());
        };
        check(&root.join("a"), (4321, 0o2770));
        check(&root.join("a/file"), (4321, 0o660));
        check(&root.join("a/link"), (4321, 0));
        assert_eq!((fs::metadata(&other).unwrap().gid(), fs::metadata(&other).unwrap().mode() & 0o777), (0, 0o600));
    }

    #[test]
    fn mounts_are_not_crossed() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, root) = (folder.path().join("outside"), folder.path().join("root"));
        fs::create_dir_all(root.join("a/mounted")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "mine").unwrap();
        crate::mount::bind(&outside, &root.join("a/mounted")).unwrap();
        assert!(remove(&root).is_err());
        crate::mount::unmount_below(&root).unwrap();
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
        remove(&root).unwrap();
    }
}
