//! busybox as its own default configuration has it, from Debian's source package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use testkit::image::digest;

use super::debian::said;

/// What the build takes, and the Debian package that has it.
const NEEDED: &[(&str, &str)] =
    &[("gcc", "gcc"), ("make", "make"), ("dpkg-source", "dpkg-dev"), ("bzip2", "bzip2"), ("patch", "patch")];

/// What differs from the default configuration. One program without libraries; `tc` doesn't build with newer kernel headers; a shell
/// that looks for programs where `PATH` says, as upstream's image does, and that passes on variables whose names are none in a
/// shell, which Debian's patches make an option.
const OPTIONS: &[(&str, bool)] = &[
    ("STATIC", true),
    ("TC", false),
    ("FEATURE_PREFER_APPLETS", false),
    ("FEATURE_SH_STANDALONE", false),
    ("FEATURE_DI_ENV_HACK", true),
];

/// Debian's keys, where apt doesn't find them by itself.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The program, built into `folder` unless it is there already as this file has it built.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let (program, stamp) = (folder.join("busybox"), folder.join("busybox.stamp"));
    let recipe = digest(include_bytes!("busybox.rs"));
    if program.exists() && fs::read_to_string(&stamp).is_ok_and(|known| known == recipe) {
        return Ok(program);
    }
    for (tool, package) in NEEDED {
        if Command::new(tool).arg("--version").output().is_err() {
            bail!("building busybox takes {tool}: install the Debian package {package}");
        }
    }
    eprintln!("building busybox");
    let temporary = tempfile::tempdir().context("making a temporary folder")?;
    let source = temporary.path().join("source");
    fetch(temporary.path(), &source)?;
    let config = make(&source, &["defconfig"]).and_then(|()| configured(&source.join(".config")))?;
    fs::write(source.join(".config"), config).context("writing busybox's configuration")?;
    make(&source, &["oldconfig"])?;
    make(&source, &["-j2", "busybox"])?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let new = folder.join("busybox.new");
    fs::copy(source.join("busybox"), &new)
        .and_then(|_| fs::rename(&new, &program))
        .and_then(|()| fs::write(&stamp, &recipe))
        .with_context(|| format!("putting {} in place", program.display()))?;
    Ok(program)
}

/// The source package of the machine's own release, unpacked into `source`. The machine's lists need not name sources: a list of our
/// own does, which has the places of the binary packages.
fn fetch(folder: &Path, source: &Path) -> Result<()> {
    let mut ask = Command::new("apt-get");
    ask.args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
        "Origin: Debian",
    ]);
    let places = said(&mut ask, "asking where Debian packages come from")?;
    let signed = if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
    let mut lines: Vec<String> = places.lines().map(|place| format!("deb-src {signed}{place}\n")).collect();
    lines.sort();
    lines.dedup();
    let (list, state) = (folder.join("sources.list"), folder.join("lists"));
    fs::write(&list, lines.concat()).context("writing a list of source packages")?;
    fs::create_dir_all(state.join("partial")).context("making a folder for lists")?;
    let options = [
        format!("Dir::Etc::SourceList={}", list.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", state.display()),
        format!("Dir::Cache={}", folder.display()),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let apt = || {
        let mut command = Command::new("apt-get");
        command.arg("-qq").args(options.iter().flat_map(|option| ["-o", option])).current_dir(folder);
        command
    };
    let unreachable = "(is a Debian mirror reachable?)";
    said(apt().arg("update"), &format!("fetching the list of Debian's source packages {unreachable}"))?;
    said(apt().args(["source", "--download-only", "busybox"]), &format!("fetching busybox's source {unreachable}"))?;
    let mut described =
        fs::read_dir(folder).context("listing busybox's source package")?.flatten().map(|entry| entry.path());
    let described = described.find(|path| path.extension().is_some_and(|extension| extension == "dsc"));
    let described = described.context("busybox's source package has no description")?;
    let mut unpack = Command::new("dpkg-source");
    unpack.args(["--no-check", "-x"]).arg(described).arg(source);
    said(&mut unpack, "unpacking busybox's source").map(drop)
}

fn make(source: &Path, targets: &[&str]) -> Result<()> {
    let mut command = Command::new("make");
    // No time stamp in the program; new questions get the default answer.
    command.args(targets).current_dir(source).env("KCONFIG_NOTIMESTAMP", "1").env("SOURCE_DATE_EPOCH", "1700000000");
    command.stdin(std::process::Stdio::null());
    said(&mut command, &format!("building busybox (make {})", targets.join(" "))).map(drop)
}

/// The configuration with [`OPTIONS`].
fn configured(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).context("reading busybox's default configuration")?;
    Ok(edited(&text))
}

fn edited(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let of =
            |name: &str| line == format!("# CONFIG_{name} is not set") || line.starts_with(&format!("CONFIG_{name}="));
        match OPTIONS.iter().find(|(name, _)| of(name)) {
            Some((name, true)) => lines.push(format!("CONFIG_{name}=y\n")),
            Some((name, false)) => lines.push(format!("# CONFIG_{name} is not set\n")),
            None => lines.push(format!("{line}\n")),
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_and_unset() {
        let given =
            "# CONFIG_STATIC is not set\nCONFIG_TC=y\nCONFIG_TCPSVD=y\nCONFIG_FEATURE_SH_STANDALONE=y\n# other\n";
        let expect = "CONFIG_STATIC=y\n# CONFIG_TC is not set\nCONFIG_TCPSVD=y\n# CONFIG_FEATURE_SH_STANDALONE is not set\n# other\n";
        assert_eq!(edited(given), expect);
    }
}
