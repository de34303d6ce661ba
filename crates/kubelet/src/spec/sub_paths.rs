//! `subPath`: a file or folder within a volume, held fast so that nobody exchanges it between the check and the mount.
//!
//! A container of the pod may write to the volume while another one is being started, and could put a link where a folder was. So
//! each step into the volume is taken by descriptor, links followed nowhere, and what is found is mounted below the pod's folder; the
//! runtime is told that place. Upstream: pkg/volume/util/subpath.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The folder with one pod's mounts of this kind.
pub(crate) fn folder(pod: &Path) -> PathBuf {
    pod.join("volume-subpaths")
}

/// Mounts `sub` of `volume` at `place` and returns it. Folders that are missing are made.
pub(super) fn hold(volume: &Path, sub: &Path, place: &Path) -> io::Result<()> {
    let found = open(volume, sub)?;
    linux::mount::unmount_all(place)?;
    make_target(place, &found)?;
    linux::mount::bind(&Path::new("/proc/self/fd").join(found.as_raw_fd().to_string()), place)
}

/// What lies at `sub`, links within the volume followed, as long as it stays in it.
fn open(volume: &Path, sub: &Path) -> io::Result<OwnedFd> {
    if !sub.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::other("it leaves the volume"));
    }
    let root = fs::canonicalize(volume)?;
    // Where links lead is looked at by path; that nothing changed since is made sure by descriptor.
    let mut existing = root.join(sub);
    let mut missing = Vec::new();
    while fs::symlink_metadata(&existing).is_err() {
        missing.extend(existing.file_name().map(ToOwned::to_owned));
        existing = existing.parent().ok_or_else(|| io::Error::other("it leaves the volume"))?.to_owned();
    }
    let real = fs::canonicalize(&existing)?;
    let real = real.strip_prefix(&root).map_err(|_| io::Error::other("it leaves the volume"))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(&root, flags | OFlags::DIRECTORY, Mode::empty())?;
    // Who may write to the volume may write to what is made in it.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&at)?.st_mode & 0o7777);
    for part in real.components() {
        at = step(&at, part.as_os_str().as_ref(), flags)?;
    }
    for name in missing.iter().rev() {
        let made = match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        at = step(&at, name.as_ref(), flags | OFlags::DIRECTORY)?;
        if made {
            // By a descriptor for it, as the umask has no say in this.
            let folder = step(&at, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
            rustix::fs::fchmod(&folder, mode)?;
        }
    }
    Ok(at)
}

/// One name further down, which is no link.
fn step(at: &OwnedFd, name: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(at, name, flags, Mode::empty(), how)?)
}

/// A file for a file, a folder for a folder.
fn make_target(place: &Path, of: &OwnedFd) -> io::Result<()> {
    let is_folder = FileType::from_raw_mode(rustix::fs::fstat(of)?.st_mode) == FileType::Directory;
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() == is_folder => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir(place)?,
        Ok(_) => fs::remove_file(place)?,
        Err(_) => {}
    }
    fs::create_dir_all(place.parent().unwrap_or(Path::new("/")))?;
    if is_folder { fs::create_dir(place) } else { fs::File::create_new(place).map(|_| ()) }
}

/// Takes a pod's mounts away, and nothing that is in them: what is left of the folder holds no content of ours.
pub(crate) fn release(pod: &Path) -> io::Result<()> {
    let folder = folder(pod);
    if !folder.exists() {
        return Ok(());
    }
    linux::mount::unmount_below(&folder)?;
    remove_empty(&folder)
}

fn remove_empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove_empty(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_cannot_be_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, pod) = (folder.path().join("volume"), folder.path().join("pod"));
        fs::create_dir_all(volume.join("data/inner")).unwrap();
        fs::write(volume.join("data/inner/file"), "mine").unwrap();
        std::os::unix::fs::symlink("data/inner", volume.join("link")).unwrap();
        let place = super::folder(&pod).join("v/c/0");
        hold(&volume, Path::new("link"), &place).unwrap();
        // Whatever the pod puts there now.
        fs::remove_file(volume.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("link")).unwrap();
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "mine");
        // Again, of another kind, in the same place.
        hold(&volume, Path::new("data/inner/file"), &place).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "mine");
        release(&pod).unwrap();
        release(&pod).unwrap();
        assert!(!super::folder(&pod).exists() && volume.join("data/inner/file").exists());
    }

    #[test]
    fn nothing_outside_the_volume_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("nowhere", volume.join("dangling")).unwrap();
        for sub in ["../x", "out", "out/made", "dangling", "/etc"] {
            assert!(open(&volume, Path::new(sub)).is_err(), "{sub}");
        }
        assert!(!Path::new("/etc/made").exists());
        fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o2777)).unwrap();
        open(&volume, Path::new("new/folder")).unwrap();
        for made in ["new", "new/folder"] {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(volume.join(made)).unwrap());
            assert_eq!(mode & 0o7777, 0o2777, "{made}");
        }
    }
}
