//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rules::Features;

/// Kubernetes, complete, in one binary.
#[derive(Parser, Debug)]
#[command(name = "oxikube", version, about, disable_help_subcommand = true)]
pub struct Args {
    /// The cluster's name; also its kubeconfig context.
    #[arg(long, global = true, default_value = "oxikube", value_parser = cluster_name)]
    name: String,

    /// Where the cluster's data lies [default: /var/lib/oxikube/NAME].
    #[arg(long, global = true)]
    pub data_dir: Option<PathBuf>,

    /// The kubeconfig to write [default: the first of $KUBECONFIG, else ~/.kube/config].
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start the cluster and wait until it works.
    Start(Start),
    /// End every container and the daemon; data stays.
    Stop,
    /// Show what runs, since when, and where.
    Status {
        /// `json`, or nothing for text.
        #[arg(short, long)]
        output: Option<String>,
    },
    /// Stop the cluster and remove everything of it from this machine.
    Delete {
        /// Don't ask.
        #[arg(short, long)]
        yes: bool,

        /// Leave the volumes of claims where they are, in DATA_DIR/volumes.
        #[arg(long)]
        keep_volumes: bool,
    },
    /// List what the cluster needs of this machine, and what is missing.
    Check,
    /// Container images on the node.
    Image {
        #[command(subcommand)]
        command: Image,
    },
}

#[derive(clap::Args, Debug, Default)]
pub struct Start {
    /// The node's address [default: the one that the default route uses].
    #[arg(long)]
    pub node_ip: Option<IpAddr>,

    /// The node's name [default: the host's name].
    #[arg(long, value_parser = node_name)]
    pub node_name: Option<String>,

    /// How long certificates are valid at most, as 90d, 12h, 30m or 60s; they renew themselves [default: a year].
    #[arg(long, value_parser = lifetime)]
    pub certificate_lifetime: Option<Duration>,

    /// An OCI runtime's program for pods whose RuntimeClass has this handler, once for each; runc and crun need none where they are
    /// installed.
    #[arg(long = "runtime-handler", value_name = "HANDLER=PROGRAM", value_parser = runtime_handler)]
    pub runtime_handlers: Vec<(String, PathBuf)>,

    /// Which controllers run, as kube-controller-manager's flag: * for all that are on by default, NAME for this one, -NAME for all but
    /// this one [default: * at first, then what was said last].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    pub controllers: Vec<String>,

    /// Features that are off by default: DRADeviceTaints=true keeps the taints of devices and what tolerates them, and takes pods away from
    /// devices whose taints drive them out; MaxUnavailableStatefulSet=true keeps and obeys the maxUnavailable of StatefulSets' rolling
    /// updates [default: what was said last].
    #[arg(long, value_name = "NAME=BOOL", value_delimiter = ',', value_parser = feature_gate)]
    pub feature_gates: Vec<(String, bool)>,

    /// A KubeSchedulerConfiguration (YAML): profiles, plugins and their arguments, extenders. The cluster keeps its content; an empty file
    /// gives the defaults back.
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Image {
    /// Load images from archives (docker save or OCI layout; plain, gzip or zstd).
    Load {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// List the images on the node.
    Ls,
}

impl Args {
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Names become folders, links' tags and kubeconfig entries.
fn cluster_name(name: &str) -> Result<String, String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if name.len() <= 40 && inner && edge(name.chars().next()) && edge(name.chars().next_back()) {
        return Ok(name.to_owned());
    }
    Err("a name has at most 40 lower case letters, digits and dashes, and begins and ends with a letter or digit"
        .into())
}

/// Nodes are objects of the cluster, and are called as such can be.
pub(crate) fn node_name(name: &str) -> Result<String, String> {
    match apimachinery::validation::dns1123_subdomain(name).first() {
        None => Ok(name.to_owned()),
        Some(problem) => Err(format!("{name:?} can't be a node's name: {problem}")),
    }
}

fn runtime_handler(text: &str) -> Result<(String, PathBuf), String> {
    let (name, program) = text.split_once('=').ok_or("a handler is a name, =, and the path of a program")?;
    if let Some(problem) = apimachinery::validation::dns1123_label(name).first() {
        return Err(format!("{name:?} can't be a handler's name: {problem}"));
    }
    let program = PathBuf::from(program);
    if program.is_absolute() { Ok((name.to_owned(), program)) } else { Err("a program's path begins with /".into()) }
}

fn feature_gate(text: &str) -> Result<(String, bool), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("missing bool value for {text}"))?;
    let value = value.parse().map_err(|_| format!("invalid value of {name}={value}, it is no bool"))?;
    if Features::default().switch(name, value) {
        Ok((name.to_owned(), value))
    } else {
        Err(format!("unrecognized feature gate: {name}"))
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(u64::from(number) * seconds))
    });
    parsed
        .filter(|lifetime| (Duration::from_secs(10)..Duration::from_secs(3650 * 86_400)).contains(lifetime))
        .ok_or_else(|| "a lifetime is 10s or longer and less than 3650d, as 90d, 12h, 30m or 60s".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let check = |name: &str, fine: bool| assert_eq!(cluster_name(name).is_ok(), fine, "{name:?}");
        check("oxikube", true);
        check("a-1", true);
        check("", false);
        check("-a", false);
        check("a/b", false);
        check("A", false);
        check(&"x".repeat(41), false);
    }

    #[test]
    fn lifetimes_are_read() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(lifetime(text).ok(), expect.map(Duration::from_secs), "{text:?}");
        };
        check("90d", Some(90 * 86_400));
        check("12h", Some(43_200));
        check("15s", Some(15));
        check("1s", None);
        check("9999d", None);
        check("5", None);
        check("", None);
        check("-1h", None);
    }

    #[test]
    fn runtime_handlers_are_read() {
        let check = |text: &str, expect: Option<(&str, &str)>| {
            let expect = expect.map(|(name, program)| (name.to_owned(), PathBuf::from(program)));
            assert_eq!(runtime_handler(text).ok(), expect, "{text:?}");
        };
        check("youki=/opt/youki", Some(("youki", "/opt/youki")));
        check("youki", None);
        check("youki=bin/youki", None);
        check("A=/opt/a", None);
    }

    #[test]
    fn feature_gates_are_read() {
        let check = |text: &str, expect: Result<bool, &str>| {
            let read = feature_gate(text).map(|(_, value)| value);
            assert_eq!(read, expect.map_err(str::to_owned), "{text:?}");
        };
        check("DRADeviceTaints=true", Ok(true));
        check("DRADeviceTaints=false", Ok(false));
        check("MaxUnavailableStatefulSet=true", Ok(true));
        check("DRADeviceTaints", Err("missing bool value for DRADeviceTaints"));
        check("DRADeviceTaints=x", Err("invalid value of DRADeviceTaints=x, it is no bool"));
        check("Wings=true", Err("unrecognized feature gate: Wings"));
    }

    #[test]
    fn node_names_are_checked() {
        let check = |name: &str, fine: bool| assert_eq!(node_name(name).is_ok(), fine, "{name:?}");
        check("node-1.example.com", true);
        check("my_host", false);
        check("", false);
        check("Host", false);
    }
}
