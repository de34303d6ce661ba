//! `cargo xtask images`: the example's images as archives that `oxikube image load` takes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use testkit::{example, image};

/// Builds them from this machine's Debian packages, installing what is missing, into `target/images/`.
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
