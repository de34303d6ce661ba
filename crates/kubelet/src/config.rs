//! What a kubelet is built from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use client::Client;
use env::Env;
use linux::Scope;
use streams::ServerCertificate;

/// A kubelet's surroundings and settings; upstream's defaults where it has any.
#[derive(Clone)]
pub struct Config {
    pub env: Env,
    /// Speaks as `system:node:<node_name>`.
    pub client: Client,
    pub scope: Scope,
    pub node_name: String,
    /// The node's addresses, the primary one first.
    pub node_ips: Vec<IpAddr>,
    /// Labels that the node gets besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// The runtime's socket: a path, or a path after `unix://`.
    pub cri_endpoint: String,
    /// Where logs, exec and the like are served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate to serve with; its owner may swap it.
    pub certificate: ServerCertificate,
    /// Who may vouch for clients, PEM.
    pub client_authority: String,
    /// The user that may do everything without being asked for: the API server's certificate.
    pub api_server_user: String,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// What belongs to pods: volumes, hosts files, termination messages.
    pub root: PathBuf,
    /// The logs of containers.
    pub logs: PathBuf,
    /// Name servers and search domains of the node.
    pub resolv_conf: PathBuf,
    /// Localhost seccomp profiles.
    pub seccomp_profiles: PathBuf,
    pub max_pods: i64,
    /// Below so much free memory the node is under memory pressure.
    pub eviction_memory: u64,
    /// Below this share of free disk or inodes, in percent, the node is under disk pressure; 0 never.
    pub eviction_disk_percent: u64,
    /// Speaks as who may make volumes of this node's folders; `None` makes none.
    pub provisioner: Option<Client>,
    /// Kubernetes' version, as in `v1.35.4`.
    pub version: String,
}

impl Config {
    /// The usual configuration of the node `node_name`.
    pub fn new(
        env: Env,
        client: Client,
        scope: Scope,
        node_name: &str,
        node_ips: Vec<IpAddr>,
        certificate: ServerCertificate,
        client_authority: &str,
    ) -> Config {
        Config {
            env,
            client,
            node_name: node_name.to_owned(),
            node_ips,
            labels: BTreeMap::new(),
            cri_endpoint: scope.run("cri.sock").to_string_lossy().into_owned(),
            listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 10250),
            certificate,
            client_authority: client_authority.to_owned(),
            api_server_user: "kube-apiserver-kubelet-client".to_owned(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            root: scope.data("kubelet"),
            logs: scope.data("logs/pods"),
            resolv_conf: resolv_conf(),
            seccomp_profiles: scope.data("kubelet/seccomp"),
            max_pods: 110,
            eviction_memory: 100 << 20,
            eviction_disk_percent: 0,
            provisioner: None,
            version: "v1.35.4".to_owned(),
            scope,
        }
    }

    /// The folder of the logs of one pod.
    pub(crate) fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }
}

/// The list with the real name servers, where `/etc/resolv.conf` names only a resolver that pods cannot reach.
fn resolv_conf() -> PathBuf {
    let usual = PathBuf::from("/etc/resolv.conf");
    let behind = PathBuf::from("/run/systemd/resolve/resolv.conf");
    let text = std::fs::read_to_string(&usual).unwrap_or_default();
    let stub = text.lines().any(|line| line.split_whitespace().eq(["nameserver", "127.0.0.53"]));
    if stub && behind.exists() { behind } else { usual }
}
