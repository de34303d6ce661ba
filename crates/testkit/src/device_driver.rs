//! A driver of devices (DRA) behind real sockets: it registers with a kubelet and tells what that asked of it.

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
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Router;
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
    endpoint: Mutex<String>,
}

/// A driver that serves; dropped, it takes its sockets along, as one that ends does.
pub struct Served {
    driver: FakeDriver,
    env: Env,
    endpoint: PathBuf,
    working: Option<Listening>,
    _registering: Listening,
}

impl Served {
    /// It can't be reached any more, but stays registered.
    pub fn breaks(&mut self) {
        self.working = None;
    }

    /// It can be reached again.
    pub fn works_again(&mut self) {
        self.working = Some(self.driver.work(&self.env, &self.endpoint));
    }
}

/// Ends its connections and removes its socket with it.
struct Listening {
    socket: PathBuf,
    _end: oneshot::Sender<()>,
}

impl Listening {
    fn start(env: &Env, socket: &Path, services: Router) -> Listening {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let (end, ended) = oneshot::channel::<()>();
        let ended = async move { drop(ended.await) };
        env.spawn(async move { services.serve_with_incoming_shutdown(incoming, ended).await.unwrap() });
        Listening { socket: socket.to_owned(), _end: end }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl FakeDriver {
    /// A driver called `name`, which knows these versions of the protocol; it doesn't listen until [`FakeDriver::serve`].
    pub fn new(name: &str, versions: &[&str]) -> FakeDriver {
        let versions = versions.iter().map(|version| (*version).to_owned()).collect();
        FakeDriver(Arc::new(Inner { name: name.to_owned(), versions, ..Inner::default() }))
    }

    /// Registers with a socket in the kubelet's folder for them, and works behind another one.
    pub fn serve(&self, env: &Env, kubelet: &Path) -> Served {
        let endpoint = kubelet.join("plugins").join(&self.0.name).join("dra.sock");
        *self.0.endpoint.lock() = endpoint.to_str().unwrap().to_owned();
        let working = Some(self.work(env, &endpoint));
        let socket = kubelet.join("plugins_registry").join(format!("{}-reg.sock", self.0.name));
        let services = Server::builder().add_service(RegistrationServer::new(self.clone()));
        let registering = Listening::start(env, &socket, services);
        Served { driver: self.clone(), env: env.clone(), endpoint, working, _registering: registering }
    }

    fn work(&self, env: &Env, endpoint: &Path) -> Listening {
        Listening::start(env, endpoint, Server::builder().add_service(DraPluginServer::new(self.clone())))
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
            endpoint: self.0.endpoint.lock().clone(),
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
