//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    #[arg(long)]
    pub node_name: Option<String>,
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
}
