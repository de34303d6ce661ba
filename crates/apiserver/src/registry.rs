//! The generic registry: every kind's reads and writes, whoever asks and however it is shown.
//!
//! A [`Resource`] is a served group, version and plural; the [`Storage`] behind it holds the objects in one version. Writes go
//! to the store; the feed brings them back into each storage's watch cache, from which all reads are served.

mod cache;
mod charge;
mod convert;
mod custom;
mod delete;
mod feed;
mod manage;
mod meta;
mod options;
mod plain;
mod read;
mod resource;
mod token;
mod update;
mod watch;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use apimachinery::{Object, ObjectKey, Status};
use env::Env;
use parking_lot::RwLock;
use tracing::error;

pub(crate) use cache::Range;
pub(crate) use charge::Charge;
pub(crate) use custom::{Custom, Customs};
pub(crate) use delete::DeleteOptions;
pub(crate) use manage::{NoOther, check_config, managed_once, refused_config};
pub(crate) use meta::timestamp;
pub(crate) use options::{FieldValidation, ListOptions, WriteOptions};
pub(crate) use read::{Filter, ListError, expired_json};
pub(crate) use resource::{Resource, Storage};
pub(crate) use update::{Change, PatchKind, apply_patch, check_name, check_preconditions};
pub(crate) use write::{Admission, Call, Operation, Seen};

use crate::config::Settings;
use crate::extension::Rows;
use crate::strategy::{self, Objects};

/// Where everything is stored.
const STORE_ROOT: &str = "/registry/";

/// All resources and the store behind them.
pub(crate) struct Registry {
    pub env: Env,
    pub store: Arc<dyn store::Store>,
    pub resources: Vec<Arc<Resource>>,
    /// The places in `resources` of those with a plural.
    by_plural: HashMap<&'static str, Vec<usize>>,
    storages: Vec<Arc<Storage>>,
    customs: RwLock<Arc<Customs>>,
    /// Told when they change, for the one who keeps APIServices of them.
    pub redefined: tokio::sync::Notify,
    rows: Rows,
    by_prefix: BTreeMap<String, usize>,
    /// The caches hold every change up to this revision.
    through: tokio::sync::watch::Sender<u64>,
    /// Set once, when watches must end.
    stopping: tokio::sync::watch::Sender<bool>,
    observer: OnceLock<Observer>,
}

/// Is shown every change of some resources, in order, before any reader sees it.
struct Observer {
    resources: &'static [(&'static str, &'static str)],
    see: Box<See>,
}

type See = dyn Fn(&api::Kind, &ObjectKey, Option<&Object>) + Send + Sync;

impl Registry {
    /// A registry of all built-in kinds that are stored.
    pub(crate) fn new(env: Env, store: Arc<dyn store::Store>, settings: &Settings) -> Registry {
        let mut strategies: HashMap<_, _> =
            strategy::all(settings).into_iter().map(|strategy| (strategy.resource(), strategy)).collect();
        let mut by_prefix: BTreeMap<String, usize> = BTreeMap::new();
        let (mut storages, mut resources): (Vec<Arc<Storage>>, Vec<Arc<Resource>>) = Default::default();
        for kind in api::kinds().iter().copied() {
            let Some(prefix) = kind.prefix() else { continue };
            let index = by_prefix.get(&prefix).copied().unwrap_or_else(|| {
                let hub = kind.hub();
                let strategy =
                    strategies.remove(&(hub.group, hub.resource)).unwrap_or_else(|| Box::new(plain::Plain::new(hub)));
                storages.extend(Storage::new(kind, strategy).map(Arc::new));
                storages.len() - 1
            });
            by_prefix.insert(prefix, index);
            resources.push(Arc::new(Resource::new(kind, storages[index].clone())));
        }
        debug_assert!(strategies.is_empty(), "a strategy is for no kind");
        let mut by_plural: HashMap<_, Vec<usize>> = HashMap::new();
        for (place, resource) in resources.iter().enumerate() {
            by_plural.entry(resource.kind.resource).or_default().push(place);
        }
        let (through, stopping) = (tokio::sync::watch::Sender::new(0), tokio::sync::watch::Sender::new(false));
        Registry {
            env,
            store,
            resources,
            by_plural,
            storages,
            customs: RwLock::default(),
            redefined: tokio::sync::Notify::new(),
            rows: Rows::default(),
            by_prefix,
            through,
            stopping,
            observer: OnceLock::new(),
        }
    }

    /// Has `see` shown every object and change of some resources (group and plural). Once, before [`Registry::load`].
    pub(crate) fn observe(
        &self,
        resources: &'static [(&'static str, &'static str)],
        see: impl Fn(&api::Kind, &ObjectKey, Option<&Object>) + Send + Sync + 'static,
    ) {
        let second = self.observer.set(Observer { resources, see: Box::new(see) }).is_err();
        debug_assert!(!second, "one observer is enough");
    }

    fn show(&self, storage: &Storage, key: &str, object: Option<&Object>) {
        if let Some(observer) = self.observer.get()
            && observer.resources.contains(&(storage.kind.group, storage.kind.resource))
        {
            let key = match key.split_once('/') {
                Some((namespace, name)) => ObjectKey::new(namespace, name),
                None => ObjectKey::cluster(key),
            };
            (observer.see)(storage.kind, &key, object);
        }
    }

    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.built_in(group, version, plural).cloned().or_else(|| {
            let customs = self.customs.read();
            let served = &customs.get(group, plural)?.resources;
            served.iter().find(|resource| resource.kind.version == version).cloned()
        })
    }

    fn built_in(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let named = |resource: &&Arc<Resource>| resource.kind.group == group && resource.kind.version == version;
        self.with_plural(plural).find(named)
    }

    fn with_plural(&self, plural: &str) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_plural.get(plural).into_iter().flatten().map(|place| &self.resources[*place])
    }

    /// The row of a resource, also of one that is answered and not kept.
    pub(crate) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static api::Kind> {
        let stored = self.built_in(group, version, plural).map(|resource| resource.kind);
        let known = stored.or_else(|| api::resource(group, version, plural));
        known.or_else(|| Some(self.resource(group, version, plural)?.kind))
    }

    /// The storage of a resource, whatever its version.
    pub(crate) fn storage(&self, group: &str, plural: &str) -> Option<Arc<Storage>> {
        let found = self.with_plural(plural).find(|resource| resource.kind.group == group);
        let found = found.map(|resource| resource.storage.clone());
        found.or_else(|| Some(self.customs.read().get(group, plural)?.storage.clone()))
    }

    /// The revision up to which the caches are complete.
    pub(crate) fn through(&self) -> u64 {
        *self.through.borrow()
    }

    /// Whether something that was written is not yet in the caches.
    pub(crate) fn is_behind(&self) -> bool {
        self.through() < self.store.revision()
    }

    /// Follows [`Registry::through`].
    pub(crate) fn progress(&self) -> tokio::sync::watch::Receiver<u64> {
        self.through.subscribe()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Ends all watches.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl Objects for Registry {
    fn get(&self, group: &str, resource: &str, key: &ObjectKey) -> Option<Arc<Object>> {
        self.storage(group, resource)?.cache.get(&cache_key(&key.namespace, &key.name))
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let Some(storage) = self.storage(group, resource) else { return Vec::new() };
        let range = match namespace {
            "" => Range::All,
            namespace => Range::Namespace(namespace.to_owned()),
        };
        let mut objects = Vec::new();
        storage.cache.scan(&range, "", 0, |_, object| {
            objects.push(object.clone());
            true
        });
        objects
    }
}

/// An object's key within its resource's cache, and below its resource's prefix in the store.
pub(crate) fn cache_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// The answer to a request that the store failed.
pub(crate) fn store_failure(failure: store::Error) -> Status {
    match &failure {
        store::Error::Overloaded => Status::too_many_requests("too many writes are waiting, please try again later", 1),
        store::Error::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        store::Error::Closed => Status::service_unavailable("the server is stopping"),
        store::Error::NoSpace => Status::service_unavailable("no space left for the store"),
        store::Error::Invalid(store::Invalid::ValueTooLarge { length, limit, .. }) => {
            Status::too_large(format!("the object has {length} bytes, at most {limit} can be stored"))
        }
        other => {
            error!(error = other as &dyn std::error::Error, "the store failed");
            Status::internal(other)
        }
    }
}
