//! Custom resources in the registry: what their definitions make of it, as they come, change and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, Status};
use store::RangeQuery;
use tokio::sync::watch;
use tracing::error;

use super::cache::{Cache, LogLimits};
use super::{Registry, Resource, Storage};
use crate::extension::{DEFINITIONS, Definition, Instances, Version};

/// Everything that definitions define.
#[derive(Default)]
pub(crate) struct Customs {
    /// By the name of the definition, `widgets.example.com`.
    by_name: BTreeMap<String, Arc<Custom>>,
    /// Raised with each change.
    pub epoch: u64,
}

/// What one definition defines.
pub(crate) struct Custom {
    pub definition: Arc<Definition>,
    pub storage: Arc<Storage>,
    /// One for each version that is served, in the definition's order.
    pub resources: Vec<Arc<Resource>>,
    /// The version that is stored, whether it is served or not.
    pub stored: Arc<Resource>,
    /// Set when watches of it must end.
    ended: watch::Sender<bool>,
}

/// What a resource that is not built in knows of itself.
#[derive(Clone)]
pub(crate) struct CustomVersion {
    pub definition: Arc<Definition>,
    pub version: Arc<Version>,
    /// Turns true when the definition has changed or is gone.
    pub ended: watch::Receiver<bool>,
}

impl Customs {
    pub(crate) fn get(&self, group: &str, plural: &str) -> Option<&Arc<Custom>> {
        // Names of built-in groups have no dot or end in k8s.io, and few others are asked for when nothing is defined.
        if self.by_name.is_empty() {
            return None;
        }
        self.by_name.get(&format!("{plural}.{group}"))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Custom>> {
        self.by_name.values()
    }
}

impl Registry {
    pub(crate) fn customs(&self) -> Arc<Customs> {
        self.customs.read().clone()
    }

    /// The storage that a key below `/registry/` belongs to, and the rest of the key.
    pub(super) fn locate_custom(&self, key: &str) -> Option<(Arc<Storage>, Arc<str>)> {
        let mut parts = key.strip_prefix(super::STORE_ROOT)?.splitn(3, '/');
        let (group, plural, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let customs = self.customs.read();
        Some((customs.get(group, plural)?.storage.clone(), Arc::from(rest)))
    }

    /// Whether a stored object is a definition.
    pub(super) fn defines(storage: &Storage) -> bool {
        (storage.kind.group, storage.kind.resource) == DEFINITIONS
    }

    /// A definition is as `object` says from `revision` on; `None`: it is gone.
    pub(super) async fn define(&self, name: &str, object: Option<&Object>, revision: u64) {
        let new = object.and_then(Definition::read);
        let old = self.customs.read().by_name.get(name).cloned();
        let custom = match (&old, new) {
            (None, None) => return,
            (Some(_), None) => None,
            (Some(old), Some(new)) if old.definition.uid == new.uid && old.definition.digest == new.digest => {
                if old.definition.terminating == new.terminating {
                    return;
                }
                let cache = old.storage.cache.clone();
                // Only what may be written changes: watches go on.
                Some(self.custom(new, cache, Some(old.ended.clone())))
            }
            (old, Some(new)) => {
                let same = old.as_ref().filter(|old| old.definition.uid == new.uid);
                let cache =
                    same.map_or_else(|| Arc::new(Cache::new(LogLimits::default())), |old| old.storage.cache.clone());
                let custom = self.custom(new, cache, None);
                self.fill(&custom.storage, revision, same.is_some()).await;
                Some(custom)
            }
        };
        {
            let mut customs = self.customs.write();
            let mut by_name = customs.by_name.clone();
            match &custom {
                Some(custom) => drop(by_name.insert(name.to_owned(), custom.clone())),
                None => drop(by_name.remove(name)),
            }
            *customs = Arc::new(Customs { by_name, epoch: customs.epoch + 1 });
        }
        self.redefined.notify_one();
        let kept = |old: &Custom| custom.as_ref().is_some_and(|new| new.ended.same_channel(&old.ended));
        if let Some(old) = old.filter(|old| !kept(old)) {
            old.ended.send_replace(true);
        }
    }

    fn custom(&self, definition: Definition, cache: Arc<Cache>, ended: Option<watch::Sender<bool>>) -> Arc<Custom> {
        let definition = Arc::new(definition);
        let ended = ended.unwrap_or_else(|| watch::Sender::new(false));
        let row = self.rows.of(&definition, definition.stored());
        let strategy = Box::new(Instances::new(definition.clone(), row));
        let of = |version: &Arc<Version>| CustomVersion {
            definition: definition.clone(),
            version: version.clone(),
            ended: ended.subscribe(),
        };
        let storage = Arc::new(Storage::custom(row, strategy, cache, of(definition.stored())));
        let served = definition.versions.iter().filter(|version| version.served);
        let resources = served.map(|version| {
            let row = self.rows.of(&definition, version);
            Arc::new(Resource::custom(row, storage.clone(), of(version)))
        });
        let resources = resources.collect();
        let stored = Arc::new(Resource::custom(row, storage.clone(), of(definition.stored())));
        Arc::new(Custom { resources, definition, storage, stored, ended })
    }

    /// Reads the objects that are there.
    pub(super) async fn fill(&self, storage: &Storage, revision: u64, known: bool) {
        let range = self.store.range(RangeQuery::prefix(storage.prefix.clone()).at(revision)).await;
        let range = match range {
            Ok(range) => range,
            Err(failure) => {
                error!(prefix = %storage.prefix, error = &failure as &dyn std::error::Error, "custom resources cannot be read");
                return;
            }
        };
        let mut objects = Vec::with_capacity(range.items.len());
        for item in range.items {
            let Some(key) = storage.key_of(&item.key) else { continue };
            match storage.decode(&item.value, item.mod_revision) {
                Ok(object) => objects.push((key, Arc::new(object))),
                Err(problem) => {
                    error!(key = %key, prefix = %storage.prefix, %problem, "a stored object cannot be read and is left out")
                }
            }
        }
        match known {
            true => storage.cache.replace(objects),
            false => drop(storage.cache.load(objects, revision)),
        }
    }
}

impl CustomVersion {
    /// Versions that differ need their webhook, which is not called yet.
    pub(crate) fn convertible(&self) -> Result<(), Status> {
        let definition = &self.definition;
        if !definition.webhook || self.version.name == definition.stored().name {
            return Ok(());
        }
        let why = format!(
            "conversion webhook for {}, Kind={} is not called: objects are served as {} only",
            definition.api_version(&self.version.name),
            definition.kind,
            definition.stored().name
        );
        Err(Status::internal(why))
    }
}
