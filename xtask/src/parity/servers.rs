//! The two servers: upstream's with its etcd, and ours, in a folder that goes with them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use env::Env;
use pki::{CertificateSpec, ClusterPki};
use testkit::parity::{Server, get};

/// How long a server may take to become ready on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// Two addresses, so that both servers can have the same port, which shows in some answers.
const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
pub(crate) const UPSTREAM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Both servers, ready; dropping them stops them and removes all they wrote but their logs.
pub struct Servers {
    env: Env,
    pki: ClusterPki,
    port: u16,
    logs: PathBuf,
    _running: Vec<Running>,
    _folder: tempfile::TempDir,
}

/// A process that ends with its handle.
pub(crate) struct Running {
    name: &'static str,
    pub(crate) child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Servers {
    pub async fn start(logs: &Path) -> Result<Servers> {
        fs::create_dir_all(logs).with_context(|| format!("creating {}", logs.display()))?;
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let env = Env::system();
        let pki = ClusterPki::load_or_create(&folder.path().join("pki"), &env)?;
        let [port, etcd_port, peer_port] = free_ports()?;
        let etcd = format!("http://{UPSTREAM}:{etcd_port}");
        let mut running = vec![spawn("etcd", etcd_command(folder.path(), &etcd, peer_port), logs)?];
        let upstream = upstream_command(folder.path(), &pki, &etcd, port)?;
        running.push(spawn("kube-apiserver", upstream, logs)?);
        let mut ours = Command::new(example());
        ours.arg(folder.path().join("pki")).arg(SocketAddr::new(OURS, port).to_string()).arg(UPSTREAM.to_string());
        running.push(spawn("ours", ours, logs)?);
        if let Some(output) = running[2].child.stdout.take() {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line)?;
            if line.is_empty() {
                bail!("our server did not become ready; its log is {}", log(logs, "ours").display());
            }
        }
        let mut servers = Servers { env, pki, port, logs: logs.to_owned(), _running: Vec::new(), _folder: folder };
        servers.upstream_is_ready(&mut running).await?;
        servers._running = running;
        Ok(servers)
    }

    pub fn upstream(&self) -> Result<Server<'_>> {
        self.server(UPSTREAM)
    }

    pub fn ours(&self) -> Result<Server<'_>> {
        self.server(OURS)
    }

    pub fn logs(&self) -> &Path {
        &self.logs
    }

    fn server(&self, address: IpAddr) -> Result<Server<'_>> {
        Ok(Server {
            env: self.env.clone(),
            address: SocketAddr::new(address, self.port),
            authority: self.pki.ca().certificate_pem().to_owned(),
            identity: Box::new(|user, group| {
                let leaf = self.pki.ca().issue(&CertificateSpec::client(user, group)).map_err(io::Error::other)?;
                Ok((leaf.certificate_pem().to_owned(), leaf.key_pem().to_owned()))
            }),
        })
    }

    /// Ready, and with everything that a server makes itself at its first start.
    async fn upstream_is_ready(&self, running: &mut [Running]) -> Result<()> {
        let server = self.upstream()?;
        let deadline = self.env.monotonic() + PATIENCE;
        let wanted = [
            "/readyz",
            "/api/v1/namespaces/default",
            "/api/v1/namespaces/default/services/kubernetes",
            "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
            "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
        ];
        for path in wanted {
            while !matches!(get(&server, path).await, Ok((200, _))) {
                for one in running.iter_mut() {
                    if one.child.try_wait()?.is_some() {
                        bail!("{} ended; its log is {}", one.name, log(&self.logs, one.name).display());
                    }
                }
                if self.env.monotonic() > deadline {
                    let log = log(&self.logs, "kube-apiserver");
                    bail!("upstream's server did not become ready ({path}); its log is {}", log.display());
                }
                self.env.sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

/// Starts a program that dies with this one, its output in a log.
pub(crate) fn spawn(name: &'static str, command: Command, logs: &Path) -> Result<Running> {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let file = File::create(log(logs, name)).with_context(|| format!("creating the log of {name}"))?;
    wrapped.stderr(file).stdin(Stdio::piped());
    wrapped.stdout(if name == "ours" { Stdio::piped() } else { Stdio::null() });
    let child = wrapped.spawn().with_context(|| format!("starting {name}"))?;
    Ok(Running { name, child })
}

fn log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{name}.log"))
}

pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let (ours, theirs) = loop {
            let ours = TcpListener::bind((OURS, 0)).context("looking for a free port")?;
            if let Ok(theirs) = TcpListener::bind((UPSTREAM, ours.local_addr()?.port())) {
                break (ours, theirs);
            }
        };
        *port = ours.local_addr()?.port();
        held.push((ours, theirs));
    }
    Ok(ports)
}

/// Our server: an example of its crate, already built.
fn example() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    target.join("debug/examples/serve")
}

pub(crate) fn etcd_command(folder: &Path, clients: &str, peer_port: u16) -> Command {
    let peers = format!("http://{UPSTREAM}:{peer_port}");
    let mut command = Command::new(testkit::peers::path("etcd"));
    command.arg("--data-dir").arg(folder.join("etcd")).arg("--unsafe-no-fsync");
    command.args(["--listen-client-urls", clients, "--advertise-client-urls", clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.arg(format!("--initial-cluster=default={peers}"));
    command
}

/// Upstream's server as a usual installation starts it, with our keys and our defaults.
pub(crate) fn upstream_command(folder: &Path, pki: &ClusterPki, etcd: &str, port: u16) -> Result<Command> {
    let serving = CertificateSpec::server("kube-apiserver", &["localhost"], &[UPSTREAM]);
    let leaves = [
        ("serving", serving),
        ("accounts", CertificateSpec::client("service-accounts", "")),
        ("proxy", CertificateSpec::client("front-proxy-client", "")),
    ];
    for (name, spec) in leaves {
        let leaf = pki.ca().issue(&spec)?;
        fs::write(folder.join(format!("{name}.crt")), leaf.certificate_pem())?;
        fs::write(folder.join(format!("{name}.key")), leaf.key_pem())?;
    }
    let file = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new(testkit::peers::path("kube-apiserver"));
    command.args([
        format!("--etcd-servers={etcd}"),
        format!("--bind-address={UPSTREAM}"),
        format!("--secure-port={port}"),
        "--advertise-address=192.0.2.1".to_owned(),
        "--endpoint-reconciler-type=lease".to_owned(),
        format!("--cert-dir={}", file("certificates")),
        format!("--tls-cert-file={}", file("serving.crt")),
        format!("--tls-private-key-file={}", file("serving.key")),
        format!("--client-ca-file={}", file("pki/ca.crt")),
        format!("--requestheader-client-ca-file={}", file("pki/front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", file("proxy.crt")),
        format!("--proxy-client-key-file={}", file("proxy.key")),
        format!("--service-account-key-file={}", file("accounts.crt")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        // As the defaults of our `Settings`.
        "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
    ]);
    Ok(command)
}
