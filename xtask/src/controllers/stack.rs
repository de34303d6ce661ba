//! Our API server, fake nodes, our scheduler, and one controller manager: upstream's or ours.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use apimachinery::ObjectKey;
use client::{Client, Kubeconfig, Tls, TlsConfig, resources};
use env::Env;
use pki::{CertificateSpec, ClusterPki};
use serde_json::json;
use testkit::nodes::FakeNodes;

use crate::parity::servers::{self, Running};

/// Who runs the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    Ours,
    /// Upstream's, with its own limits of requests or with limits it does not reach.
    Upstream {
        limited: bool,
    },
}

impl Manager {
    pub fn name(self) -> &'static str {
        match self {
            Manager::Ours => "ours",
            Manager::Upstream { limited: false } => "upstream",
            Manager::Upstream { limited: true } => "upstream, its default request limits",
        }
    }
}

/// All of it, ready; dropping it ends it.
pub struct Stack {
    pub env: Env,
    pub client: Client,
    pub nodes: FakeNodes,
    pub manager: Running,
    pub server: Running,
    pub scheduler: Running,
    pki: ClusterPki,
    access: TlsConfig,
    _folder: tempfile::TempDir,
}

impl Stack {
    pub async fn start(examples: &Path, logs: &Path, manager: Manager) -> Result<Stack> {
        Stack::start_with(examples, logs, manager, "*").await
    }

    /// With these controllers, as `--controllers` has them.
    pub async fn start_with(examples: &Path, logs: &Path, manager: Manager, controllers: &str) -> Result<Stack> {
        fs::create_dir_all(logs).with_context(|| format!("creating {}", logs.display()))?;
        let (folder, env) = (tempfile::tempdir()?, Env::system());
        let [port, own_port] = servers::free_ports()?;
        let mut serve = Command::new(examples.join("serve"));
        serve.arg(folder.path()).arg(format!("127.0.0.1:{port}")).env("SERVICE_CIDRS", "10.96.0.0/12,fd00:96::/112");
        let mut server = servers::spawn("ours", serve, logs)?;
        wait_for_line(&mut server, logs)?;
        let pki = ClusterPki::load_or_create(folder.path(), &env)?;
        let admin = folder.path().join("kubeconfig");
        let access = Kubeconfig::load(std::slice::from_ref(&admin))?.access(None)?;
        let connect =
            || Ok::<_, anyhow::Error>(Client::new(env.clone(), Arc::new(Tls::new(env.clone(), &access)?), "scenario"));
        let client = connect()?;
        let command = match manager {
            Manager::Ours => {
                let mut command = Command::new(example(examples, "controllers"));
                command.arg(&admin).arg(folder.path()).env("CONTROLLERS", controllers);
                command
            }
            Manager::Upstream { limited } => {
                let mut command = upstream(folder.path(), &pki, port, own_port, limited)?;
                command.arg(format!("--controllers={controllers}"));
                command
            }
        };
        let manager = servers::spawn("controllers", command, logs)?;
        let mut scheduler = Command::new(example(examples, "scheduler"));
        scheduler.arg(&admin);
        let scheduler = servers::spawn("scheduler", scheduler, logs)?;
        // Whoever runs the controllers is there when pods may be made.
        let account = ObjectKey::new("default", "default");
        let deadline = env.monotonic() + super::PATIENCE;
        while client.get(&resources::SERVICE_ACCOUNTS, &account).await.is_err() {
            anyhow::ensure!(env.monotonic() < deadline, "nothing manages; the logs are in {}", logs.display());
            env.sleep(super::PAUSE).await;
        }
        // On a connection of its own, as kubelets are.
        let nodes = FakeNodes::start(&connect()?);
        Ok(Stack { env, client, nodes, manager, server, scheduler, pki, access, _folder: folder })
    }
}

impl Stack {
    /// Somebody else's client.
    pub fn client_of(&self, user: &str, group: &str) -> Result<Client> {
        let leaf = self.pki.ca().issue(&CertificateSpec::client(user, group))?;
        let identity = Some((leaf.certificate_pem().into(), leaf.key_pem().into()));
        let access = TlsConfig { identity, token: None, ..self.access.clone() };
        Ok(Client::new(self.env.clone(), Arc::new(Tls::new(self.env.clone(), &access)?), "scenario"))
    }
}

/// Our server prints a line when it is ready.
fn wait_for_line(server: &mut Running, logs: &Path) -> Result<()> {
    let mut line = String::new();
    if let Some(output) = server.child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    anyhow::ensure!(!line.is_empty(), "our server did not become ready; its log is in {}", logs.display());
    Ok(())
}

/// CPU seconds so far, and the most bytes that were resident.
pub fn usage(process: &Running) -> Result<(f64, u64)> {
    usage_of(process.child.id())
}

/// The same of any process.
pub fn usage_of(id: u32) -> Result<(f64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a process's name")?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a process's memory")?;
    let kib: u64 = peak.trim().trim_end_matches("kB").trim().parse()?;
    Ok((ticks / 100.0, kib << 10))
}

/// Examples of several crates are called `run`: each is looked for by a copy under its crate's name.
fn example(examples: &Path, name: &str) -> PathBuf {
    examples.join(format!("run-{name}"))
}

/// Where the programs of ours are.
pub fn examples(root: &Path, dev: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join(if dev { "debug/examples" } else { "release/examples" })
}

/// Builds the programs of ours.
pub fn build(root: &Path, dev: bool) -> Result<PathBuf> {
    let examples = examples(root, dev);
    let build = |package: &str, example: &str| {
        let mut args = vec!["build", "-p", package, "--example", example];
        if !dev {
            args.extend(["--release", "--locked"]);
        }
        crate::call("cargo", &args)
    };
    build("apiserver", "serve")?;
    for package in ["scheduler", "controllers"] {
        build(package, "run")?;
        let copy = example(&examples, package);
        drop(fs::remove_file(&copy));
        fs::copy(examples.join("run"), &copy).with_context(|| format!("copying {}", copy.display()))?;
    }
    crate::peers::build(root, &["kube-controller-manager"])?;
    Ok(examples)
}

/// Upstream's controller manager as kubeadm starts it.
fn upstream(folder: &Path, pki: &ClusterPki, port: u16, own_port: u16, limited: bool) -> Result<Command> {
    let leaf = pki.ca().issue(&CertificateSpec::client("system:kube-controller-manager", ""))?;
    let file = |name: &str| folder.join(name).display().to_string();
    fs::write(folder.join("manager.crt"), leaf.certificate_pem())?;
    fs::write(folder.join("manager.key"), leaf.key_pem())?;
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("https://127.0.0.1:{port}"), "certificate-authority": file("ca.crt")}}],
        "users": [{"name": "it", "user": {"client-certificate": file("manager.crt"), "client-key": file("manager.key")}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]});
    let kubeconfig = folder.join("manager.kubeconfig");
    fs::write(&kubeconfig, config.to_string())?;
    let mut command = Command::new(testkit::peers::path("kube-controller-manager"));
    command.arg("--kubeconfig").arg(&kubeconfig);
    command.args([
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        "--authentication-skip-lookup=true".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={own_port}"),
        format!("--cert-dir={}", file("manager")),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        format!("--service-account-private-key-file={}", file("sa.key")),
    ]);
    if !limited {
        command.args(["--kube-api-qps=10000", "--kube-api-burst=10000"]);
    }
    Ok(command)
}
