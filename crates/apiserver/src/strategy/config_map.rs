//! ConfigMap. Upstream: pkg/registry/core/configmap, validation.ValidateConfigMap.

use apimachinery::{FieldError, Value};

use super::{Context, Strategy};

/// The most bytes of all values together.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

pub(super) struct ConfigMap;

impl Strategy for ConfigMap {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "configmaps")
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let mut total = 0;
        for member in ["data", "binaryData"] {
            for (key, value) in new.get(member).and_then(Value::as_object).into_iter().flat_map(|map| map.iter()) {
                check_key(&format!("{member}[{key}]"), key, errors);
                if member == "binaryData" && new.at(&["data", key]).is_some() {
                    errors.push(FieldError::invalid(
                        format!("data[{key}]"),
                        key,
                        "duplicate of key present in binaryData",
                    ));
                }
                total +=
                    value.as_str().map_or(0, |text| if member == "data" { text.len() } else { text.len() / 4 * 3 });
            }
        }
        if total > MAX_BYTES {
            errors.push(FieldError::too_long("", MAX_BYTES));
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if old.bool_at(&["immutable"]) == Some(true) {
            if new.bool_at(&["immutable"]) != Some(true) {
                errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
            }
            for member in ["data", "binaryData"].into_iter().filter(|member| new.get(member) != old.get(member)) {
                errors.push(FieldError::forbidden(member, "field is immutable when `immutable` is set"));
            }
        }
        self.validate(ctx, new, errors);
    }
}

/// A key of a ConfigMap or a Secret is a file name.
pub(super) fn check_key(field: &str, key: &str, errors: &mut Vec<FieldError>) {
    const RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
                        or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.len() > 253 {
        errors.push(FieldError::invalid(field, key, "must be no more than 253 characters"));
    }
    if key.is_empty() || !key.chars().all(allowed) {
        errors.push(FieldError::invalid(field, key, RULE));
    }
    match key {
        "." => errors.push(FieldError::invalid(field, key, "must not be '.'")),
        ".." => errors.push(FieldError::invalid(field, key, "must not be '..'")),
        _ if key.starts_with("..") => errors.push(FieldError::invalid(field, key, "must not start with '..'")),
        _ => {}
    }
}
