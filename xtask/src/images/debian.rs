//! Files of Debian packages, without installing anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use testkit::image::Layer;

/// Says nothing unless something is wrong, takes no lock of the machine's package state, and writes where it is told to.
pub const QUIET: &[&str] = &["-qq", "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"];

/// What makes apt believe that nothing is installed, so that it names every library.
const BARE: &[&str] = &["-o", "Dir::State::status=/dev/null", "-o", "APT::Install-Recommends=false"];

/// Runs a program and gives what it printed.
pub fn said(command: &mut Command, doing: &str) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("{doing}: starting {command:?}"))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        let reason = lines.iter().rev().find(|line| line.starts_with("E:")).or(lines.last()).copied();
        bail!("{doing} failed: {}", reason.unwrap_or("no reason given"));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Brings the lists of packages up to date.
pub fn update() -> Result<()> {
    let doing = "fetching the lists of Debian packages (is a Debian mirror reachable?)";
    said(Command::new("apt-get").args(["update", "-qq"]), doing).map(drop)
}

/// Unpacked packages.
pub struct Tree {
    folder: PathBuf,
}

impl Tree {
    /// Unpacks `packages` with all they depend on into `folder`; archives that are there already are not fetched again.
    pub fn unpack(packages: &[&str], archives: &Path, folder: &Path) -> Result<Tree> {
        fs::create_dir_all(archives).with_context(|| format!("creating {}", archives.display()))?;
        let mut ask = Command::new("apt-get");
        ask.args(QUIET).args(BARE).args(["install", "--print-uris", "--yes"]).args(packages);
        // 'http://…/bash_5.2.15-2+b8_amd64.deb' bash_5.2.15-2+b8_amd64.deb 1490652 MD5Sum:…
        let names = said(&mut ask, "asking which Debian packages are needed")?;
        let names: Vec<&str> = names.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        let missing = names.iter().filter(|name| !archives.join(name).exists());
        let missing: Vec<&str> = missing.filter_map(|name| name.split('_').next()).collect();
        if !missing.is_empty() {
            let mut fetch = Command::new("apt-get");
            fetch.args(QUIET).arg("download").args(&missing).current_dir(archives);
            said(&mut fetch, "fetching Debian packages (is a Debian mirror reachable?)")?;
        }
        for name in names {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(archives.join(name)).arg(folder);
            said(&mut unpack, &format!("unpacking {name}"))?;
        }
        Ok(Tree { folder: folder.to_owned() })
    }

    /// The content of a file, links followed.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(path);
        fs::read(&path).with_context(|| format!("reading {} of the Debian packages", path.display()))
    }

    /// Adds programs, each given with the path it gets, and the libraries they load.
    pub fn programs(&self, mut layer: Layer, programs: &[(&str, &str)]) -> Result<Layer> {
        let mut libraries = BTreeMap::new();
        for (program, _) in programs {
            for library in self.libraries(program)? {
                let content = self.read(&library)?;
                libraries.insert(library, content);
            }
        }
        for (path, content) in libraries {
            layer = layer.file(&path, 0o755, content);
        }
        for (program, target) in programs {
            layer = layer.file(target, 0o755, self.read(program)?);
        }
        Ok(layer)
    }

    /// The libraries that a program loads, by their paths in the tree; its own dynamic linker says it, which is one of them.
    fn libraries(&self, program: &str) -> Result<Vec<String>> {
        let (linker, triple) = match std::env::consts::ARCH {
            "aarch64" => ("lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
            _ => ("lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
        };
        let paths = ["lib", "usr/lib"].map(|folder| format!("{}/{folder}/{triple}", self.folder.display()));
        let mut ask = Command::new(self.folder.join(linker));
        ask.args(["--inhibit-cache", "--library-path", &paths.join(":"), "--list"]).arg(self.folder.join(program));
        let listed = said(&mut ask, &format!("listing the libraries of {program}"))?;
        // What threads that end load by name.
        let mut found = vec![linker.to_owned(), format!("lib/{triple}/libgcc_s.so.1")];
        // `libc.so.6 => /tree/lib/x86_64-linux-gnu/libc.so.6 (0x…)`; the linker and the kernel's part have no arrow.
        for line in listed.lines().filter(|line| line.contains("=>")) {
            let path = line.split("=> ").nth(1).and_then(|path| path.split(" (").next()).unwrap_or_default().trim();
            match Path::new(path).strip_prefix(&self.folder) {
                Ok(path) => found.push(path.to_string_lossy().into_owned()),
                Err(_) if path.ends_with(linker) => {}
                Err(_) => bail!("{program}: a library is in none of its packages: {}", line.trim()),
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}
