//! Probes decide about readiness and restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn readiness_is_told_at_once() {
    let world = World::new().await;
    world.cri.command("ready", 1);
    world.create(json!({"containers": [{"name": "web", "readinessProbe":
        {"exec": {"command": ["ready"]}, "periodSeconds": 1, "failureThreshold": 2}}]}));
    world.until_phase("Running").await;
    assert_eq!(world.condition("Ready"), ("False".into(), "ContainersNotReady".into()));
    world.until("the failure is told", || world.has_event("Unhealthy: Readiness probe failed: said")).await;
    world.cri.command("ready", 0);
    let began = world.env.monotonic();
    world.until("it is ready", || world.condition("Ready").0 == "True").await;
    assert!((world.env.monotonic() - began) < Duration::from_millis(1500));
    world.cri.command("ready", 1);
    let began = world.env.monotonic();
    world.until("it is not ready", || world.condition("Ready").0 == "False").await;
    assert!((world.env.monotonic() - began) < Duration::from_millis(2500));
    assert_eq!(world.status("web").unwrap().restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web", "livenessProbe":
        {"exec": {"command": ["alive"]}, "periodSeconds": 5, "failureThreshold": 3, "terminationGracePeriodSeconds": 7}}]}));
    world.until_phase("Running").await;
    world.env.sleep(Duration::from_secs(60)).await;
    assert_eq!(world.status("web").unwrap().restart_count, 0);
    world.cri.take_log();
    world.cri.command("alive", 1);
    world.until("it is restarted", || world.status("web").unwrap().restart_count == 1).await;
    assert!(world.cri.take_log().contains(&"stop web 7".to_owned()));
    world
        .until("it is told", || {
            world.has_event("Killing: Container web failed liveness probe, will be restarted")
                && world.has_event("Unhealthy: Liveness probe failed: said")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn other_probes_wait_for_the_startup_probe() {
    let world = World::new().await;
    world.cri.command("up", 1);
    world.create(json!({"containers": [{"name": "web",
        "startupProbe": {"exec": {"command": ["up"]}, "periodSeconds": 1, "failureThreshold": 100},
        "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1},
        "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1}}]}));
    world.until("it runs", || world.status("web").is_some_and(|web| web.state.unwrap().running.is_some())).await;
    world.env.sleep(Duration::from_secs(20)).await;
    let log = world.cri.take_log();
    assert!(log.contains(&"exec up".to_owned()) && !log.contains(&"exec alive".to_owned()), "{log:?}");
    assert_eq!(world.status("web").unwrap().started, Some(false));
    world.cri.command("up", 0);
    world.until("it is ready", || world.status("web").unwrap().ready).await;
    let ups = |log: Vec<String>| log.iter().filter(|line| *line == "exec up").count();
    world.cri.take_log();
    world.env.sleep(Duration::from_secs(20)).await;
    assert_eq!(ups(world.cri.take_log()), 0, "once started, always started");
}

#[tokio::test(start_paused = true)]
async fn a_failed_startup_probe_restarts() {
    let world = World::new().await;
    world.cri.command("up", 1);
    world.create(json!({"containers": [{"name": "web", "startupProbe":
        {"exec": {"command": ["up"]}, "initialDelaySeconds": 30, "periodSeconds": 1, "failureThreshold": 2}}]}));
    world.until("it runs", || world.cri.is_running("web")).await;
    let began = world.env.monotonic();
    world.until("it is restarted", || world.status("web").is_some_and(|web| web.restart_count == 1)).await;
    let took = (world.env.monotonic() - began).as_secs();
    assert!((30..35).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn readiness_survives_the_kubelet() {
    let mut world = World::new().await;
    world.create(json!({"containers": [{"name": "web", "readinessProbe":
        {"exec": {"command": ["ready"]}, "periodSeconds": 10}}]}));
    world.until("it is ready", || world.condition("Ready").0 == "True").await;
    let before = world.server.get(&client::resources::PODS, &World::key()).unwrap().revision();
    world.start().await;
    world.env.sleep(Duration::from_secs(60)).await;
    assert_eq!(world.server.get(&client::resources::PODS, &World::key()).unwrap().revision(), before);
}

#[tokio::test(start_paused = true)]
async fn ports_are_probed() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    world.create(json!({"containers": [
        {"name": "tcp", "ports": [{"name": "web", "containerPort": port}],
            "readinessProbe": {"tcpSocket": {"host": "127.0.0.1", "port": "web"}, "periodSeconds": 1}},
        {"name": "http", "readinessProbe": {"httpGet": {"host": "127.0.0.1", "port": port, "path": "/x"}, "periodSeconds": 1,
            "timeoutSeconds": 2}}]}));
    world.until("one is ready", || world.status("tcp").is_some_and(|tcp| tcp.ready)).await;
    let message = format!("Unhealthy: Readiness probe failed: Get \"http://127.0.0.1:{port}/x\": ");
    // It is connected to, and never answers.
    let late = format!("{message}context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    world.until("the other is not", || world.has_event(&late)).await;
    drop(listener);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    world
        .until("neither is ready", || {
            world.has_event(&format!("Unhealthy: Readiness probe failed: {refused}"))
                && world.has_event(&format!("{message}{refused}"))
        })
        .await;
    world.until("it is told", || !world.status("tcp").unwrap().ready).await;
}

/// A health service that answers with this status.
async fn health(env: &env::Env, status: Arc<AtomicU8>) -> (u16, client::TaskGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.9:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = move |request: http::Request<hyper::body::Incoming>| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status.load(Ordering::Relaxed)]);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [Frame::data(message), Frame::trailers(trailers)].map(Ok::<_, std::convert::Infallible>);
        let body = StreamBody::new(futures_util::stream::iter(frames));
        async move { http::Response::builder().header("content-type", "application/grpc").body(body).unwrap() }
    };
    let server = streams::Server::plain(env.clone()).run(listener, service, std::future::pending());
    (port, client::TaskGuard::new(env.spawn(async move { server.await.unwrap() })))
}

#[tokio::test(start_paused = true)]
async fn health_services_are_asked() {
    let world = World::new().await;
    let status = Arc::new(AtomicU8::new(2));
    let (port, _server) = health(&world.env, status.clone()).await;
    // The service listens on the node's own address.
    world.create(json!({"hostNetwork": true, "containers": [{"name": "web", "readinessProbe":
        {"grpc": {"port": port}, "periodSeconds": 1}}]}));
    let refused = "Unhealthy: Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")";
    world.until("it says that it does not serve", || world.has_event(refused)).await;
    status.store(1, Ordering::Relaxed);
    world.until("it is ready", || world.condition("Ready").0 == "True").await;
}
