//! A server of the metrics APIs, of resources, custom and external ones, whose figures a test sets; it stands behind an API server as
//! metrics-server and adapters do.
//!
//! Figures are given by namespace:
//!
//! ```yaml
//! pods: {"*": {c: {cpu: 200m}}, web-1: null}    # by pod, then by container; only of pods that run
//! window: 1                                     # seconds that they are about, 1 if absent
//! custom: {pods requests: {"*": "10"}}          # by resource and metric, then by object
//! external: {queue: [{labels: {a: b}, value: "30"}]}
//! ```

mod answer;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use client::{Client, Error, Informer, Resource, TaskGuard};
use env::Env;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use answer::answer;

const SERVICES: Resource = Resource::cluster("apiregistration.k8s.io", "v1", "apiservices");
const NAME: &str = "metrics";
const NAMESPACE: &str = "kube-system";
/// Groups and versions that are answered.
const GROUPS: [(&str, &str); 3] =
    [("metrics.k8s.io", "v1beta1"), ("custom.metrics.k8s.io", "v1beta2"), ("external.metrics.k8s.io", "v1beta1")];

/// The server; dropping it ends it with all its connections.
pub struct Metrics {
    port: u16,
    state: Arc<State>,
    _task: TaskGuard,
}

struct State {
    env: Env,
    pods: Informer,
    /// By namespace.
    figures: Mutex<BTreeMap<String, Value>>,
}

impl Metrics {
    /// Without any figures, on a free port of 127.0.0.1; `pods` are those that there are.
    pub async fn start(env: &Env, pods: Informer) -> io::Result<Metrics> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State { env: env.clone(), pods, figures: Mutex::default() });
        let (_, tls) = crate::registry::authority(&["metrics.kube-system.svc"]);
        let (tls, accepted) = (TlsAcceptor::from(tls), state.clone());
        let task = env.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(accepted.clone(), stream, tls.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Metrics { port, state, _task: TaskGuard::new(task) })
    }

    /// From here on these are the figures of a namespace.
    pub fn set(&self, namespace: &str, figures: Value) {
        self.state.figures.lock().insert(namespace.to_owned(), figures);
    }

    /// Puts it behind the API server.
    pub async fn register(&self, client: &Client) -> Result<(), Error> {
        let body = |value: Value| apimachinery::Value::from_serialize(&value).unwrap_or_default();
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}});
        client.create(&client::resources::SERVICES, &body(service)).await?;
        for (group, version) in GROUPS {
            let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": format!("{version}.{group}")},
                "spec": {"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                    "insecureSkipTLSVerify": true,
                    "service": {"name": NAME, "namespace": NAMESPACE, "port": self.port}}});
            client.create(&SERVICES, &body(service)).await?;
        }
        Ok(())
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, tls: TlsAcceptor) {
    let service = service_fn(move |request: http::Request<_>| {
        let response = answer(&state, request.uri());
        async move { Ok::<_, Infallible>(response) }
    });
    let Ok(stream) = tls.accept(stream).await else { return };
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A connection that breaks is the client's to notice.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}
