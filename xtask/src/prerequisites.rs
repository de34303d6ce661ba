//! What tests need besides Rust: a few Debian packages and the real clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A file that says a Debian package is there, and the package.
const PACKAGES: &[(&str, &str)] = &[("/bin/busybox", "busybox-static"), ("/usr/bin/redis-server", "redis-server")];

/// The Kubernetes whose clients we test with.
const KUBERNETES: &str = "v1.35.4";

/// Installs the Debian packages that are missing.
pub fn install() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    crate::call("apt-get", &["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&missing);
    crate::call("apt-get", &args).with_context(|| format!("installing {}", missing.join(", ")))
}

/// Builds the real kubectl, and the oracle of upstream's types, from their Go module, unless they stand already; returns
/// kubectl's path.
pub fn clients(root: &Path) -> Result<PathBuf> {
    let minor = KUBERNETES.split('.').nth(1).expect("a version has a minor part");
    let set = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .map(|package| {
            format!("-X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}")
        })
        .join(" ");
    build(root, "parity", "")?;
    build(root, "kubectl", &set)
}

/// Builds one main package of the module.
fn build(root: &Path, name: &str, ldflags: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("OXIKUBE_CACHE").map_or_else(|| root.join("target/clients"), PathBuf::from);
    let path = folder.join(format!("{name}-{KUBERNETES}"));
    if path.exists() {
        return Ok(path);
    }
    eprintln!("building {name} {KUBERNETES} (some minutes, once)");
    let status = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", ldflags, "-o"])
        .arg(&path)
        .arg(format!("./{name}"))
        .current_dir(root.join("tests/clients"))
        .status()
        .context("starting go, which builds what tests compare with")?;
    if !status.success() {
        bail!("building {name} failed: {status}");
    }
    Ok(path)
}
