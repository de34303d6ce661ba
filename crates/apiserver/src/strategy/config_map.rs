//! ConfigMap. Upstream: pkg/registry/core/configmap, validation.ValidateConfigMap.

use apimachinery::validation::config_map_key;
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
            // The path of no field, as upstream prints it.
            errors.push(FieldError::too_long("[]", MAX_BYTES));
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
    errors.extend(config_map_key(key).into_iter().map(|problem| FieldError::invalid(field, key, problem)));
}
