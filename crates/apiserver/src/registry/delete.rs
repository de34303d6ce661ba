//! Deletions: grace periods, finalizers, preconditions, collections. Upstream: registry/generic/registry Store.Delete.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{FieldError, GroupKind, GroupResource, Object, Status, Value};

use super::options::dry_run;
use super::write::{Refused, Seen, Write};
use super::{Call, Filter, Operation, cache_key, meta, timestamp};
use crate::strategy::Together;

/// How often a deletion is tried again when others write in between.
const ATTEMPTS: usize = 64;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// `DeleteOptions`, from a body or from the query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DeleteOptions {
    pub grace_period: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub orphan_dependents: Option<bool>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation: Option<String>,
    pub dry_run: bool,
}

/// What a deletion left.
pub(crate) struct Deleted {
    /// The object as it was last.
    pub object: Arc<Object>,
    /// Whether it is gone.
    pub gone: bool,
}

enum Attempt {
    Done(Deleted),
    Again,
}

/// The first step of a deletion.
enum Begin {
    /// It goes at once.
    Now,
    /// A deletion with a grace period is on its way; nothing to do.
    Pending,
    /// `deletionTimestamp` is set; it goes after this many seconds.
    Graceful(i64),
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` value.
    pub(crate) fn read(value: &Value) -> Result<DeleteOptions, Status> {
        let text = |path: &[&str]| value.str_at(path).map(str::to_owned);
        let mut errors = Vec::new();
        let dry: Vec<&str> = value.items_at(&["dryRun"]).iter().filter_map(Value::as_str).collect();
        let options = DeleteOptions {
            grace_period: value.i64_at(&["gracePeriodSeconds"]).map(at_least_one_if_negative),
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            orphan_dependents: value.bool_at(&["orphanDependents"]),
            propagation: text(&["propagationPolicy"]),
            dry_run: dry_run(&dry, &mut errors),
        };
        options.checked(errors)
    }

    pub(crate) fn from_query(query: &crate::request::Query) -> Result<DeleteOptions, Status> {
        let mut errors = Vec::new();
        let options = DeleteOptions {
            grace_period: query.number("gracePeriodSeconds")?.map(at_least_one_if_negative),
            orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")).transpose()?,
            propagation: query.has("propagationPolicy").then(|| query.get("propagationPolicy").to_owned()),
            dry_run: dry_run(&query.all("dryRun"), &mut errors),
            ..DeleteOptions::default()
        };
        options.checked(errors)
    }

    fn checked(self, mut errors: Vec<FieldError>) -> Result<DeleteOptions, Status> {
        if self.propagation.is_some() && self.orphan_dependents.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", self.propagation.as_deref().unwrap_or_default(), why));
        }
        if let Some(policy) = &self.propagation
            && !matches!(&**policy, "Foreground" | "Background" | "Orphan")
        {
            errors.push(FieldError::not_supported(
                "propagationPolicy",
                policy,
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        if errors.is_empty() {
            return Ok(self);
        }
        let kind = GroupKind { group: "meta.k8s.io".into(), kind: "DeleteOptions".into() };
        Err(Status::invalid(&kind, "", &errors))
    }
}

/// A negative grace period is the shortest one.
fn at_least_one_if_negative(seconds: i64) -> i64 {
    if seconds < 0 { 1 } else { seconds }
}

impl Call<'_> {
    /// Deletes the object, or begins to.
    pub(crate) async fn delete(&self, options: &DeleteOptions) -> Result<Deleted, Status> {
        let key = cache_key(self.namespace, self.name);
        for _ in 0..ATTEMPTS {
            let Some(current) = self.registry.current(self.resource, &key).await? else {
                return Err(Status::not_found(&self.resource.group_resource(), self.name));
            };
            match self.attempt_delete(options, &key, &current).await? {
                Attempt::Done(deleted) => return Ok(deleted),
                Attempt::Again => {}
            }
        }
        Err(Status::modified(&self.resource.group_resource(), self.name))
    }

    async fn attempt_delete(
        &self,
        options: &DeleteOptions,
        key: &str,
        current: &Arc<Object>,
    ) -> Result<Attempt, Status> {
        self.check_preconditions(options, current)?;
        let storage = self.storage();
        let strategy = &storage.strategy;
        if let Some(why) = strategy.keeps(self.name) {
            return Err(Status::forbidden(&self.resource.group_resource(), self.name, why));
        }
        if options.propagation.is_none() && options.orphan_dependents.is_none() {
            self.warn(strategy.deletion_warning().map(str::to_owned).into_iter().collect());
        }
        let read = self.admission.reads_deleted(self).then(|| current.to_unmanaged_value());
        let seen = read.as_ref().map(|value| Seen { value, managed: current.managed_fields() });
        self.admission.validate(self, Operation::Delete, None, seen).await?;
        if self.goes_at_once(options, current) {
            return self.remove(key, current, current, Together::default()).await;
        }
        let mut new = read.unwrap_or_else(|| current.to_unmanaged_value());
        let begin = self.begin_graceful(options, &mut new)?;
        if matches!(begin, Begin::Pending) {
            return Ok(Attempt::Done(Deleted { object: current.clone(), gone: false }));
        }
        let finalizers = self.finalizers(options, &new);
        if finalizers.is_empty() {
            new.remove(&["metadata", "finalizers"]);
        } else {
            new.set(&["metadata", "finalizers"], finalizers.clone());
        }
        let held = !finalizers.is_empty() || strategy.is_held(&new);
        if held && matches!(begin, Begin::Now) {
            self.mark(&mut new, 0);
        }
        let waits = held || matches!(begin, Begin::Graceful(seconds) if seconds > 0);
        if !waits {
            // A removal carries the last body; upstream writes a grace period of zero first, which nobody needs.
            let together = self.released(&new).await?;
            let last = storage.encode_managed(&new, current.managed_fields())?;
            return self.remove(key, current, &last, together).await;
        }
        strategy.begin_deletion(&self.context(), &mut new);
        let object = storage.encode_managed(&new, current.managed_fields())?;
        if object.body() == current.body() {
            return Ok(Attempt::Done(Deleted { object: current.clone(), gone: false }));
        }
        match self.commit(key, current.revision(), Write::Put(&object), Default::default()).await {
            Ok(revision) => Ok(Attempt::Done(Deleted { object: Arc::new(object.at_revision(revision)), gone: false })),
            Err(Refused::Failed(status)) => Err(status),
            Err(Refused::Object | Refused::Together) => Ok(Attempt::Again),
        }
    }

    /// Whether nothing in the object holds its deletion up or goes together with it.
    fn goes_at_once(&self, options: &DeleteOptions, current: &Object) -> bool {
        let strategy = &self.storage().strategy;
        !strategy.deletes_in_steps()
            && !strategy.allocates()
            && !current.has_finalizers()
            && self.propagation(options, |_| false) == (false, false)
    }

    /// Removes the object, which was `last` when it went.
    async fn remove(&self, key: &str, current: &Object, last: &Object, together: Together) -> Result<Attempt, Status> {
        match self.commit(key, current.revision(), Write::Remove, together).await {
            Ok(revision) => Ok(Attempt::Done(Deleted { object: Arc::new(last.at_revision(revision)), gone: true })),
            Err(Refused::Failed(status)) => Err(status),
            Err(Refused::Object | Refused::Together) => Ok(Attempt::Again),
        }
    }

    fn check_preconditions(&self, options: &DeleteOptions, current: &Object) -> Result<(), Status> {
        // Upstream names the kind here and not the resource.
        let kind = self.resource.group_kind();
        let resource = GroupResource::new(&*kind.group, &*kind.kind);
        if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != current.uid()) {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted \
                 and then recreated",
                current.uid()
            );
            return Err(Status::conflict(&resource, self.name, &why));
        }
        let revision = current.revision().to_string();
        if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != revision) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). \
                 The object might have been modified"
            );
            return Err(Status::conflict(&resource, self.name, &why));
        }
        Ok(())
    }

    /// Sets or shortens the grace period. Upstream: rest.BeforeDelete.
    fn begin_graceful(&self, options: &DeleteOptions, value: &mut Value) -> Result<Begin, Status> {
        let strategy = &self.storage().strategy;
        let Some(seconds) = strategy.grace_period(value, options.grace_period) else { return Ok(Begin::Now) };
        if value.at(&["metadata", "deletionTimestamp"]).is_none() {
            self.mark(value, seconds);
            return Ok(Begin::Graceful(seconds));
        }
        let Some(running) = value.i64_at(&["metadata", "deletionGracePeriodSeconds"]) else { return Ok(Begin::Now) };
        match options.grace_period {
            Some(0) if running == 0 => Ok(Begin::Graceful(0)),
            Some(wanted) if wanted < running => {
                let ends = value.str_at(&["metadata", "deletionTimestamp"]).unwrap_or_default();
                let ends: jiff::Timestamp = ends.parse().map_err(Status::internal)?;
                let earlier = jiff::SignedDuration::from_secs(running - wanted.max(0));
                let ends = ends.checked_sub(earlier).map_err(Status::internal)?;
                value.set(&["metadata", "deletionTimestamp"], timestamp(ends));
                value.set(&["metadata", "deletionGracePeriodSeconds"], wanted.max(0));
                Ok(Begin::Graceful(wanted.max(0)))
            }
            _ => Ok(Begin::Pending),
        }
    }

    /// Marks the object as being deleted in so many seconds.
    fn mark(&self, value: &mut Value, seconds: i64) {
        if value.at(&["metadata", "deletionTimestamp"]).is_none() {
            let ends = self.registry.env.now() + Duration::from_secs(seconds.max(0) as u64);
            value.set(&["metadata", "deletionTimestamp"], timestamp(ends));
            meta::raise_generation(value);
        }
        let graceless = self.storage().strategy.is_held(value);
        if !graceless || seconds > 0 {
            value.set(&["metadata", "deletionGracePeriodSeconds"], seconds);
        }
    }

    /// Whether dependents are orphaned, and whether they go first; `has` knows the object's finalizers.
    fn propagation(&self, options: &DeleteOptions, has: impl Fn(&str) -> bool) -> (bool, bool) {
        match (options.orphan_dependents, options.propagation.as_deref()) {
            (Some(orphan), _) => (orphan, false),
            (None, Some("Orphan")) => (true, false),
            (None, Some("Foreground")) => (false, true),
            (None, Some(_)) => (false, false),
            (None, None) if has(ORPHAN) => (true, false),
            (None, None) if has(FOREGROUND) => (false, true),
            (None, None) => (self.storage().strategy.orphans_by_default(), false),
        }
    }

    /// The finalizers after the options had their say. Upstream: deletionFinalizersForGarbageCollection.
    fn finalizers(&self, options: &DeleteOptions, value: &Value) -> Vec<Value> {
        let now = value.items_at(&["metadata", "finalizers"]);
        let has = |name: &str| now.iter().any(|finalizer| finalizer.as_str() == Some(name));
        let (orphan, foreground) = self.propagation(options, has);
        let others = now.iter().filter(|name| !matches!(name.as_str(), Some(ORPHAN | FOREGROUND)));
        let mut kept: Vec<Value> = others.cloned().collect();
        kept.extend(orphan.then(|| ORPHAN.into()));
        kept.extend(foreground.then(|| FOREGROUND.into()));
        kept
    }

    /// Deletes every object that the filter matches; those that vanish meanwhile are skipped.
    pub(crate) async fn delete_collection(
        &self,
        filter: &Filter,
        options: &DeleteOptions,
        limit: usize,
    ) -> Result<Vec<Arc<Object>>, Status> {
        self.registry.fresh().await?;
        let mut found = Vec::new();
        self.storage().cache.scan(&filter.range(self.resource.namespaced()), "", 0, |_, object| {
            if filter.matches(object) {
                found.push(object.clone());
            }
            limit == 0 || found.len() < limit
        });
        let mut deleted = Vec::new();
        for object in found {
            let one = Call { name: object.name(), namespace: object.namespace(), ..*self };
            match one.delete(options).await {
                // As it was found; upstream says no more of it either.
                Ok(_) => deleted.push(object.clone()),
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(deleted)
    }
}
