//! Mounting overlays, however many layers they have.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

/// What one mount shows: `lowers`, nearest first, below a writable folder or none.
pub(crate) struct Overlay<'a> {
    pub lowers: &'a [PathBuf],
    /// Upper and work folder; without them the mount is read-only and needs two lower folders.
    pub writable: Option<(&'a Path, &'a Path)>,
}

impl Overlay<'_> {
    /// Mounts at the folder `target`.
    pub(crate) fn mount(&self, target: &Path) -> io::Result<()> {
        if takes_only_options() {
            return self.mount_by_options(target);
        }
        let created = self.configure().and_then(|context| fsconfig_create(context.as_fd()).map(|()| context));
        match created {
            Ok(context) => {
                let attributes = match self.writable {
                    Some(_) => MountAttrFlags::empty(),
                    None => MountAttrFlags::MOUNT_ATTR_RDONLY,
                };
                let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                Ok(move_mount(mount.as_fd(), "", rustix::fs::CWD, target, flags)?)
            }
            // A kernel that can't take layers one by one although its version says so.
            Err(Errno::INVAL | Errno::NOSYS) => self.mount_by_options(target),
            Err(error) => Err(error.into()),
        }
    }

    fn configure(&self) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in self.lowers {
            fsconfig_set_string(context.as_fd(), "lowerdir+", lower)?;
        }
        if let Some((upper, work)) = self.writable {
            fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
            fsconfig_set_string(context.as_fd(), "workdir", work)?;
        }
        // Layers are shared between mounts, which an index kept in them would forbid.
        fsconfig_set_string(context.as_fd(), "index", "off")?;
        Ok(context)
    }

    /// One page must hold all options, so folders go by descriptor: about 200 layers fit, whatever their paths.
    fn mount_by_options(&self, target: &Path) -> io::Result<()> {
        let folder = |path: &Path| std::fs::OpenOptions::new().read(true).custom_flags(libc_o_path()).open(path);
        let name = |folder: &File| format!("/proc/self/fd/{}", folder.as_raw_fd());
        let lowers = self.lowers.iter().map(|lower| folder(lower)).collect::<io::Result<Vec<_>>>()?;
        let mut options = format!("index=off,lowerdir={}", lowers.iter().map(name).collect::<Vec<_>>().join(":"));
        let mut flags = MountFlags::RDONLY;
        let mut held = Vec::new();
        if let Some((upper, work)) = self.writable {
            flags = MountFlags::empty();
            for (option, path) in [("upperdir", upper), ("workdir", work)] {
                let folder = folder(path)?;
                options += &format!(",{option}={}", name(&folder));
                held.push(folder);
            }
        }
        if options.len() > 4095 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many layers for this kernel"));
        }
        let options = CString::new(options)?;
        Ok(mount("overlay", target, "overlay", flags, options.as_c_str())?)
    }
}

/// Linux before 6.7 takes no layers one by one; before 6.5 it even says so only when all is put together, and in its log each
/// time.
fn takes_only_options() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(6), Some(7))
}

fn libc_o_path() -> i32 {
    rustix::fs::OFlags::PATH.bits() as i32
}

/// Whether something is mounted at the folder `target`.
pub(crate) fn is_mounted(target: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    match (device(target), target.parent().and_then(device)) {
        (Some(target), Some(parent)) => target != parent,
        _ => false,
    }
}

/// Unmounts whatever is mounted at `target`, even if it is in use.
pub(crate) fn unmount_all(target: &Path) -> io::Result<()> {
    while is_mounted(target) {
        unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
