use apimachinery::Object;
use bytes::Bytes;
use http::Method;

use super::*;
use crate::server::Gate as _;

fn info(target: &str) -> RequestInfo {
    RequestInfo::parse(&Method::GET, target).0
}

async fn world() -> (tempfile::TempDir, Arc<store::Embedded>, Arc<Registry>, Guard) {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::system();
    let pki = Arc::new(ClusterPki::load_or_create(folder.path(), &env).unwrap());
    let store = store::Embedded::in_memory(&env).unwrap();
    let registry = Arc::new(Registry::new(env, store.clone()));
    let loaded = registry.load().await.unwrap();
    registry.env.spawn(registry.clone().follow(loaded));
    let guard = Guard::new(pki, "issuer", registry.clone()).unwrap();
    (folder, store, registry, guard)
}

/// Writes an object as the registry would, and waits until the caches have it.
async fn put(registry: &Registry, group: &str, resource: &str, json: &str) {
    let storage = registry.storage(group, resource).unwrap();
    let value = Value::parse(json.as_bytes()).unwrap();
    let object = Object::new(&value, 0).unwrap();
    let key = crate::registry::cache_key(object.namespace(), object.name());
    let body: Bytes = object.body().clone();
    let txn = store::Txn::new().put(storage.store_key(&key), body);
    registry.store.commit(txn).await.unwrap();
    let mut progress = registry.progress();
    while storage.cache.get(&key).is_none() {
        progress.changed().await.unwrap();
    }
}

#[tokio::test]
async fn decisions_follow_what_is_stored() {
    let (_folder, _store, registry, guard) = world().await;
    let user = UserInfo::authenticated("alice", &[]);
    let pods = info("/api/v1/namespaces/n/pods");
    assert_eq!(guard.authorize(&user, &pods).unwrap_err().code, 403);
    put(
        &registry,
        "rbac.authorization.k8s.io",
        "roles",
        r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"r","namespace":"n"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}]}"#,
    )
    .await;
    put(
        &registry,
        "rbac.authorization.k8s.io",
        "rolebindings",
        r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"b","namespace":"n"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"alice"}]}"#,
    )
    .await;
    assert_eq!(guard.authorize(&user, &pods), Ok(()));

    let node = UserInfo::authenticated("system:node:a", &["system:nodes"]);
    assert_eq!(guard.authorize(&node, &info("/api/v1/pods?fieldSelector=spec.nodeName%3Da")), Ok(()));
    assert_eq!(guard.authorize(&node, &info("/api/v1/pods")).unwrap_err().code, 403);
    let secret = info("/api/v1/namespaces/n/secrets/s");
    assert_eq!(guard.authorize(&node, &secret).unwrap_err().code, 403);
    put(
        &registry,
        "",
        "pods",
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n"},"spec":{"nodeName":"a","containers":[],"imagePullSecrets":[{"name":"s"}]}}"#,
    )
    .await;
    assert_eq!(guard.authorize(&node, &secret), Ok(()));

    // Indexes begun anew know the same.
    let again = Guard { feed: Feed::new(registry.clone(), guard.gate.clone()), ..guard };
    assert_eq!(again.authorize(&node, &secret), Ok(()));
    assert_eq!(again.authorize(&user, &pods), Ok(()));
}

#[tokio::test]
async fn whoever_comes_in_by_the_binary_may_act_for_others() {
    let (_folder, _store, _registry, guard) = world().await;
    let master = Credentials::Local(Arc::new(UserInfo::authenticated("m", &["system:masters"])));
    let mut headers = HeaderMap::new();
    assert_eq!(guard.identify(&master, &headers).await.unwrap().name, "m");
    headers.insert("impersonate-user", "bob".parse().unwrap());
    assert_eq!(guard.identify(&master, &headers).await.unwrap().name, "bob");
    let nobody = Credentials::Local(Arc::new(UserInfo::authenticated("x", &[])));
    assert_eq!(guard.identify(&nobody, &headers).await.unwrap_err().code, 403);
}
