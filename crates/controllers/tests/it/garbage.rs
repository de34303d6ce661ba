use client::{DeleteOptions, Propagation};

use std::sync::atomic::Ordering::SeqCst;

use super::*;

/// Puts a config map there that `owners` own.
fn put(cluster: &Cluster, name: &str, owners: &[(&Object, bool)]) -> Arc<Object> {
    let mut value = Value::object();
    value.set(&["apiVersion"], "v1");
    value.set(&["kind"], "ConfigMap");
    value.set(&["metadata", "name"], name);
    value.set(&["metadata", "namespace"], "ns");
    let references = owners.iter().map(|(owner, block)| {
        let mut reference = Value::object();
        reference.set(&["apiVersion"], "v1");
        reference.set(&["kind"], "ConfigMap");
        reference.set(&["name"], owner.name());
        reference.set(&["uid"], owner.uid());
        reference.set(&["blockOwnerDeletion"], *block);
        reference
    });
    value.set(&["metadata", "ownerReferences"], Value::Array(references.collect()));
    cluster.server.put_value(&resources::CONFIG_MAPS, value)
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.server.list(&resources::CONFIG_MAPS).iter().map(|object| object.name().to_owned()).collect()
}

async fn delete(cluster: &Cluster, name: &str, propagation: Propagation) {
    let options = DeleteOptions::default().propagation(propagation);
    cluster.server.client().delete(&resources::CONFIG_MAPS, &key(name), &options).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dependents_go_after_their_owner() {
    let cluster = Cluster::start();
    let owner = put(&cluster, "owner", &[]);
    let other = put(&cluster, "other", &[]);
    let child = put(&cluster, "child", &[(&owner, true)]);
    put(&cluster, "grandchild", &[(&child, true)]);
    put(&cluster, "shared", &[(&owner, true), (&other, false)]);
    sleep(5).await;
    assert_eq!(names(&cluster).len(), 5);
    delete(&cluster, "owner", Propagation::Background).await;
    eventually("the dependents are gone", || names(&cluster) == ["other", "shared"]).await;
    eventually("the shared one has one owner", || {
        cluster.server.get(&resources::CONFIG_MAPS, &key("shared")).unwrap().owners().len() == 1
    })
    .await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreground_deletion_waits_for_dependents() {
    let cluster = Cluster::start();
    let owner = put(&cluster, "owner", &[]);
    let child = put(&cluster, "child", &[(&owner, true)]);
    let held = put(&cluster, "held", &[(&child, true)]);
    cluster.server.edit(&resources::CONFIG_MAPS, held.key(), |value| {
        value.set(&["metadata", "finalizers"], vec!["example.com/hold"]);
    });
    sleep(5).await;
    delete(&cluster, "owner", Propagation::Foreground).await;
    eventually("all are being deleted", || {
        cluster.server.list(&resources::CONFIG_MAPS).iter().all(|object| object.is_deleting())
    })
    .await;
    sleep(60).await;
    assert_eq!(names(&cluster), ["child", "held", "owner"]);
    cluster.server.remove(&resources::CONFIG_MAPS, held.key());
    eventually("all are gone", || names(&cluster).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay() {
    let cluster = Cluster::start();
    let owner = put(&cluster, "owner", &[]);
    put(&cluster, "child", &[(&owner, true)]);
    sleep(5).await;
    delete(&cluster, "owner", Propagation::Orphan).await;
    eventually("the owner is gone", || names(&cluster) == ["child"]).await;
    assert!(cluster.server.get(&resources::CONFIG_MAPS, &key("child")).unwrap().owners().is_empty());
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_never_was_owns_nothing() {
    let cluster = Cluster::start();
    sleep(5).await;
    let owner = put(&cluster, "owner", &[]);
    let mut before = owner.to_value();
    before.set(&["metadata", "uid"], "another-uid");
    let before = Object::from_answer(&before).unwrap();
    put(&cluster, "child", &[(&before, true)]);
    eventually("the child of its namesake is gone", || names(&cluster) == ["owner"]).await;
    // A kind that nobody serves might be anything: its dependents stay.
    cluster.put(
        &resources::CONFIG_MAPS,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"ns","ownerReferences":[{"apiVersion":"a/v1","kind":"K","name":"n","uid":"u"}]}}"#,
    );
    sleep(600).await;
    assert_eq!(names(&cluster), ["owner", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_did_not_answer_is_asked_again() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let failures = std::sync::atomic::AtomicU32::new(3);
    server.react(move |request| {
        let fails = request.target == "/apis/batch/v1"
            && failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        let refused = apimachinery::Status::new(503, apimachinery::Reason::ServiceUnavailable, "not yet");
        fails.then_some(client::fake::Reaction::Refuse(refused))
    });
    let cluster = Cluster::start_with(server, |_| {});
    sleep(1).await;
    let job = cluster.put(&job::JOBS, &job::job(r#""suspend":true,"#));
    let child = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"child","namespace":"ns","ownerReferences":[{{"apiVersion":"batch/v1","kind":"Job",
        "name":"job","uid":"{}"}}]}}}}"#,
        job.uid()
    );
    cluster.put(&resources::CONFIG_MAPS, &child);
    sleep(1).await;
    assert_eq!(names(&cluster), ["child"]);
    cluster.server.remove(&job::JOBS, job.key());
    eventually("what belonged to it is gone", || names(&cluster).is_empty()).await;
}
