//! `scale`: the replica count of a workload as an object of its own. Upstream: autoscaling/v1 Scale.

use std::sync::Arc;

use apimachinery::fields::{FieldManager, ManagedFields, Reset, ScaleFields};
use apimachinery::schema::Type;
use apimachinery::{FieldError, GroupKind, Key, Object, Selector, Status, Value};
use bytes::Bytes;

use crate::answer::Answer;
use crate::body;
use crate::registry::{self, Call, Change, NoOther, Resource, WriteOptions, apply_patch, timestamp};
use crate::server::Request;
use crate::server::writes::APPLY;

const GVK: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

impl Request<'_> {
    pub(super) async fn scale(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        let places = Places::of(resource);
        if self.info.verb == "get" {
            let object = self.inner.registry.get(resource, &self.key(resource), &self.info.name, "").await?;
            return Ok(Answer::object(Arc::new(places.scale_of(&object.to_value())?)));
        }
        let patching = self.info.verb == "patch";
        let applying = patching && body::content_type(self.headers) == APPLY;
        let options = match applying {
            true => WriteOptions::parse_apply(&self.query)?,
            false => WriteOptions::parse(&self.query, if patching { "PatchOptions" } else { "UpdateOptions" })?,
        };
        let schema = api::type_of(GVK.0, GVK.1, GVK.2).ok_or_else(Status::path_not_found)?;
        let kind = (patching && !applying).then(|| self.patch_kind()).transpose()?;
        let given = match kind {
            Some(kind) => body::decode_patch(kind, &body)?,
            None if applying => {
                let config = body::decode_config(&body, options.validation)?;
                self.warnings.lock().extend(config.warnings);
                config.value
            }
            None => self.body_of(GVK.0, GVK.1, GVK.2, &body, &options)?,
        };
        let edit = |object: &mut Value, managed: &mut Vec<u8>| {
            let old = places.scale_of(object)?.to_value();
            let scale = Scale { request: self, resource, schema, places: &places };
            let new = match kind {
                None if applying => scale.apply(&old, &given, options.force, managed)?,
                None => scale.update(&old, given.clone(), managed),
                Some(kind) => {
                    let patched = apply_patch(old.clone(), kind, &given, schema)?;
                    let new = schema.canonical(patched).map_err(|error| Status::bad_request(error.to_string()))?.value;
                    scale.update(&old, new, managed)
                }
            };
            self.check_scale(&new, &old)?;
            // What a custom resource's count may be, its schema says.
            if resource.as_custom().is_none() {
                check_replicas(&new, &self.info.name)?;
            }
            // Whoever changes a scale meets the revision of the object it is the scale of.
            if let Some(revision) = new.str_at(&["metadata", "resourceVersion"]).filter(|revision| !revision.is_empty())
                && old.str_at(&["metadata", "resourceVersion"]) != Some(revision)
            {
                return Err(Status::modified(&resource.group_resource(), &self.info.name));
            }
            let path: Vec<&str> = places.replicas.iter().map(|name| &**name).collect();
            object.set(&path, new.i64_at(&["spec", "replicas"]).unwrap_or_default());
            Ok(())
        };
        let call = Call { subresource: "", ..self.call(resource, &self.info.name, options.dry_run) };
        let (object, _) = call.update(&Change::Manage(&edit)).await?;
        Ok(Answer::object(Arc::new(places.scale_of(&object.to_value())?)))
    }

    fn check_scale(&self, new: &Value, old: &Value) -> Result<(), Status> {
        let text = |of: &Value, key: &str| of.str_at(&["metadata", key]).unwrap_or_default().to_owned();
        registry::check_name(new, &self.info.name)?;
        let (uid, old_uid) = (text(new, "uid"), text(old, "uid"));
        if !uid.is_empty() && uid != old_uid {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
            let resource = apimachinery::GroupResource::new(&*self.info.group, &*self.info.resource);
            return Err(Status::conflict(&resource, &self.info.name, &why));
        }
        Ok(())
    }
}

fn check_replicas(scale: &Value, name: &str) -> Result<(), Status> {
    let replicas = scale.i64_at(&["spec", "replicas"]).unwrap_or_default();
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        let kind = GroupKind { group: "autoscaling".into(), kind: "Scale".into() };
        return Err(Status::invalid(&kind, name, &[error]));
    }
    Ok(())
}

/// A write of a scale, and the managers of the object's replica count.
struct Scale<'a> {
    request: &'a Request<'a>,
    resource: &'a Resource,
    schema: Type<'static>,
    places: &'a Places,
}

impl Scale<'_> {
    fn managing<T>(&self, with: impl FnOnce(&FieldManager<'_>) -> T) -> T {
        let now = timestamp(self.request.inner.env.now());
        with(&FieldManager {
            name: self.request.field_manager(),
            subresource: "scale",
            version: "autoscaling/v1",
            ty: self.schema,
            now: &now,
            reset: &Reset::Nothing,
            versions: &NoOther,
        })
    }

    fn fields(&self) -> ScaleFields<'_> {
        ScaleFields { version: self.resource.api_version(), versions: &[], path: &self.places.replicas }
    }

    /// `new`, whose change of `old` is the manager's from now on.
    fn update(&self, old: &Value, mut new: Value, managed: &mut Vec<u8>) -> Value {
        new.remove(&["metadata", "managedFields"]);
        let before = ManagedFields::stored(managed);
        let scale = self.fields().of_object(&before);
        let after = self.managing(|manager| {
            let comparison = manager.compare(old, &new)?;
            manager.update((old, &new), comparison, scale.clone(), false)
        });
        *managed = self.fields().to_object(before, after.unwrap_or_default()).to_json();
        new
    }

    /// What the configuration makes of `old`.
    fn apply(&self, old: &Value, config: &Value, force: bool, managed: &mut Vec<u8>) -> Result<Value, Status> {
        let before = ManagedFields::stored(managed);
        let scale = self.fields().of_object(&before);
        let mut empty = self.schema.zero();
        empty.set(&["apiVersion"], "autoscaling/v1");
        empty.set(&["kind"], "Scale");
        registry::check_config(config, "autoscaling/v1", "Scale")?;
        let applied = self.managing(|manager| manager.apply(old, &empty, config, scale, force));
        let applied = applied.map_err(|error| registry::refused_config(error, config, old))?;
        *managed = self.fields().to_object(before, applied.managed).to_json();
        let value = applied.value.unwrap_or_else(|| old.clone());
        Ok(self.schema.canonical(value).map_err(|error| Status::bad_request(error.to_string()))?.value)
    }
}

/// Where a kind keeps what its scale says.
struct Places {
    replicas: Vec<Key>,
    /// Of a custom resource: where the count is told, and the selector.
    custom: Option<(Vec<String>, Option<Vec<String>>)>,
}

impl Places {
    fn of(resource: &Resource) -> Places {
        match resource.as_custom().and_then(|custom| custom.version.scale.as_ref()) {
            None => Places { replicas: vec!["spec".into(), "replicas".into()], custom: None },
            Some(scale) => Places {
                replicas: scale.spec_replicas.iter().map(|name| Key::Owned(name.clone())).collect(),
                custom: Some((scale.status_replicas.clone(), scale.selector.clone())),
            },
        }
    }

    fn scale_of(&self, object: &Value) -> Result<Object, Status> {
        let Some((told, selector)) = &self.custom else { return scale_of(object) };
        let at = |path: &[String]| path.iter().try_fold(object, |value, name| value.get(name));
        let wanted = self.replicas.iter().try_fold(object, |value, name| value.get(name));
        let Some(wanted) = wanted.and_then(Value::as_i64) else {
            let path: String = self.replicas.iter().map(|name| format!(".{name}")).collect();
            let name = object.str_at(&["metadata", "name"]).unwrap_or_default();
            let why = format!("the spec replicas field {path:?} does not exist");
            tracing::debug!(name, why, "no scale");
            return Err(Status::internal(why));
        };
        let mut scale = scale_meta(object);
        scale.set(&["spec", "replicas"], wanted);
        if wanted == 0 {
            scale.set(&["spec"], Value::object());
        }
        scale.set(&["status", "replicas"], at(told).and_then(Value::as_i64).unwrap_or_default());
        if let Some(text) = selector.as_ref().and_then(|path| at(path)?.as_str()).filter(|text| !text.is_empty()) {
            scale.set(&["status", "selector"], text);
        }
        Object::from_answer(&scale).map_err(Status::internal)
    }
}

/// A scale that says nothing yet.
fn scale_meta(object: &Value) -> Value {
    let mut scale = Value::object();
    scale.set(&["apiVersion"], "autoscaling/v1");
    scale.set(&["kind"], "Scale");
    for key in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion"] {
        if let Some(value) = object.at(&["metadata", key]) {
            scale.set(&["metadata", key], value);
        }
    }
    scale
}

/// The scale of a workload, at the workload's revision.
fn scale_of(object: &Value) -> Result<Object, Status> {
    let mut scale = scale_meta(object);
    scale.set(&["spec"], Value::object());
    if let Some(replicas) = object.i64_at(&["spec", "replicas"]).filter(|replicas| *replicas != 0) {
        scale.set(&["spec", "replicas"], replicas);
    }
    scale.set(&["status", "replicas"], object.i64_at(&["status", "replicas"]).unwrap_or_default());
    let selector = match object.at(&["spec", "selector"]) {
        None => None,
        Some(selector) if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() => {
            Some(Selector::from_label_selector(Some(selector)).map_err(Status::internal)?)
        }
        Some(plain) => {
            let labels = plain.as_object().into_iter().flat_map(|map| map.iter());
            Some(Selector::from_labels(labels.filter_map(|(key, value)| Some((key, value.as_str()?)))))
        }
    };
    if let Some(selector) = selector.filter(|selector| !selector.is_everything()) {
        scale.set(&["status", "selector"], selector.to_string());
    }
    Object::from_answer(&scale).map_err(Status::internal)
}
