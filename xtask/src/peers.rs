//! `cargo xtask peers [NAME...]`: upstream's own programs, built from their Go modules as `conformance/go.mod` (and `conformance/helm/go.mod`) pins them.

mod go;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use testkit::image::digest;

/// The Kubernetes that we are measured against.
const KUBERNETES: &str = "v1.35.4";

/// One program.
pub struct Peer {
    /// The name of its file.
    name: &'static str,
    /// The folder of the module that pins it, below `conformance`.
    module: &'static str,
    /// The Go package it is built from; one of ours begins with `./`.
    package: &'static str,
    /// Whether it is the package's test instead of its program.
    test: bool,
}

const fn program(name: &'static str, package: &'static str) -> Peer {
    Peer { name, module: "", package, test: false }
}

/// What tests of every change need comes first.
const PEERS: &[Peer] = &[
    program("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    program("types", "./types"),
    program("client-go", "./client-go"),
    program("etcd", "./etcd"),
    program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Peer { name: "e2e.test", module: "", package: "k8s.io/kubernetes/test/e2e", test: true },
    program("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
    program("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
    program("nonewprivs", "k8s.io/kubernetes/test/images/nonewprivs"),
    program("resource-consumer", "k8s.io/kubernetes/test/images/resource-consumer"),
    program("consume-cpu", "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu"),
    program("pause", "./pause"),
    program("sample-apiserver", "k8s.io/sample-apiserver"),
    program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    program("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    // Has other wishes for the modules that it shares with upstream.
    Peer { name: "helm", module: "helm", package: "helm.sh/helm/v3/cmd/helm", test: false },
];

/// What the project's own tests drive.
pub const OF_TESTS: &[&str] = &["kubectl", "types", "helm"];
/// What `cargo xtask conformance` drives.
pub const OF_THE_SUITE: &[&str] = &["e2e.test", "ginkgo", "kubectl"];
/// What goes into the images of upstream's suite.
pub const OF_IMAGES: &[&str] =
    &["agnhost", "nonewprivs", "resource-consumer", "consume-cpu", "pause", "sample-apiserver", "etcd"];
/// What `cargo xtask parity` compares with.
pub const OF_PARITY: &[&str] = &["etcd", "kube-apiserver"];

/// Builds those of `names` (or all, if it names none) that don't stand as they should yet; `testkit::peers` says where.
pub fn build(root: &Path, names: &[&str]) -> Result<()> {
    let peers = if names.is_empty() { PEERS.iter().collect() } else { named(names)? };
    let module = root.join("conformance");
    let folder = testkit::peers::folder();
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = fs::File::create(folder.join(".lock")).context("creating the lock of the peers' folder")?;
    // Whoever comes second finds everything built.
    lock.lock().context("locking the peers' folder")?;
    let mut missing = Vec::new();
    for peer in peers {
        let stamp = stamp(&module, peer)?;
        let known = fs::read_to_string(stamp_path(&folder, peer)).unwrap_or_default();
        if known != stamp || !folder.join(peer.name).exists() {
            missing.push((peer, stamp));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let go = go::Go::find(&folder)?;
    let modules: BTreeSet<&str> = missing.iter().map(|(peer, _)| peer.module).collect();
    for of in modules {
        go.fetch(&module.join(of))?;
    }
    for (peer, stamp) in missing {
        let path = folder.join(peer.name);
        // Whoever runs the old one meanwhile keeps it, and a build that is cut short leaves nothing that looks whole.
        let temporary = folder.join(format!("{}.new", peer.name));
        go.build(&module.join(peer.module), peer.package, peer.test, &ldflags(), &temporary)?;
        fs::rename(&temporary, &path)
            .and_then(|()| fs::write(stamp_path(&folder, peer), &stamp))
            .with_context(|| format!("putting {} in place", path.display()))?;
    }
    Ok(())
}

/// `cargo xtask peers`: builds and says where they are.
pub fn run(root: &Path, names: &[&str]) -> Result<()> {
    build(root, names)?;
    for peer in if names.is_empty() { PEERS.iter().collect() } else { named(names)? } {
        println!("{}", testkit::peers::path(peer.name).display());
    }
    Ok(())
}

/// The folder with the sources of the Kubernetes that we are measured against, which holds files of its images.
pub fn sources(root: &Path) -> Result<PathBuf> {
    let module = root.join("conformance");
    go::Go::find(&testkit::peers::folder())?.folder_of(&module, "k8s.io/kubernetes")
}

/// What the programs `names` were built from, as one digest.
pub fn made_of(root: &Path, names: &[&str]) -> Result<String> {
    let stamps = named(names)?.into_iter().map(|peer| stamp(&root.join("conformance"), peer));
    Ok(digest(stamps.collect::<Result<Vec<_>>>()?.concat().as_bytes()))
}

fn named(names: &[&str]) -> Result<Vec<&'static Peer>> {
    let mut found = Vec::new();
    for name in names {
        let Some(peer) = PEERS.iter().find(|peer| peer.name == *name) else {
            let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
            bail!("no peer is called {name:?}; there are {}", known.join(", "));
        };
        found.push(peer);
    }
    Ok(found)
}

/// The version goes into both packages, as upstream's own build does.
fn ldflags() -> String {
    let minor = KUBERNETES.split('.').nth(1).expect("a version has a minor part");
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        let facts = [("gitVersion", KUBERNETES), ("gitMajor", "1"), ("gitMinor", minor), ("gitTreeState", "clean")];
        for (name, value) in facts {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

fn stamp_path(folder: &Path, peer: &Peer) -> PathBuf {
    folder.join(format!("{}.stamp", peer.name))
}

/// What a peer is made of: the module's pins, its own sources where they are ours, and the flags.
fn stamp(modules: &Path, peer: &Peer) -> Result<String> {
    let module = modules.join(peer.module);
    let mut files = vec![module.join("go.mod"), module.join("go.sum")];
    if let Some(own) = peer.package.strip_prefix("./") {
        let listed = fs::read_dir(module.join(own)).with_context(|| format!("listing {own}"))?;
        let mut own = listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        own.sort();
        files.extend(own);
    }
    let mut all = format!("{} {} {}\n", peer.package, peer.test, ldflags()).into_bytes();
    for file in files {
        all.extend(fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(digest(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_the_module_pins() {
        let module = fs::read_to_string(crate::root().join("conformance/go.mod")).unwrap();
        assert!(module.contains(&format!("\tk8s.io/kubernetes {KUBERNETES}\n")));
        let staging = KUBERNETES.replace("v1.", "v0.");
        let replaced: Vec<&str> = module.lines().filter(|line| line.contains(" => ")).collect();
        assert!(replaced.len() > 30, "{replaced:?}");
        assert!(replaced.iter().all(|line| line.ends_with(&staging)), "{replaced:?}");
    }

    #[test]
    fn every_peer_of_another_module_is_pinned() {
        for peer in PEERS.iter().filter(|peer| !peer.package.starts_with("./") && !peer.test) {
            let module = crate::root().join("conformance").join(peer.module).join("go.mod");
            let module = fs::read_to_string(module).unwrap();
            let mut words = module.lines().map(|line| line.trim().trim_start_matches("tool "));
            assert!(words.any(|line| line == peer.package), "{} is no tool of go.mod", peer.package);
        }
    }

    #[test]
    fn groups_name_peers() {
        for group in [OF_TESTS, OF_THE_SUITE, OF_IMAGES, OF_PARITY] {
            named(group).unwrap();
        }
        assert!(
            named(&["docker"]).err().unwrap().to_string().contains("no peer is called \"docker\"; there are kubectl,")
        );
    }

    #[test]
    fn a_stamp_follows_the_sources() {
        let module = tempfile::tempdir().unwrap();
        for (path, text) in [("go.mod", "module a"), ("go.sum", ""), ("types/main.go", "package main")] {
            let path = module.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let stamps = || ["types", "kubectl"].map(|name| stamp(module.path(), named(&[name]).unwrap()[0]).unwrap());
        let before = stamps();
        fs::write(module.path().join("types/main.go"), "package main // changed").unwrap();
        let own = stamps();
        assert!(own[0] != before[0] && own[1] == before[1]);
        fs::write(module.path().join("go.mod"), "module b").unwrap();
        assert!(stamps()[0] != own[0] && stamps()[1] != own[1]);
    }
}
