//! Files that change all at once: each set of contents is a folder of its own behind the link `..data`.
//! Upstream: pkg/volume/util/atomic_writer.go.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// Contents by path below the volume.
pub type Payload = BTreeMap<PathBuf, File>;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
    /// The owner, where it isn't root.
    pub uid: Option<u32>,
}

const DATA: &str = "..data";

/// Brings the folder `volume` to `payload`; returns whether anything changed. Readers see either the old files or the new ones.
///
/// `group` owns the files when given (a pod's `fsGroup`). Paths must be relative, without `..`: the API server has checked them.
pub fn write(volume: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|path| !is_plain(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} leaves the volume", bad.display())));
    }
    let data = volume.join(DATA);
    let old = fs::read_link(&data).ok().map(|link| volume.join(link));
    if let Some(old) = &old
        && read(old)? == *payload
    {
        return Ok(false);
    }
    let new = fresh_folder(volume)?;
    if let Err(error) = fill(&new, payload, group) {
        let _ = fs::remove_dir_all(&new);
        return Err(error);
    }
    let name = new.file_name().expect("the folder was made with a name");
    let link = volume.join("..data_tmp");
    remove_if_there(&link)?;
    symlink(name, &link)?;
    fs::rename(&link, &data)?;
    link_visible(volume, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

fn is_plain(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    let starts_reserved =
        matches!(parts.peek(), Some(Component::Normal(first)) if first.to_string_lossy().starts_with(".."));
    parts.peek().is_some() && !starts_reserved && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// What a folder of contents holds. Owners are not compared: they are a function of the pod, which does not change.
fn read(folder: &Path) -> io::Result<Payload> {
    let mut payload = Payload::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path().strip_prefix(folder).expect("entries lie below their folder").to_owned();
            let mode = metadata.permissions().mode() & 0o7777;
            let uid = Some(std::os::unix::fs::MetadataExt::uid(&metadata)).filter(|uid| *uid != 0);
            payload.insert(path, File { content: fs::read(entry.path())?, mode, uid });
        }
    }
    Ok(payload)
}

/// A new folder with a name that no earlier set of contents has.
fn fresh_folder(volume: &Path) -> io::Result<PathBuf> {
    for n in 0_u32.. {
        let path = volume.join(format!("..contents-{n}"));
        match fs::create_dir(&path) {
            Ok(()) => return fs::set_permissions(&path, Permissions::from_mode(0o755)).map(|()| path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many sets of contents"))
}

fn fill(folder: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    for (path, file) in payload {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.content)?;
        if group.is_some() || file.uid.is_some() {
            chown(&target, file.uid, group)?;
        }
        // After the owner: changing that clears some bits.
        fs::set_permissions(&target, Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// Makes the links that users see and removes those of files that are gone.
fn link_visible(volume: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &Path| path.components().next().map(|part| PathBuf::from(part.as_os_str()));
    let wanted: Vec<PathBuf> = payload.keys().filter_map(|path| first(path)).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), volume.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(volume)? {
        let name = PathBuf::from(entry?.file_name());
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(volume.join(name))?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |content: &str| File { content: content.into(), mode: 0o640, uid: None };
        files.iter().map(|(path, content)| (PathBuf::from(path), file(content))).collect()
    }

    #[test]
    fn contents_are_replaced_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let text = |path: &str| fs::read_to_string(folder.path().join(path)).ok();
        assert!(write(folder.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert_eq!((text("a").as_deref(), text("d/b").as_deref()), (Some("1"), Some("2")));
        assert_eq!(fs::metadata(folder.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write(folder.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert!(write(folder.path(), &payload(&[("a", "3")]), None).unwrap());
        assert_eq!((text("a").as_deref(), text("d/b")), (Some("3"), None));
        assert!(!folder.path().join("d").exists());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 3, "one set of contents, its link, and one file's link");
    }

    #[test]
    fn paths_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a/../../x", "..x", ""] {
            assert!(write(folder.path(), &payload(&[(bad, "1")]), None).is_err(), "{bad:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
