//! The cluster under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use client::{Client, Kubeconfig, Tls};
use env::Env;
use testkit::machine::Machine;
use testkit::nodes::FakeNodes;
use tokio::sync::oneshot;

use super::options::Options;
use super::stop::Stop;
use super::target;

/// A cluster to run specs against; a fresh one is gone when this is dropped.
pub struct Cluster {
    kubeconfig: PathBuf,
    // Ends before the machine.
    nodes: Option<Nodes>,
    machine: Option<Machine>,
}

/// Nodes that only say that they run their pods; they fall silent when this is dropped.
struct Nodes {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Nodes {
    /// They are there when this returns.
    fn start(machine: &Machine, count: usize) -> Result<Nodes> {
        let (namespace, kubeconfig) = (machine.namespace().clone(), machine.folder().join(".kube/config"));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let work = async {
                let env = Env::system();
                let access = Kubeconfig::load(&[kubeconfig])?.access(None)?;
                let client = Client::new(env.clone(), Arc::new(Tls::new(env, &access)?), "fake-kubelet");
                let nodes = FakeNodes::start(&client);
                for number in 1..=count {
                    nodes.add(&format!("fake-{number}"), &BTreeMap::new(), &serde_json::Value::Null).await?;
                }
                ready.send(())?;
                // Dropped or sent: either is the end.
                let _ = stopped.await;
                Ok(())
            };
            namespace.run(|| runtime.block_on(work))?
        });
        let mut nodes = Nodes { stop: Some(stop), thread: Some(thread) };
        if is_ready.recv().is_err() {
            nodes.end().and(Err(anyhow::anyhow!("the fake nodes ended at once")))?;
        }
        Ok(nodes)
    }

    fn end(&mut self) -> Result<()> {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| bail!("the fake nodes panicked"))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

impl Cluster {
    /// One that runs already.
    pub fn given(kubeconfig: &Path) -> Result<Cluster> {
        if !kubeconfig.is_file() {
            bail!("there is no kubeconfig {}", kubeconfig.display());
        }
        Ok(Cluster { kubeconfig: kubeconfig.to_owned(), nodes: None, machine: None })
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
        let kubeconfig = machine.folder().join(".kube/config");
        let mut cluster = Cluster { kubeconfig, nodes: None, machine: Some(machine) };
        cluster.command("start", "the cluster didn't become ready")?;
        stop.check()?;
        cluster.command(&format!("image load {}", images.display()), "the images didn't load")?;
        stop.check()?;
        if options.fake_nodes > 0 {
            cluster.nodes = cluster.machine.as_ref().map(|at| Nodes::start(at, options.fake_nodes)).transpose()?;
        }
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
