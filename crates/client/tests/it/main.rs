//! The client against a server in memory.

mod informer;
mod leader;
mod recorder;
mod request;
mod runner;
mod tls;

use std::time::Duration;

use apimachinery::ObjectKey;
use client::fake::FakeServer;
use env::Env;

fn server() -> FakeServer {
    FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn config_map(name: &str, data: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"ns","labels":{{"d":"{data}"}}}},"data":{{"d":"{data}"}}}}"#
    )
}

/// Waits until `condition`, on the paused clock.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            Env::system().sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(600), wait).await.is_ok(), "did not happen: {what}");
}
