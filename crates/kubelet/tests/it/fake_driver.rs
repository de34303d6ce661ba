//! A driver of devices behind real sockets: it tells what it was asked.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::drivers::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use cri::drivers::dra::*;
use cri::drivers::registration::registration_server::{Registration, RegistrationServer};
use cri::drivers::registration::*;
use env::Env;
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// The driver; clones share it.
#[derive(Clone, Default)]
pub struct FakeDriver(Arc<Inner>);

#[derive(Default)]
struct Inner {
    name: String,
    versions: Vec<String>,
    log: Mutex<Vec<String>>,
    /// By claim: the ids that its devices have for runtimes, by request.
    devices: Mutex<BTreeMap<String, Vec<(String, String)>>>,
    broken: Mutex<Option<String>>,
    told: Mutex<Option<RegistrationStatus>>,
}

/// Drops its socket with it, as a driver that ends does.
pub struct Served {
    socket: PathBuf,
    _task: client::TaskGuard,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl FakeDriver {
    pub fn new(name: &str, versions: &[&str]) -> FakeDriver {
        let versions = versions.iter().map(|version| (*version).to_owned()).collect();
        FakeDriver(Arc::new(Inner { name: name.to_owned(), versions, ..Inner::default() }))
    }

    /// Registers and works behind a socket of the kubelet's folder.
    pub fn serve(&self, env: &Env, kubelet: &Path) -> Served {
        let folder = kubelet.join("plugins_registry");
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join(format!("{}-reg.sock", self.0.name));
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(RegistrationServer::new(self.clone()))
            .add_service(DraPluginServer::new(self.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        Served { socket, _task: client::TaskGuard::new(env.spawn(async move { server.await.unwrap() })) }
    }

    /// The devices of a claim, each with its request (empty: all) and its id for runtimes.
    pub fn has(&self, claim: &str, devices: &[(&str, &str)]) {
        let owned = |(request, id): &(&str, &str)| ((*request).to_owned(), (*id).to_owned());
        self.0.devices.lock().insert(claim.to_owned(), devices.iter().map(owned).collect());
    }

    /// From now on it fails, or works again.
    pub fn fails(&self, why: Option<&str>) {
        *self.0.broken.lock() = why.map(str::to_owned);
    }

    /// What it was asked since it was looked at last.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.log.lock())
    }

    /// What it was told about its registration.
    pub fn told(&self) -> Option<RegistrationStatus> {
        self.0.told.lock().clone()
    }

    fn asked(&self, verb: &str, claims: &[Claim]) -> String {
        let named = |claim: &Claim| format!("{verb} {}/{}", claim.namespace, claim.name);
        self.0.log.lock().extend(claims.iter().map(named));
        self.0.broken.lock().clone().unwrap_or_default()
    }
}

#[tonic::async_trait]
impl Registration for FakeDriver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DRAPlugin".into(),
            name: self.0.name.clone(),
            endpoint: String::new(),
            supported_versions: self.0.versions.clone(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        *self.0.told.lock() = Some(request.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl DraPlugin for FakeDriver {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let asked = request.into_inner().claims;
        let error = self.asked("prepare", &asked);
        let mut claims = HashMap::new();
        for claim in asked {
            let devices = self.0.devices.lock().get(&claim.name).cloned().unwrap_or_default();
            let device = |(request, id): (String, String)| Device {
                request_names: if request.is_empty() { Vec::new() } else { vec![request] },
                pool_name: "n1".into(),
                device_name: "d".into(),
                cdi_device_ids: vec![id],
                share_id: None,
            };
            let devices = devices.into_iter().map(device).collect();
            claims.insert(claim.uid, NodePrepareResourceResponse { devices, error: error.clone() });
        }
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let asked = request.into_inner().claims;
        let error = self.asked("unprepare", &asked);
        let answer = |claim: Claim| (claim.uid, NodeUnprepareResourceResponse { error: error.clone() });
        Ok(Response::new(NodeUnprepareResourcesResponse { claims: asked.into_iter().map(answer).collect() }))
    }
}
