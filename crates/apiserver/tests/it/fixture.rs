//! A server in this process, with its store in memory.

use std::sync::Arc;
use std::time::Duration;

use apiserver::{Config, Local, Settings, UserInfo};
use client::{Body, Request, Transport};
use env::Env;
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pki::ClusterPki;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

pub struct Fixture {
    pub env: Env,
    pub admin: Local,
    /// The kubelet of node `n1`.
    pub node: Local,
    pub pki: Arc<ClusterPki>,
    pub store: Arc<dyn store::Store>,
    pub address: std::net::SocketAddr,
    task: JoinHandle<()>,
    _folder: TempDir,
}

/// An answer taken apart.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub headers: HeaderMap,
    pub json: Value,
    pub text: String,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::on(store::Embedded::in_memory(&Env::system()).unwrap()).await
    }

    /// A server on a store that may hold something already.
    pub async fn on(store: Arc<dyn store::Store>) -> Fixture {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
            .try_init();
        let env = Env::system();
        let folder = tempfile::tempdir().unwrap();
        let pki = Arc::new(ClusterPki::load_or_create(folder.path(), &env).unwrap());
        let config = Config {
            env: env.clone(),
            store: store.clone(),
            pki: pki.clone(),
            bind: vec!["127.0.0.1:0".parse().unwrap()],
            names: Vec::new(),
            settings: Settings::new("192.0.2.1".parse().unwrap()),
        };
        let server = apiserver::build(config).await.unwrap();
        let admin = server.local(UserInfo::authenticated("kubernetes-admin", &["system:masters"]));
        let node = server.local(UserInfo::authenticated("system:node:n1", &["system:nodes"]));
        let address = server.addresses()[0];
        let mut ready = server.ready();
        let task = env.spawn(async move { server.run(std::future::pending()).await.unwrap() });
        let waited = tokio::time::timeout(Duration::from_secs(120), ready.wait_for(|ready| *ready)).await;
        waited.expect("the server becomes ready").unwrap();
        let fixture = Fixture { env, admin, node, pki, store, address, task, _folder: folder };
        fixture.account("default").await;
        fixture
    }

    /// Makes a namespace's default service account, as a controller would.
    pub async fn account(&self, namespace: &str) {
        let target = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let reply = self.send("POST", &target, r#"{"metadata":{"name":"default"}}"#).await;
        assert!(matches!(reply.code, 201 | 409), "{}", reply.text);
    }

    /// Sends a request; `body` is JSON or empty.
    pub async fn send(&self, method: &str, target: &str, body: &str) -> Reply {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.send_as(method, target, media, body.as_bytes(), &[]).await
    }

    pub async fn send_as(
        &self,
        method: &str,
        target: &str,
        media: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut map = HeaderMap::new();
        if !body.is_empty() {
            map.insert(CONTENT_TYPE, HeaderValue::from_str(media).unwrap());
        }
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = Request { method, target: target.to_owned(), headers: map, body: body.to_vec().into() };
        let response = self.admin.send(request).await.unwrap();
        let bytes: Vec<u8> = match response.body {
            Body::Bytes(bytes) => bytes.to_vec(),
            Body::Status(status) => status.to_json(),
            Body::Object(object) => object.to_json(),
            Body::List(list) => list_json(list),
            Body::Watch(_) => panic!("a watch where an answer was expected"),
            Body::Stream(stream) => {
                stream
                    .fold(Vec::new(), |mut all, chunk| async move {
                        all.extend_from_slice(&chunk.unwrap());
                        all
                    })
                    .await
            }
        };
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Reply {
            code: response.code.as_u16(),
            headers: response.headers,
            json,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// Sends a request that must succeed.
    pub async fn ok(&self, method: &str, target: &str, body: &str) -> Value {
        let reply = self.send(method, target, body).await;
        assert!(reply.code < 300, "{method} {target}: {} {}", reply.code, reply.text);
        reply.json
    }

    /// Sends a request that must be answered with this code and a message that contains `text`.
    pub async fn check(&self, method: &str, target: &str, body: &str, code: u16, text: &str) {
        let reply = self.send(method, target, body).await;
        assert!(
            reply.code == code && reply.text.contains(text),
            "{method} {target} {body}\nexpected {code} {text}\ngot {} {}",
            reply.code,
            reply.text
        );
    }

    pub async fn watch(&self, target: &str) -> futures_util::stream::BoxStream<'static, client::WatchEvent> {
        let request = Request {
            method: Method::GET,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: Default::default(),
        };
        match self.admin.send(request).await.unwrap().body {
            Body::Watch(events) => events,
            _ => panic!("{target} is no watch"),
        }
    }
}

fn list_json(list: client::ObjectList) -> Vec<u8> {
    let items: Vec<Value> = list.items.iter().map(|item| serde_json::from_slice(&item.to_json()).unwrap()).collect();
    serde_json::json!({
        "metadata": { "resourceVersion": list.revision.to_string(), "continue": list.continue_token, "remainingItemCount": list.remaining },
        "items": items,
    })
    .to_string()
    .into_bytes()
}

/// The next event, as `ADDED name`.
pub async fn next(events: &mut futures_util::stream::BoxStream<'static, client::WatchEvent>) -> String {
    let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("an event comes");
    match event {
        None => "END".to_owned(),
        Some(client::WatchEvent::Added(object)) => format!("ADDED {}", object.name()),
        Some(client::WatchEvent::Modified(object)) => format!("MODIFIED {}", object.name()),
        Some(client::WatchEvent::Deleted(object)) => format!("DELETED {}", object.name()),
        Some(client::WatchEvent::Bookmark { initial_events_end, .. }) => format!("BOOKMARK {initial_events_end}"),
        Some(client::WatchEvent::Error(status)) => format!("ERROR {}", status.code),
    }
}
