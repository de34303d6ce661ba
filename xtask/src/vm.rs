//! `cargo xtask vm`: an emulated machine of its own kernel, for what this machine can't show: pure cgroup v2, every capability,
//! little memory, and a disk whose power goes.

pub mod cpio;
pub mod disk;
pub mod kernel;
pub mod machine;
mod path;
pub mod root;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::images::debian::said;
use crate::{call, number};

use self::disk::Disk;
use self::kernel::Kernel;
use self::machine::Boot;
use self::root::Root;

/// What `cargo xtask` says of it.
pub const USAGE: &str =
    "  vm [OPTIONS] COMMAND...  runs COMMAND in a shell on an emulated machine (qemu), and exits as it did
    --path                        instead: the path from `start` to the page, `stop`, `delete`, with the figures
    --memory MIB  --cpus N        (1024, 2)
    --disk MIB                    a disk at /data, which else is memory
    --file HOST[:GUEST]           copy a file or folder in, a program with its libraries; oxikube is /bin/oxikube
    --binary F                    the oxikube to run (default: a development build)
    --timeout SECONDS             (600)
";

/// What the machine is to be.
struct Options {
    path: bool,
    memory: u32,
    cpus: u32,
    disk: Option<u64>,
    files: Vec<(PathBuf, String)>,
    binary: Option<PathBuf>,
    timeout: Duration,
    command: String,
}

/// Runs the command line's command, or the path.
pub fn run(args: &[&str]) -> Result<()> {
    let options = parse(args)?;
    let binary = binary(options.binary.as_deref())?;
    let kernel = Kernel::prepared()?;
    if options.path {
        return path::run(&kernel, &binary, options.memory, options.cpus);
    }
    let mut root = Root::new(&kernel)?;
    root.program(&binary, "bin/oxikube")?;
    for (host, guest) in &options.files {
        root.add(host, guest)?;
    }
    let disk = options.disk.map(|mib| Disk::formatted(mib << 20)).transpose()?;
    let boot = Boot {
        memory: options.memory,
        cpus: options.cpus,
        disk: disk.as_ref().map(|disk| disk.socket()),
        ..Boot::new(root.finish()?, &options.command)
    };
    let mut machine = boot.start(&kernel)?;
    let code = machine.run_to_the_end(options.timeout, |line| println!("{line}"))?;
    std::process::exit(code);
}

fn parse(args: &[&str]) -> Result<Options> {
    let mut options = Options {
        path: false,
        memory: 1024,
        cpus: 2,
        disk: None,
        files: Vec::new(),
        binary: None,
        timeout: Duration::from_secs(600),
        command: String::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().copied().with_context(|| format!("{arg} needs a value"));
        match *arg {
            "--path" => options.path = true,
            "--memory" => options.memory = number(arg, value()?)?,
            "--cpus" => options.cpus = number(arg, value()?)?,
            "--disk" => options.disk = Some(number(arg, value()?)?),
            "--timeout" => options.timeout = Duration::from_secs(number(arg, value()?)?),
            "--binary" => options.binary = Some(value()?.into()),
            "--file" => {
                let given = value()?;
                let (host, guest) = given.split_once(':').unwrap_or((given, given));
                options.files.push((host.into(), guest.trim_start_matches('/').to_owned()));
            }
            other if other.starts_with("--") && other != "--" => bail!("no option {other:?}\n{USAGE}"),
            other => {
                let first = (other != "--").then_some(other);
                options.command = first.into_iter().chain(args.by_ref().copied()).collect::<Vec<_>>().join(" ");
            }
        }
    }
    if options.path != options.command.is_empty() {
        bail!("either --path or a command\n{USAGE}");
    }
    Ok(options)
}

/// The oxikube to run: what was asked for, else a development build, without what only a debugger reads.
pub fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let from = match given {
        Some(path) if path.is_file() => path.to_owned(),
        Some(path) => bail!("there is no {}", path.display()),
        None => {
            call("cargo", &["build", "--locked", "-p", "oxikube"])?;
            target().join("debug/oxikube")
        }
    };
    stripped(&from, "oxikube")
}

/// This program, which also does the work inside of the machine.
pub fn guest_program() -> Result<PathBuf> {
    stripped(&std::env::current_exe().context("finding this program")?, "xtask")
}

/// A copy without symbols, which a machine with little memory has no room for.
fn stripped(from: &Path, name: &str) -> Result<PathBuf> {
    let folder = target().join("vm");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let to = folder.join(format!("{name}-{}", std::process::id()));
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&to).arg(from);
    said(&mut strip, &format!("stripping {}", from.display()))?;
    let kept = folder.join(name);
    std::fs::rename(&to, &kept).with_context(|| format!("renaming to {}", kept.display()))?;
    Ok(kept)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = parse(&["--memory", "512", "--file", "a:/b/c", "--", "ls", "-l", "/"]).unwrap();
        assert_eq!((options.memory, options.command.as_str()), (512, "ls -l /"));
        assert_eq!(options.files, [(PathBuf::from("a"), "b/c".to_owned())]);
        let check = |args: &[&str], expect: &str| {
            let error = parse(args).err().unwrap().to_string();
            assert!(error.starts_with(expect), "{error}");
        };
        check(&["--memory", "0", "x"], "--memory needs a number above 0, not \"0\"");
        check(&["--path", "x"], "either --path or a command");
        check(&[], "either --path or a command");
        check(&["--fast"], "no option \"--fast\"");
    }
}
