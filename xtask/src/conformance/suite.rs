//! Upstream's suite as a child: ginkgo spreads the specs over processes; its output is followed, so that a spec that hangs and a run
//! that takes too long are ended, and that what ended before is known whatever happens.

mod follow;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::cluster::Cluster;
use super::options::Options;
use super::report::{self, Spec};
use super::shown;
use super::stop::Stop;
use crate::now;
use follow::{Follower, News};

/// How long ginkgo may take to end its specs once told to.
const GRACE: Duration = Duration::from_secs(90);

/// The suite and what is chosen of it.
pub struct Suite {
    /// Upstream's label of the specs.
    pub label: &'static str,
    pub selection: Selection,
}

/// Which of the label's specs.
#[derive(Debug, Default)]
pub struct Selection {
    pub focus: Option<String>,
    pub skip: Option<String>,
    pub sig: Option<String>,
    /// Exactly these.
    pub names: Option<Vec<String>>,
}

/// Some of the chosen specs, run in one go.
pub struct Pass {
    name: &'static str,
    labels: &'static str,
    procs: usize,
}

impl Pass {
    /// Those that may run beside others.
    pub fn parallel(procs: usize) -> Pass {
        Pass { name: "parallel", labels: " && !Serial && !Disruptive", procs }
    }

    /// Those that want the cluster alone.
    pub fn serial() -> Pass {
        Pass { name: "serial", labels: " && (Serial || Disruptive)", procs: 1 }
    }

    /// All, to be listed.
    fn all() -> Pass {
        Pass { name: "list", labels: "", procs: 1 }
    }

    pub fn is_serial(&self) -> bool {
        self.procs == 1 && self.name == "serial"
    }
}

impl Suite {
    /// The names of the chosen specs, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let mut command = Command::new(testkit::peers::path("ginkgo"));
        self.arguments(&mut command, &Pass::all(), folder.path());
        command.arg("--dry-run").arg(testkit::peers::path("e2e.test")).args(["--", "--provider=skeleton"]);
        let output = command.output().context("starting ginkgo")?;
        let report = folder.path().join("list.json");
        if !report.is_file() {
            bail!("the suite didn't list its specs: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        let mut names: Vec<String> = report::read(&report)?.into_iter().map(|spec| spec.name).collect();
        names.sort();
        Ok(names)
    }

    /// Runs one pass; the specs that ended, and why it ended early if it did.
    pub fn run(
        &self,
        pass: &Pass,
        cluster: &Cluster,
        options: &Options,
        stop: &Stop,
        folder: &Path,
    ) -> Result<(Vec<Spec>, Option<String>)> {
        let mut command = cluster.suite_command(&testkit::peers::path("ginkgo"));
        self.arguments(&mut command, pass, folder);
        command
            .arg(format!("--timeout={}s", options.timeout.as_secs() + GRACE.as_secs()))
            .arg(format!("--poll-progress-after={}s", options.spec_timeout.as_secs()))
            .arg(testkit::peers::path("e2e.test"))
            .args(["--", "--provider=skeleton", "--disable-log-dump", "--allowed-not-ready-nodes=0"])
            .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
            .arg(format!("--kubectl-path={}", testkit::peers::path("kubectl").display()))
            .arg(format!("--e2e-output-dir={}", folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C reaches this program alone, which tells ginkgo.
            .process_group(0);
        let child = cluster.spawn(command)?;
        let log = folder.join(format!("{}.log", pass.name));
        let (ended, sentence) = follow(child, pass, options, stop, &log)?;
        let report = folder.join(format!("{}.json", pass.name));
        let specs = if report.is_file() { report::read(&report)? } else { ended };
        if sentence.is_none() && !report.is_file() {
            bail!("ginkgo ended without a report; what it said is in {}", log.display());
        }
        if let Some(broken) = specs.iter().find(|spec| spec.name.starts_with("[SynchronizedBeforeSuite]")) {
            return Ok((Vec::new(), Some(format!("the suite found the cluster unfit: {}", broken.reason))));
        }
        Ok((specs, sentence))
    }

    /// What ginkgo is told of selection and reports.
    fn arguments(&self, command: &mut Command, pass: &Pass, folder: &Path) {
        command.args(["--no-color", "-v", "--keep-going", "--flake-attempts=1", "--output-interceptor-mode=none"]);
        command.arg(format!("--procs={}", pass.procs)).arg(format!("--output-dir={}", folder.display()));
        command.arg(format!("--json-report={}.json", pass.name)).arg(format!("--junit-report={}.xml", pass.name));
        command.arg(format!("--label-filter={}{}", self.label, pass.labels));
        if let Some(focus) = self.selection.focus() {
            command.arg(format!("--focus={focus}"));
        }
        if let Some(skip) = &self.selection.skip {
            command.arg(format!("--skip={skip}"));
        }
    }
}

impl Selection {
    /// One regular expression that says it all but what to skip.
    fn focus(&self) -> Option<String> {
        if let Some(names) = &self.names {
            return Some(format!("({})$", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join("|")));
        }
        match (&self.sig, &self.focus) {
            (Some(sig), Some(focus)) => Some(format!(r"\[sig-{}\].*({focus})", quoted(sig))),
            (Some(sig), None) => Some(format!(r"\[sig-{}\]", quoted(sig))),
            (None, focus) => focus.clone(),
        }
    }
}

/// A text as a regular expression.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

enum Event {
    Line(String),
    Asked,
    End,
}

/// What ginkgo says, and that it is asked to end, until it has ended.
fn events(child: &mut Child, stop: &Stop) -> mpsc::Receiver<Event> {
    let (tell, events) = mpsc::channel();
    let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    let readers: Vec<_> = streams
        .into_iter()
        .flatten()
        .map(|stream| {
            let tell = tell.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    tell.send(Event::Line(String::from_utf8_lossy(&line).into_owned())).ok();
                }
            })
        })
        .collect();
    let asked = stop.watch();
    let teller = tell.clone();
    // Ends with the last that could ask.
    std::thread::spawn(move || while asked.recv().is_ok() && teller.send(Event::Asked).is_ok() {});
    std::thread::spawn(move || {
        for reader in readers {
            reader.join().ok();
        }
        tell.send(Event::End).ok();
    });
    events
}

/// Follows ginkgo to its end; the specs that ended, and why it was told to end if it was.
fn follow(
    mut child: Child,
    pass: &Pass,
    options: &Options,
    stop: &Stop,
    log: &Path,
) -> Result<(Vec<Spec>, Option<String>)> {
    let mut log = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let group = Pid::from_child(&child);
    let events = events(&mut child, stop);
    let mut follower = Follower::new(pass.procs > 1);
    let mut ended: Vec<Spec> = Vec::new();
    let mut sentence = None;
    let mut deadline = now() + options.timeout;
    loop {
        let event = match events.recv_timeout(deadline.saturating_duration_since(now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Disconnected) => Event::End,
            Err(RecvTimeoutError::Timeout) if sentence.is_some() => {
                kill_process_group(group, Signal::KILL).ok();
                deadline = now() + GRACE;
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {
                sentence = Some(format!("the run took longer than {} and was stopped", shown(options.timeout)));
                kill_process_group(group, Signal::INT).ok();
                deadline = now() + GRACE;
                continue;
            }
        };
        match event {
            Event::End => break,
            Event::Asked => {
                sentence.get_or_insert_with(|| "stopped as asked".to_owned());
                kill_process_group(group, Signal::INT).ok();
                deadline = deadline.min(now() + GRACE);
            }
            Event::Line(line) => {
                writeln!(log, "{line}").context("writing the log")?;
                match follower.line(&line) {
                    Some(News::WillRun(count)) => eprintln!("{}: {count} specs on {} processes", pass.name, pass.procs),
                    Some(News::Ended(spec)) => {
                        let word = format!("{:?}", spec.outcome).to_lowercase();
                        eprintln!("{:>4} {word:<8} {:>4}s {}", ended.len() + 1, spec.took.as_secs(), spec.name);
                        ended.push(spec);
                    }
                    Some(News::Hangs(name)) if sentence.is_none() => {
                        let limit = shown(options.spec_timeout);
                        sentence = Some(format!("the spec {name:?} ran for more than {limit}, so the run was stopped"));
                        kill_process_group(group, Signal::INT).ok();
                        deadline = now() + GRACE;
                    }
                    Some(News::Hangs(_)) | None => {}
                }
            }
        }
    }
    child.wait().context("waiting for ginkgo")?;
    // What specs left behind of kubectl and the like.
    kill_process_group(group, Signal::KILL).ok();
    Ok((ended, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_one_expression() {
        let check = |selection: Selection, expect: Option<&str>| assert_eq!(selection.focus().as_deref(), expect);
        let some = |text: &str| Some(text.to_owned());
        check(Selection::default(), None);
        check(Selection { focus: some("a|b"), ..Selection::default() }, Some("a|b"));
        check(Selection { sig: some("node"), ..Selection::default() }, Some(r"\[sig-node\]"));
        check(
            Selection { sig: some("node"), focus: some("a|b"), ..Selection::default() },
            Some(r"\[sig-node\].*(a|b)"),
        );
        check(
            Selection { names: Some(vec!["[sig-a] (b).".into(), "c".into()]), ..Selection::default() },
            Some(r"(\[sig-a\] \(b\)\.|c)$"),
        );
    }
}
