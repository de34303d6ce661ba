use client::{EventRecorder, resources};

use super::*;

#[tokio::test(start_paused = true)]
async fn events_are_written_and_counted_up() {
    let server = server();
    let pod =
        server.put(&resources::PODS, r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"ns"}}"#);
    let node = server.put(&resources::NODES, r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}"#);
    let recorder = EventRecorder::start(server.client(), "kubelet", "n1");
    for _ in 0..3 {
        recorder.warning(&pod, "Failed", "it failed");
    }
    recorder.normal(&node, "Rebooted", "it did");
    let count = |server: &FakeServer| {
        server.list(&resources::EVENTS).iter().map(|e| e.to_value().i64_at(&["count"]).unwrap()).sum::<i64>()
    };
    eventually("all four are told", || count(&server) == 4).await;
    let events = server.list(&resources::EVENTS);
    assert_eq!(events.len(), 2);
    let (node_event, pod_event) = (events[0].to_value(), events[1].to_value());
    assert_eq!(node_event.str_at(&["metadata", "namespace"]), Some("default"));
    assert_eq!(pod_event.str_at(&["involvedObject", "uid"]), Some(pod.uid()));
    assert_eq!(pod_event.str_at(&["type"]), Some("Warning"));
    assert_eq!(pod_event.str_at(&["source", "host"]), Some("n1"));
    assert_eq!(pod_event.str_at(&["firstTimestamp"]), Some("2026-01-01T00:00:00Z"));
    assert_eq!(server.writes().iter().filter(|write| write.starts_with("PATCH")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn names_that_would_be_too_long_are_made_at_random() {
    let server = server();
    let recorder = EventRecorder::start(server.client(), "kubelet", "");
    let pod = |length: usize| {
        let name = "p".repeat(length);
        let json = format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns"}}}}"#);
        server.put(&resources::PODS, &json)
    };
    let names = || server.list(&resources::EVENTS).iter().map(|event| event.name().len()).collect::<Vec<_>>();
    // The time takes sixteen places and a dot.
    recorder.normal(&pod(236), "Told", "it fits");
    recorder.normal(&pod(237), "Told", "it does not");
    eventually("both are told", || names().len() == 2).await;
    let mut lengths = names();
    lengths.sort_unstable();
    assert_eq!(lengths, [36, 253]);
}
