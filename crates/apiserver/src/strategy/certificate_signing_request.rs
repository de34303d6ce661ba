//! CertificateSigningRequest. Upstream: pkg/registry/certificates, pkg/apis/certificates/validation.

use apimachinery::{FieldError, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::field::{Errors, Path, Report, immutable, int, items, text};
use super::{Context, Strategy, keep};
use crate::UserInfo;

/// Sorted, as messages list them.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const MIN_SECONDS: i64 = 600;
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

pub(super) struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn resource(&self) -> (&'static str, &'static str) {
        ("certificates.k8s.io", "certificatesigningrequests")
    }

    /// Who asks is not for them to say.
    fn prepare_create(&self, ctx: &Context<'_>, new: &mut Value) {
        for key in ["username", "uid", "groups", "extra"] {
            new.remove(&["spec", key]);
        }
        let UserInfo { name, uid, groups, extra } = ctx.user;
        new.set(&["spec", "username"], name.as_str());
        if !uid.is_empty() {
            new.set(&["spec", "uid"], uid.as_str());
        }
        if !groups.is_empty() {
            new.set(&["spec", "groups"], groups.clone());
        }
        for (key, values) in extra {
            new.set(&["spec", "extra", key], values.clone());
        }
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
        keep(new, old, &["status"]);
    }

    fn prepare_subresource(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        let conditions = |value: &Value| value.items_at(&["status", "conditions"]).to_vec();
        let decided = |condition: &Value| DECISIONS.contains(&text(condition, "type"));
        let (now, before) = (conditions(new), conditions(old));
        keep(new, old, &["spec"]);
        // `approval` is about conditions alone, of any type; `status` about anything but decisions.
        let merged: Vec<Value> = if ctx.subresource == "approval" {
            keep(new, old, &["status"]);
            now
        } else {
            before
                .into_iter()
                .filter(|condition| decided(condition))
                .chain(now.into_iter().filter(|condition| !decided(condition)))
                .collect()
        };
        let time = crate::registry::timestamp(ctx.env.now());
        let stamped = merged.into_iter().map(|mut condition| {
            for key in ["lastUpdateTime", "lastTransitionTime"] {
                super::field::fill(&mut condition, key, time.as_str());
            }
            condition
        });
        let stamped: Vec<Value> = stamped.collect();
        if stamped.is_empty() {
            new.remove(&["status", "conditions"]);
        } else {
            new.set(&["status", "conditions"], stamped);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        request(new.at(&["spec", "request"]), errors);
        check(new, errors);
    }

    /// The request cannot change.
    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        check(new, errors);
        let certificate = ["status", "certificate"];
        if old.str_at(&certificate).is_some_and(|issued| !issued.is_empty()) {
            immutable(errors, &Path::new("status.certificate"), new.at(&certificate), old.at(&certificate));
        }
    }
}

/// All but the request itself.
fn check(new: &Value, errors: &mut Errors) {
    let empty = Value::object();
    let spec = new.get("spec").unwrap_or(&empty);
    let path = Path::new("spec");
    let usages = items(spec, "usages");
    if usages.is_empty() {
        errors.required(&path.child("usages"), "");
    }
    let usages_path = path.child("usages");
    for (i, usage) in usages.iter().enumerate() {
        errors.one_of(&usages_path.index(i), usage.as_str().unwrap_or_default(), &USAGES);
        if usages[..i].contains(usage) {
            errors.duplicate(&usages_path.index(i), usage);
        }
    }
    signer(text(spec, "signerName"), &path.child("signerName"), errors);
    if spec.i64_at(&["expirationSeconds"]).is_some_and(|seconds| seconds < MIN_SECONDS) {
        let shown = int(spec, "expirationSeconds");
        errors.invalid(
            &path.child("expirationSeconds"),
            shown,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    let conditions = new.items_at(&["status", "conditions"]);
    let conditions_path = Path::new("status.conditions");
    for (i, condition) in conditions.iter().enumerate() {
        let path = conditions_path.index(i);
        errors.needs(&path, condition, "type");
        let known = ["False", "True", "Unknown"];
        errors.needs_one_of(&path.child("status"), text(condition, "status"), &known);
    }
    let has = |kind: &str| conditions.iter().any(|condition| text(condition, "type") == kind);
    if has("Approved") && has("Denied") {
        let shown = "Approved and Denied conditions are mutually exclusive";
        errors.invalid(&conditions_path, conditions.to_vec(), shown);
    }
}

/// The request itself, PEM in base64: who makes it has the key.
fn request(request: Option<&Value>, errors: &mut Errors) {
    let pem = request.and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
    if let Err(why) = pki::CertificateRequest::parse(&pem.unwrap_or_default()) {
        errors.invalid(&Path::new("spec.request"), request.cloned().unwrap_or(Value::Null), why.to_string());
    }
}

/// `domain/path`, as signers are named.
fn signer(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    match name.split_once('/') {
        None => errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        Some((domain, rest)) => {
            errors.subdomain(path, domain);
            if !domain.contains('.') {
                errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
            }
            if rest.is_empty() {
                errors.invalid(path, name, "validating path segment: must not be empty");
            }
        }
    }
}
