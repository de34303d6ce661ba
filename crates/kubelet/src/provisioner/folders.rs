//! The folders of volumes, and the links to them.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What folders begin with that are being removed.
const TRASH: &str = ".removed-";

/// The node's volumes.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    volumes: PathBuf,
    claims: PathBuf,
}

impl Folders {
    pub(super) fn new(volumes: PathBuf, claims: PathBuf) -> Folders {
        Folders { volumes, claims }
    }

    /// Where the volume called `name` is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.volumes.join(name)
    }

    /// Makes the folder of a volume, for any user to write to, and makes sure that a power cut leaves it there.
    pub(super) fn make(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        fs::create_dir_all(&self.volumes)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
        // Apart from making it: the umask has no say then.
        fs::set_permissions(&path, Permissions::from_mode(0o777))?;
        File::open(&path)?.sync_all()?;
        File::open(&self.volumes)?.sync_all()
    }

    /// Removes the folder if nothing is in it.
    pub(super) fn remove_empty(&self, name: &str) {
        // Not empty, or not there: nothing to do.
        let _ = fs::remove_dir(self.path(name));
    }

    /// Leads a person from `<namespace>/<claim>` to the volume. A link to another volume that is still there keeps its name; the
    /// new one gets the first part of the claim's uid after it then.
    pub(super) fn link(&self, namespace: &str, claim: &str, volume: &str) -> io::Result<()> {
        let folder = self.claims.join(namespace);
        fs::create_dir_all(&folder)?;
        let target = self.path(volume);
        let part = volume.trim_start_matches("pvc-").split('-').next().unwrap_or(volume);
        for name in [claim.to_owned(), format!("{claim}-{part}"), format!("{claim}-{volume}")] {
            let link = folder.join(name);
            match fs::read_link(&link) {
                Ok(found) if found == target => return Ok(()),
                Ok(found) if found.exists() => continue,
                Ok(_) => fs::remove_file(&link)?,
                Err(_) => {}
            }
            match symlink(&target, &link) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => return linked,
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("every name for {claim} is taken")))
    }

    /// Removes a volume with all that is in it, and what leads to it. Succeeds when it is gone already.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let (path, trash) = (self.path(name), self.volumes.join(format!("{TRASH}{name}")));
        // What an earlier try left comes first, so that the name is free.
        linux::tree::remove(&trash)?;
        if !linux::mount::mounts()?.iter().all(|mount| !mount.path.starts_with(&path)) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("something is mounted in {}", path.display()),
            ));
        }
        match fs::rename(&path, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => {
                renamed?;
                File::open(&self.volumes)?.sync_all()?;
                linux::tree::remove(&trash)?;
            }
        }
        self.unlink(&path)
    }

    /// Removes the links to a volume.
    fn unlink(&self, target: &Path) -> io::Result<()> {
        for namespace in entries(&self.claims)? {
            for link in entries(&namespace)? {
                if fs::read_link(&link).is_ok_and(|found| found == target) {
                    fs::remove_file(&link)?;
                }
            }
            // Another claim's link may be in it.
            let _ = fs::remove_dir(&namespace);
        }
        Ok(())
    }

    /// Removes what was being removed, and empty folders that are not `known`: an empty one holds nobody's data.
    pub(super) fn sweep(&self, known: &dyn Fn(&str) -> bool) -> io::Result<()> {
        for path in entries(&self.volumes)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(TRASH) {
                linux::tree::remove(&path)?;
            } else if name.starts_with("pvc-") && !known(&name) && fs::remove_dir(&path).is_ok() {
                self.unlink(&path)?;
            }
        }
        Ok(())
    }
}

/// What is in a folder; nothing if it is not there.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(found) => found.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(root: &Path) -> Folders {
        Folders::new(root.join("volumes"), root.join("claims"))
    }

    #[test]
    fn a_link_is_never_reused_while_its_volume_is_there() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        for name in ["pvc-1111-a", "pvc-2222-b"] {
            folders.make(name).unwrap();
            folders.make(name).unwrap();
        }
        let leads = |link: &str| fs::read_link(root.path().join("claims/ns").join(link)).ok();
        folders.link("ns", "data", "pvc-1111-a").unwrap();
        folders.link("ns", "data", "pvc-1111-a").unwrap();
        folders.link("ns", "data", "pvc-2222-b").unwrap();
        assert_eq!(leads("data"), Some(folders.path("pvc-1111-a")));
        assert_eq!(leads("data-2222"), Some(folders.path("pvc-2222-b")));
        fs::write(folders.path("pvc-1111-a").join("file"), "x").unwrap();
        folders.remove("pvc-1111-a").unwrap();
        folders.remove("pvc-1111-a").unwrap();
        assert_eq!(leads("data"), None);
        folders.link("ns", "data", "pvc-2222-b").unwrap();
        assert_eq!(leads("data"), Some(folders.path("pvc-2222-b")), "its plain name is free again");
        folders.remove("pvc-2222-b").unwrap();
        assert_eq!(entries(&root.path().join("claims")).unwrap().len(), 0);
        assert_eq!(entries(&root.path().join("volumes")).unwrap().len(), 0);
    }

    #[test]
    fn sweeping_keeps_data() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        for name in ["pvc-empty", "pvc-known", "pvc-full"] {
            folders.make(name).unwrap();
            folders.link("ns", name, name).unwrap();
        }
        fs::write(folders.path("pvc-full").join("file"), "x").unwrap();
        fs::create_dir_all(folders.path(".removed-pvc-old").join("a/b")).unwrap();
        folders.sweep(&|name| name == "pvc-known").unwrap();
        let mut left: Vec<_> = entries(&root.path().join("volumes")).unwrap();
        left.sort();
        assert_eq!(left, [folders.path("pvc-full"), folders.path("pvc-known")]);
        assert!(!root.path().join("claims/ns/pvc-empty").is_symlink());
    }

    #[test]
    fn what_is_mounted_in_a_volume_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        folders.make("pvc-1").unwrap();
        let (mount, other) = (folders.path("pvc-1").join("mounted"), root.path().join("other"));
        fs::create_dir(&mount).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "mine").unwrap();
        linux::mount::bind(&other, &mount).unwrap();
        let refused = folders.remove("pvc-1").unwrap_err();
        linux::mount::unmount_all(&mount).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        assert!(other.join("file").exists() && mount.exists());
        folders.remove("pvc-1").unwrap();
    }
}
