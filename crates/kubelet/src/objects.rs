//! ConfigMaps and Secrets: one informer for each that a pod refers to, as long as one does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{Client, Informer, Resource, Selection, Subscription, resources};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use parking_lot::Mutex;

use crate::{environment, volumes};

/// How long a pod's start waits for the first copy of what it refers to.
const SYNC: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn resource(self) -> Resource {
        match self {
            Kind::ConfigMap => resources::CONFIG_MAPS,
            Kind::Secret => resources::SECRETS,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }
}

type Reference = (Kind, ObjectKey);

/// The objects that pods of this node refer to.
pub(crate) struct Objects {
    client: Client,
    entries: Mutex<BTreeMap<Reference, Entry>>,
    /// Told the uid of each pod that refers to an object that changed.
    changed: Box<dyn Fn(&str) + Send + Sync>,
}

struct Entry {
    users: BTreeSet<String>,
    informer: Informer,
    _subscription: Subscription,
}

impl Objects {
    pub(crate) fn new(client: Client, changed: impl Fn(&str) + Send + Sync + 'static) -> Arc<Objects> {
        Arc::new(Objects { client, entries: Mutex::default(), changed: Box::new(changed) })
    }

    /// Keeps what the pod refers to, and no longer what it referred to before.
    pub(crate) fn refer(self: &Arc<Self>, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let wanted = references(pod);
        let released = self.take_back(&uid, &wanted);
        drop(released);
        for reference in wanted {
            let known = match self.entries.lock().get_mut(&reference) {
                Some(entry) => {
                    entry.users.insert(uid.clone());
                    true
                }
                None => false,
            };
            if !known {
                let entry = self.entry(&reference, &uid);
                drop(self.adopt(reference, entry));
            }
        }
    }

    /// Keeps an entry; gives it back if another pod's was first, to be dropped outside the lock: its end waits for its informer's
    /// handler, and that for the lock.
    fn adopt(&self, reference: Reference, mut entry: Entry) -> Option<Entry> {
        let mut entries = self.entries.lock();
        match entries.get_mut(&reference) {
            Some(first) => {
                first.users.append(&mut entry.users);
                Some(entry)
            }
            None => {
                entries.insert(reference, entry);
                None
            }
        }
    }

    fn entry(self: &Arc<Self>, reference: &Reference, uid: &str) -> Entry {
        let (kind, key) = reference;
        let selection = Selection::all().namespace(&*key.namespace).fields(format!("metadata.name={}", key.name));
        let informer = Informer::start(&self.client, kind.resource(), selection);
        let (objects, reference): (Weak<Objects>, _) = (Arc::downgrade(self), reference.clone());
        let subscription = informer.on_event(move |_| {
            if let Some(objects) = objects.upgrade() {
                let users = objects.entries.lock().get(&reference).map(|entry| entry.users.clone());
                users.iter().flatten().for_each(|user| (objects.changed)(user));
            }
        });
        Entry { users: [uid.to_owned()].into(), informer, _subscription: subscription }
    }

    /// The pod is gone.
    pub(crate) fn release(&self, uid: &str) {
        drop(self.take_back(uid, &BTreeSet::new()));
    }

    /// Entries that nobody uses any more, to be dropped outside the lock.
    fn take_back(&self, uid: &str, but: &BTreeSet<Reference>) -> Vec<Entry> {
        let mut entries = self.entries.lock();
        for (_, entry) in entries.iter_mut().filter(|(reference, _)| !but.contains(*reference)) {
            entry.users.remove(uid);
        }
        let unused: Vec<_> = entries.iter().filter(|(_, e)| e.users.is_empty()).map(|(r, _)| r.clone()).collect();
        unused.iter().filter_map(|reference| entries.remove(reference)).collect()
    }

    /// Waits until the first copy of all that the pod refers to is there.
    pub(crate) async fn synced(&self, pod: &Pod) -> Result<(), String> {
        for reference in references(pod) {
            let informer = self.entries.lock().get(&reference).map(|entry| entry.informer.clone());
            if let Some(informer) = informer
                && self.client.env().timeout(SYNC, informer.synced()).await.is_none()
            {
                let word = reference.0.word();
                return Err(format!("failed to sync {word} cache: timed out waiting for the condition"));
            }
        }
        Ok(())
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key = ObjectKey::new(namespace, name);
        let informer = self.entries.lock().get(&(kind, key.clone())).map(|entry| entry.informer.clone())?;
        informer.get(&key)
    }

    /// The ConfigMaps that the pod refers to and that exist.
    pub(crate) fn config_maps(&self, pod: &Pod) -> BTreeMap<String, ConfigMap> {
        self.all(pod, Kind::ConfigMap, |object| object.view().ok())
    }

    /// The Secrets that the pod refers to and that exist.
    pub(crate) fn secrets(&self, pod: &Pod) -> BTreeMap<String, Secret> {
        self.all(pod, Kind::Secret, |object| object.view().ok())
    }

    fn all<T>(&self, pod: &Pod, wanted: Kind, view: impl Fn(&Object) -> Option<T>) -> BTreeMap<String, T> {
        let of_kind = references(pod).into_iter().filter(|(kind, _)| *kind == wanted);
        let found = of_kind.filter_map(|(kind, key)| {
            let object = self.get(kind, &key.namespace, &key.name)?;
            Some((key.name, view(&object)?))
        });
        found.collect()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.lock().len()
    }
}

/// Every ConfigMap and Secret that the pod names anywhere.
fn references(pod: &Pod) -> BTreeSet<Reference> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut all = BTreeSet::new();
    let mut add = |kind: Kind, names: Vec<String>| {
        let named = names.into_iter().filter(|name| !name.is_empty());
        all.extend(named.map(|name| (kind, ObjectKey::new(&*namespace, name))));
    };
    let of_volumes = volumes::references(pod);
    add(Kind::ConfigMap, of_volumes.config_maps);
    add(Kind::Secret, of_volumes.secrets);
    for container in crate::spec::all_containers(pod) {
        let (config_maps, secrets) = environment::references(&container);
        add(Kind::ConfigMap, config_maps);
        add(Kind::Secret, secrets);
    }
    let pull = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    add(Kind::Secret, pull.map(|secret| secret.name.clone()).collect());
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn objects_are_kept_while_referred_to() {
        let server = client::fake::FakeServer::new(env::Env::seeded(1, jiff::Timestamp::UNIX_EPOCH));
        server.put(&resources::CONFIG_MAPS, r#"{"metadata":{"name":"cm","namespace":"ns"},"data":{"a":"1"}}"#);
        let pod = |uid: &str, map: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"uid": uid, "namespace": "ns"}, "spec": {"containers": [
                {"name": "c", "envFrom": [{"configMapRef": {"name": map}}]}],
                "imagePullSecrets": [{"name": "pull"}]}}))
            .unwrap()
        };
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let objects = Objects::new(server.client(), move |uid| log.lock().push(uid.to_owned()));
        let (a, b) = (pod("a", "cm"), pod("b", "cm"));
        objects.refer(&a);
        objects.refer(&b);
        objects.synced(&a).await.unwrap();
        assert_eq!(objects.config_maps(&a)["cm"].data.as_ref().unwrap()["a"], "1");
        assert!(objects.secrets(&a).is_empty());
        assert_eq!(objects.len(), 2);
        told.lock().clear();
        let key = ObjectKey::new("ns", "cm");
        server.edit(&resources::CONFIG_MAPS, &key, |map| map.set(&["data", "a"], "2"));
        let informer = objects.entries.lock()[&(Kind::ConfigMap, key)].informer.clone();
        informer.wait_for(server.revision()).await;
        assert_eq!(*told.lock(), ["a", "b"]);
        objects.release("a");
        assert_eq!(objects.len(), 2);
        objects.refer(&pod("b", "other"));
        assert_eq!(objects.len(), 2, "the other map and the pull secret");
        objects.release("b");
        assert_eq!(objects.len(), 0);
    }
    /// Two pods ask for the same object at once, and the second's informer is just telling of it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_comes_second_holds_up_nobody() {
        let server = client::fake::FakeServer::new(env::Env::system());
        let reference = (Kind::ConfigMap, ObjectKey::new("ns", "cm"));
        let objects = Objects::new(server.client(), |_| ());
        let [first, second] = ["a", "b"].map(|uid| objects.entry(&reference, uid));
        second.informer.synced().await;
        assert!(objects.adopt(reference.clone(), first).is_none());
        let (telling, is_telling) = std::sync::mpsc::channel();
        let (of, free) = (Arc::downgrade(&objects), Arc::new(Mutex::new(None)));
        let (seen, env) = (free.clone(), server.client().env().clone());
        let watch = second.informer.on_event(move |_| {
            let Some(objects) = of.upgrade() else { return };
            telling.send(()).unwrap();
            // Until the other is at it, or has been.
            let end = env.monotonic() + Duration::from_millis(300);
            while env.monotonic() < end && objects.entries.try_lock().is_some() {}
            *seen.lock() = Some(objects.entries.try_lock_for(Duration::from_secs(5)).is_some());
        });
        server.put(&resources::CONFIG_MAPS, r#"{"metadata":{"name":"cm","namespace":"ns"}}"#);
        is_telling.recv().unwrap();
        drop(objects.adopt(reference.clone(), second));
        drop(watch);
        assert_eq!(*free.lock(), Some(true));
        assert_eq!(objects.entries.lock()[&reference].users.len(), 2);
    }
}
