//! A small server of metrics APIs, as an adapter or metrics-server would be one.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use testkit::machine::Machine;
use tokio::sync::oneshot;

/// Runs until it is dropped.
pub struct Figures {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Figures {
    /// On the loopback address of the machine.
    pub fn start(machine: &Machine) -> Figures {
        let listener = machine.namespace().run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = machine.kubectl("get nodes -o jsonpath={.items[0].metadata.name}").ok();
        let folder = machine.folder().join("figures");
        std::fs::create_dir_all(&folder).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let env = env::Env::system();
                let authority = pki::Authority::load_or_create(&folder, "ca", "figures", &env).unwrap();
                let leaf = authority.issue(&pki::CertificateSpec::server("figures", &["figures"], &[])).unwrap();
                let (chain, key) = (leaf.chain().unwrap(), leaf.private_key().unwrap());
                let certificate = streams::ServerCertificate::new(chain, key).unwrap();
                let mut config = (*streams::server_config(&certificate, &[]).unwrap()).clone();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let service = move |request: Request<Incoming>| {
                    let answer = answer(request.uri().path(), &node);
                    async move {
                        let response = Response::builder().status(if answer.is_null() { 404 } else { 200 });
                        let response = response.header(CONTENT_TYPE, "application/json");
                        response.body(Full::<Bytes>::from(answer.to_string())).unwrap()
                    }
                };
                let shutdown = async { drop(stopped.await) };
                drop(streams::Server::tls(env, Arc::new(config)).run(listener, service, shutdown).await);
            });
        });
        Figures { port, stop: Some(stop), thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn answer(path: &str, node: &str) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let resources = |group_version: &str, resources: Value| json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources });
    let custom = |items: Vec<Value>| json!({ "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {}, "items": items });
    let value = |kind: &str, name: &str, value: &str| {
        json!({ "describedObject": { "kind": kind, "namespace": "default", "name": name }, "metric": { "name": "m" },
                "timestamp": now, "value": value })
    };
    match path.trim_start_matches("/apis/") {
        "metrics.k8s.io/v1beta1" => {
            let kind = |name: &str, kind: &str, namespaced: bool| json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"] });
            resources(
                "metrics.k8s.io/v1beta1",
                json!([kind("nodes", "NodeMetrics", false), kind("pods", "PodMetrics", true)]),
            )
        }
        "metrics.k8s.io/v1beta1/nodes" => json!({
            "kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {},
            "items": [{ "metadata": { "name": node }, "timestamp": now, "window": "10s", "usage": { "cpu": "123m", "memory": "77Mi" } }],
        }),
        version @ ("custom.metrics.k8s.io/v1beta2" | "external.metrics.k8s.io/v1beta1") => {
            resources(version, json!([]))
        }
        "custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/requests" => {
            custom((0..5).map(|n| value("Pod", &format!("web-{n}"), "10")).collect())
        }
        "custom.metrics.k8s.io/v1beta2/namespaces/default/services/web/hits" => {
            custom(vec![value("Service", "web", "30")])
        }
        "external.metrics.k8s.io/v1beta1/namespaces/default/queue" => json!({
            "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
            "items": [{ "metricName": "queue", "timestamp": now, "value": "45" }],
        }),
        _ => Value::Null,
    }
}
