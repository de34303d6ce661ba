//! Images that a container mounts as volumes.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use cri::v1::Mount;

use crate::error::{Context, Error, blocking};
use crate::image::{Access, ImageError};
use crate::state::{Container, Daemon};

/// Mounts them, each by itself and read-only, and tells where, by their place among the container's mounts.
pub(super) async fn prepare(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
) -> Result<BTreeMap<usize, PathBuf>, Error> {
    let mut roots = BTreeMap::new();
    for (index, mount) in container.config.mounts.iter().enumerate() {
        let Some(image) = mount.image.as_ref().filter(|image| !image.image.is_empty()) else { continue };
        let found = daemon.images.status(&image.image);
        let found = found.ok_or_else(|| ImageError::NoSuchImage(image.image.clone()))?;
        let root = daemon.images.prepare(&name(&container.id, index), &found.id.to_string(), Access::ReadOnly).await?;
        let mount = mount.clone();
        roots.insert(index, blocking(move || within(&root, &mount)).await?);
    }
    Ok(roots)
}

/// What the image store calls the volume.
fn name(container: &str, index: usize) -> String {
    format!("{container}.{index}")
}

/// The container of the root file system called `name`, be it its own or one of its volumes'.
pub(crate) fn owner(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Takes away every volume of the container.
pub(super) async fn remove(daemon: &Arc<Daemon>, container: &str) -> Result<(), Error> {
    for name in daemon.images.rootfs_names() {
        if name != container && owner(&name) == container {
            daemon.images.remove_rootfs(&name).await?;
        }
    }
    Ok(())
}

/// The part of the image that is wanted. Its links lead nowhere but into the image.
fn within(root: &Path, mount: &Mount) -> Result<PathBuf, Error> {
    let wanted = Path::new(&mount.image_sub_path);
    if wanted.as_os_str().is_empty() {
        return Ok(root.to_owned());
    }
    if !wanted.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::Invalid(format!("image sub path {:?} leaves the image", mount.image_sub_path)));
    }
    let failed = || format!("image sub path {:?}", mount.image_sub_path);
    let root = fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).context(failed)?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let inside = fs::openat2(&root, wanted, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how).context(failed)?;
    let link = format!("/proc/self/fd/{}", inside.as_raw_fd());
    let found = std::fs::read_link(link).context(failed)?;
    if !found.is_dir() {
        return Err(Error::Invalid(format!("image sub path {:?} is not a directory", mount.image_sub_path)));
    }
    Ok(found)
}
