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

/// Builds the real kubectl from its Go module, unless it stands already, and returns its path.
pub fn clients(root: &Path) -> Result<PathBuf> {
    let folder = std::env::var_os("OXIKUBE_CACHE").map_or_else(|| root.join("target/clients"), PathBuf::from);
    let kubectl = folder.join(format!("kubectl-{KUBERNETES}"));
    if kubectl.exists() {
        return Ok(kubectl);
    }
    let minor = KUBERNETES.split('.').nth(1).expect("a version has a minor part");
    let set = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .map(|package| {
            format!("-X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}")
        })
        .join(" ");
    eprintln!("building kubectl {KUBERNETES} (some minutes, once)");
    let status = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", &set, "-o"])
        .arg(&kubectl)
        .arg("./kubectl")
        .current_dir(root.join("tests/clients"))
        .status()
        .context("starting go, which builds the real kubectl for the tests")?;
    if !status.success() {
        bail!("building kubectl failed: {status}");
    }
    Ok(kubectl)
}
