//! Secret. Upstream: pkg/registry/core/secret, validation.ValidateSecret.

use apimachinery::{FieldError, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::config_map::{MAX_BYTES, check_key};
use super::field::{Path, Report, entries, fill, immutable, text};
use super::{Context, Strategy};

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub(super) struct Secret;

impl Strategy for Secret {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "secrets")
    }

    /// `stringData` is a way to write `data`, and never stored.
    fn default(&self, value: &mut Value) {
        if let Some(plain) = value.remove(&["stringData"]) {
            for (key, text) in plain.as_object().into_iter().flat_map(|map| map.iter()) {
                value.set(&["data", key], STANDARD.encode(text.as_str().unwrap_or_default()));
            }
        }
        fill(value, "type", "Opaque");
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let data = Path::new("data");
        let mut total = 0;
        for (key, value) in entries(new, "data") {
            check_key(&data.key(key).to_string(), key, errors);
            total += decoded_length(value.as_str().unwrap_or_default());
        }
        if total > MAX_BYTES {
            errors.push(FieldError::too_long("data", MAX_BYTES));
        }
        let has = |key: &str| new.at(&["data", key]).is_some();
        let mut needs = |key: &'static str| {
            if !has(key) {
                errors.required(&data.key(key), "");
            }
        };
        match text(new, "type") {
            "kubernetes.io/service-account-token" => {
                let account = new.str_at(&["metadata", "annotations", SERVICE_ACCOUNT_NAME]).unwrap_or_default();
                if account.is_empty() {
                    let path = Path::new("metadata.annotations");
                    errors.required(&path.key(SERVICE_ACCOUNT_NAME), "");
                }
            }
            "kubernetes.io/dockercfg" => json(new, ".dockercfg", errors),
            "kubernetes.io/dockerconfigjson" => json(new, ".dockerconfigjson", errors),
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
                needs("username");
                needs("password");
            }
            "kubernetes.io/ssh-auth" if new.str_at(&["data", "ssh-privatekey"]).is_none_or(str::is_empty) => {
                errors.required(&data.key("ssh-privatekey"), "");
            }
            "kubernetes.io/tls" => {
                needs("tls.crt");
                needs("tls.key");
            }
            _ => {}
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        immutable(errors, &Path::new("type"), new.get("type"), old.get("type"));
        if old.bool_at(&["immutable"]) == Some(true) {
            let why = "field is immutable when `immutable` is set";
            if new.bool_at(&["immutable"]) != Some(true) {
                errors.forbidden(&Path::new("immutable"), why);
            }
            if new.get("data") != old.get("data") {
                errors.forbidden(&Path::new("data"), why);
            }
        }
        self.validate(ctx, new, errors);
    }
}

fn decoded_length(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

/// A key whose value is a JSON object.
fn json(secret: &Value, key: &str, errors: &mut Vec<FieldError>) {
    let data = Path::new("data");
    let Some(value) = secret.str_at(&["data", key]) else { return errors.required(&data.key(key), "") };
    let bytes = STANDARD.decode(value).unwrap_or_default();
    let why = match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(_) => return,
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(problem) => crate::body::json_error(&bytes).unwrap_or_else(|| problem.to_string()),
    };
    errors.invalid(&data.key(key), "<secret contents redacted>", why);
}
