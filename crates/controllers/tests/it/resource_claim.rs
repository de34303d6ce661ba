//! Pods' resource claims: made from templates, taken back, deleted.

use super::*;

const CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");
const TEMPLATES: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaimtemplates");
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

fn start() -> Cluster {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.serve(&CLAIMS, "ResourceClaim");
    server.serve(&TEMPLATES, "ResourceClaimTemplate");
    Cluster::start_some(server, &["resourceclaim-controller"])
}

fn template(cluster: &Cluster) {
    let yaml = "{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: t, namespace: ns},
        spec: {metadata: {labels: {l: x}, annotations: {a: y}}, spec: {devices: {requests: [{name: r}]}}}}";
    cluster.put_yaml(&TEMPLATES, yaml);
}

fn pod(cluster: &Cluster, name: &str, node: &str, claims: &str) {
    let yaml = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ns, uid: {name}}},
          spec: {{nodeName: '{node}', containers: [], resourceClaims: [{claims}]}}, status: {{phase: Pending}}}}"
    );
    cluster.put_yaml(&resources::PODS, &yaml);
}

/// A claim that is allocated, for these pods.
fn claim(cluster: &Cluster, name: &str, users: &[&str]) {
    let users: Vec<String> =
        users.iter().map(|user| format!("{{resource: pods, name: {user}, uid: {user}}}")).collect();
    let yaml = format!(
        "{{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {{name: {name}, namespace: ns, finalizers: [{FINALIZER}]}},
          spec: {{}}, status: {{allocation: {{devices: {{}}}}, reservedFor: [{}]}}}}",
        users.join(", ")
    );
    cluster.put_yaml(&CLAIMS, &yaml);
}

/// `allocated users finalizers` of a claim.
fn state(cluster: &Cluster, name: &str) -> String {
    let value = cluster.value(&CLAIMS, name);
    if value.get("metadata").is_none() {
        return "gone".to_owned();
    }
    let allocated = if value.at(&["status", "allocation"]).is_some() { "allocated" } else { "free" };
    let users =
        value.items_at(&["status", "reservedFor"]).iter().map(|user| user.str_at(&["name"]).unwrap().to_owned());
    let users: Vec<String> = users.collect();
    let held = value.items_at(&["metadata", "finalizers"]).len();
    format!("{allocated} [{}] {held}", users.join(","))
}

fn claims(cluster: &Cluster) -> Vec<Arc<Object>> {
    cluster.server.list(&CLAIMS)
}

#[tokio::test(start_paused = true)]
async fn claims_are_made_from_templates() {
    let cluster = start();
    template(&cluster);
    pod(&cluster, "p", "", "{name: gpu, resourceClaimTemplateName: t}, {name: net, resourceClaimTemplateName: t}");
    let told = || {
        let pod = cluster.value(&resources::PODS, "p");
        let statuses = pod.items_at(&["status", "resourceClaimStatuses"]).iter();
        let mut told: Vec<String> = statuses
            .map(|status| {
                format!("{} {}", status.str_at(&["name"]).unwrap(), status.str_at(&["resourceClaimName"]).unwrap())
            })
            .collect();
        told.sort_unstable();
        told
    };
    eventually("both are told", || told().len() == 2).await;
    for told in told() {
        let (entry, name) = told.split_once(' ').unwrap();
        let claim = cluster.value(&CLAIMS, name);
        assert_eq!(claim.str_at(&["metadata", "generateName"]), Some(&*format!("p-{entry}-")));
        assert_eq!(claim.str_at(&["metadata", "annotations", "resource.kubernetes.io/pod-claim-name"]), Some(entry));
        assert_eq!(claim.str_at(&["metadata", "annotations", "a"]), Some("y"));
        assert_eq!(claim.str_at(&["metadata", "labels", "l"]), Some("x"));
        assert_eq!(claim.items_at(&["spec", "devices", "requests"]).len(), 1);
        let owner = &claim.items_at(&["metadata", "ownerReferences"])[0];
        assert_eq!(owner.to_string(), r#"{"apiVersion":"v1","controller":true,"kind":"Pod","name":"p","uid":"p"}"#);
    }
    cluster.settles().await;
    assert_eq!(claims(&cluster).len(), 2);
    // One that is deleted by mistake is made again.
    let lost = claims(&cluster)[0].key().clone();
    cluster.server.remove(&CLAIMS, &lost);
    eventually("it is made again", || claims(&cluster).len() == 2).await;
    eventually("it is told", || told().iter().all(|told| !told.ends_with(&*lost.name)) && told().len() == 2).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_was_never_told_is_found() {
    let cluster = start();
    let yaml = "{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {name: made, namespace: ns,
          annotations: {resource.kubernetes.io/pod-claim-name: gpu},
          ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: p, controller: true}]}, spec: {}}";
    cluster.put_yaml(&CLAIMS, yaml);
    template(&cluster);
    pod(&cluster, "p", "", "{name: gpu, resourceClaimTemplateName: t}");
    eventually("it is told", || {
        let pod = cluster.value(&resources::PODS, "p");
        pod.items_at(&["status", "resourceClaimStatuses"])
            .iter()
            .any(|s| s.str_at(&["resourceClaimName"]) == Some("made"))
    })
    .await;
    cluster.settles().await;
    assert_eq!(claims(&cluster).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_missing_template_is_told_and_waited_for() {
    let cluster = start();
    pod(&cluster, "p", "", "{name: gpu, resourceClaimTemplateName: t}");
    let message =
        r#"PodResourceClaim gpu: resource claim template "t": resourceclaimtemplate.resource.k8s.io "t" not found"#;
    eventually("the event", || cluster.events("FailedResourceClaimCreation").iter().any(|told| told == message)).await;
    template(&cluster);
    eventually("the claim", || claims(&cluster).len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn claims_are_taken_from_pods_that_are_done() {
    let cluster = start();
    claim(&cluster, "c", &["p", "q"]);
    for name in ["p", "q"] {
        pod(&cluster, name, "n1", "{name: gpu, resourceClaimName: c}");
    }
    cluster.settles().await;
    assert_eq!(state(&cluster, "c"), "allocated [p,q] 1");
    cluster.server.edit(&resources::PODS, &key("p"), |pod| pod.set(&["status", "phase"], "Succeeded"));
    eventually("one is left", || state(&cluster, "c") == "allocated [q] 1").await;
    cluster.server.remove(&resources::PODS, &key("q"));
    eventually("nobody is left", || state(&cluster, "c") == "free [] 0").await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn users_that_never_were_are_forgotten_and_later_ones_added() {
    let cluster = start();
    claim(&cluster, "c", &["ghost", "p"]);
    pod(&cluster, "p", "n1", "{name: gpu, resourceClaimName: c}");
    eventually("the ghost goes", || state(&cluster, "c") == "allocated [p] 1").await;
    // Bound without the scheduler.
    pod(&cluster, "static", "n1", "{name: gpu, resourceClaimName: c}");
    eventually("it is added", || state(&cluster, "c") == "allocated [p,static] 1").await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn claims_that_nobody_uses_can_be_deleted() {
    let cluster = start();
    claim(&cluster, "c", &[]);
    cluster.settles().await;
    assert_eq!(state(&cluster, "c"), "allocated [] 1", "who allocated it may use it soon");
    let now = "2026-01-01T00:00:00Z";
    cluster.server.edit(&CLAIMS, &key("c"), |claim| claim.set(&["metadata", "deletionTimestamp"], now));
    eventually("it goes", || state(&cluster, "c") == "gone").await;
}

#[tokio::test(start_paused = true)]
async fn generated_claims_go_with_the_end_of_their_pod() {
    let cluster = start();
    template(&cluster);
    pod(&cluster, "p", "n1", "{name: gpu, resourceClaimTemplateName: t}");
    eventually("it is made", || claims(&cluster).len() == 1).await;
    let name = claims(&cluster)[0].name().to_owned();
    cluster.server.edit(&CLAIMS, &key(&name), |claim| {
        claim.set(&["metadata", "finalizers"], vec![FINALIZER]);
        claim.set(&["status", "allocation", "devices"], Value::object());
    });
    eventually("the pod uses it", || state(&cluster, &name) == "allocated [p] 1").await;
    cluster.server.edit(&resources::PODS, &key("p"), |pod| pod.set(&["status", "phase"], "Failed"));
    eventually("it goes", || claims(&cluster).is_empty()).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_takes_so_many_users_and_no_more() {
    let cluster = start();
    let users: Vec<String> = (0..256).map(|n| format!("p{n}")).collect();
    claim(&cluster, "c", &users.iter().map(String::as_str).collect::<Vec<_>>());
    for user in &users {
        pod(&cluster, user, "n1", "{name: gpu, resourceClaimName: c}");
    }
    pod(&cluster, "late", "n1", "{name: gpu, resourceClaimName: c}");
    let count = || cluster.value(&CLAIMS, "c").items_at(&["status", "reservedFor"]).len();
    cluster.settles().await;
    assert_eq!((count(), state(&cluster, "c").contains("late")), (256, false));
    cluster.server.remove(&resources::PODS, &key("p7"));
    eventually("there is room", || state(&cluster, "c").contains("late")).await;
    assert_eq!(count(), 256);
}
