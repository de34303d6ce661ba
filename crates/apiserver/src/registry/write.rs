//! Creation, and what all writes share: admission, the commit, and what a strategy may know.

use std::sync::Arc;

use apimachinery::validation::validate_object_meta;
use apimachinery::{FieldError, Object, Status, Value};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use store::{Action, Op, Txn};

use super::{Charge, Registry, Resource, Storage, cache_key, meta, store_failure};
use crate::strategy::{Context, Together};

/// How often a name is generated before giving up.
const NAME_ATTEMPTS: usize = 8;
/// How often addresses and ports are taken anew when others are faster.
const ALLOCATION_ATTEMPTS: usize = 32;
/// The most characters of `generateName` that are kept before five random ones.
const MAX_PREFIX: usize = 63 - 5;

/// What a write does, as admission sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// Admission, as the registry calls it. Values are in the storage version.
pub(crate) trait Admission: Send + Sync {
    /// May edit `new`.
    fn mutate<'a>(
        &'a self,
        call: &'a Call<'_>,
        operation: Operation,
        new: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>>;

    /// Refuses a user who may not create what a patch is about to create.
    fn authorize_creation(&self, _call: &Call<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse. `new` is `None` for deletions, and `old` for those of which [`Admission::reads_deleted`] says so.
    fn validate<'a>(
        &'a self,
        call: &'a Call<'_>,
        operation: Operation,
        new: Option<Seen<'a>>,
        old: Option<Seen<'a>>,
    ) -> BoxFuture<'a, Result<(), Status>>;

    /// Whether the object that a call deletes is looked at.
    fn reads_deleted(&self, _call: &Call<'_>) -> bool {
        false
    }

    /// What quotas are charged for a write that is about to be made, or why they refuse it.
    fn charge<'a>(
        &'a self,
        _call: &'a Call<'_>,
        _operation: Operation,
        _new: &'a Value,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Option<Charge>, Status>> {
        Box::pin(async { Ok(None) })
    }
}

/// An object as it is judged before it is written.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub value: &'a Value,
    /// `metadata.managedFields` as JSON, which the value lacks.
    pub managed: &'a [u8],
}

impl Seen<'_> {
    /// The object as clients see it.
    pub(crate) fn whole(self) -> Value {
        let mut value = self.value.clone();
        if let Ok(managed) = Value::parse(self.managed) {
            value.set(&["metadata", "managedFields"], managed);
        }
        value
    }
}

/// A write on its way: who wants what of which object.
pub(crate) struct Call<'a> {
    pub registry: &'a Registry,
    pub resource: &'a Resource,
    pub user: &'a crate::identity::UserInfo,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// Whose fields the written ones become.
    pub manager: &'a str,
    pub dry_run: bool,
    pub admission: &'a dyn Admission,
    /// Texts for `Warning` headers.
    pub warnings: &'a Mutex<Vec<String>>,
}

/// Why a commit did not happen.
pub(super) enum Refused {
    /// The object is not at the revision it was read at.
    Object,
    /// Something that was to be written with it is not.
    Together,
    Failed(Status),
}

/// What is committed for an object.
pub(super) enum Write<'a> {
    Put(&'a Object),
    Remove,
}

impl Call<'_> {
    pub(super) fn storage(&self) -> &Storage {
        &self.resource.storage
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            env: &self.registry.env,
            user: self.user,
            namespace: self.namespace,
            group: self.resource.kind.group,
            version: self.resource.kind.version,
            subresource: self.subresource,
            dry_run: self.dry_run,
            objects: self.registry,
            store: &*self.registry.store,
        }
    }

    pub(super) fn warn(&self, texts: Vec<String>) {
        self.warnings.lock().extend(texts);
    }

    /// Creates an object from a decoded and defaulted value in the storage version.
    pub(crate) async fn create(&self, mut new: Value) -> Result<Arc<Object>, Status> {
        meta::wipe(&mut new);
        let managed = self.managed_by_creation(&mut new);
        let generated = new.str_at(&["metadata", "name"]).unwrap_or_default().is_empty();
        let prefix = new.str_at(&["metadata", "generateName"]).unwrap_or_default().to_owned();
        if !generated || prefix.is_empty() {
            return self.create_named(new, &managed).await;
        }
        let cut = prefix.char_indices().nth(MAX_PREFIX).map_or(prefix.len(), |(at, _)| at);
        for _ in 0..NAME_ATTEMPTS {
            let mut attempt = new.clone();
            attempt.set(&["metadata", "name"], format!("{}{}", &prefix[..cut], self.registry.env.name_suffix(5)));
            match self.create_named(attempt, &managed).await {
                Err(status) if status.is_already_exists() => {}
                result => return result,
            }
        }
        let resource = self.resource.group_resource();
        let mut status = Status::already_exists(&resource, &prefix);
        status.message.push_str(", the server was not able to generate a unique name for the object");
        Err(status)
    }

    /// Creates an object whose name is settled.
    pub(super) async fn create_named(&self, mut new: Value, managed: &[u8]) -> Result<Arc<Object>, Status> {
        let storage = self.storage();
        self.warn(meta::deduplicate_owners(&mut new).into_iter().collect());
        self.admission.mutate(self, Operation::Create, &mut new, None).await?;
        meta::begin(&self.registry.env, storage, &mut new);
        if storage.has_status() && !storage.strategy.keeps_status_on_create() {
            reset_status(storage, &mut new);
        }
        let ctx = self.context();
        storage.strategy.prepare_create(&ctx, &mut new);
        let mut errors = validate_object_meta(&new, storage.kind.namespaced, storage.strategy.name_format());
        storage.strategy.validate(&ctx, &new, &mut errors);
        self.refuse(&new, errors)?;
        self.warn(storage.strategy.warnings(&ctx, &new, None));
        self.admission.validate(self, Operation::Create, Some(Seen { value: &new, managed }), None).await?;
        meta::refuse_revision(&mut new, self.dry_run)?;
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
        let key = cache_key(self.namespace, &name);
        let unallocated = storage.strategy.allocates().then(|| new.clone());
        for attempt in 0..ALLOCATION_ATTEMPTS {
            if let Some(unallocated) = unallocated.as_ref().filter(|_| attempt > 0) {
                new = unallocated.clone();
            }
            let mut together = self.allocated(&mut new, None).await?;
            let _charge = self.charge(Operation::Create, &new, None, &mut together).await?;
            let object = storage.encode_managed(&new, managed)?;
            match self.commit(&key, 0, Write::Put(&object), together).await {
                Ok(revision) => return Ok(Arc::new(object.at_revision(revision))),
                Err(Refused::Object) => {
                    let mut status = Status::already_exists(&self.resource.group_resource(), &name);
                    if storage.cache.get(&key).is_some_and(|object| object.is_deleting()) {
                        status.message.insert_str(0, "object is being deleted: ");
                    }
                    return Err(status);
                }
                Err(Refused::Together) => {}
                Err(Refused::Failed(status)) => return Err(status),
            }
        }
        Err(Status::conflict(&self.resource.group_resource(), &name, "others allocate too fast"))
    }

    /// What goes together with the write of `new`.
    pub(super) async fn allocated(&self, new: &mut Value, old: Option<&Value>) -> Result<Together, Status> {
        let strategy = &self.storage().strategy;
        if !strategy.allocates() {
            return Ok(Together::default());
        }
        strategy.allocate(&self.context(), new, old).await
    }

    /// What goes together with the removal of `old`.
    pub(super) async fn released(&self, old: &Value) -> Result<Together, Status> {
        let strategy = &self.storage().strategy;
        if !strategy.allocates() {
            return Ok(Together::default());
        }
        strategy.release(&self.context(), old).await
    }

    /// Turns field errors into the answer.
    pub(super) fn refuse(&self, value: &Value, mut errors: Vec<FieldError>) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        let mut seen: Vec<FieldError> = Vec::new();
        errors.retain(|error| {
            let new = !seen.contains(error);
            if new {
                seen.push(error.clone());
            }
            new
        });
        let name = value.str_at(&["metadata", "name"]).filter(|name| !name.is_empty()).unwrap_or(self.name);
        Err(Status::invalid(&self.storage().group_kind(), name, &errors))
    }

    /// Writes or removes the object, if it was last written at `expected` (0: does not exist), with what goes together.
    /// The result is the revision; a dry run has the expected one.
    pub(super) async fn commit(
        &self,
        key: &str,
        expected: u64,
        write: Write<'_>,
        together: Together,
    ) -> Result<u64, Refused> {
        let storage = self.storage();
        if self.dry_run {
            self.registry.fresh().await.map_err(Refused::Failed)?;
            return match (expected, storage.cache.get(key)) {
                (0, Some(_)) => Err(Refused::Object),
                _ => Ok(expected),
            };
        }
        let store_key = storage.store_key(key);
        // The object comes last, so that its revision is the transaction's, also among others of its kind.
        let mut txn = Txn { ops: together.ops, ..Txn::new().expect(store_key.clone(), expected) };
        txn.compares.extend(together.compares);
        match write {
            Write::Put(object) => {
                let action = Action::Put { value: object.body().clone(), ttl: storage.strategy.time_to_live() };
                txn.ops.push(Op { key: store_key.into(), action, tag: Some(Arc::new(object.clone())) });
            }
            Write::Remove => txn = txn.delete(store_key),
        }
        match self.registry.store.commit(txn).await {
            Ok(committed) => Ok(committed.revision),
            Err(store::Error::Conflict(conflict)) if conflict.compare == 0 => Err(Refused::Object),
            Err(store::Error::Conflict(_)) => Err(Refused::Together),
            Err(other) => Err(Refused::Failed(store_failure(other))),
        }
    }
}

/// Takes `status` away, or leaves the empty one that the canonical form has.
pub(super) fn reset_status(storage: &Storage, value: &mut Value) {
    if value.get("status").is_none() {
        return;
    }
    value.remove(&["status"]);
    let schema = storage.schema();
    let field = schema.field("status");
    if let Some(field) = field.filter(|field| field.presence == apimachinery::schema::Presence::Always) {
        value.set(&["status"], schema.of(field).zero());
    }
}
