//! What tests need besides Rust: a few Debian packages.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// A file that says a Debian package is there, and the package.
const PACKAGES: &[(&str, &str)] = &[
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/redis-server", "redis-server"),
    // The runtime's cases run on it too.
    ("/usr/sbin/runc", "runc"),
    ("/usr/bin/strace", "strace"),
    // What builds the images of upstream's suite.
    ("/usr/bin/bzip2", "bzip2"),
    ("/usr/bin/dpkg-source", "dpkg-dev"),
    ("/usr/bin/gcc", "gcc"),
    ("/usr/include/stdlib.h", "libc6-dev"),
    ("/usr/bin/make", "make"),
    ("/usr/bin/patch", "patch"),
];

/// What emulated machines need.
pub const OF_MACHINES: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/strip", "binutils"),
    ("/sbin/depmod", "kmod"),
    ("/sbin/mke2fs", "e2fsprogs"),
];

/// Installs the Debian packages that are missing.
pub fn install() -> Result<()> {
    install_of(PACKAGES)
}

/// A command that succeeds where a Debian package is, or the same from elsewhere.
const OF_CLIENTS: &[(&[&str], &str)] = &[
    (&["python3", "-c", "import venv, ensurepip"], "python3-venv"),
    (&["node", "--version"], "nodejs"),
    (&["npm", "--version"], "npm"),
];

/// Installs what runs the clients that others made.
pub fn install_for_clients() -> Result<()> {
    let works = |command: &[&str]| {
        let mut process = Command::new(command[0]);
        process.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process.status().is_ok_and(|status| status.success())
    };
    let missing: Vec<_> =
        OF_CLIENTS.iter().filter(|(command, _)| !works(command)).map(|(_, name)| ("", *name)).collect();
    install_of(&missing)
}

/// Installs those that are missing of `packages`, each with a file that says it is there.
pub fn install_of(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    crate::call("apt-get", &["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&missing);
    crate::call("apt-get", &args).with_context(|| format!("installing {}", missing.join(", ")))
}
