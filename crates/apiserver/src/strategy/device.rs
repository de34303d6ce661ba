//! DeviceClass and ResourceSlice. Upstream: pkg/registry/resource/deviceclass, resourceslice, pkg/apis/resource/validation.
//! Fields of features that are off by default are dropped.

use apimachinery::validation::{c_identifier, dns1123_subdomain};
use apimachinery::{FieldError, Value};
use rules::devices::Expression;

use super::field::{Errors, Path, Report, entries, fill, immutable, int, items, items_mut, member, text};
use super::persistent_volume::driver_name;
use super::pod::scheduling::node_selector;
use super::{Context, Strategy};

const GROUP: &str = "resource.k8s.io";
const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION: usize = 10 << 10;
const MAX_CONFIGURATIONS: usize = 32;
const MAX_PARAMETERS: usize = 10 << 10;
const MAX_DEVICES: usize = 128;
const MAX_TAINTED_DEVICES: usize = 64;
const MAX_TAINTS: usize = 16;
pub(super) const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const MAX_ATTRIBUTES: usize = 32;
const MAX_IDENTIFIER: usize = 32;
const MAX_VALUE: usize = 64;
const MAX_POOL_NAME: usize = 253;
pub(super) const NOT_OBJECT: &str = "must be a valid JSON object";

pub(super) struct DeviceClass;

pub(super) struct ResourceSlice {
    /// Whether devices may have taints; they are dropped otherwise.
    pub(super) taints: bool,
}

impl Strategy for DeviceClass {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "deviceclasses")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        new.remove(&["spec", "extendedResourceName"]);
    }

    fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        self.prepare_create(ctx, new);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let Some(spec) = new.get("spec") else { return };
        let path = Path::new("spec");
        selectors(spec, &path, errors);
        let path = path.child("config");
        let list = items(spec, "config");
        if list.len() > MAX_CONFIGURATIONS {
            return errors.add(FieldError::too_many(path.to_string(), list.len(), MAX_CONFIGURATIONS));
        }
        for (i, config) in list.iter().enumerate() {
            configuration(config, &path.index(i), errors);
        }
    }
}

impl Strategy for ResourceSlice {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "resourceslices")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn prepare_create(&self, ctx: &Context<'_>, new: &mut Value) {
        self.prepare(ctx, new, self.taints);
    }

    fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        let tainted = |device: &Value| !items(device, "taints").is_empty();
        self.prepare(ctx, new, self.taints || old.items_at(&["spec", "devices"]).iter().any(tainted));
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        validate_slice(new, None, errors);
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        validate_slice(new, Some(old), errors);
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = new.str_at(&["spec", "driver"]).unwrap_or_default();
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!("spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters")]
    }
}

impl ResourceSlice {
    /// Upstream: dropDisabledFields, SetDefaults_DeviceTaint.
    fn prepare(&self, ctx: &Context<'_>, new: &mut Value, taints: bool) {
        let Some(spec) = new.get_mut("spec") else { return };
        spec.remove(&["sharedCounters"]);
        spec.remove(&["perDeviceNodeSelection"]);
        for device in items_mut(spec, "devices") {
            for field in DISABLED {
                device.remove(&[field]);
            }
            if !taints {
                device.remove(&["taints"]);
            }
            for taint in items_mut(device, "taints") {
                fill(taint, "timeAdded", crate::registry::timestamp(ctx.env.now()));
            }
            let capacities = device.get_mut("capacity").and_then(Value::as_object_mut);
            for (_, capacity) in capacities.into_iter().flat_map(|map| map.iter_mut()) {
                capacity.remove(&["requestPolicy"]);
            }
        }
    }
}

const DISABLED: [&str; 8] = [
    "consumesCounters",
    "nodeName",
    "nodeSelector",
    "allNodes",
    "bindingConditions",
    "bindingFailureConditions",
    "bindsToNode",
    "allowMultipleAllocations",
];

/// Upstream: validateResourceSliceSpec.
fn validate_slice(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = new.get("spec").unwrap_or(&Value::Null);
    let path = Path::new("spec");
    driver_name(text(spec, "driver"), &path.child("driver"), errors);
    let pool = spec.get("pool").unwrap_or(&Value::Null);
    let pool_path = path.child("pool");
    pool_name(text(pool, "name"), &pool_path.child("name"), errors);
    let count = int(pool, "resourceSliceCount");
    if count <= 0 {
        errors.invalid(&pool_path.child("resourceSliceCount"), count, "must be greater than zero");
    }
    let generation = int(pool, "generation");
    if generation < 0 {
        errors.invalid(&pool_path.child("generation"), generation, "must be greater than or equal to zero");
    }
    if let Some(old) = old {
        let same = |errors: &mut Errors, path: &Path<'_>, field: &[&str]| {
            let field = [&["spec"], field].concat();
            immutable(errors, path, new.at(&field), old.at(&field));
        };
        same(errors, &pool_path.child("name"), &["pool", "name"]);
        same(errors, &path.child("driver"), &["driver"]);
        same(errors, &path.child("nodeName"), &["nodeName"]);
    }
    where_it_is(spec, &path, errors);
    let (path, devices) = (path.child("devices"), items(spec, "devices"));
    let tainted = devices.iter().any(|device| !items(device, "taints").is_empty());
    let max = if tainted { MAX_TAINTED_DEVICES } else { MAX_DEVICES };
    if devices.len() > max {
        return errors.add(FieldError::too_many(path.to_string(), devices.len(), max));
    }
    for (i, device) in devices.iter().enumerate() {
        validate_device(device, &path.index(i), errors);
    }
    for (i, device) in devices.iter().enumerate() {
        let name = text(device, "name");
        if devices[..i].iter().any(|earlier| text(earlier, "name") == name) {
            errors.duplicate(&path.index(i), name);
        }
    }
}

fn where_it_is(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut given = Vec::new();
    match member(spec, "nodeName").map(|name| name.as_str().unwrap_or_default()) {
        None => {}
        Some("") => errors.invalid(&path.child("nodeName"), "", "must be either unset or set to a non-empty string"),
        Some(name) => {
            given.push("`nodeName`");
            errors.subdomain(&path.child("nodeName"), name);
        }
    }
    if let Some(selector) = member(spec, "nodeSelector") {
        given.push("`nodeSelector`");
        let path = path.child("nodeSelector");
        node_selector(selector, &path, errors);
        let terms = items(selector, "nodeSelectorTerms");
        if terms.len() != 1 {
            let path = path.child("nodeSelectorTerms");
            errors.invalid(&path, terms.to_vec(), "must have exactly one node selector term");
        }
    }
    match member(spec, "allNodes").and_then(Value::as_bool) {
        None => {}
        Some(true) => given.push("`allNodes`"),
        Some(false) => errors.invalid(&path.child("allNodes"), false, "must be either unset or set to true"),
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.required(path, ONE),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", given.join(", ")), format!("{ONE}, but multiple fields are set")),
    }
}

/// Upstream: validateDevice.
fn validate_device(device: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.label(&path.child("name"), text(device, "name"));
    let count = entries(device, "attributes").count() + entries(device, "capacity").count();
    if count > MAX_ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.invalid(path, count as i64, why);
    }
    let (taints, path_of_taints) = (items(device, "taints"), path.child("taints"));
    if taints.len() > MAX_TAINTS {
        errors.add(FieldError::too_many(path_of_taints.to_string(), taints.len(), MAX_TAINTS));
    }
    for (i, taint) in taints.iter().take(MAX_TAINTS).enumerate() {
        let path = path_of_taints.index(i);
        errors.qualified(&path.child("key"), text(taint, "key"));
        errors.label_text(&path.child("value"), text(taint, "value"));
        errors.needs_one_of(&path.child("effect"), text(taint, "effect"), &TAINT_EFFECTS);
    }
    let attributes = path.child("attributes");
    for (name, attribute) in entries(device, "attributes") {
        let name_shown = shown(name);
        let path = attributes.key(&name_shown);
        qualified_name(name, &path, errors);
        validate_attribute(attribute, &path, errors);
    }
    let capacities = path.child("capacity");
    for (name, _) in entries(device, "capacity") {
        qualified_name(name, &capacities.key(&shown(name)), errors);
    }
}

fn validate_attribute(attribute: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = member(attribute, "string").and_then(Value::as_str)
        && value.len() > MAX_VALUE
    {
        errors.add(FieldError::too_long(path.child("string").to_string(), MAX_VALUE));
    }
    if let Some(value) = member(attribute, "version").and_then(Value::as_str) {
        let path = path.child("version");
        if !is_version(value) {
            errors.invalid(&path, value, "must be a string compatible with semver.org spec 2.0.0");
        }
        if value.len() > MAX_VALUE {
            errors.add(FieldError::too_long(path.to_string(), MAX_VALUE));
        }
    }
    let given = ["bool", "int", "string", "version"].iter().filter(|key| member(attribute, key).is_some()).count();
    match given {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(path, attribute, "exactly one value must be specified"),
    }
}

/// A version as semver.org's 2.0.0 has it.
fn is_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (numbers, release) = rest.split_once('-').map_or((rest, None), |(rest, release)| (rest, Some(release)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let parts: Vec<&str> = numbers.split('.').collect();
    parts.len() == 3
        && parts.into_iter().all(number)
        && release.is_none_or(|text| text.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|text| text.split('.').all(word))
}

/// A long key, cut in its middle.
fn shown(key: &str) -> String {
    const MAX: usize = 63 + 1 + MAX_IDENTIFIER;
    if key.len() <= MAX || !key.is_ascii() {
        return key.to_owned();
    }
    let left = MAX - 3;
    format!("{}...{}", &key[..left.div_ceil(2)], &key[key.len() - left / 2..])
}

/// A device's driver, pool and name.
pub(super) fn device_key(value: &Value) -> Value {
    let mut key = Value::object();
    for (to, from) in [("Driver", "driver"), ("Pool", "pool"), ("Device", "device")] {
        key.set(&[to], text(value, from));
    }
    key
}

/// Upstream: validatePoolName.
pub(super) fn pool_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > MAX_POOL_NAME {
        errors.add(FieldError::too_long(path.to_string(), MAX_POOL_NAME));
    }
    for part in name.split('/') {
        errors.problems(path, part, dns1123_subdomain(part));
    }
}

/// Upstream: validateQualifiedName.
fn qualified_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [id] => identifier(id, path, errors),
        [domain, id] => {
            match *domain {
                "" => errors.invalid(path, "", "the domain must not be empty"),
                domain => driver_name(domain, path, errors),
            }
            match *id {
                "" => errors.invalid(path, "", "the name must not be empty"),
                id => identifier(id, path, errors),
            }
        }
        _ => {}
    }
}

fn identifier(id: &str, path: &Path<'_>, errors: &mut Errors) {
    if id.len() > MAX_IDENTIFIER {
        errors.add(FieldError::too_long(path.to_string(), MAX_IDENTIFIER));
    }
    errors.problems(path, id, c_identifier(id));
}

pub(super) fn fully_qualified_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    qualified_name(name, path, errors);
    if !name.contains('/') {
        errors.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// Upstream: validateSelectorSlice.
pub(super) fn selectors(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (path, list) = (path.child("selectors"), items(value, "selectors"));
    if list.len() > MAX_SELECTORS {
        return errors.add(FieldError::too_many(path.to_string(), list.len(), MAX_SELECTORS));
    }
    for (i, selector) in list.iter().enumerate() {
        let path = path.index(i);
        let path = path.child("cel");
        let Some(cel) = member(selector, "cel") else {
            errors.required(&path, "");
            continue;
        };
        let (path, expression) = (path.child("expression"), text(cel, "expression"));
        if expression.len() > MAX_EXPRESSION {
            errors.add(FieldError::too_long(path.to_string(), MAX_EXPRESSION));
            continue;
        }
        match Expression::compile(expression) {
            Err(why) => errors.invalid(&path, expression, why),
            Ok(compiled) if compiled.is_too_complex() => {
                errors.forbidden(&path, "too complex, exceeds cost limit");
            }
            Ok(_) => {}
        }
    }
}

/// Upstream: validateDeviceConfiguration.
pub(super) fn configuration(config: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("opaque");
    let Some(opaque) = member(config, "opaque") else { return errors.required(&path, "") };
    driver_name(text(opaque, "driver"), &path.child("driver"), errors);
    let path = path.child("parameters");
    match member(opaque, "parameters") {
        None => errors.required(&path, ""),
        Some(data) if data.to_json().len() > MAX_PARAMETERS => {
            errors.add(FieldError::too_long(path.to_string(), MAX_PARAMETERS));
        }
        Some(data) if data.as_object().is_none() => errors.invalid(&path, "<value omitted>", NOT_OBJECT),
        Some(_) => {}
    }
}
