//! Debian's kernel for virtual machines: fetched once, unpacked, and given a first root that knows how to find the real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::images::debian::{self, QUIET, said};

/// Raised when what is prepared changes.
const FORMAT: &str = "3";

/// The package that depends on the newest kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What the first root needs, before it sees the modules on the disk.
const FIRST: &[&str] = &["virtio_pci", "virtio_blk", "ext4", "overlay"];

/// Modules no emulated machine of ours has a use for.
const UNUSED: &[&str] = &[
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/scsi",
    "drivers/hwmon",
    "drivers/iio",
    "drivers/usb",
    "drivers/net/ethernet",
    "drivers/net/wireless",
];

const INIT: &str = include_str!("first-init.sh");

/// A kernel ready to boot.
pub struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Installs what is missing and prepares what isn't there yet, outside of the work tree.
    pub fn prepared() -> Result<Kernel> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("emulated machines are x86_64 ones, and so must this be");
        }
        crate::prerequisites::install()?;
        crate::prerequisites::install_of(crate::prerequisites::OF_MACHINES)?;
        let folder = testkit::peers::folder().join("vm");
        let kernel = Kernel { folder };
        if fs::read_to_string(kernel.folder.join("format")).is_ok_and(|format| format == FORMAT) {
            return Ok(kernel);
        }
        // Whoever does the same meanwhile does it in a folder of its own; the last one's stays.
        let parent = kernel.folder.parent().context("a folder lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        let making = tempfile::tempdir_in(parent).context("making a folder for the kernel")?;
        prepare(making.path())?;
        let _ = fs::remove_dir_all(&kernel.folder);
        fs::rename(making.keep(), &kernel.folder)
            .with_context(|| format!("renaming to {}", kernel.folder.display()))?;
        Ok(kernel)
    }

    /// The kernel itself.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// What every root begins with: busybox and the modules.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// The first root, which runs `command` on the real one.
    pub fn first_root(&self, command: &str) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "proc", "lower", "rw", "root", "modules"] {
            archive.folder(folder);
        }
        let busybox = Path::new("/bin/busybox");
        archive.file("bin/busybox", &read(busybox)?);
        let list = fs::read_to_string(self.folder.join("first")).context("reading the list of first modules")?;
        for (n, path) in list.lines().enumerate() {
            archive.file(&format!("modules/{n:02}.ko"), &read(Path::new(path))?);
        }
        archive.file("init", INIT.as_bytes());
        archive.file("command", command.as_bytes());
        Ok(archive.finish())
    }
}

fn prepare(folder: &Path) -> Result<()> {
    eprintln!("fetching the kernel of emulated machines");
    debian::update()?;
    let mut ask = Command::new("apt-cache");
    let depends = said(ask.args(["depends", PACKAGE]), "asking which kernel is the newest")?;
    let newest =
        depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ").filter(|d| d.starts_with("linux-image")));
    let newest = newest.with_context(|| format!("{PACKAGE} depends on no kernel"))?;
    let mut fetch = Command::new("apt-get");
    fetch.args(QUIET).args(["download", newest]).current_dir(folder);
    said(&mut fetch, "fetching the kernel (is a Debian mirror reachable?)")?;
    let archive = only_entry(folder, "deb")?;
    let unpacked = folder.join("unpacked");
    said(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked), "unpacking the kernel")?;
    fs::remove_file(archive)?;

    let boot = unpacked.join("boot");
    let image = fs::read_dir(&boot)?.flatten().map(|e| e.path()).find(|p| p.to_string_lossy().contains("vmlinuz"));
    fs::rename(image.context("the kernel's package has no kernel")?, folder.join("vmlinuz"))?;
    let tree = folder.join("tree");
    for name in ["bin", "dev", "proc", "sys", "tmp", "run", "etc", "root", "data", "var/lib", "usr/bin", "usr/lib"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::rename(unpacked.join("lib"), tree.join("usr/lib.modules"))?;
    // As on a merged Debian: /lib is /usr/lib.
    fs::rename(tree.join("usr/lib.modules/modules"), tree.join("usr/lib/modules"))?;
    fs::remove_dir_all(tree.join("usr/lib.modules"))?;
    fs::remove_dir_all(&unpacked)?;
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "bin")] {
        std::os::unix::fs::symlink(target, tree.join(link))?;
    }
    fs::create_dir_all(tree.join("usr/lib64"))?;
    let modules = only_entry(&tree.join("usr/lib/modules"), "")?;
    let version = modules.file_name().context("modules have a version")?.to_string_lossy().into_owned();
    for unused in UNUSED {
        let _ = fs::remove_dir_all(modules.join("kernel").join(unused));
    }
    said(Command::new("depmod").arg("-b").arg(&tree).arg(&version), "listing what modules need")?;
    first_modules(folder, &tree, &version)?;
    busybox(&tree)?;
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    fs::write(folder.join("format"), FORMAT)?;
    Ok(())
}

/// Writes down which files the first root loads, in their order, relative to where the folder will be.
fn first_modules(folder: &Path, tree: &Path, version: &str) -> Result<()> {
    let mut paths: Vec<String> = Vec::new();
    let home = testkit::peers::folder().join("vm/tree");
    for module in FIRST {
        let mut ask = Command::new("modprobe");
        ask.arg("-d").arg(tree).args(["-S", version, "--show-depends", module]);
        // `insmod /tree/lib/modules/…/virtio.ko `; `builtin virtio_pci`.
        for line in said(&mut ask, &format!("asking what module {module} needs"))?.lines() {
            let Some(path) = line.strip_prefix("insmod ") else { continue };
            let below = path.trim().strip_prefix(&*tree.to_string_lossy()).unwrap_or(path);
            let path = home.join(below.trim_start_matches('/')).to_string_lossy().into_owned();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    fs::write(folder.join("first"), paths.join("\n")).context("writing the list of first modules")
}

fn busybox(tree: &Path) -> Result<()> {
    fs::copy("/bin/busybox", tree.join("bin/busybox")).context("copying busybox")?;
    for name in said(Command::new("/bin/busybox").arg("--list"), "asking busybox what it can do")?.lines() {
        if name != "busybox" {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(name))?;
        }
    }
    Ok(())
}

/// The one entry of a folder with this extension.
fn only_entry(folder: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut found = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| extension.is_empty() || path.extension().is_some_and(|found| found == extension));
    found.next().with_context(|| format!("{} is empty", folder.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
