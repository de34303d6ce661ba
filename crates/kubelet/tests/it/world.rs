//! A kubelet in a world of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::fake::FakeServer;
use client::{TaskGuard, resources};
use env::Env;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kubelet::{Config, Handle};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use crate::fake_cri::FakeCri;

pub struct World {
    pub env: Env,
    pub server: FakeServer,
    pub cri: FakeCri,
    pub front: Arc<Front>,
    pub config: Config,
    pub authority: Arc<pki::Authority>,
    pub kubelet: Option<TaskGuard>,
    pub handle: Option<Handle>,
    pub port: u16,
    _cri: TaskGuard,
    pub folder: tempfile::TempDir,
}

/// What the server in memory does not know: reviews and tokens.
pub struct Front {
    server: FakeServer,
    /// Who may do anything.
    pub users: Mutex<Vec<String>>,
}

impl client::Transport for Front {
    fn send(&self, request: client::Request) -> BoxFuture<'static, Result<client::Response, client::TransportError>> {
        let body: Json = serde_json::from_slice(&request.body).unwrap_or_default();
        let answer = match request.target.rsplit('/').next() {
            Some("subjectaccessreviews") => {
                let allowed = self.users.lock().iter().any(|user| body["spec"]["user"] == **user);
                json!({"metadata": {}, "status": {"allowed": allowed}})
            }
            Some("tokenreviews") => {
                let known = body["spec"]["token"].as_str().and_then(|token| token.strip_prefix("token-of-"));
                json!({"metadata": {}, "status": {"authenticated": known.is_some(), "user": {"username": known}}})
            }
            Some("token") => {
                let now = self.server.client().env().now();
                let pod = &body["spec"]["boundObjectRef"]["name"];
                let until = now + Duration::from_secs(body["spec"]["expirationSeconds"].as_u64().unwrap());
                json!({"metadata": {}, "status": {"token": format!("{pod} at {}", now.as_second()),
                    "expirationTimestamp": apimachinery::format_time(until)}})
            }
            _ => return self.server.send(request),
        };
        let object = Object::parse(answer.to_string().as_bytes()).unwrap();
        let body = client::Body::Object(Arc::new(object));
        Box::pin(
            async move { Ok(client::Response { code: http::StatusCode::CREATED, headers: Default::default(), body }) },
        )
    }
}

/// Beyond this, in the world's own time, what is waited for does not come.
const PATIENCE: Duration = Duration::from_secs(1200);

impl World {
    /// A node that is ready to run pods.
    pub async fn new() -> World {
        let mut world = World::unstarted().await;
        world.start().await;
        world.give_range();
        world.until_node_ready().await;
        world
    }

    pub async fn unstarted() -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let env = Env::seeded(7, start);
        let server = FakeServer::new(env.clone());
        let cri = FakeCri::new(env.clone());
        let socket = folder.path().join("cri.sock");
        let serving = cri.serve(&socket);
        let authority = pki::Authority::load_or_create(&folder.path().join("pki"), "ca", "kubernetes", &env).unwrap();
        let leaf =
            authority.issue(&pki::CertificateSpec::server("n1", &["n1"], &["127.0.0.1".parse().unwrap()])).unwrap();
        let certificate = streams::ServerCertificate::new(leaf.chain().unwrap(), leaf.private_key().unwrap()).unwrap();
        let scope = linux::Scope::new(&name, folder.path().join("run"), folder.path().join("data"));
        let ips = vec!["127.0.0.9".parse().unwrap()];
        let pem = authority.certificate_pem();
        let front = Arc::new(Front { server: server.clone(), users: Mutex::default() });
        let client = client::Client::new(env.clone(), front.clone(), "kubelet/1 (test)");
        let mut config = Config::new(env.clone(), client, scope, "n1", ips, certificate, pem);
        config.cri_endpoint = socket.to_string_lossy().into_owned();
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        World {
            env,
            server,
            cri,
            front,
            config,
            authority: Arc::new(authority),
            kubelet: None,
            handle: None,
            port: 0,
            _cri: serving,
            folder,
        }
    }

    /// Starts the kubelet, or starts it again after a crash.
    pub async fn start(&mut self) {
        self.kubelet = None;
        let kubelet = kubelet::build(self.config.clone()).await.unwrap();
        self.handle = Some(kubelet.handle());
        self.port = kubelet.port();
        let run = async move { kubelet.run(std::future::pending()).await.unwrap() };
        self.kubelet = Some(TaskGuard::new(self.env.spawn(run)));
    }

    /// What the controller that hands out pod ranges does.
    pub fn give_range(&self) {
        let (server, env) = (self.server.clone(), self.env.clone());
        self.env.spawn(async move {
            while server.get(&resources::NODES, &ObjectKey::cluster("n1")).is_none() {
                env.sleep(Duration::from_millis(10)).await;
            }
            server.edit(&resources::NODES, &ObjectKey::cluster("n1"), |node| {
                node.set(&["spec", "podCIDR"], "10.1.0.0/24")
            });
        });
    }

    pub async fn until_node_ready(&self) {
        self.until("the node is ready", || self.node_condition("Ready").is_some_and(|(status, _)| status == "True"))
            .await;
    }

    pub fn node(&self) -> Json {
        let node = self.server.get(&resources::NODES, &ObjectKey::cluster("n1"));
        node.map(|node| serde_json::from_slice(&node.to_json()).unwrap()).unwrap_or_default()
    }

    pub fn node_condition(&self, name: &str) -> Option<(String, String)> {
        let node = self.node();
        let found = node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == name)?.clone();
        Some((found["status"].as_str()?.to_owned(), found["message"].as_str()?.to_owned()))
    }

    /// Waits, in the world's own time.
    pub async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = self.env.monotonic() + PATIENCE;
        while !done() {
            let pods: Vec<_> =
                self.server.list(&resources::PODS).iter().map(|p| String::from_utf8(p.to_json()).unwrap()).collect();
            assert!(
                self.env.monotonic() < deadline,
                "waited in vain: {what}; events {:#?}; pods {pods:#?}",
                self.events()
            );
            self.env.sleep(Duration::from_millis(10)).await;
        }
    }

    /// Creates the pod `p` in `ns` with this spec, bound to the node.
    pub fn create(&self, spec: Json) -> Arc<Object> {
        self.create_named("p", spec)
    }

    pub fn create_named(&self, name: &str, spec: Json) -> Arc<Object> {
        let mut full = json!({"nodeName": "n1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "serviceAccountName": "default"});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        for list in ["containers", "initContainers"] {
            for container in full.get_mut(list).and_then(Json::as_array_mut).into_iter().flatten() {
                let defaults = json!({"image": "app:1", "imagePullPolicy": "IfNotPresent"});
                for (key, value) in defaults.as_object().unwrap() {
                    container.as_object_mut().unwrap().entry(key.clone()).or_insert(value.clone());
                }
            }
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "generation": 1}, "spec": full,
            "status": {"phase": "Pending"}});
        self.server.put(&resources::PODS, &pod.to_string())
    }

    pub fn key() -> ObjectKey {
        ObjectKey::new("ns", "p")
    }

    pub fn pod(&self) -> Option<Pod> {
        self.server.get(&resources::PODS, &World::key()).map(|pod| pod.view().unwrap())
    }

    pub fn phase(&self) -> String {
        self.pod().and_then(|pod| pod.status?.phase).unwrap_or_default()
    }

    pub fn status(&self, container: &str) -> Option<ContainerStatus> {
        self.pod().and_then(|pod| rules::container_status(&pod, container).cloned())
    }

    pub fn condition(&self, name: &str) -> (String, String) {
        let conditions = self.pod().and_then(|pod| pod.status?.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == name);
        found.map(|found| (found.status, found.reason.unwrap_or_default())).unwrap_or_default()
    }

    /// The waiting reason and message of a container.
    pub fn waiting(&self, container: &str) -> Option<(String, String)> {
        let waiting = self.status(container)?.state?.waiting?;
        Some((waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
    }

    pub async fn until_phase(&self, phase: &str) {
        self.until(phase, || self.phase() == phase).await;
    }

    pub async fn until_waiting(&self, container: &str, reason: &str) {
        self.until(reason, || self.waiting(container).is_some_and(|(found, _)| found == reason)).await;
    }

    /// Deletes the pod as kubectl does, with this grace period.
    pub async fn delete(&self, grace: i64) {
        let options = client::DeleteOptions::default().grace(grace);
        self.server.client().delete(&resources::PODS, &World::key(), &options).await.unwrap();
    }

    pub async fn until_gone(&self) {
        self.until("the pod is gone", || self.pod().is_none()).await;
    }

    /// Every event of pods as `reason: message`, in order of their creation.
    pub fn events(&self) -> Vec<String> {
        self.events_of("Pod")
    }

    fn events_of(&self, kind: &str) -> Vec<String> {
        let mut events: Vec<_> = self.server.list(&resources::EVENTS);
        events.retain(|event| event.to_value().str_at(&["involvedObject", "kind"]) == Some(kind));
        events.sort_by_key(|event| event.revision());
        let text = |event: &Arc<Object>| {
            let value = event.to_value();
            let text = |field| value.str_at(&[field]).unwrap_or_default().to_owned();
            format!("{}: {}", text("reason"), text("message"))
        };
        events.iter().map(text).collect()
    }

    pub fn has_event(&self, text: &str) -> bool {
        [self.events(), self.events_of("Node")].concat().iter().any(|event| event == text)
    }

    pub fn group(&self) -> linux::cgroup::Group {
        linux::cgroup::Hierarchies::detect().unwrap().group(self.config.scope.cgroup("")).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kubelet = None;
        let _ = linux::mount::unmount_below(self.folder.path());
        let _ = self.group().remove();
    }
}
