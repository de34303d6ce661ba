//! `cargo xtask parity [--record] [SCRIPT...]`: the same requests to upstream's API server and to ours, and what differs.
//!
//! The requests are `conformance/parity/*.http`, the differences that are meant are in `kept.txt` beside them. With `--record`
//! upstream's answers are kept in `golden/`, which the tests of `apiserver` compare with.

pub(crate) mod servers;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use testkit::parity::{Answer, Kept, Script, differences, golden, replay, scripts};

use servers::Servers;

/// Compares, and fails if something differs that is not meant to.
pub fn run(root: &Path, args: &[&str]) -> Result<()> {
    let record = args.contains(&"--record");
    let names: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--record").collect();
    let folder = root.join("conformance/parity");
    let mut chosen = scripts(&folder).context("reading the requests")?;
    if let Some(unknown) = names.iter().find(|name| !chosen.iter().any(|script| script.name == **name)) {
        bail!("no script is called {unknown:?}; they are {}/*.http", folder.display());
    }
    chosen.retain(|script| names.is_empty() || names.contains(&script.name.as_str()));
    let kept = folder.join("kept.txt");
    let kept = fs::read_to_string(&kept).with_context(|| format!("reading {}", kept.display()))?;
    let mut kept = Kept::parse(&kept).map_err(|why| anyhow::anyhow!("kept.txt: {why}"))?;

    crate::peers::build(root, crate::peers::OF_PARITY)?;
    crate::call("cargo", &["build", "--locked", "-p", "apiserver", "--example", "serve"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pairs = runtime.block_on(async {
        let servers = Servers::start(&logs(root)).await?;
        let mut pairs = Vec::new();
        for script in &chosen {
            pairs.push(answers(&servers, script).await?);
        }
        anyhow::Ok(pairs)
    })?;

    let mut report = Report::default();
    for (script, (theirs, ours)) in chosen.iter().zip(&pairs) {
        report.add(script, theirs, ours, &mut kept);
        if record {
            keep(&folder.join("golden"), script, theirs)?;
        }
    }
    if names.is_empty() {
        report.unused = kept.unused();
        if record {
            forget(&folder.join("golden"), &chosen)?;
        }
    }
    report.print();
    if report.differing == 0 && report.unused.is_empty() { Ok(()) } else { bail!("the answers differ") }
}

/// Where the servers' logs go.
fn logs(root: &Path) -> PathBuf {
    root.join("target/parity")
}

/// Upstream's answers and ours.
async fn answers(servers: &Servers, script: &Script) -> Result<(Vec<Answer>, Vec<Answer>)> {
    let (theirs, ours) = (servers.upstream()?, servers.ours()?);
    let (theirs, ours) = futures_util::future::join(replay(&theirs, script), replay(&ours, script)).await;
    let sent =
        |whom: &'static str| move || format!("{} to {whom}, whose log is in {}", script.name, servers.logs().display());
    Ok((theirs.with_context(sent("upstream's server"))?, ours.with_context(sent("our server"))?))
}

#[derive(Default)]
struct Report {
    requests: usize,
    differing: usize,
    kept: usize,
    lines: Vec<String>,
    unused: Vec<String>,
}

impl Report {
    fn add(&mut self, script: &Script, theirs: &[Answer], ours: &[Answer], kept: &mut Kept) {
        for ((step, theirs), ours) in script.steps.iter().zip(theirs).zip(ours) {
            self.requests += 1;
            let name = format!("{}/{}", script.name, step.name);
            let (meant, unexplained): (Vec<_>, Vec<_>) =
                differences(theirs, ours).into_iter().partition(|one| kept.covers(&name, one));
            self.kept += usize::from(!meant.is_empty());
            if !unexplained.is_empty() {
                self.differing += 1;
                self.lines.push(format!("{name}: {} {}", step.method, step.target));
                // Where the codes differ, the rest does too.
                let telling = |path: &str| ["code", "body.message", "body.kind"].contains(&path);
                let brief = theirs.code != ours.code;
                let told = unexplained.iter().filter(|one| !brief || telling(&one.path));
                self.lines.extend(told.map(|one| format!("    {one}")));
            }
        }
    }

    fn print(&self) {
        for line in &self.lines {
            println!("{line}");
        }
        for unused in &self.unused {
            println!("kept.txt: nothing differs any more at {unused}");
        }
        let Report { requests, differing, kept, .. } = self;
        println!("{requests} requests: {differing} answered differently, {kept} with differences that are meant");
    }
}

fn keep(folder: &Path, script: &Script, theirs: &[Answer]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.txt", script.name));
    fs::write(&path, golden::write(script, theirs)).with_context(|| format!("writing {}", path.display()))
}

/// Removes the answers to scripts that are gone.
fn forget(folder: &Path, scripts: &[Script]) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !scripts.iter().any(|script| path.file_stem().is_some_and(|stem| *stem == *script.name)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
