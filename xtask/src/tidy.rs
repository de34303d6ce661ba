//! Rules that no compiler knows. Each has a fixture in its tests that breaks it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The layer of each crate: dependencies point down, and crates of layer 3 never depend on each other.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["env", "apimachinery", "store", "linux"]),
    (1, &["api", "rules", "streams", "pki", "cel", "cri", "kustomize"]),
    (2, &["client", "shim", "runtime"]),
    (
        3,
        &[
            "apiserver",
            "controllers",
            "scheduler",
            "kubelet",
            "proxy",
            "dns",
            "ingress",
            "dashboard",
            "kubectl",
            "cluster",
        ],
    ),
    (4, &["oxikube"]),
];

/// Crates outside the layers, and whom they may use: everyone.
const TOOLS: &[&str] = &["testkit", "xtask"];

/// A dependency within one layer that the design has.
const WITHIN: &[(&str, &str)] = &[
    ("apimachinery", "env"),
    ("store", "env"),
    ("linux", "env"),
    ("rules", "cel"),
    ("rules", "api"),
    ("runtime", "shim"),
];

/// Crates that may contain `unsafe`.
const UNSAFE: &[&str] = &["linux", "shim"];

/// A file longer than this must say why at its top, in a line with `Long because`.
const LONG: usize = 800;

/// Checks the work tree and names every breach.
pub fn run(root: &Path) -> Result<()> {
    let metadata = metadata(root)?;
    let mut breaches = layers(&metadata);
    breaches.extend(licences(&metadata));
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    breaches.extend(unnamed(&metadata, &architecture));
    for (path, text) in sources(root)? {
        breaches.extend(source(&path, &text));
    }
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("tidy: {} breaches\n{}", breaches.len(), breaches.join("\n"))
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    license: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

fn metadata(root: &Path) -> Result<Metadata> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("starting cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, names)| names.contains(&name)).map(|(layer, _)| *layer)
}

/// Dependencies point down; only `apiserver` and the binary see `store`.
fn layers(metadata: &Metadata) -> Vec<String> {
    let members = metadata.packages.iter().filter(|p| metadata.workspace_members.contains(&p.id));
    let mut breaches = Vec::new();
    for package in members.filter(|p| !TOOLS.contains(&p.name.as_str())) {
        let Some(from) = layer(&package.name) else {
            breaches.push(format!("crate {} has no layer in xtask/src/tidy.rs", package.name));
            continue;
        };
        let edges = package.dependencies.iter().filter(|d| d.path.is_some() && d.kind.is_none());
        for dependency in edges {
            let within = WITHIN.contains(&(package.name.as_str(), dependency.name.as_str()));
            match layer(&dependency.name) {
                Some(to) if to < from || within => {}
                _ => breaches.push(format!("{} must not depend on {}", package.name, dependency.name)),
            }
            if dependency.name == "store" && !["apiserver", "oxikube"].contains(&package.name.as_str()) {
                breaches.push(format!("{} sees store; only apiserver may", package.name));
            }
        }
    }
    breaches
}

/// Whoever reads `ARCHITECTURE.md` meets every crate.
fn unnamed(metadata: &Metadata, architecture: &str) -> Vec<String> {
    let members = metadata.packages.iter().filter(|p| metadata.workspace_members.contains(&p.id));
    let missing = members.filter(|p| !architecture.contains(&format!("`{}`", p.name)));
    missing.map(|p| format!("crate {} is not in ARCHITECTURE.md", p.name)).collect()
}

/// Every package that is linked in can be had under a permissive licence or the MPL.
fn licences(metadata: &Metadata) -> Vec<String> {
    let fine = |licence: &str| {
        licence
            .replace('/', " OR ")
            .split(" OR ")
            .any(|choice| !choice.contains("GPL") || choice.contains("LGPL-2.1-or-later WITH"))
    };
    let bad = metadata.packages.iter().filter(|p| !p.license.as_deref().is_none_or(fine));
    bad.map(|p| format!("{} is under {}", p.name, p.license.as_deref().unwrap_or_default())).collect()
}

/// All Rust files that are ours and not generated.
fn sources(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let output = Command::new("git").args(["ls-files", "--", "*.rs"]).current_dir(root).output()?;
    let list = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    let ours = list.lines().filter(|path| !path.contains("/generated/")).map(PathBuf::from);
    ours.filter(|path| root.join(path).exists())
        .map(|path| Ok((path.clone(), fs::read_to_string(root.join(&path))?)))
        .collect()
}

fn source(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut breaches = Vec::new();
    if path.file_name().is_some_and(|name| name == "mod.rs") {
        breaches.push(format!("{shown}: use foo.rs and foo/, not mod.rs"));
    }
    let is_test = path.components().any(|c| c.as_os_str() == "tests") || path.ends_with("tests.rs");
    if text.lines().count() > LONG && !is_test && !text.lines().take(20).any(|line| line.contains("Long because")) {
        breaches.push(format!("{shown}: over {LONG} lines and no word why"));
    }
    let krate = path.components().nth(1).map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    let unsafe_here = text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word)) && !code.contains('"')
    });
    if unsafe_here && path.starts_with("crates") && !UNSAFE.contains(&krate.as_str()) && !is_test {
        breaches.push(format!("{shown}: unsafe belongs into linux or shim"));
    }
    if path.ends_with("src/lib.rs") && !text.starts_with("//!") {
        breaches.push(format!("{shown}: a crate begins with what it is"));
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependency: &str) -> Metadata {
        serde_json::from_value(serde_json::json!({
            "workspace_members": [name],
            "packages": [{"id": name, "name": name, "license": "MIT",
                "dependencies": [{"name": dependency, "kind": null, "path": "p"}]}],
        }))
        .unwrap()
    }

    #[test]
    fn dependencies_point_down() {
        let check = |from, to, fine: bool| assert_eq!(layers(&package(from, to)).is_empty(), fine, "{from} -> {to}");
        check("client", "apimachinery", true);
        check("oxikube", "store", true);
        check("runtime", "shim", true);
        check("apimachinery", "client", false);
        check("kubelet", "scheduler", false);
        check("controllers", "store", false);
        check("newcomer", "env", false);
    }

    #[test]
    fn the_architecture_names_every_crate() {
        assert_eq!(unnamed(&package("client", "env"), "| 2 | `client` |"), Vec::<String>::new());
        assert_eq!(unnamed(&package("client", "env"), "| 2 | `clients` |").len(), 1);
    }

    #[test]
    fn copyleft_is_refused() {
        let check = |licence: &str, fine: bool| {
            let mut metadata = package("client", "env");
            metadata.packages[0].license = Some(licence.into());
            assert_eq!(licences(&metadata).is_empty(), fine, "{licence}");
        };
        check("MIT OR GPL-3.0", true);
        check("MIT/Apache-2.0", true);
        check("AGPL-3.0", false);
        check("GPL-2.0-only", false);
    }

    #[test]
    fn sources_are_tidy() {
        let check = |path: &str, text: &str, fine: bool| {
            assert_eq!(source(Path::new(path), text).is_empty(), fine, "{path}");
        };
        check("crates/client/src/lib.rs", "//! Client.\n", true);
        check("crates/client/src/lib.rs", "mod x;\n", false);
        check("crates/client/src/foo/mod.rs", "", false);
        check("crates/client/src/foo.rs", "fn f() { unsafe { g() } }\n", false);
        check("crates/linux/src/foo.rs", "fn f() { unsafe { g() } }\n", true);
        check("crates/client/src/foo.rs", &"\n".repeat(LONG + 1), false);
        check("crates/client/src/foo.rs", &format!("// Long because.{}", "\n".repeat(LONG + 1)), true);
    }
}
