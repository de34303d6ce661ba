//! StorageClass and VolumeAttributesClass. Upstream: pkg/apis/storage v1 defaults, validation.

use apimachinery::validation::qualified_name;
use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, entries, fill, immutable, items, text};
use super::{Context, Strategy};

const GROUP: &str = "storage.k8s.io";
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 << 10;

pub(super) struct StorageClass;

impl Strategy for StorageClass {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "storageclasses")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        fill(value, "reclaimPolicy", "Delete");
        fill(value, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        provisioner(new, "provisioner", errors);
        parameters(new, true, errors);
        let policy = text(new, "reclaimPolicy");
        errors.one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        let mode = text(new, "volumeBindingMode");
        errors.needs_one_of(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
        topologies(items(new, "allowedTopologies"), &Path::new("allowedTopologies"), errors);
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for (key, why) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if new.get(key) != old.get(key) {
                errors.forbidden(&Path::new(key), why);
            }
        }
        let path = Path::new("volumeBindingMode");
        immutable(errors, &path, new.get("volumeBindingMode"), old.get("volumeBindingMode"));
    }
}

pub(super) struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "volumeattributesclasses")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        provisioner(new, "driverName", errors);
        parameters(new, false, errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for (key, why) in [
            ("driverName", "updates to driverName are forbidden."),
            ("parameters", "updates to parameters are forbidden."),
        ] {
            if new.get(key) != old.get(key) {
                errors.forbidden(&Path::new(key), why);
            }
        }
        self.validate(ctx, new, errors);
    }
}

fn provisioner(class: &Value, key: &str, errors: &mut Errors) {
    match text(class, key) {
        "" => errors.required(&Path::new(key), ""),
        name => {
            let name = name.to_lowercase();
            errors.problems(&Path::new(key), &name, qualified_name(&name));
        }
    }
}

fn parameters(class: &Value, may_be_empty: bool, errors: &mut Errors) {
    let path = Path::new("parameters");
    let count = entries(class, "parameters").count();
    if count > MAX_PARAMETERS {
        return errors.add(FieldError::too_long("parameters", MAX_PARAMETERS));
    }
    for (name, _) in entries(class, "parameters").filter(|(name, _)| name.is_empty()) {
        errors.invalid(&path, name, "field can not be empty.");
    }
    let size = |(name, value): (&str, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if entries(class, "parameters").map(size).sum::<usize>() > MAX_PARAMETERS_SIZE {
        errors.add(FieldError::too_long("parameters", MAX_PARAMETERS_SIZE));
    }
    if count == 0 && !may_be_empty {
        errors.required(&path, "must contain at least one key/value pair");
    }
}

/// Upstream: validateAllowedTopologies.
fn topologies(terms: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, term) in terms.iter().enumerate() {
        let path = path.index(i);
        let path = path.child("matchLabelExpressions");
        let expressions = items(term, "matchLabelExpressions");
        for (j, expression) in expressions.iter().enumerate() {
            let path = path.index(j);
            let values = items(expression, "values");
            let values_path = path.child("values");
            if values.is_empty() {
                errors.required(&values_path, "");
            }
            for (k, value) in values.iter().enumerate().filter(|(k, value)| values[..*k].contains(value)) {
                errors.duplicate(&values_path.index(k), value);
            }
            let key = text(expression, "key");
            errors.qualified(&path.child("key"), key);
            if expressions[..j].iter().any(|earlier| text(earlier, "key") == key) {
                errors.duplicate(&path.child("key"), key);
            }
        }
        if terms[..i].iter().any(|earlier| says(earlier) == says(term)) {
            errors.duplicate(&path, "");
        }
    }
}

/// What a term selects, whatever its order.
fn says(term: &Value) -> Vec<(&str, Vec<&str>)> {
    let mut says: Vec<(&str, Vec<&str>)> = items(term, "matchLabelExpressions")
        .iter()
        .map(|expression| {
            let mut values: Vec<&str> = items(expression, "values").iter().filter_map(Value::as_str).collect();
            values.sort_unstable();
            (text(expression, "key"), values)
        })
        .collect();
    says.sort_unstable();
    says
}
