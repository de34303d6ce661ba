//! The volumes of a cluster's claims, as they lie in its data folder: `volumes/NAME`, and links `claims/NAMESPACE/CLAIM` to them.
//!
//! Read without the cluster, which need not run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Members of the data folder that outlive a cluster whose volumes are kept.
pub(crate) const KEPT: [&str; 2] = ["volumes", "claims"];

/// The volumes that are not empty: each by its claim, `namespace/claim`, or by its own name where nothing leads to it.
pub(crate) fn with_data(data_dir: &Path) -> Result<Vec<String>> {
    let folder = data_dir.join("volumes");
    let names = links(&data_dir.join("claims"))?;
    let mut found = Vec::new();
    for volume in entries(&folder)? {
        if volume.is_dir() && !entries(&volume)?.is_empty() {
            let own = || volume.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(names.get(&volume).cloned().unwrap_or_else(own));
        }
    }
    found.sort();
    Ok(found)
}

/// Where each link leads, with its name.
fn links(claims: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut links = BTreeMap::new();
    for namespace in entries(claims)? {
        for link in entries(&namespace)? {
            if let (Ok(volume), Ok(name)) = (fs::read_link(&link), link.strip_prefix(claims)) {
                links.insert(volume, name.display().to_string());
            }
        }
    }
    Ok(links)
}

/// The members of a folder; none where it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    match read() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", folder.display())),
    }
}

/// Removes everything in the data folder but the volumes and what leads to them.
pub(crate) fn remove_all_else(data_dir: &Path) -> Result<()> {
    for path in entries(data_dir)? {
        if path.file_name().is_some_and(|name| KEPT.iter().any(|kept| name == *kept)) {
            continue;
        }
        let folder = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        let removed = if folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_volumes_with_data_are_told_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path();
        assert_eq!(with_data(data).unwrap(), [""; 0]);
        for name in ["pvc-a", "pvc-b", "pvc-c"] {
            fs::create_dir_all(data.join("volumes").join(name)).unwrap();
        }
        fs::create_dir_all(data.join("claims/shop")).unwrap();
        for (claim, volume) in [("redis", "pvc-a"), ("empty", "pvc-b")] {
            symlink(data.join("volumes").join(volume), data.join("claims/shop").join(claim)).unwrap();
        }
        assert_eq!(with_data(data).unwrap(), [""; 0]);
        fs::write(data.join("volumes/pvc-a/dump"), "x").unwrap();
        fs::write(data.join("volumes/pvc-c/dump"), "x").unwrap();
        assert_eq!(with_data(data).unwrap(), ["pvc-c", "shop/redis"]);
        fs::create_dir_all(data.join("pki/deep")).unwrap();
        fs::write(data.join("cluster.json"), "{}").unwrap();
        remove_all_else(data).unwrap();
        let mut left: Vec<_> = entries(data).unwrap();
        left.sort();
        assert_eq!(left, [data.join("claims"), data.join("volumes")]);
        assert_eq!(fs::read_to_string(data.join("claims/shop/redis/dump")).unwrap(), "x");
    }
}
