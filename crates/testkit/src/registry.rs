//! A registry of images in this process: pull and push, with authentication and with faults on demand.
//!
//! ```no_run
//! # async fn example(image: testkit::image::Image) -> std::io::Result<()> {
//! use testkit::registry::{Fault, Registry};
//! let registry = Registry::start(&env::Env::system()).await?;
//! let reference = registry.put("visits/frontend:1", &image);      // 127.0.0.1:PORT/visits/frontend:1
//! registry.fail(&image.layer_digests()[0], Fault::Truncate);
//! # Ok(()) }
//! ```

mod serve;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use env::Env;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::image::{Image, digest, index};

/// Who may pull and push.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    #[default]
    Anyone,
    /// User and password with each request.
    Basic { username: String, password: String },
    /// A token from the registry's own service, which gives it for user and password, or to anyone where there are none.
    Token { login: Option<(String, String)> },
}

/// What goes wrong with a blob or manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One byte is another than it should be.
    Corrupt,
    /// The connection breaks off half way.
    Truncate,
    /// Half of it comes, and then nothing more.
    Stall,
    /// This status instead.
    Status(u16),
}

/// How a registry is started.
#[derive(Default)]
pub struct Options {
    pub auth: Auth,
    /// Where to listen instead of a free port of 127.0.0.1.
    pub address: Option<SocketAddr>,
    /// Speak TLS with this.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// A running registry; dropping it ends it with all its connections.
pub struct Registry {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

pub(crate) struct State {
    address: SocketAddr,
    auth: Auth,
    content: Mutex<Content>,
}

#[derive(Default)]
pub(crate) struct Content {
    blobs: HashMap<String, Vec<u8>>,
    /// By `repository:tag` and `repository@digest`.
    manifests: BTreeMap<String, Vec<u8>>,
    uploads: HashMap<String, Vec<u8>>,
    /// By digest or tag: the fault and how often it still happens.
    faults: HashMap<String, (Fault, u32)>,
    requests: Vec<String>,
    counter: u64,
}

impl Registry {
    /// A registry for anyone on a free port of 127.0.0.1.
    pub async fn start(env: &Env) -> io::Result<Registry> {
        Registry::start_with(env, Options::default()).await
    }

    pub async fn start_with(env: &Env, options: Options) -> io::Result<Registry> {
        let listener = TcpListener::bind(options.address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into())).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { address, auth: options.auth, content: Mutex::default() });
        let tls = options.tls.map(tokio_rustls::TlsAcceptor::from);
        let accepted = state.clone();
        let task = env.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve::connection(accepted.clone(), stream, tls.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Registry { address, state, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts an image there without a push and gives the reference to pull it by.
    pub fn put(&self, name: &str, image: &Image) -> String {
        self.put_manifest(name, image.manifest());
        self.state.content.lock().blobs.extend(image.blobs());
        format!("{}/{name}", self.address)
    }

    /// Puts one name for images of several machines.
    pub fn put_index(&self, name: &str, images: &[&Image]) -> String {
        let (repository, _) = name.rsplit_once(':').unwrap_or((name, "latest"));
        for image in images {
            let manifest = image.manifest();
            let mut content = self.state.content.lock();
            content.blobs.extend(image.blobs());
            content.manifests.insert(format!("{repository}@{}", digest(&manifest)), manifest);
        }
        self.put_manifest(name, index(images));
        format!("{}/{name}", self.address)
    }

    /// Puts any bytes as a manifest, good or bad, and gives their digest.
    pub fn put_manifest(&self, name: &str, manifest: Vec<u8>) -> String {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        self.state.content.lock().put_manifest(repository, tag, manifest)
    }

    /// Lets every request for the blob or manifest `which` (a digest or a tag) go wrong from now on.
    pub fn fail(&self, which: &str, fault: Fault) {
        self.fail_times(which, fault, u32::MAX);
    }

    /// The same for the next `times` requests.
    pub fn fail_times(&self, which: &str, fault: Fault, times: u32) {
        self.state.content.lock().faults.insert(which.to_owned(), (fault, times));
    }

    /// Every request so far, such as `GET /v2/app/blobs/sha256:…`.
    pub fn requests(&self) -> Vec<String> {
        self.state.content.lock().requests.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Content {
    pub(crate) fn put_manifest(&mut self, repository: &str, tag: &str, manifest: Vec<u8>) -> String {
        let digest = digest(&manifest);
        self.manifests.insert(format!("{repository}@{digest}"), manifest.clone());
        if !tag.starts_with("sha256:") {
            self.manifests.insert(format!("{repository}:{tag}"), manifest);
        }
        digest
    }

    /// The fault that the next answer about `which` has.
    pub(crate) fn take_fault(&mut self, which: &str) -> Option<Fault> {
        let (fault, times) = self.faults.get_mut(which)?;
        *times = times.checked_sub(1)?;
        Some(*fault)
    }
}

/// A certificate authority made for a test: its PEM, and a server's configuration for `names` (DNS names or addresses).
pub fn authority(names: &[&str]) -> (Vec<u8>, Arc<rustls::ServerConfig>) {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let certified = rcgen::generate_simple_self_signed(names).expect("a fresh key signs");
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
        .expect("rcgen writes PKCS #8");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the usual suites")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("the key fits the certificate");
    (certified.cert.pem().into_bytes(), Arc::new(config))
}
