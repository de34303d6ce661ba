//! What the server is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use env::Env;
use pki::ClusterPki;

/// Everything the server needs from outside.
#[derive(Clone)]
pub struct Config {
    pub env: Env,
    pub store: Arc<dyn store::Store>,
    pub pki: Arc<ClusterPki>,
    /// Where TLS is served; port 0 picks one.
    pub bind: Vec<SocketAddr>,
    /// Further names and addresses for the serving certificate.
    pub names: Vec<String>,
    pub settings: Settings,
}

/// The parts of the configuration that requests depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that the `kubernetes` Service leads to.
    pub advertise: IpAddr,
    /// The port of the first of [`Config::bind`]; filled in by `build`.
    pub port: u16,
    /// Where service addresses come from: one range, or one of each family.
    pub service_cidrs: Vec<String>,
    pub node_ports: RangeInclusive<u16>,
    /// The issuer of service-account tokens, and their default audience.
    pub issuer: String,
    pub cluster_domain: String,
    /// What fields are kept that are dropped by default.
    pub features: rules::Features,
    /// What a cluster begins with besides upstream's own objects: paths of collections and objects, made once, before anything
    /// else. Whoever changes or deletes them keeps their way.
    pub begins_with: Vec<(&'static str, serde_json::Value)>,
}

impl Settings {
    /// The defaults of a cluster that is reached at `advertise`.
    pub fn new(advertise: IpAddr) -> Settings {
        Settings {
            advertise,
            port: 0,
            service_cidrs: vec!["10.96.0.0/12".to_owned()],
            node_ports: 30000..=32767,
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            features: rules::Features::default(),
            begins_with: Vec::new(),
        }
    }

    /// `address:port` for clients.
    pub(crate) fn advertised(&self) -> String {
        SocketAddr::new(self.advertise, self.port).to_string()
    }
}
