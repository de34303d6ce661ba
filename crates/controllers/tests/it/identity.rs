//! Who is who: certificates that are asked for, tokens in Secrets, tokens by which nodes join.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pki::{ClusterPki, LegacyClaims};

use super::*;

const REQUESTS: Resource = Resource::cluster("certificates.k8s.io", "v1", "certificatesigningrequests");
/// A request for CN=jane, O=team, made with openssl and a key that nobody has any more.
const JANE: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHaMIGAAgEAMB4xDTALBgNVBAoMBHRlYW0xDTALBgNVBAMMBGphbmUwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAT5PBCLE4qKYNJiA/CQJ+sCouh1FmF2L/q/Eb19
AV75xkWUm0ZDJfPQSLpVhCiJh+8UXisqzXWp8Is2pGJyX0ufoAAwCgYIKoZIzj0E
AwIDSQAwRgIhAK+ReUEZalgsbJGRe0UQtismZHWguNxicYEyeQZ/i7vDAiEA2IKX
oHHO6GuHiLe0Z+emrv8yo7f5odPQQibSXOrF9jY=
-----END CERTIFICATE REQUEST-----
";

struct World {
    cluster: Cluster,
    pki: Arc<ClusterPki>,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    world_of(&["*", "bootstrapsigner", "tokencleaner"])
}

fn world_of(controllers: &[&str]) -> World {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.serve(&REQUESTS, "CertificateSigningRequest");
    let folder = tempfile::tempdir().unwrap();
    let pki = Arc::new(ClusterPki::load_or_create(folder.path(), server.client().env()).unwrap());
    let cluster = Cluster::start_with(server, |config| {
        config.pki = Some(pki.clone());
        config.controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
    });
    World { cluster, pki, _folder: folder }
}

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// A request that is approved.
fn put_request(world: &World, name: &str, signer: &str, usages: &str, more: &str) {
    let json = format!(
        r#"{{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{{"name":"{name}"}},
            "spec":{{"request":"{}","signerName":"{signer}","usages":[{usages}]{more}}},
            "status":{{"conditions":[{{"type":"Approved","status":"True"}}]}}}}"#,
        encoded(JANE)
    );
    world.cluster.put(&REQUESTS, &json);
}

#[tokio::test(start_paused = true)]
async fn approved_requests_are_signed() {
    let world = world();
    put_request(
        &world,
        "jane",
        "kubernetes.io/kube-apiserver-client",
        r#""client auth""#,
        r#","expirationSeconds":3600"#,
    );
    put_request(&world, "year", "kubernetes.io/kube-apiserver-client", r#""client auth""#, "");
    put_request(&world, "server", "kubernetes.io/kube-apiserver-client", r#""server auth""#, "");
    put_request(&world, "node", "kubernetes.io/kubelet-serving", r#""server auth","digital signature""#, "");
    put_request(&world, "foreign", "example.com/signer", r#""client auth""#, "");
    // A server that let these through was an older one.
    put_request(&world, "flying", "kubernetes.io/legacy-unknown", r#""flying""#, "");
    put_request(&world, "forged", "kubernetes.io/legacy-unknown", r#""client auth""#, "");
    world.cluster.server.edit(&REQUESTS, &ObjectKey::cluster("forged"), |request| {
        request.set(&["spec", "request"], encoded(&JANE.replace("UEZalgs", "UEZalgt")));
    });
    let certificate = |name: &str| {
        let value = world.cluster.value(&REQUESTS, name);
        let text = value.str_at(&["status", "certificate"]).unwrap_or_default().to_owned();
        String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
    };
    eventually("it is signed", || !certificate("jane").is_empty() && !certificate("year").is_empty()).await;
    let verifier = world.pki.client_verifier().unwrap();
    let env = world.cluster.server.client().env().clone();
    let identify = |name: &str, seconds: i64| {
        let pem = certificate(name);
        let chain = testkit_chain(&pem);
        verifier
            .identify(&chain, env.now() + jiff::SignedDuration::from_secs(seconds))
            .map(|identity| (identity.user, identity.groups.join(",")))
    };
    let jane = ("jane".to_owned(), "team".to_owned());
    assert_eq!(identify("jane", 0).unwrap(), jane);
    assert_eq!(identify("jane", 3000).unwrap(), jane);
    // It is dated back by five minutes, which shortens only long lives.
    assert_eq!(identify("jane", -200).unwrap(), jane);
    assert!(identify("jane", -400).is_err());
    assert!(identify("jane", 3700).is_err());
    assert_eq!(identify("year", 364 * 86_400).unwrap(), jane);
    assert!(identify("year", 365 * 86_400).is_err());
    let failed = |name: &str| {
        let value = world.cluster.value(&REQUESTS, name);
        let mut failed =
            value.items_at(&["status", "conditions"]).iter().filter(|c| c.str_at(&["type"]) == Some("Failed"));
        let told = failed.next().map(|c| {
            format!("{}: {}", c.str_at(&["reason"]).unwrap_or_default(), c.str_at(&["message"]).unwrap_or_default())
        });
        told.unwrap_or_default()
    };
    for name in ["server", "node", "flying", "forged"] {
        eventually("it fails", || !failed(name).is_empty()).await;
    }
    assert_eq!(failed("flying"), "SignerValidationFailure: no valid key usage");
    assert_eq!(failed("forged"), "SignerValidationFailure: x509: ECDSA verification failure");
    assert_eq!(failed("server"), "SignerValidationFailure: invalid usage for client certificate: server auth");
    assert_eq!(failed("node"), "SignerValidationFailure: subject organization is not system:nodes");
    assert_eq!((certificate("foreign"), failed("foreign")), Default::default());
    // Answered ones go an hour later; what another signs waits for it.
    sleep(3 * 3600).await;
    assert!(world.cluster.server.get(&REQUESTS, &ObjectKey::cluster("server")).is_none());
    world.cluster.settles().await;
}

/// The certificates of a text.
fn testkit_chain(pem: &str) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

fn account(world: &World, name: &str, uid: &str, more: &str) {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"ServiceAccount","metadata":{{"name":"{name}","namespace":"ns","uid":"{uid}"}}{more}}}"#
    );
    world.cluster.put(&resources::SERVICE_ACCOUNTS, &json);
}

fn secret(world: &World, name: &str, more: &str) {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","metadata":{{"name":"{name}","namespace":"ns",
            "annotations":{{"kubernetes.io/service-account.name":"sa"}}{more}}}}}"#
    );
    world.cluster.put(&resources::SECRETS, &json);
}

#[tokio::test(start_paused = true)]
async fn secrets_of_accounts_are_filled_and_go_with_them() {
    let world = world();
    account(&world, "sa", "u1", r#","secrets":[{"name":"s"},{"name":"other"}]"#);
    secret(&world, "s", "");
    let data = |key: &str| {
        let value = world.cluster.value(&resources::SECRETS, "s");
        let text = value.str_at(&["data", key]).unwrap_or_default().to_owned();
        String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
    };
    eventually("it is filled", || !data("token").is_empty()).await;
    assert_eq!((data("ca.crt"), data("namespace")), ("CA".into(), "ns".into()));
    let claims = world.pki.token_key().verify_legacy(&data("token"));
    assert_eq!(claims, Some(LegacyClaims::new("ns", "sa", "u1", "s")));
    let value = world.cluster.value(&resources::SECRETS, "s");
    assert_eq!(value.str_at(&["metadata", "annotations", "kubernetes.io/service-account.uid"]), Some("u1"));
    world.cluster.settles().await;
    // A Secret that goes is no longer named.
    world.cluster.server.remove(&resources::SECRETS, &key("s"));
    let named = || world.cluster.value(&resources::SERVICE_ACCOUNTS, "sa").items_at(&["secrets"]).len();
    eventually("it is forgotten", || named() == 1).await;
    // An account of the same name is another; what was for the first goes.
    secret(&world, "s", "");
    eventually("it is filled", || !data("token").is_empty()).await;
    world.cluster.server.remove(&resources::SERVICE_ACCOUNTS, &key("sa"));
    account(&world, "sa", "u2", "");
    eventually("it goes", || world.cluster.server.get(&resources::SECRETS, &key("s")).is_none()).await;
    // One for nobody goes too.
    secret(&world, "nobody", r#","labels":{"x":"y"}"#);
    world.cluster.server.remove(&resources::SERVICE_ACCOUNTS, &key("sa"));
    eventually("it goes", || world.cluster.server.get(&resources::SECRETS, &key("nobody")).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_nobody_uses_go() {
    let world = world_of(&["*"]);
    world.cluster.put(
        &resources::CONFIG_MAPS,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kube-apiserver-legacy-service-account-token-tracking","namespace":"kube-system"},
            "data":{"since":"2024-01-01"}}"#,
    );
    let names = ["auto", "used", "mounted"].map(|name| format!(r#"{{"name":"{name}"}}"#)).join(",");
    account(&world, "sa", "u1", &format!(r#","secrets":[{names}]"#));
    let old = r#","creationTimestamp":"2024-01-01T00:00:00Z""#;
    for name in ["auto", "mounted", "by-hand"] {
        secret(&world, name, old);
    }
    secret(&world, "used", &format!(r#"{old},"labels":{{"kubernetes.io/legacy-token-last-used":"2025-12-30"}}"#));
    world.cluster.put(
        &resources::PODS,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"ns"},"spec":{"volumes":[{"name":"v","secret":{"secretName":"mounted"}}]}}"#,
    );
    let label = |name: &str| {
        let value = world.cluster.value(&resources::SECRETS, name);
        value.str_at(&["metadata", "labels", "kubernetes.io/legacy-token-invalid-since"]).map(str::to_owned)
    };
    sleep(2 * 86_400).await;
    assert!(label("auto").is_some_and(|since| since.starts_with("2026-01-0")), "{:?}", label("auto"));
    assert_eq!(["used", "mounted", "by-hand"].map(label), [None, None, None]);
    // A year later it is gone, and only then.
    sleep(360 * 86_400).await;
    assert!(world.cluster.server.get(&resources::SECRETS, &key("auto")).is_some());
    sleep(10 * 86_400).await;
    let left: Vec<String> =
        world.cluster.server.list(&resources::SECRETS).iter().map(|s| s.name().to_owned()).collect();
    assert_eq!(left, ["by-hand", "mounted", "used"]);
    assert!(label("used").is_some());
}

fn bootstrap_token(world: &World, id: &str, more: &str) {
    let (id64, secret64, yes) = (encoded(id), encoded("0123456789abcdef"), encoded("true"));
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","type":"bootstrap.kubernetes.io/token","metadata":{{"name":"bootstrap-token-{id}","namespace":"kube-system"}},
            "data":{{"token-id":"{id64}","token-secret":"{secret64}","usage-bootstrap-signing":"{yes}"{more}}}}}"#
    );
    world.cluster.put(&resources::SECRETS, &json);
}

#[tokio::test(start_paused = true)]
async fn cluster_info_is_signed_while_a_token_is_good() {
    let world = world();
    world.cluster.put(
        &resources::CONFIG_MAPS,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cluster-info","namespace":"kube-public"},"data":{"kubeconfig":"where","jws-kubeconfig-000000":"stale"}}"#,
    );
    bootstrap_token(&world, "abcdef", "");
    bootstrap_token(&world, "fedcba", &format!(r#","expiration":"{}""#, encoded("2026-01-01T01:00:00Z")));
    let info = ObjectKey::new("kube-public", "cluster-info");
    let data =
        || world.cluster.server.get(&resources::CONFIG_MAPS, &info).unwrap().to_value().get("data").cloned().unwrap();
    let keys = || data().as_object().unwrap().iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>().join(" ");
    eventually("both sign", || keys() == "jws-kubeconfig-abcdef jws-kubeconfig-fedcba kubeconfig").await;
    let expect = pki::sign_detached("where", "abcdef", "0123456789abcdef");
    assert_eq!(data().str_at(&["jws-kubeconfig-abcdef"]), Some(expect.as_str()));
    // One expires: it is cleaned away, and its signature too.
    sleep(3601).await;
    eventually("one signs", || keys() == "jws-kubeconfig-abcdef kubeconfig").await;
    let secret = |id: &str| {
        world.cluster.server.get(&resources::SECRETS, &ObjectKey::new("kube-system", format!("bootstrap-token-{id}")))
    };
    assert!(secret("fedcba").is_none() && secret("abcdef").is_some());
    world.cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn by_default_no_bootstrap_token_is_looked_at() {
    let world = world_of(&["*"]);
    bootstrap_token(&world, "fedcba", &format!(r#","expiration":"{}""#, encoded("2025-01-01T01:00:00Z")));
    sleep(600).await;
    assert_eq!(world.cluster.server.list(&resources::SECRETS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_switched_off_does_nothing() {
    let world = world_of(&["*", "-serviceaccount-token", "-csrsigning"]);
    account(&world, "sa", "u1", "");
    secret(&world, "s", "");
    put_request(&world, "jane", "kubernetes.io/kube-apiserver-client", r#""client auth""#, "");
    sleep(60).await;
    assert!(world.cluster.value(&resources::SECRETS, "s").at(&["data", "token"]).is_none());
    assert!(world.cluster.value(&REQUESTS, "jane").at(&["status", "certificate"]).is_none());
}

#[tokio::test(start_paused = true)]
async fn nodes_say_how_long_secrets_are_good() {
    let world = world_of(&["ttl"]);
    let ttl = |name: &str| {
        let value = world.cluster.value(&resources::NODES, name);
        value.str_at(&["metadata", "annotations", "node.alpha.kubernetes.io/ttl"]).unwrap_or_default().to_owned()
    };
    let put = |n: usize| world.cluster.put(&resources::NODES, &node(&format!("n{n}")));
    put(0);
    eventually("zero at first", || ttl("n0") == "0").await;
    (1..101).for_each(|n| drop(put(n)));
    eventually("all say more", || (0..101).all(|n| ttl(&format!("n{n}")) == "15")).await;
    // Down to ninety it stays.
    (89..101).for_each(|n| world.cluster.server.remove(&resources::NODES, &ObjectKey::cluster(format!("n{n}"))));
    eventually("all say less", || (0..89).all(|n| ttl(&format!("n{n}")) == "0")).await;
    world.cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_processes_acts() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let start = |identity: &str| {
        let identity = identity.to_owned();
        Cluster::start_with(server.clone(), |config| {
            config.client = config.client.with_user_agent(&format!("{identity}/1"));
            let lease = ObjectKey::new("kube-system", "kube-controller-manager");
            config.leader_election = Some(client::LeaderElection::new(lease, identity));
        })
    };
    let holder = || {
        let lease = server.get(&resources::LEASES, &ObjectKey::new("kube-system", "kube-controller-manager"));
        lease
            .and_then(|lease| lease.to_value().str_at(&["spec", "holderIdentity"]).map(str::to_owned))
            .unwrap_or_default()
    };
    // Who wrote what, but for the lease: no other than the holder of that moment.
    let wrong = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (noted, seen) = (wrong.clone(), server.clone());
    server.react(move |request| {
        let agent = request.headers.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let writes = request.method != http::Method::GET && !request.target.contains("/leases");
        if writes && agent.starts_with("set-") {
            let lease = seen.get(&resources::LEASES, &ObjectKey::new("kube-system", "kube-controller-manager"));
            let holder = lease.map(|lease| lease.to_value()).unwrap_or_default();
            let holder = holder.str_at(&["spec", "holderIdentity"]).unwrap_or_default().to_owned();
            if agent != format!("{holder}/1") {
                noted.lock().push(format!("{agent} {} {} while {holder} leads", request.method, request.target));
            }
        }
        None
    });
    let first = start("set-a");
    eventually("the first leads", || holder() == "set-a").await;
    let second = start("set-b");
    let namespace = |name: &str| {
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}},"status":{{"phase":"Active"}}}}"#
        );
        server.put(&resources::NAMESPACES, &json);
    };
    let made = |name: &str| server.get(&resources::SERVICE_ACCOUNTS, &ObjectKey::new(name, "default")).is_some();
    namespace("one");
    eventually("the first acts", || made("one")).await;
    sleep(60).await;
    assert_eq!(holder(), "set-a");
    // It dies without giving the lease up: the second takes over when it is due, not before.
    drop(first);
    namespace("two");
    sleep(5).await;
    assert!(!made("two"));
    eventually("the second leads", || holder() == "set-b").await;
    eventually("the second acts", || made("two")).await;
    // The first comes back and waits.
    let first = start("set-a");
    sleep(60).await;
    namespace("three");
    eventually("somebody acts", || made("three")).await;
    assert_eq!(holder(), "set-b");
    assert_eq!(*wrong.lock(), Vec::<String>::new());
    drop((first, second));
}
