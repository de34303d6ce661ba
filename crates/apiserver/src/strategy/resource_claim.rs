//! ResourceClaim and ResourceClaimTemplate. Upstream: pkg/registry/resource/resourceclaim, resourceclaimtemplate,
//! pkg/apis/resource/validation. Fields of features that are off by default are dropped.

mod status;

use apimachinery::{FieldError, ObjectKey, Value};

use super::device::{NOT_OBJECT, TAINT_EFFECTS, configuration, fully_qualified_name, selectors};
use super::field::{Errors, Path, Report, fill, flag, immutable, int, items, items_mut, member, text};
use super::{Context, Strategy, keep_all_but_status};

const GROUP: &str = "resource.k8s.io";
const MAX_REQUESTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MAX_CONFIGURATIONS: usize = 32;
const MAX_TOLERATIONS: usize = 16;
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";

/// `taints`: whether devices have taints; what tolerates them is dropped otherwise.
pub(super) struct ResourceClaim {
    pub(super) taints: bool,
}

pub(super) struct ResourceClaimTemplate {
    pub(super) taints: bool,
}

impl Strategy for ResourceClaim {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "resourceclaims")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        if let Some(spec) = value.get_mut("spec") {
            default_spec(spec);
        }
        status::default(value);
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        if let Some(spec) = new.get_mut("spec") {
            drop_disabled(spec, self.taints);
        }
        new.set(&["status"], Value::object());
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        if let Some(spec) = new.get_mut("spec") {
            drop_disabled(spec, self.taints);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
        status::prepare(new, old);
    }

    fn validate(&self, ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let spec = new.get("spec").unwrap_or(&Value::Null);
        may_administer(ctx, spec, errors);
        validate_spec(spec, &Path::new("spec"), errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return status::validate(ctx, new, old, errors);
        }
        immutable(errors, &Path::new("spec"), new.get("spec"), old.get("spec"));
    }
}

impl Strategy for ResourceClaimTemplate {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "resourceclaimtemplates")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        if let Some(spec) = value.at_mut(&["spec", "spec"]) {
            default_spec(spec);
        }
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        if let Some(spec) = new.at_mut(&["spec", "spec"]) {
            drop_disabled(spec, self.taints);
        }
    }

    fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        self.prepare_create(ctx, new);
    }

    fn validate(&self, ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let spec = new.at(&["spec", "spec"]).unwrap_or(&Value::Null);
        may_administer(ctx, spec, errors);
        validate_template(new, errors);
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        validate_template(new, errors);
        immutable(errors, &Path::new("spec"), new.get("spec"), old.get("spec"));
    }
}

/// Metadata that templates of claims don't have, and what upstream calls it.
const OTHER_METADATA: [(&str, &str); 13] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        value => value.as_str() == Some("") || value.as_i64() == Some(0),
    }
}

fn validate_template(template: &Value, errors: &mut Errors) {
    use apimachinery::validation::{validate_annotations, validate_labels};
    let metadata = |key| template.at(&["spec", "metadata", key]);
    errors.extend(validate_annotations(metadata("annotations"), "spec.metadata.annotations"));
    errors.extend(validate_labels(metadata("labels"), "spec.metadata.labels"));
    let path = Path::new("spec");
    let path = path.child("metadata");
    for (field, shown) in OTHER_METADATA {
        if metadata(field).is_some_and(|value| !is_empty(value)) {
            errors.forbidden(&path.child(shown), "cannot be set");
        }
    }
    let spec = template.at(&["spec", "spec"]).unwrap_or(&Value::Null);
    validate_spec(spec, &Path::new("spec").child("spec"), errors);
}

/// Each request that asks for devices, `exactly` or as one of several alternatives.
fn asked(spec: &mut Value) -> Vec<&mut Value> {
    let mut asked = Vec::new();
    let Some(devices) = spec.get_mut("devices") else { return asked };
    for request in items_mut(devices, "requests") {
        let Some(request) = request.as_object_mut() else { continue };
        for (key, value) in request.iter_mut() {
            match key {
                "exactly" if !value.is_null() => asked.push(value),
                "firstAvailable" => asked.extend(value.as_array_mut().into_iter().flatten()),
                _ => {}
            }
        }
    }
    asked
}

/// Upstream: SetDefaults_ExactDeviceRequest, SetDefaults_DeviceSubRequest.
fn default_spec(spec: &mut Value) {
    for request in asked(spec) {
        fill(request, "allocationMode", "ExactCount");
        if text(request, "allocationMode") == "ExactCount" {
            fill(request, "count", 1i64);
        }
        default_tolerations(request);
    }
}

fn default_tolerations(value: &mut Value) {
    items_mut(value, "tolerations").for_each(|toleration| fill(toleration, "operator", "Equal"));
}

/// Upstream: resourceclaimspec DropDisabledFields.
fn drop_disabled(spec: &mut Value, taints: bool) {
    for request in asked(spec) {
        if !taints {
            request.remove(&["tolerations"]);
        }
        request.remove(&["capacity"]);
    }
    if let Some(devices) = spec.get_mut("devices") {
        items_mut(devices, "constraints").for_each(|constraint| drop(constraint.remove(&["distinctAttribute"])));
    }
}

/// Administrators' access is for namespaces that are marked. Upstream: AuthorizedForAdmin.
fn may_administer(ctx: &Context<'_>, spec: &Value, errors: &mut Errors) {
    let requests = spec.items_at(&["devices", "requests"]);
    let administers = |request: &Value| request.get("exactly").is_some_and(|exactly| flag(exactly, "adminAccess"));
    if let Some(i) = requests.iter().position(administers) {
        let (spec, devices) = (Path::new("spec"), "devices");
        let devices = spec.child(devices);
        let requests = devices.child("requests");
        check_administered(ctx, &requests.index(i).child("adminAccess"), errors);
    }
}

fn check_administered(ctx: &Context<'_>, path: &Path<'_>, errors: &mut Errors) {
    let namespace = ctx.objects.get("", "namespaces", &ObjectKey::cluster(ctx.namespace));
    if namespace.is_none_or(|namespace| namespace.label(ADMIN_LABEL) != Some("true")) {
        let why =
            format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace");
        errors.forbidden(path, why);
    }
}

/// The requests of a claim by name, each with the names of its alternatives.
struct Names<'v>(Vec<(&'v str, Vec<&'v str>)>);

impl<'v> Names<'v> {
    fn of(spec: &'v Value) -> Names<'v> {
        let of = |request: &'v Value| {
            let options = items(request, "firstAvailable").iter().map(|option| text(option, "name")).collect();
            (text(request, "name"), options)
        };
        Names(spec.items_at(&["devices", "requests"]).iter().map(of).collect())
    }

    fn has(&self, name: &str) -> bool {
        let (request, option) = name.split_once('/').map_or((name, None), |(request, option)| (request, Some(option)));
        // Upstream's later request of the same name is the one that counts.
        let found = self.0.iter().rfind(|(known, _)| *known == request);
        found.is_some_and(|(_, options)| option.is_none_or(|option| options.contains(&option)))
    }

    /// Upstream: validateRequestNameRef.
    fn check(&self, name: &str, path: &Path<'_>, errors: &mut Errors) {
        const UNKNOWN: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 {
            return errors.invalid(path, name, UNKNOWN);
        }
        parts.iter().for_each(|part| errors.label(path, part));
        if !self.has(name) {
            errors.invalid(path, name, UNKNOWN);
        }
    }

    /// The names in a list, each once.
    fn check_all(&self, value: &Value, path: &Path<'_>, errors: &mut Errors) {
        let path = path.child("requests");
        let names = items(value, "requests");
        let each = |name: &Value, path: &Path<'_>, errors: &mut Errors| {
            self.check(name.as_str().unwrap_or_default(), path, errors);
        };
        if set(names, MAX_REQUESTS, &path, errors, &each) {
            duplicates(names, &path, errors, |name| name.clone());
        }
    }
}

/// The list's items, unless there are too many. Upstream: validateSlice.
fn set(
    list: &[Value],
    max: usize,
    path: &Path<'_>,
    errors: &mut Errors,
    check: &dyn Fn(&Value, &Path<'_>, &mut Errors),
) -> bool {
    if list.len() > max {
        errors.add(FieldError::too_many(path.to_string(), list.len(), max));
        return false;
    }
    for (i, item) in list.iter().enumerate() {
        check(item, &path.index(i), errors);
    }
    true
}

fn duplicates(list: &[Value], path: &Path<'_>, errors: &mut Errors, key: impl Fn(&Value) -> Value) {
    for (i, item) in list.iter().enumerate() {
        let item = key(item);
        if list[..i].iter().any(|earlier| key(earlier) == item) {
            errors.duplicate(&path.index(i), item);
        }
    }
}

/// Upstream: validateDeviceClaim.
fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("devices");
    let Some(devices) = member(spec, "devices") else { return };
    let names = Names::of(spec);
    let requests = path.child("requests");
    let list = items(devices, "requests");
    if set(list, MAX_REQUESTS, &requests, errors, &request) {
        duplicates(list, &requests, errors, |request| text(request, "name").into());
    }
    let constraint = |constraint: &Value, path: &Path<'_>, errors: &mut Errors| {
        names.check_all(constraint, path, errors);
        match member(constraint, "matchAttribute").and_then(Value::as_str) {
            Some(name) => fully_qualified_name(name, &path.child("matchAttribute"), errors),
            None => errors.required(&path.child("matchAttribute"), ""),
        }
    };
    set(items(devices, "constraints"), MAX_CONSTRAINTS, &path.child("constraints"), errors, &constraint);
    let config = |config: &Value, path: &Path<'_>, errors: &mut Errors| {
        names.check_all(config, path, errors);
        configuration(config, path, errors);
    };
    set(items(devices, "config"), MAX_CONFIGURATIONS, &path.child("config"), errors, &config);
}

/// Upstream: validateDeviceRequest.
fn request(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.label(&path.child("name"), text(request, "name"));
    let options = items(request, "firstAvailable");
    match (member(request, "exactly"), options) {
        (None, []) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(exactly), []) => exact(exactly, &path.child("exactly"), errors),
        (Some(_), _) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, Value::Null, why);
        }
        (None, options) => {
            let path = path.child("firstAvailable");
            let each = |option: &Value, path: &Path<'_>, errors: &mut Errors| {
                errors.label(&path.child("name"), text(option, "name"));
                exact(option, path, errors);
            };
            if set(options, MAX_ALTERNATIVES, &path, errors, &each) {
                duplicates(options, &path, errors, |option| text(option, "name").into());
            }
        }
    }
}

fn exact(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    let class = path.child("deviceClassName");
    match text(request, "deviceClassName") {
        "" => errors.required(&class, ""),
        name => errors.subdomain(&class, name),
    }
    selectors(request, path, errors);
    let (mode, count) = (text(request, "allocationMode"), int(request, "count"));
    match mode {
        "All" if count != 0 => {
            let why = format!("must not be specified when allocationMode is '{mode}'");
            errors.invalid(&path.child("count"), count, why);
        }
        "All" => {}
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), count, "must be greater than zero"),
        "ExactCount" => {}
        _ => errors.not_supported(&path.child("allocationMode"), mode, &["All", "ExactCount"]),
    }
    set(items(request, "tolerations"), MAX_TOLERATIONS, &path.child("tolerations"), errors, &toleration);
}

/// Upstream: validateDeviceToleration.
fn toleration(toleration: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (key, value, operator) = (text(toleration, "key"), text(toleration, "value"), text(toleration, "operator"));
    if !key.is_empty() {
        errors.qualified(&path.child("key"), key);
    }
    match operator {
        "Exists" if value.is_empty() => {}
        "Exists" => errors.invalid(&path.child("value"), value, "must be empty for operator `Exists`"),
        "Equal" => errors.label_text(&path.child("value"), value),
        _ => errors.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
    }
    let effect = text(toleration, "effect");
    if !effect.is_empty() {
        errors.one_of(&path.child("effect"), effect, &TAINT_EFFECTS);
    }
}

/// Data that a driver understands. Upstream: validateRawExtension.
fn raw(data: Option<&Value>, max: usize, path: &Path<'_>, errors: &mut Errors) {
    match data {
        None | Some(Value::Null) => errors.required(path, ""),
        Some(data) if data.to_json().len() > max => errors.add(FieldError::too_long(path.to_string(), max)),
        Some(data) if data.as_object().is_none() => errors.invalid(path, "<value omitted>", NOT_OBJECT),
        Some(_) => {}
    }
}
