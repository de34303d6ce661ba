//! The cluster under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use testkit::machine::Machine;

use super::options::Options;
use super::stop::Stop;
use super::target;

/// A cluster to run specs against; a fresh one is gone when this is dropped.
pub struct Cluster {
    kubeconfig: PathBuf,
    machine: Option<Machine>,
}

impl Cluster {
    /// One that runs already.
    pub fn given(kubeconfig: &Path) -> Result<Cluster> {
        if !kubeconfig.is_file() {
            bail!("there is no kubeconfig {}", kubeconfig.display());
        }
        Ok(Cluster { kubeconfig: kubeconfig.to_owned(), machine: None })
    }

    /// A new one on a machine of its own, with the suite's images.
    pub fn fresh(root: &Path, options: &Options, stop: &Stop) -> Result<Cluster> {
        if !rustix::process::geteuid().is_root() {
            bail!("a cluster of its own needs root: use sudo, or --kubeconfig for one that runs");
        }
        let binary = match &options.binary {
            Some(path) if path.is_file() => path.clone(),
            Some(path) => bail!("there is no {}", path.display()),
            None => {
                crate::call("cargo", &["build", "--locked", "-p", "oxikube"])?;
                target(root).join("debug/oxikube")
            }
        };
        let images = crate::images::conformance(root)?;
        stop.check()?;
        let machine = Machine::new("conformance", &binary.to_string_lossy());
        fs::create_dir_all(machine.folder().join("tmp")).context("making the suite's folder")?;
        let cluster = Cluster { kubeconfig: machine.folder().join(".kube/config"), machine: Some(machine) };
        cluster.command("start", "the cluster didn't become ready")?;
        stop.check()?;
        cluster.command(&format!("image load {}", images.display()), "the images didn't load")?;
        stop.check()?;
        Ok(cluster)
    }

    /// Runs one of oxikube's commands; `failure` begins the sentence that says why it failed.
    fn command(&self, args: &str, failure: &str) -> Result<()> {
        let Some(machine) = &self.machine else { return Ok(()) };
        let said = machine.oxikube(args);
        if said.code != Some(0) {
            let text = said.err + &said.out;
            let reason = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word why");
            bail!("{failure}: {reason}");
        }
        Ok(())
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Prepares a command for [`Cluster::spawn`].
    pub fn suite_command(&self, program: &Path) -> Command {
        match &self.machine {
            Some(machine) => {
                let mut command = machine.command(program);
                command.env("TMPDIR", machine.folder().join("tmp"));
                command
            }
            None => Command::new(program),
        }
    }

    /// Starts a program where the node, its Services and its pods can be reached.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        match &self.machine {
            Some(machine) => Ok(machine.spawn(command)),
            None => command.spawn().with_context(|| format!("starting {command:?}")),
        }
    }

    /// Copies the daemon's log beside the results.
    pub fn keep_log(&self, folder: &Path) -> Result<()> {
        let Some(machine) = &self.machine else { return Ok(()) };
        let from = machine.data_dir().join("log/daemon.log");
        fs::copy(&from, folder.join("daemon.log")).with_context(|| format!("copying {}", from.display()))?;
        Ok(())
    }
}
