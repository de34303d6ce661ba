//! What a cluster on this machine was given or chose at its first start, and where that is written down.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rules::Features;
use serde::{Deserialize, Serialize};

use crate::args::{Args, Start};
use crate::routes::{self, Route};

/// The format of the record; a newer one than ours is refused.
const FORMAT: u32 = 1;

/// The kernel's routes, as text.
pub(crate) const ROUTES: &str = "/proc/net/route";

/// The cluster that needs no `--name`.
pub const DEFAULT_NAME: &str = "oxikube";

/// One cluster's settings. Recorded under its run folder while the machine is up, and in its data folder for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub format: u32,
    pub name: String,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub api_port: u16,
    pub kubelet_port: u16,
    /// `10.244.0.0/16`.
    pub pod_cidr: String,
    /// `10.96.0.0/12`.
    pub service_cidr: String,
    /// The kubeconfig files that `start` wrote to, so that `delete` cleans the same ones.
    pub kubeconfig: Vec<PathBuf>,
    /// How long certificates are valid at most, if the command said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_lifetime: Option<Duration>,
    /// RuntimeClass handlers and the OCI runtimes' programs they mean, if the command named any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtime_handlers: BTreeMap<String, PathBuf>,
    /// Which controllers run, if the command said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// Features that were switched, by the names of their gates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    /// The scheduler's configuration as the command gave it, YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_config: Option<String>,
}

impl Settings {
    /// The folder of everything that a reboot forgets.
    pub fn run_dir(name: &str) -> PathBuf {
        Path::new("/run/oxikube").join(name)
    }

    /// The folder of what lasts, unless told otherwise.
    pub fn default_data_dir(name: &str) -> PathBuf {
        Path::new("/var/lib/oxikube").join(name)
    }

    /// The names, folders, links and marks that belong to this cluster.
    pub fn scope(&self) -> linux::Scope {
        linux::Scope::new(&self.name, self.run_dir.clone(), self.data_dir.clone())
    }

    /// Where a running daemon listens for commands.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The daemon's log.
    pub fn log_file(&self) -> PathBuf {
        self.data_dir.join("log/daemon.log")
    }

    /// The service address of the cluster's DNS: the tenth of the service range, as kubeadm does it.
    pub fn dns_ip(&self) -> IpAddr {
        nth_address(&self.service_cidr, 10)
    }

    /// The settings of an existing cluster: from the run folder, else from the data folder.
    pub fn find(args: &Args) -> Result<Option<Settings>> {
        let run = Settings::run_dir(args.name()).join("cluster.json");
        let data =
            args.data_dir.clone().unwrap_or_else(|| Settings::default_data_dir(args.name())).join("cluster.json");
        for path in [run, data] {
            if let Some(settings) = read(&path)? {
                if let Some(asked) = args.data_dir.as_ref().filter(|asked| **asked != settings.data_dir) {
                    bail!(
                        "cluster {} has its data in {}, not in {}",
                        settings.name,
                        settings.data_dir.display(),
                        asked.display()
                    );
                }
                return Ok(Some(settings));
            }
        }
        Ok(None)
    }

    /// Like [`Settings::find`], for commands that need a cluster.
    pub fn must_find(args: &Args) -> Result<Settings> {
        Settings::find(args)?.with_context(|| format!("there is no cluster {}", args.name()))
    }

    /// Settings for a new cluster: the default one takes the well-known ports and ranges, another what is free.
    pub fn choose(args: &Args, start: &Start, node: NodeAddress, kubeconfig: Vec<PathBuf>) -> Result<Settings> {
        let name = args.name();
        let others = recorded(Path::new("/run/oxikube"), name)?;
        let (api_port, kubelet_port, pod_cidr, service_cidr) = if name == DEFAULT_NAME {
            (6443, 10250, "10.244.0.0/16".to_owned(), "10.96.0.0/12".to_owned())
        } else {
            let taken: Vec<u16> = others.iter().flat_map(|other| [other.api_port, other.kubelet_port]).collect();
            let free = |from: u16| (from..from + 400).find(|port| !taken.contains(port) && port_is_free(*port));
            let routes = routes::parse(&fs::read_to_string(ROUTES).unwrap_or_default());
            let (pods, services) = free_ranges(&others, &routes).context("every pod and service range is taken")?;
            (
                free(6444).context("no port from 6444 to 6843 is free")?,
                free(10300).context("no port from 10300 to 10699 is free")?,
                pods,
                services,
            )
        };
        let data_dir = args.data_dir.clone().unwrap_or_else(|| Settings::default_data_dir(name));
        Ok(Settings {
            format: FORMAT,
            name: name.to_owned(),
            data_dir: std::path::absolute(data_dir)?,
            run_dir: Settings::run_dir(name),
            node_name: start.node_name.clone().unwrap_or(node.name),
            node_ip: node.ip,
            api_port,
            kubelet_port,
            pod_cidr,
            service_cidr,
            kubeconfig,
            certificate_lifetime: start.certificate_lifetime,
            runtime_handlers: start.runtime_handlers.iter().cloned().collect(),
            controllers: start.controllers.clone(),
            feature_gates: start.feature_gates.iter().cloned().collect(),
            scheduler_config: None,
        })
    }

    /// Which features are on that are off by default.
    pub fn features(&self) -> Features {
        let mut features = Features::default();
        for (gate, on) in &self.feature_gates {
            if !features.switch(gate, *on) {
                tracing::warn!("the feature gate {gate} is not known, and ignored");
            }
        }
        features
    }

    /// Writes the record into the run and the data folder, which are made.
    pub fn record(&self, env: &env::Env) -> Result<()> {
        for folder in [&self.run_dir, &self.data_dir] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            let path = folder.join("cluster.json");
            write_atomically(&path, &serde_json::to_vec_pretty(self)?)
                .with_context(|| format!("writing {}", path.display()))?;
            env.crashpoint("start.recording");
        }
        Ok(())
    }

    /// The address of the API server on this machine.
    pub fn server(&self) -> String {
        format!("https://{}", SocketAddr::new(self.node_ip, self.api_port))
    }
}

/// Who this node is.
pub struct NodeAddress {
    pub ip: IpAddr,
    pub name: String,
}

/// Whether nobody listens on `port`, on any address.
pub fn port_is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// The `n`th address of an IPv4 range.
pub fn nth_address(cidr: &str, n: u32) -> IpAddr {
    let base: Ipv4Addr =
        cidr.split('/').next().and_then(|base| base.parse().ok()).expect("ranges are checked when they are chosen");
    Ipv4Addr::from_bits(base.to_bits() + n).into()
}

fn read(path: &Path) -> Result<Option<Settings>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let settings: Settings = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
    if settings.format > FORMAT {
        bail!("{} is of format {}, and this oxikube knows {FORMAT}", path.display(), settings.format);
    }
    Ok(Some(settings))
}

/// The settings of all other clusters of this machine.
fn recorded(run: &Path, except: &str) -> Result<Vec<Settings>> {
    let Ok(entries) = fs::read_dir(run) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for entry in entries.flatten().filter(|entry| entry.file_name() != except) {
        all.extend(read(&entry.path().join("cluster.json"))?);
    }
    Ok(all)
}

/// A pod and a service range that no other cluster has and that no route leads into: `10.(128+i).0.0/16` and `10.(192+i).0.0/16`.
fn free_ranges(others: &[Settings], routes: &[Route]) -> Option<(String, String)> {
    let free = |range: &String| !routes.iter().any(|route| route.overlaps(range));
    (0..60).map(|i| (format!("10.{}.0.0/16", 128 + i), format!("10.{}.0.0/16", 192 + i))).find(|(pods, services)| {
        free(pods)
            && free(services)
            && others.iter().all(|other| other.pod_cidr != *pods && other.service_cidr != *services)
    })
}

/// Writes a file so that it is there whole, even after a power cut.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    // The name is to last as well, and those of the folders above it.
    path.ancestors().skip(1).take(3).try_for_each(|folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn node() -> NodeAddress {
        NodeAddress { ip: "192.0.2.1".parse().unwrap(), name: "n".into() }
    }

    fn choose(args: &[&str]) -> Settings {
        let args = Args::parse_from(args);
        Settings::choose(&args, &Start::default(), node(), vec!["/k".into()]).unwrap()
    }

    #[test]
    fn the_default_cluster_takes_the_well_known_places() {
        let settings = choose(&["oxikube", "start"]);
        assert_eq!((settings.api_port, settings.kubelet_port), (6443, 10250));
        assert_eq!((settings.pod_cidr.as_str(), settings.service_cidr.as_str()), ("10.244.0.0/16", "10.96.0.0/12"));
        assert_eq!(settings.dns_ip().to_string(), "10.96.0.10");
        assert_eq!(settings.server(), "https://192.0.2.1:6443");
    }

    #[test]
    fn another_cluster_takes_what_is_free() {
        let first = choose(&["oxikube", "start", "--name", "other-of-test"]);
        assert_ne!(first.api_port, 6443);
        let (pods, services) = free_ranges(std::slice::from_ref(&first), &[]).unwrap();
        assert_ne!(pods, first.pod_cidr);
        assert_ne!(services, first.service_cidr);
        let text = routes::EXAMPLE.replace("0003F40A", "0003800A");
        assert_eq!(free_ranges(&[], &routes::parse(&text)), Some(("10.129.0.0/16".into(), "10.193.0.0/16".into())));
    }

    #[test]
    fn the_record_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let args =
            Args::parse_from(["oxikube", "start", "--name", "record-of-test", "--data-dir", data.to_str().unwrap()]);
        let mut settings = Settings::choose(&args, &Start::default(), node(), vec!["/k".into()]).unwrap();
        settings.run_dir = folder.path().join("run");
        settings.record(&env::Env::system()).unwrap();
        assert_eq!(Settings::find(&args).unwrap(), Some(settings.clone()));
        settings.format = FORMAT + 1;
        settings.record(&env::Env::system()).unwrap();
        assert!(Settings::find(&args).unwrap_err().to_string().contains("format"));
    }
}
