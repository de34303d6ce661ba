//! Where one cluster's node keeps its things on this machine, and how they are called.

use std::path::{Path, PathBuf};

/// The only source of names of folders, sockets, links, tables, cgroups and marks. Two scopes with different names share none.
///
/// ```
/// let scope = linux::Scope::new("oxikube", "/run/oxikube/oxikube".into(), "/var/lib/oxikube/oxikube".into());
/// assert!(scope.link("veth1234").len() <= 15);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    name: String,
    run_dir: PathBuf,
    data_dir: PathBuf,
    tag: String,
    mark: u32,
}

impl Scope {
    /// The scope of the cluster `name`; `run_dir` is emptied by a reboot, `data_dir` lasts.
    pub fn new(name: &str, run_dir: PathBuf, data_dir: PathBuf) -> Scope {
        // FNV-1a: the tag must be the same in every process and release.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ byte as u32).wrapping_mul(0x0100_0193));
        let tag = format!("ox{:04x}", hash as u16);
        Scope { name: name.to_owned(), run_dir, data_dir, tag, mark: 0x4000 | (hash & 0x3fff) << 16 }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path below the folder for sockets, state of running things and network namespaces.
    pub fn run(&self, path: impl AsRef<Path>) -> PathBuf {
        self.run_dir.join(path)
    }

    /// A path below the folder for what lasts: store, images, snapshots, volumes, logs.
    pub fn data(&self, path: impl AsRef<Path>) -> PathBuf {
        self.data_dir.join(path)
    }

    /// A network link's name: the scope's tag and `suffix` (at most 9 characters, so that all stays within the kernel's 15).
    pub fn link(&self, suffix: &str) -> String {
        format!("{}{}", self.tag, &suffix[..suffix.len().min(9)])
    }

    /// What every link of this scope begins with.
    pub fn link_prefix(&self) -> &str {
        &self.tag
    }

    /// Whether a link's name is one that some scope would give.
    pub fn is_link_of_any(name: &str) -> bool {
        let tag = name.strip_prefix("ox").and_then(|rest| rest.get(..4));
        tag.is_some_and(|tag| tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// An nftables table's name.
    pub fn table(&self, purpose: &str) -> String {
        format!("oxikube-{}-{purpose}", self.name)
    }

    /// The cgroup path, relative to each hierarchy's root, below which everything of this scope lies.
    pub fn cgroup(&self, path: impl AsRef<Path>) -> PathBuf {
        PathBuf::from(format!("oxikube-{}", self.name)).join(path)
    }

    /// The packet mark bit pattern of this scope.
    pub fn mark(&self) -> u32 {
        self.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_with_other_names_share_nothing() {
        let scope = |name: &str| Scope::new(name, format!("/run/{name}").into(), format!("/data/{name}").into());
        let (a, b) = (scope("oxikube"), scope("staging"));
        assert_ne!(a.link("v1"), b.link("v1"));
        assert_ne!(a.table("nat"), b.table("nat"));
        assert_ne!(a.mark(), b.mark());
        assert_ne!(a.cgroup("x"), b.cgroup("x"));
        assert_eq!(a.link("0123456789abcdef").len(), 15);
        assert!(Scope::is_link_of_any(&a.link("v1")) && !Scope::is_link_of_any("oxide0"));
    }
}
