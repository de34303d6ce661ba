//! Upstream's own programs, which `cargo xtask peers` builds from `conformance/`.

use std::path::{Path, PathBuf};

/// Where they are: `$OXIKUBE_CACHE`, or `target/peers` of the work tree.
pub fn folder() -> PathBuf {
    let tree = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
    std::env::var_os("OXIKUBE_CACHE").map_or_else(tree, PathBuf::from)
}

/// The program `name`.
///
/// # Panics
/// If it has not been built.
pub fn path(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "{} is missing: run cargo xtask peers {name} first", path.display());
    path
}
