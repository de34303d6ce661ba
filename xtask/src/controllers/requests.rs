//! Certificate signing requests of scenarios: made for new keys, and told without what is random about them.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The spec of a request whose value says what its certificate shall say (`commonName`, `organization`, `names`: DNS names and addresses,
/// `emails`, `uris`), beside members of the spec.
pub fn spec(value: &Value) -> Result<Value> {
    let mut spec = value.clone();
    let members = spec.as_object_mut().context("a request is a mapping")?;
    let mut take = |name: &str| members.remove(name).unwrap_or_default();
    let texts = |value: Value| serde_json::from_value::<Option<Vec<String>>>(value).map(Option::unwrap_or_default);
    let mut params = CertificateParams::new(texts(take("names"))?)?;
    for email in texts(take("emails"))? {
        params.subject_alt_names.push(SanType::Rfc822Name(email.try_into()?));
    }
    for uri in texts(take("uris"))? {
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    params.distinguished_name = DistinguishedName::new();
    for (name, kind) in [("commonName", DnType::CommonName), ("organization", DnType::OrganizationName)] {
        if let Value::String(text) = take(name) {
            params.distinguished_name.push(kind, text);
        }
    }
    if !members.contains_key("request") {
        let pem = params.serialize_request(&KeyPair::generate()?)?.pem()?;
        members.insert("request".to_owned(), BASE64_STANDARD.encode(pem).into());
    }
    Ok(spec)
}

/// What a certificate (PEM, encoded) says; anything else as it is.
pub fn told(certificate: &str) -> Value {
    told_if_readable(certificate).unwrap_or_else(|| certificate.into())
}

fn told_if_readable(certificate: &str) -> Option<Value> {
    let pem = BASE64_STANDARD.decode(certificate).ok()?;
    let (rest, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    let mut extensions: Vec<String> = certificate
        .extensions()
        .iter()
        .map(|extension| {
            let critical = if extension.critical { "critical " } else { "" };
            let parsed = format!("{:?}", extension.parsed_extension());
            // Of which keys they are is random.
            let parsed = if parsed.contains("KeyIdentifier") { "<key>".to_owned() } else { parsed };
            format!("{critical}{}: {parsed}", extension.oid)
        })
        .collect();
    extensions.sort();
    let validity = certificate.validity();
    Some(json!({
        "subject": certificate.subject().to_string(),
        "issuer": certificate.issuer().to_string(),
        "seconds": validity.not_after.timestamp() - validity.not_before.timestamp(),
        "extensions": extensions,
        "algorithm": certificate.signature_algorithm.algorithm.to_string(),
        "version": certificate.version().0,
        "more": rest.len(),
    }))
}
