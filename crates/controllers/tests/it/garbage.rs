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

/// An owner reference as JSON.
fn owned_by(api_version: &str, kind: &str, owner: &Object, more: &str) -> String {
    format!(
        r#"{{"apiVersion":"{api_version}","kind":"{kind}","name":"{}","uid":"{}"{more}}}"#,
        owner.name(),
        owner.uid()
    )
}

fn config_map(cluster: &Cluster, name: &str, finalizers: &str, owners: &[String]) {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"ns","finalizers":[{finalizers}],"ownerReferences":[{}]}}}}"#,
        owners.join(",")
    );
    cluster.put(&resources::CONFIG_MAPS, &json);
}

fn let_go(cluster: &Cluster, name: &str) {
    let key = key(name);
    cluster.server.remove(&resources::CONFIG_MAPS, &key);
}

const HOLD: &str = r#""example.com/hold""#;

#[tokio::test(start_paused = true)]
async fn one_that_names_its_owner_wrongly_lets_it_go_too() {
    let cluster = Cluster::start();
    let owner = put(&cluster, "owner", &[]);
    sleep(1).await;
    config_map(&cluster, "liar", HOLD, &[owned_by("v1", "Secret", &owner, r#","blockOwnerDeletion":true"#)]);
    let deleting =
        |name: &str| cluster.server.get(&resources::CONFIG_MAPS, &key(name)).is_some_and(|object| object.is_deleting());
    eventually("it is owned by nobody", || deleting("liar")).await;
    delete(&cluster, "owner", Propagation::Foreground).await;
    sleep(60).await;
    assert_eq!(names(&cluster), ["liar", "owner"]);
    let_go(&cluster, "liar");
    eventually("nothing holds the owner", || names(&cluster).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_may_ask_for_the_dependents_later() {
    let cluster = Cluster::start();
    config_map(&cluster, "owner", HOLD, &[]);
    let owner = cluster.server.get(&resources::CONFIG_MAPS, &key("owner")).unwrap();
    put(&cluster, "child", &[(&owner, false)]);
    sleep(1).await;
    delete(&cluster, "owner", Propagation::Background).await;
    sleep(60).await;
    assert_eq!(names(&cluster), ["child", "owner"]);
    delete(&cluster, "owner", Propagation::Foreground).await;
    eventually("the child goes before it", || names(&cluster) == ["owner"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_nobody_serves_says_nothing_of_the_owner() {
    let cluster = Cluster::start();
    let owner = put(&cluster, "owner", &[]);
    config_map(&cluster, "child", "", &[owned_by("v2", "ConfigMap", &owner, "")]);
    sleep(1).await;
    delete(&cluster, "owner", Propagation::Background).await;
    sleep(600).await;
    assert_eq!(names(&cluster), ["child"]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_a_kind_that_nobody_watches_is_asked_for() {
    let cluster = Cluster::start();
    let json = r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"event","namespace":"ns"}}"#;
    let event = cluster.put(&resources::EVENTS, json);
    config_map(&cluster, "child", "", &[owned_by("v1", "Event", &event, "")]);
    sleep(5).await;
    assert_eq!(names(&cluster), ["child"]);
    cluster.server.remove(&resources::EVENTS, event.key());
    eventually("what belonged to it is gone", || names(&cluster).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_orphaned_keeps_no_other() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.react(|request| {
        let refused = request.method == http::Method::PATCH && request.target.contains("/configmaps/a-stubborn");
        let status = apimachinery::Status::new(403, apimachinery::Reason::Forbidden, "not this one");
        refused.then_some(client::fake::Reaction::Refuse(status))
    });
    let cluster = Cluster::start_with(server, |_| {});
    let owner = put(&cluster, "owner", &[]);
    for name in ["a-stubborn", "b", "c"] {
        put(&cluster, name, &[(&owner, false)]);
    }
    sleep(5).await;
    delete(&cluster, "owner", Propagation::Orphan).await;
    let is_orphan = |name: &str| cluster.server.get(&resources::CONFIG_MAPS, &key(name)).unwrap().owners().is_empty();
    eventually("the others are orphans", || is_orphan("b") && is_orphan("c")).await;
    assert_eq!(names(&cluster), ["a-stubborn", "b", "c", "owner"]);
}

#[tokio::test(start_paused = true)]
async fn what_changes_all_the_time_goes_all_the_same() {
    let cluster = Cluster::start();
    let job = cluster.put(&job::JOBS, &job::job(r#""suspend":true,"#));
    config_map(&cluster, "child", "", &[owned_by("batch/v1", "Job", &job, "")]);
    sleep(5).await;
    cluster.server.hold_watches(&resources::CONFIG_MAPS, true);
    cluster.server.edit(&resources::CONFIG_MAPS, &key("child"), |child| child.set(&["data", "a"], "b"));
    cluster.server.forget_requests();
    cluster.server.remove(&job::JOBS, job.key());
    eventually("the child is gone", || names(&cluster).is_empty()).await;
    let requests = cluster.server.requests().into_iter().filter(|seen| seen.method == http::Method::DELETE);
    let bodies = requests.map(|seen| String::from_utf8(seen.body.to_vec()).unwrap());
    let at_a_revision: Vec<bool> = bodies.map(|body| body.contains("resourceVersion")).collect();
    assert_eq!(at_a_revision, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_changes_its_version_is_followed_on() {
    const OLD: Resource = Resource::namespaced("example.com", "v1alpha1", "widgets");
    const NEW: Resource = Resource::namespaced("example.com", "v1", "widgets");
    let definitions = Resource::cluster("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.serve(&definitions, "CustomResourceDefinition");
    server.serve(&OLD, "Widget");
    let changed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gone = changed.clone();
    server.react(move |request| {
        let refused = gone.load(SeqCst) && request.target.contains("/v1alpha1/");
        refused.then(|| client::fake::Reaction::Refuse(apimachinery::Status::path_not_found()))
    });
    let cluster = Cluster::start_with(server, |_| {});
    let define = |version: &str| {
        cluster.put_yaml(
            &definitions,
            &format!("{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: widgets.example.com}}, spec: {{versions: [{{name: {version}}}]}}}}"),
        );
    };
    define("v1alpha1");
    let widget =
        cluster.put_yaml(&OLD, "{apiVersion: example.com/v1alpha1, kind: Widget, metadata: {name: w, namespace: ns}}");
    config_map(&cluster, "child", "", &[owned_by("example.com/v1", "Widget", &widget, "")]);
    sleep(5).await;
    assert_eq!(names(&cluster), ["child"]);
    changed.store(true, SeqCst);
    cluster.server.unserve(&OLD);
    cluster.server.serve(&NEW, "Widget");
    cluster.server.end_watches();
    define("v1");
    sleep(60).await;
    assert_eq!(names(&cluster), ["child"]);
    cluster.server.remove(&NEW, widget.key());
    eventually("what belonged to it is gone", || names(&cluster).is_empty()).await;
}
