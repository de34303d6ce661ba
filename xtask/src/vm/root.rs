//! The disk an emulated machine boots from: busybox, the kernel's modules, and what is to run there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::images::debian::said;

/// A root in the making.
pub struct Root {
    folder: tempfile::TempDir,
    tree: PathBuf,
}

/// The finished disk's image, gone when the last machine that boots from it is.
#[derive(Clone)]
pub struct RootImage(Arc<tempfile::NamedTempFile>);

impl RootImage {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Root {
    pub fn new(kernel: &Kernel) -> Result<Root> {
        let base = kernel.tree();
        // Beside the kernel's files, so that these need no copy.
        let folder = tempfile::tempdir_in(testkit::peers::folder()).context("making a folder for the root")?;
        let tree = folder.path().join("tree");
        said(Command::new("cp").arg("-al").arg(&base).arg(&tree), "copying the kernel's modules")?;
        let root = Root { folder, tree };
        let init = root.place("init")?;
        fs::write(&init, include_str!("init.sh")).context("writing the first process")?;
        fs::set_permissions(&init, PermissionsExt::from_mode(0o755)).context("writing the first process")?;
        Ok(root)
    }

    /// Copies a file or folder to `guest`, links followed; a program that loads libraries brings them.
    pub fn add(&mut self, host: &Path, guest: &str) -> Result<()> {
        let to = self.place(guest)?;
        said(Command::new("cp").arg("-aL").arg(host).arg(&to), &format!("copying {}", host.display()))?;
        if host.is_file() && is_program(host)? { self.libraries(host) } else { Ok(()) }
    }

    /// Copies a program and what it loads.
    pub fn program(&mut self, host: &Path, guest: &str) -> Result<()> {
        self.add(host, guest)
    }

    /// Writes a file.
    pub fn write(&mut self, guest: &str, content: &[u8]) -> Result<()> {
        let to = self.place(guest)?;
        fs::write(&to, content).with_context(|| format!("writing {}", to.display()))
    }

    /// Makes the disk's image.
    pub fn finish(self) -> Result<RootImage> {
        let said_size =
            said(Command::new("du").arg("-sm").arg("--apparent-size").arg(&self.tree), "measuring the root")?;
        let mib: u64 =
            said_size.split_whitespace().next().and_then(|size| size.parse().ok()).context("du says a size")?;
        let image = tempfile::NamedTempFile::new_in(testkit::peers::folder()).context("making the root's disk")?;
        image.as_file().set_len((mib * 5 / 4 + 64) << 20).context("making the root's disk")?;
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"]);
        said(make.arg(&self.tree).arg(image.path()), "making the root's file system")?;
        drop(self.folder);
        Ok(RootImage(Arc::new(image)))
    }

    fn place(&self, guest: &str) -> Result<PathBuf> {
        let to = self.tree.join(guest.trim_start_matches('/'));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        // What is there may be the kernel's own, under a second name.
        let _ = fs::remove_file(&to);
        Ok(to)
    }

    fn libraries(&mut self, program: &Path) -> Result<()> {
        let output = Command::new("ldd").arg(program).output().context("starting ldd")?;
        // A static program has none, and ldd says so by failing.
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let paths: BTreeSet<&str> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
        for path in paths {
            let to = self.place(path)?;
            said(Command::new("cp").arg("-L").arg(path).arg(&to), &format!("copying {path}"))?;
        }
        if listed.contains("not found") {
            bail!("{} lacks a library:\n{listed}", program.display());
        }
        Ok(())
    }
}

fn is_program(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut magic = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.take(4).read_to_end(&mut magic)?;
    Ok(magic == b"\x7fELF")
}
