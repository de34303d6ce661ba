//! `cargo xtask clients`: clients that others made, each with all it needs, where `testkit::peers` finds them.
//!
//! `conformance/clients` pins their versions: a Python environment, a folder of Node modules, and a Rust program that is built by
//! itself so that nothing of it gets into the product. The one in Go is a peer like upstream's own programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use testkit::image::digest;

use crate::{peers, prerequisites};

/// A client's folder below `conformance/clients`, what pins it there, and how it is made.
struct Client {
    folder: &'static str,
    pins: &'static [&'static str],
    make: fn(from: &Path, to: &Path) -> Result<()>,
}

const CLIENTS: &[Client] = &[
    Client { folder: "python", pins: &["requirements.txt"], make: python },
    Client { folder: "node", pins: &["package.json", "package-lock.json"], make: node },
    Client { folder: "rust", pins: &["Cargo.toml", "Cargo.lock", "src/main.rs"], make: rust },
];

/// Makes those that don't stand as they should yet.
pub fn build(root: &Path) -> Result<()> {
    prerequisites::install_for_clients()?;
    peers::build(root, &["client-go"])?;
    let folder = testkit::peers::folder();
    let lock = fs::File::create(folder.join(".clients.lock")).context("creating the lock of the clients")?;
    lock.lock().context("locking the clients' folder")?;
    for client in CLIENTS {
        let (from, to) = (root.join("conformance/clients").join(client.folder), target(&folder, client));
        let (stamp, known) = (stamp(&from, client.pins)?, to.join("stamp"));
        if fs::read_to_string(&known).is_ok_and(|known| known == stamp) {
            continue;
        }
        eprintln!("making the client in {}", client.folder);
        fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
        (client.make)(&from, &to)?;
        // Last: what was cut short is made again.
        fs::write(&known, stamp).with_context(|| format!("writing {}", known.display()))?;
    }
    Ok(())
}

fn target(folder: &Path, client: &Client) -> PathBuf {
    folder.join(format!("client-{}", client.folder))
}

fn stamp(from: &Path, pins: &[&str]) -> Result<String> {
    let mut all = Vec::new();
    for pin in pins {
        let path = from.join(pin);
        all.extend(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(digest(&all))
}

/// An environment of its own, each package with the digest that it had when it was pinned.
fn python(from: &Path, to: &Path) -> Result<()> {
    call(Command::new("python3").args(["-m", "venv", "--clear"]).arg(to))?;
    let mut pip = Command::new(to.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "-r",
    ]);
    call(pip.arg(from.join("requirements.txt")))
}

/// The modules that the lock file names, next to which the program is run.
fn node(from: &Path, to: &Path) -> Result<()> {
    for pin in ["package.json", "package-lock.json"] {
        fs::copy(from.join(pin), to.join(pin)).with_context(|| format!("copying {pin}"))?;
    }
    call(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(to),
    )
}

fn rust(from: &Path, to: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(from.join("Cargo.toml"));
    call(cargo.env("CARGO_TARGET_DIR", to).env("CARGO_INCREMENTAL", "0"))
}

fn call(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {}", said.trim().lines().last().unwrap_or("it says nothing"));
    Ok(())
}

/// `cargo xtask clients`: makes them and says where they are.
pub fn run(root: &Path) -> Result<()> {
    build(root)?;
    let folder = testkit::peers::folder();
    for client in CLIENTS {
        let path = target(&folder, client);
        if !path.exists() {
            bail!("{} is not there", path.display());
        }
        println!("{}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_by_its_digest() {
        let clients = crate::root().join("conformance/clients");
        let python = fs::read_to_string(clients.join("python/requirements.txt")).unwrap();
        let packages = python.lines().filter(|line| line.contains("==")).count();
        assert!(packages > 5 && python.matches("--hash=sha256:").count() >= packages);
        let node: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(clients.join("node/package-lock.json")).unwrap()).unwrap();
        let packages = node["packages"].as_object().unwrap().iter().filter(|(path, _)| !path.is_empty());
        assert!(packages.clone().count() > 20);
        assert!(packages.clone().all(|(_, package)| package["integrity"].is_string()));
        for client in CLIENTS {
            stamp(&clients.join(client.folder), client.pins).unwrap();
        }
    }
}
