//! Who approves and signs certificate requests must be allowed to for their signer, and nobody asks for a superuser's. Upstream:
//! plugin/pkg/admission/certificates approval, signing, subjectrestriction.

use apimachinery::{Status, Value};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Plugin, Write};
use crate::gate::{Attributes, MASTERS};
use crate::registry::Operation;

pub(super) struct Certificates;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

impl Plugin for Certificates {
    fn validate(&self, write: &Write<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
        let Some(new) = new.filter(|_| write.is_of(GROUP, "certificatesigningrequests")) else { return Ok(()) };
        let differs = |path: &[&str]| old.is_some_and(|old| old.at(path) != new.at(path));
        match (write.operation, write.subresource) {
            (Operation::Create, "") => restrict_subject(write, new),
            (Operation::Update, "approval") => check_signer(write, new, old, "approve"),
            (Operation::Update, "status")
                if differs(&["status", "certificate"]) || differs(&["status", "conditions"]) =>
            {
                check_signer(write, new, old, "sign")
            }
            _ => Ok(()),
        }
    }
}

/// The signer itself, or all of its domain.
fn check_signer(write: &Write<'_>, new: &Value, old: Option<&Value>, verb: &str) -> Result<(), Status> {
    let signer = old.unwrap_or(new).str_at(&["spec", "signerName"]).unwrap_or_default();
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let whole = format!("{domain}/*");
    let allowed = [signer, &whole].into_iter().any(|name| {
        let asked = Attributes { name, ..Attributes::resource(write.user, verb, GROUP, "signers") };
        write.gate.authorize(&asked).allowed
    });
    if allowed {
        return Ok(());
    }
    Err(write.forbidden(Some(new), &format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

fn restrict_subject(write: &Write<'_>, new: &Value) -> Result<(), Status> {
    if new.str_at(&["spec", "signerName"]) != Some(CLIENT_SIGNER) {
        return Ok(());
    }
    let pem = new.str_at(&["spec", "request"]).and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
    // What cannot be read was refused by validation.
    let groups = pki::request_organizations(&pem).unwrap_or_default();
    if groups.iter().any(|group| group == MASTERS) {
        let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
        return Err(write.forbidden(Some(new), &why));
    }
    Ok(())
}
