use apimachinery::Value;
use client::{DeleteOptions, ListOptions, PatchKind, Selection, discover, resources};

use super::*;

#[tokio::test(start_paused = true)]
async fn objects_are_written_and_read() {
    let server = server();
    let client = server.client();
    let body = Value::parse(config_map("a", "1").as_bytes()).unwrap();
    let created = client.create(&resources::CONFIG_MAPS, &body).await.unwrap();
    assert!(client.create(&resources::CONFIG_MAPS, &body).await.unwrap_err().is_already_exists());
    let patch = Value::parse(br#"{"data":{"d":"2"}}"#).unwrap();
    let patched = client.patch(&resources::CONFIG_MAPS, &key("a"), PatchKind::Merge, &patch).await.unwrap();
    assert!(patched.revision() > created.revision());
    let stale = client.update(&resources::CONFIG_MAPS, &created.to_value()).await.unwrap_err();
    assert!(stale.is_conflict());
    let list = client.list(&resources::CONFIG_MAPS, &Selection::all().namespace("ns"), &ListOptions::default()).await;
    assert_eq!(list.unwrap().items.len(), 1);
    let wrong = client.delete(&resources::CONFIG_MAPS, &key("a"), &DeleteOptions::uid("other")).await.unwrap_err();
    assert!(wrong.is_conflict());
    client.delete(&resources::CONFIG_MAPS, &key("a"), &DeleteOptions::default()).await.unwrap();
    assert!(client.find(&resources::CONFIG_MAPS, &key("a")).await.unwrap().is_none());
    assert!(client.get(&resources::CONFIG_MAPS, &key("a")).await.unwrap_err().is_not_found());
}

#[tokio::test(start_paused = true)]
async fn resources_are_discovered() {
    let server = server();
    server.serve(&resources::PODS, "Pod");
    server.serve(&resources::DEPLOYMENTS, "Deployment");
    let (found, failed) = discover(&server.client()).await.unwrap();
    assert!(failed.is_empty());
    let names: Vec<_> = found.iter().map(|r| (r.resource.group_resource().to_string(), &*r.kind)).collect();
    assert_eq!(names, [("pods".to_owned(), "Pod"), ("deployments.apps".to_owned(), "Deployment")]);
    assert!(found[0].can("delete") && found[0].resource.namespaced);
}
