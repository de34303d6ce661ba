//! `cargo xtask images [--conformance]`: images as archives that `oxikube image load` takes: the example's, and those of upstream's suite.

mod busybox;
pub mod debian;
mod upstream;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use testkit::{example, image};

/// What the command line asks for.
pub fn command(root: &Path, arguments: &[&str]) -> Result<()> {
    match arguments {
        [] => run(root),
        ["--conformance"] => {
            run(root)?;
            println!("{}", conformance(root)?.display());
            Ok(())
        }
        _ => bail!("usage: cargo xtask images [--conformance]"),
    }
}

/// The archive of the images that upstream's suite names, made if it isn't there.
pub fn conformance(root: &Path) -> Result<PathBuf> {
    upstream::archive(root)
}

/// Builds the example's from this machine's Debian packages, installing what is missing, into `target/images/`.
pub fn run(root: &Path) -> Result<()> {
    crate::prerequisites::install()?;
    let folder = root.join("target/images");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for named in example::visits_images().context("building the images")? {
        let path = folder.join(named.file).with_extension("tar");
        // Whoever looks meanwhile sees the old archive or the new one.
        let temporary = path.with_extension("tar.new");
        fs::write(&temporary, image::oci_layout(&[(named.reference, &named.image)]))
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))?;
        println!("{}\t{}\t{}", path.display(), named.reference, named.image.id());
    }
    Ok(())
}
