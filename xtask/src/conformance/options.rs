//! The commands' options.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::number;

/// What `cargo xtask` says of them.
pub const USAGE: &str =
    "  conformance       upstream's [Conformance] specs against a fresh cluster; into target/conformance/
  node-conformance  the same for its [NodeConformance] specs
    --focus RE  --skip RE  --sig NAME   which specs (regular expressions over their names)
    --sample                            about 40 quick ones over every SIG
    --recorded                          those of conformance/passing.txt: does anything that passed fail now?
    --list                              name them and run none
    --procs N                           processes for the parallel ones (default: one per core and one)
    --kubeconfig F                      use this cluster instead of a fresh one
    --fake-nodes N                      nodes beside the real one that only say that they run their pods
    --binary F                          the oxikube to run (default: a development build)
    --repeat N                          as many runs; a spec passes if it passes in all
    --spec-timeout MIN  --timeout MIN   how long one spec, and one run, may take (20, 180)
    --bless                             add what passes to conformance/passing.txt
";

/// How a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub focus: Option<String>,
    pub skip: Option<String>,
    pub sig: Option<String>,
    pub sample: bool,
    pub recorded: bool,
    pub list: bool,
    pub procs: usize,
    pub kubeconfig: Option<PathBuf>,
    pub fake_nodes: usize,
    pub binary: Option<PathBuf>,
    pub repeat: usize,
    pub spec_timeout: Duration,
    pub timeout: Duration,
    pub bless: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            focus: None,
            skip: None,
            sig: None,
            sample: false,
            recorded: false,
            list: false,
            procs: std::thread::available_parallelism().map_or(2, |n| n.get()) + 1,
            kubeconfig: None,
            fake_nodes: 0,
            binary: None,
            repeat: 1,
            spec_timeout: Duration::from_secs(20 * 60),
            timeout: Duration::from_secs(180 * 60),
            bless: false,
        }
    }
}

pub(super) fn parse(args: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().map(|value| (*value).to_owned()).with_context(|| format!("{arg} needs a value"));
        match *arg {
            "--focus" => options.focus = Some(value()?),
            "--skip" => options.skip = Some(value()?),
            "--sig" => options.sig = Some(value()?.trim_start_matches("sig-").to_owned()),
            "--kubeconfig" => options.kubeconfig = Some(absolute(value()?)?),
            "--binary" => options.binary = Some(absolute(value()?)?),
            "--fake-nodes" => options.fake_nodes = number(arg, &value()?)?,
            "--procs" => options.procs = number(arg, &value()?)?,
            "--repeat" => options.repeat = number(arg, &value()?)?,
            "--spec-timeout" => options.spec_timeout = Duration::from_mins(number(arg, &value()?)?),
            "--timeout" => options.timeout = Duration::from_mins(number(arg, &value()?)?),
            "--sample" => options.sample = true,
            "--recorded" => options.recorded = true,
            "--list" => options.list = true,
            "--bless" => options.bless = true,
            other => bail!("no option {other:?}\n{USAGE}"),
        }
    }
    if options.fake_nodes > 0 && (options.bless || options.kubeconfig.is_some()) {
        bail!("--fake-nodes are for a cluster of its own, and what passes with them is not recorded");
    }
    let chosen = [("--sample", options.sample), ("--recorded", options.recorded)].into_iter().filter(|(_, set)| *set);
    let names: Vec<&str> = chosen.map(|(name, _)| name).collect();
    let others = options.focus.is_some() || options.skip.is_some() || options.sig.is_some();
    if let Some(name) = names.first().filter(|_| others || names.len() > 1) {
        bail!("{name} chooses the specs itself: it goes without --focus, --skip, --sig and others like it");
    }
    Ok(options)
}

fn absolute(path: String) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("the path {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = parse(&["--sig", "sig-node", "--procs", "3", "--bless", "--timeout", "5"]).unwrap();
        assert_eq!(options.sig.as_deref(), Some("node"));
        assert_eq!((options.procs, options.bless, options.timeout), (3, true, Duration::from_secs(300)));
        let check = |args: &[&str], expect: &str| {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.starts_with(expect), "{error}");
        };
        check(&["--procs", "0"], "--procs needs a number above 0, not \"0\"");
        check(&["--focus"], "--focus needs a value");
        check(&["--fake-nodes", "1", "--bless"], "--fake-nodes are for a cluster of its own");
        check(&["--fokus"], "no option \"--fokus\"");
        check(&["--sample", "--sig", "node"], "--sample chooses the specs itself");
        check(&["--recorded", "--focus", "DNS"], "--recorded chooses the specs itself");
        check(&["--recorded", "--sample"], "--sample chooses the specs itself");
    }
}
