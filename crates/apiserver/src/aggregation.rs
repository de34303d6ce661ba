//! Aggregation: group versions that other servers answer for, registered by APIServices. Upstream: kube-aggregator.
//!
//! One task follows the APIServices: it keeps the routes that requests are sent by, and looks whether the servers behind them are
//! there. Where there are none, nothing runs but one informer that hears nothing.

mod availability;
mod discovery;
mod openapi;
mod priorities;
mod proxy;
mod resolve;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::Status;
use env::Env;
use parking_lot::{Mutex, RwLock};
use pki::ClusterPki;
use rustls::ClientConfig;
use serde_json::Value as Json;
use tokio::sync::Notify;

pub(crate) use availability::run;
pub(crate) use priorities::local_services;
pub(crate) use proxy::identified;
pub(crate) use route::Route;

/// The name that servers behind this one know it by.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";
const GROUP: &str = "apiregistration.k8s.io";
const RESOURCE: &str = "apiservices";

/// Who answers for what, and how they are reached.
pub(crate) struct Aggregation {
    env: Env,
    pki: Arc<ClusterPki>,
    /// By group and version; only those of other servers.
    routes: RwLock<Arc<Routes>>,
    /// What the servers said that they serve, as aggregated discovery shows it.
    discovered: RwLock<BTreeMap<(String, String), Json>>,
    /// The certificate shown to other servers, made when the first is called.
    certificate: Mutex<Option<Arc<pki::Leaf>>>,
    /// Services (namespace, name) that changed, or whose endpoints did, since they were looked at.
    touched: Mutex<BTreeSet<(String, String)>>,
    poked: Notify,
}

type Routes = BTreeMap<(String, String), Arc<Route>>;

impl Aggregation {
    pub(crate) fn new(env: &Env, pki: &Arc<ClusterPki>) -> Aggregation {
        Aggregation {
            env: env.clone(),
            pki: pki.clone(),
            routes: RwLock::default(),
            discovered: RwLock::default(),
            certificate: Mutex::default(),
            touched: Mutex::default(),
            poked: Notify::new(),
        }
    }

    /// Who else answers for this group version.
    pub(crate) fn route(&self, group: &str, version: &str) -> Option<Arc<Route>> {
        let routes = self.routes.read();
        if routes.is_empty() || version.is_empty() {
            return None;
        }
        routes.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    fn routes(&self) -> Arc<Routes> {
        self.routes.read().clone()
    }

    /// The certificate that says to other servers that this is the front proxy.
    fn certificate(&self) -> Result<Arc<pki::Leaf>, Status> {
        let mut kept = self.certificate.lock();
        if let Some(leaf) = kept.as_ref().filter(|leaf| leaf.renew_at() > self.env.now()) {
            return Ok(leaf.clone());
        }
        let spec = pki::CertificateSpec::client(FRONT_PROXY, "");
        let leaf = Arc::new(self.pki.front_proxy_ca().issue(&spec).map_err(Status::internal)?);
        *kept = Some(leaf.clone());
        Ok(leaf)
    }

    /// How a server is called; without a bundle of authorities its certificate is not looked at.
    fn client_config(&self, trust: &route::Trust) -> Result<Arc<ClientConfig>, Status> {
        let leaf = self.certificate()?;
        proxy::client_config(trust, &leaf)
    }
}

#[cfg(test)]
mod tests;
