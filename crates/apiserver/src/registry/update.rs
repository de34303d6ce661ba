//! Updates, whole or by patch, of objects and their subresources.

use std::sync::Arc;

use apimachinery::patch::{JsonPatch, merge_patch, strategic_merge_patch};
use apimachinery::validation::validate_object_meta_update;
use apimachinery::{FieldError, GroupKind, Object, Reason, Status, Value};

use super::manage::Managed;
use super::write::{Refused, Seen, Write};
use super::{Call, FieldValidation, Operation, cache_key, meta};
use crate::strategy::keep;

/// How often an update that names no revision is tried again when others are faster.
const ATTEMPTS: usize = 64;

/// What an update does to the object.
pub(crate) enum Change<'a> {
    /// A whole object in the storage version, decoded and defaulted.
    Replace(Value),
    Patch {
        kind: PatchKind,
        patch: Value,
        validation: FieldValidation,
    },
    /// What a manager wants of the object. Upstream: server-side apply.
    Apply {
        config: Value,
        force: bool,
    },
    /// The server's own edit of a value in the storage version.
    Edit(Edit<'a>),
    /// An edit that knows who manages what.
    Manage(Manage<'a>),
}

/// An edit that may refuse.
pub(crate) type Edit<'a> = &'a (dyn Fn(&mut Value) -> Result<(), Status> + Send + Sync);

/// An edit of a value, which is without `metadata.managedFields`, and of these as JSON.
pub(crate) type Manage<'a> = &'a (dyn Fn(&mut Value, &mut Vec<u8>) -> Result<(), Status> + Send + Sync);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
}

/// What became of one attempt.
enum Attempt {
    Done(Arc<Object>),
    /// Somebody else wrote in between.
    Again,
}

impl Call<'_> {
    /// Changes the object; `true` says that it was created.
    pub(crate) async fn update(&self, change: &Change<'_>) -> Result<(Arc<Object>, bool), Status> {
        let key = cache_key(self.namespace, self.name);
        for _ in 0..ATTEMPTS {
            let Some(current) = self.registry.current(self.resource, &key).await? else {
                match Box::pin(self.create_missing(change)).await {
                    Err(status) if status.is_already_exists() && matches!(change, Change::Apply { .. }) => continue,
                    result => return result,
                }
            };
            match self.attempt(change, &key, &current).await? {
                Attempt::Done(object) => return Ok((object, false)),
                Attempt::Again => {}
            }
        }
        Err(Status::modified(&self.resource.group_resource(), self.name))
    }

    async fn create_missing(&self, change: &Change<'_>) -> Result<(Arc<Object>, bool), Status> {
        let not_found = || Status::not_found(&self.resource.group_resource(), self.name);
        if let Change::Apply { config, force } = change
            && self.subresource.is_empty()
        {
            return Ok((self.create_applied(config, *force).await?, true));
        }
        let Change::Replace(value) = change else { return Err(not_found()) };
        let creates = self.subresource.is_empty() && self.storage().strategy.allow_create_on_update();
        let text = |key: &str| value.str_at(&["metadata", key]).unwrap_or_default();
        if !creates || !text("uid").is_empty() || !matches!(text("resourceVersion"), "" | "0") {
            return Err(not_found());
        }
        let mut value = value.clone();
        value.set(&["metadata", "name"], self.name);
        value.remove(&["metadata", "resourceVersion"]);
        Ok((self.create(value).await?, true))
    }

    /// Creates what was applied and isn't there.
    async fn create_applied(&self, config: &Value, force: bool) -> Result<Arc<Object>, Status> {
        let (mut value, managed) = self.applied(None, config, force)?;
        if let Some(uid) = value.str_at(&["metadata", "uid"]).filter(|uid| !uid.is_empty()) {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(&self.resource.group_resource(), self.name, &why));
        }
        self.check_namespace(&mut value)?;
        check_name(&value, self.name)?;
        self.admission.authorize_creation(self)?;
        value.remove(&["metadata", "resourceVersion"]);
        self.create_named(value, &managed.json).await
    }

    /// The namespace of what was applied is the request's; one that says none is in it.
    fn check_namespace(&self, value: &mut Value) -> Result<(), Status> {
        match value.str_at(&["metadata", "namespace"]).unwrap_or_default() {
            own if own == self.namespace => Ok(()),
            "" => {
                value.set(&["metadata", "namespace"], self.namespace);
                Ok(())
            }
            _ => Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
        }
    }

    async fn attempt(&self, change: &Change<'_>, key: &str, current: &Arc<Object>) -> Result<Attempt, Status> {
        let storage = self.storage();
        let old = current.to_unmanaged_value();
        let (mut new, managed) = self.changed(change, &old, current)?;
        let fixed = self.check_revision(change, &new, &old)?;
        meta::carry_over(&mut new, &old);
        if let Change::Replace(_) = change
            && self.subresource.is_empty()
            && new.str_at(&["metadata", "name"]).unwrap_or_default().is_empty()
        {
            new.set(&["metadata", "name"], self.name);
        }
        self.warn(meta::deduplicate_owners(&mut new).into_iter().collect());
        self.admission.mutate(self, Operation::Update, &mut new, Some(&old)).await?;
        let ctx = self.context();
        if self.subresource.is_empty() {
            if storage.has_status() {
                keep(&mut new, &old, &["status"]);
            }
            storage.strategy.prepare_update(&ctx, &mut new, &old);
        } else if !matches!(change, Change::Edit(_) | Change::Manage(_)) {
            storage.strategy.prepare_subresource(&ctx, &mut new, &old);
        }
        meta::count_generation(storage, &mut new, &old);
        let mut errors = validate_object_meta_update(&new, &old);
        storage.strategy.validate_update(&ctx, &new, &old, &mut errors);
        self.refuse(&new, errors)?;
        self.warn(storage.strategy.warnings(&ctx, &new, Some(&old)));
        let judged = Seen { value: &new, managed: &managed.json };
        let before = Seen { value: &old, managed: current.managed_fields() };
        self.admission.validate(self, Operation::Update, Some(judged), Some(before)).await?;
        let mut together = self.allocated(&mut new, Some(&old)).await?;
        let _charge = self.charge(Operation::Update, &new, Some(&old), &mut together).await?;
        let object = self.encoded(&new, &managed, current)?;
        let committed = if self.is_last_update(&new, &old) {
            let mut released = self.released(&new).await?;
            released.compares.extend(together.compares);
            released.ops.extend(together.ops);
            self.commit(key, current.revision(), Write::Remove, released).await
        } else if object.body() == current.body() && together.ops.is_empty() {
            return Ok(Attempt::Done(current.clone()));
        } else {
            self.commit(key, current.revision(), Write::Put(&object), together).await
        };
        match committed {
            Ok(revision) => Ok(Attempt::Done(Arc::new(object.at_revision(revision)))),
            Err(Refused::Object) if fixed => Err(Status::modified(&self.resource.group_resource(), self.name)),
            Err(Refused::Object | Refused::Together) => Ok(Attempt::Again),
            Err(Refused::Failed(status)) => Err(status),
        }
    }

    /// The object as it is stored. A write that changed nothing but the times of its managers changed nothing.
    fn encoded(&self, new: &Value, managed: &Managed, current: &Object) -> Result<Object, Status> {
        let storage = self.storage();
        if managed.only_times {
            let object = storage.encode_managed(new, current.managed_fields())?;
            if object.body() == current.body() {
                return Ok(object);
            }
        }
        storage.encode_managed(new, &managed.json)
    }

    /// The new value before anything is put back or completed, and its managers.
    fn changed(&self, change: &Change<'_>, old: &Value, current: &Object) -> Result<(Value, Managed), Status> {
        let mut new = match change {
            Change::Replace(value) => value.clone(),
            Change::Edit(edit) => {
                let mut value = old.clone();
                edit(&mut value)?;
                return Ok((value, Managed { json: current.managed_fields().to_vec(), only_times: false }));
            }
            Change::Manage(edit) => {
                let (mut value, mut json) = (old.clone(), current.managed_fields().to_vec());
                edit(&mut value, &mut json)?;
                return Ok((value, Managed { json, only_times: false }));
            }
            Change::Apply { config, force } => {
                let (mut value, managed) = self.applied(Some((old, current)), config, *force)?;
                self.check_namespace(&mut value)?;
                check_name(&value, self.name)?;
                return Ok((value, managed));
            }
            Change::Patch { kind, patch, validation } => {
                let patched = |managers: bool| {
                    let mut shown = if managers { current.to_value() } else { old.clone() };
                    self.resource.to_served(&mut shown);
                    apply_patch(shown, *kind, patch, self.resource.schema())
                };
                let managers = touches_managers(*kind, patch);
                let shown = || patched(true).map(|value| value.to_string());
                self.decode_patched(patched(managers)?, *validation, &shown)?
            }
        };
        let managed = self.managed_by_update(old, &mut new, current);
        Ok((new, managed))
    }

    /// `shown` is the patched object as JSON once more, for messages.
    fn decode_patched(
        &self,
        patched: Value,
        validation: FieldValidation,
        shown: &dyn Fn() -> Result<String, Status>,
    ) -> Result<Value, Status> {
        let resource = self.resource;
        let refused = |why: String| {
            let error = FieldError::invalid("patch", shown().unwrap_or_default(), why);
            Status::invalid(&GroupKind::default(), "", &[error])
        };
        if let Some(why) = other_kind(resource, &patched) {
            return Err(refused(why));
        }
        // An empty list means something here, and is not in the canonical form.
        let forgets = patched.at(&["metadata", "managedFields"]).and_then(Value::as_array).is_some_and(Vec::is_empty);
        let decoded = resource.canonical(patched).map_err(|error| refused(error.to_string()))?;
        if !decoded.problems.is_empty() {
            match validation {
                FieldValidation::Ignore => {}
                FieldValidation::Warn => self.warn(decoded.problems.iter().map(ToString::to_string).collect()),
                FieldValidation::Strict => {
                    let list: Vec<String> = decoded.problems.iter().map(ToString::to_string).collect();
                    return Err(refused(format!("strict decoding error: {}", list.join(", "))));
                }
            }
        }
        let mut value = decoded.value;
        check_name(&value, self.name)?;
        resource.to_storage(&mut value);
        resource.storage.default(&mut value);
        if forgets {
            value.set(&["metadata", "managedFields"], Vec::<Value>::new());
        }
        Ok(value)
    }

    /// Compares uid and resourceVersion with what the client believes; true when the client insists on the revision.
    fn check_revision(&self, change: &Change<'_>, new: &Value, old: &Value) -> Result<bool, Status> {
        fn text<'v>(of: &'v Value, key: &str) -> &'v str {
            of.str_at(&["metadata", key]).unwrap_or_default()
        }
        let (uid, old_uid) = (text(new, "uid"), text(old, "uid"));
        if matches!(change, Change::Replace(_)) && !uid.is_empty() && uid != old_uid {
            let key = cache_key(self.namespace, self.name);
            return Err(precondition_failed(self.resource, &key, self.name, ("UID", uid, old_uid)));
        }
        let (revision, old_revision) = (text(new, "resourceVersion"), text(old, "resourceVersion"));
        if !matches!(change, Change::Replace(_)) && revision == old_revision {
            return Ok(false);
        }
        if matches!(revision, "" | "0") {
            if self.storage().strategy.allow_unconditional_update() || !matches!(change, Change::Replace(_)) {
                return Ok(false);
            }
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            if self.resource.as_custom().is_some() {
                let kind = apimachinery::GroupKind {
                    group: self.resource.kind.group.to_owned(),
                    kind: self.resource.kind.resource.to_owned(),
                };
                return Err(Status::invalid(&kind, self.name, &[error]));
            }
            let mut status = Status::invalid(&self.storage().group_kind(), self.name, &[error]);
            status.message = status.message.replacen("Invalid value: 0:", "Invalid value: 0x0:", 1);
            return Err(status);
        }
        if revision.parse::<u64>().is_err() {
            let why = format!("strconv.ParseUint: parsing {revision:?}: invalid syntax");
            return Err(Status::new(500, Reason::Unknown, why));
        }
        if revision != old_revision {
            return Err(Status::modified(&self.resource.group_resource(), self.name));
        }
        Ok(true)
    }

    /// Whether the update takes away the last thing that held a deletion up.
    fn is_last_update(&self, new: &Value, old: &Value) -> bool {
        let finalizers = |value: &Value| !value.items_at(&["metadata", "finalizers"]).is_empty();
        let strategy = &self.storage().strategy;
        new.at(&["metadata", "deletionTimestamp"]).is_some()
            && !finalizers(new)
            && !strategy.is_held(new)
            && (finalizers(old) || strategy.is_held(old))
            && old.i64_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default() == 0
    }
}

/// Applies a patch to a value in the version it was made for.
pub(crate) fn apply_patch(
    value: Value,
    kind: PatchKind,
    patch: &Value,
    schema: apimachinery::schema::Type<'_>,
) -> Result<Value, Status> {
    Ok(match kind {
        PatchKind::Json => JsonPatch::decode(patch.clone())?.apply(value)?,
        PatchKind::Merge => {
            let mut value = value;
            merge_patch(&mut value, patch.clone())?;
            value
        }
        PatchKind::Strategic => strategic_merge_patch(value, patch.clone(), schema)?,
    })
}

/// Whether a patch reads or writes `metadata.managedFields`.
fn touches_managers(kind: PatchKind, patch: &Value) -> bool {
    let within = |path: &str| path.is_empty() || path == "/metadata" || path.starts_with("/metadata/managedFields");
    match kind {
        PatchKind::Json => patch
            .as_array()
            .into_iter()
            .flatten()
            .any(|operation| ["path", "from"].iter().any(|key| operation.str_at(&[key]).is_some_and(within))),
        PatchKind::Merge | PatchKind::Strategic => {
            patch.at(&["metadata", "managedFields"]).is_some() || patch.str_at(&["$patch"]).is_some()
        }
    }
}

/// A patch may not turn an object into another kind of object.
fn other_kind(resource: &super::Resource, patched: &Value) -> Option<String> {
    let (version, kind) =
        (patched.str_at(&["apiVersion"]).unwrap_or_default(), patched.str_at(&["kind"]).unwrap_or_default());
    let expected = format!("{}, Kind={}", resource.api_version(), resource.kind.kind);
    let differs = version != resource.api_version() || kind != resource.kind.kind;
    differs.then(|| format!("the patched object is {version}, Kind={kind} and not the expected {expected}"))
}

/// The object in a write is the one of its path.
pub(crate) fn check_name(value: &Value, name: &str) -> Result<(), Status> {
    match value.str_at(&["metadata", "name"]).unwrap_or_default() {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        own if own != name => Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        ))),
        _ => Ok(()),
    }
}

/// The uid and the revision that `asked` names in its metadata, if any, are those of the object. Upstream: Preconditions.Check.
pub(crate) fn check_preconditions(
    resource: &super::Resource,
    key: &str,
    name: &str,
    asked: &Value,
    object: &Value,
) -> Result<(), Status> {
    fn text<'v>(of: &'v Value, member: &str) -> &'v str {
        of.str_at(&["metadata", member]).unwrap_or_default()
    }
    for (shown, member) in [("UID", "uid"), ("ResourceVersion", "resourceVersion")] {
        let (wanted, own) = (text(asked, member), text(object, member));
        if !wanted.is_empty() && wanted != own {
            return Err(precondition_failed(resource, key, name, (shown, wanted, own)));
        }
    }
    Ok(())
}

/// The conflict of a write that means the object as it is not.
fn precondition_failed(
    resource: &super::Resource,
    key: &str,
    name: &str,
    (member, wanted, own): (&str, &str, &str),
) -> Status {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {member} in \
         precondition: {wanted}, {member} in object meta: {own}",
        resource.storage.store_key(key)
    );
    Status::conflict(&resource.group_resource(), name, &why)
}
