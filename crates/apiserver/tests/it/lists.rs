//! Lists and watches: pages, revisions, selectors, bookmarks.

use serde_json::json;

use crate::fixture::{Fixture, next};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn create(fixture: &Fixture, name: &str, labels: serde_json::Value) -> String {
    let body = json!({ "metadata": { "name": name, "labels": labels } });
    let created = fixture.ok("POST", MAPS, &body.to_string()).await;
    created["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn names(list: &serde_json::Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let fixture = Fixture::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        create(&fixture, name, json!({})).await;
    }
    let first = fixture.ok("GET", &format!("{MAPS}?limit=2"), "").await;
    assert_eq!((names(&first), first["metadata"]["remainingItemCount"].as_u64()), (vec!["a", "b"], Some(3)));
    fixture.ok("DELETE", &format!("{MAPS}/c"), "").await;
    create(&fixture, "c1", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = fixture.ok("GET", &format!("{MAPS}?limit=2&continue={token}"), "").await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = fixture.ok("GET", &format!("{MAPS}?limit=2&continue={token}"), "").await;
    assert_eq!((names(&last), last["metadata"]["continue"].as_str()), (vec!["e"], Some("")));
    let newest = fixture.ok("GET", MAPS, "").await;
    assert_eq!(names(&newest), ["a", "b", "c1", "d", "e"]);
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(names(&fixture.ok("GET", &exact, "").await), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn bad_list_options_are_refused() {
    let fixture = Fixture::start().await;
    let check = async |query: &str, code: u16, text: &str| {
        fixture.check("GET", &format!("{MAPS}?{query}"), "", code, text).await
    };
    check("labelSelector=a%3D%3D%3Db", 400, "").await;
    check("fieldSelector=spec.x%3Dy", 400, "field").await;
    check("resourceVersion=x", 400, "resourceVersion").await;
    check("resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided").await;
    check("resourceVersion=0&resourceVersionMatch=Exact", 422, "is forbidden for resourceVersion").await;
    check("resourceVersion=1&resourceVersionMatch=Nonsense", 422, "Unsupported value").await;
    check("continue=nonsense", 400, "continue key is not valid").await;
    check("limit=x", 400, "invalid syntax").await;
    check("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list").await;
    check("watch=1&sendInitialEvents=true", 422, "requires setting resourceVersionMatch to NotOlderThan").await;
    check("watch=1&resourceVersionMatch=NotOlderThan", 422, "forbidden for watch unless sendInitialEvents").await;
    check("resourceVersion=99999999", 504, "Too large resource version").await;
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let fixture = Fixture::start().await;
    let before = create(&fixture, "a", json!({ "x": "1" })).await;
    let mut events = fixture.watch(&format!("{MAPS}?watch=1&labelSelector=x%3D1&resourceVersion={before}")).await;
    let mut all = fixture.watch("/api/v1/configmaps?watch=1&fieldSelector=metadata.name%3Da").await;
    assert_eq!(next(&mut all).await, "ADDED a");
    create(&fixture, "b", json!({ "x": "2" })).await;
    let patch = async |body: &str| fixture.ok("PATCH", &format!("{MAPS}/a"), body).await;
    patch(r#"{"metadata":{"labels":{"x":"2"}}}"#).await;
    patch(r#"{"metadata":{"labels":{"x":"1"}}}"#).await;
    patch(r#"{"data":{"k":"v"}}"#).await;
    fixture.ok("DELETE", &format!("{MAPS}/a"), "").await;
    for expect in ["DELETED a", "ADDED a", "MODIFIED a", "DELETED a"] {
        assert_eq!(next(&mut events).await, expect);
    }
    for expect in ["MODIFIED a", "MODIFIED a", "MODIFIED a", "DELETED a"] {
        assert_eq!(next(&mut all).await, expect);
    }
}

#[tokio::test]
async fn a_watch_can_begin_with_a_list() {
    let fixture = Fixture::start().await;
    create(&fixture, "a", json!({})).await;
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=5";
    let mut events = fixture.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(next(&mut events).await, "ADDED a");
    assert_eq!(next(&mut events).await, "BOOKMARK true");
    create(&fixture, "b", json!({})).await;
    assert_eq!(next(&mut events).await, "ADDED b");
    assert_eq!(next(&mut events).await, "BOOKMARK false");
    assert_eq!(next(&mut events).await, "END");
    let mut old = fixture.watch(&format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let first = next(&mut old).await;
    assert!(first == "ERROR 410" || first.starts_with("ADDED"), "{first}");
}

#[tokio::test]
async fn a_compacted_page_offers_an_inconsistent_rest() {
    let fixture = Fixture::start().await;
    for name in ["a", "b", "c"] {
        create(&fixture, name, json!({})).await;
    }
    let page = fixture.ok("GET", &format!("{MAPS}?limit=1"), "").await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    create(&fixture, "d", json!({})).await;
    // The server's cache remembers that time, the store doesn't; the next server knows nothing of it either.
    let store = fixture.store.clone();
    store.compact(store.revision()).await.unwrap();
    let again = format!("{MAPS}?limit=1&continue={token}");
    assert_eq!(fixture.send("GET", &again, "").await.code, 410);
    drop(fixture);
    let fixture = Fixture::on(store).await;
    let reply = fixture.send("GET", &again, "").await;
    assert_eq!(reply.code, 410, "{}", reply.text);
    let token = reply.json["metadata"]["continue"].as_str().unwrap();
    let rest = fixture.ok("GET", &format!("{MAPS}?continue={token}"), "").await;
    assert_eq!(names(&rest), ["b", "c", "d"]);
}

#[tokio::test]
async fn the_next_server_knows_everything_but_the_past() {
    let fixture = Fixture::start().await;
    let first = create(&fixture, "a", json!({})).await;
    create(&fixture, "b", json!({})).await;
    let before = fixture.ok("GET", MAPS, "").await;
    let store = fixture.store.clone();
    drop(fixture);
    // A body that nobody can read costs only itself.
    let damaged = store::Txn::create("/registry/configmaps/default/damaged", "{");
    store.commit(damaged).await.unwrap();

    let fixture = Fixture::on(store).await;
    let after = fixture.ok("GET", MAPS, "").await;
    assert_eq!(after["items"], before["items"]);
    let exact = format!("{MAPS}?resourceVersion={first}&resourceVersionMatch=Exact");
    assert_eq!(names(&fixture.ok("GET", &exact, "").await), ["a"]);
    let mut old = fixture.watch(&format!("{MAPS}?watch=1&resourceVersion={first}")).await;
    assert_eq!(next(&mut old).await, "ERROR 410");
    assert_eq!(next(&mut old).await, "END");
    let revision = after["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = fixture.watch(&format!("{MAPS}?watch=1&resourceVersion={revision}")).await;
    create(&fixture, "c", json!({})).await;
    assert_eq!(next(&mut events).await, "ADDED c");
}
