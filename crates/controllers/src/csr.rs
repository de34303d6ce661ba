//! What the controllers of certificate signing requests share.

use apimachinery::{Object, Value};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use client::Resource;
use pki::{CertificateRequest, RequestError};

use crate::meta;

pub(crate) const REQUESTS: Resource = Resource::cluster("certificates.k8s.io", "v1", "certificatesigningrequests");

pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// A request as these controllers look at it.
pub(crate) struct View {
    pub value: Value,
}

impl View {
    pub(crate) fn of(request: &Object) -> View {
        View { value: request.to_value() }
    }

    pub(crate) fn has(&self, condition: &str) -> bool {
        self.value.items_at(&["status", "conditions"]).iter().any(|c| c.str_at(&["type"]) == Some(condition))
    }

    pub(crate) fn is_issued(&self) -> bool {
        self.value.str_at(&["status", "certificate"]).is_some_and(|certificate| !certificate.is_empty())
    }

    pub(crate) fn signer(&self) -> &str {
        self.value.str_at(&["spec", "signerName"]).unwrap_or_default()
    }

    pub(crate) fn usages(&self) -> Vec<String> {
        let usages = self.value.items_at(&["spec", "usages"]).iter();
        usages.filter_map(|usage| usage.as_str().map(str::to_owned)).collect()
    }

    pub(crate) fn parsed(&self) -> Result<CertificateRequest, RequestError> {
        let text = self.value.str_at(&["spec", "request"]).unwrap_or_default();
        CertificateRequest::parse(&BASE64_STANDARD.decode(text).unwrap_or_default())
    }

    /// The request with one more condition, which is true from now on.
    pub(crate) fn with(mut self, env: &env::Env, r#type: &str, reason: &str, message: &str) -> Value {
        let mut condition = Value::object();
        condition.set(&["type"], r#type);
        condition.set(&["status"], "True");
        condition.set(&["reason"], reason);
        condition.set(&["message"], message);
        condition.set(&["lastUpdateTime"], meta::now(env));
        condition.set(&["lastTransitionTime"], meta::now(env));
        let mut conditions = self.value.items_at(&["status", "conditions"]).to_vec();
        conditions.push(condition);
        self.value.set(&["status", "conditions"], conditions);
        self.value
    }
}

/// Whether the kubelet of a node may have this as a client. The error is upstream's. Upstream: ValidateKubeletClientCSR.
pub(crate) fn kubelet_client(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    check(request.organizations == ["system:nodes"], "subject organization is not system:nodes")?;
    check(request.dns_names.is_empty(), "DNS subjectAltNames are not allowed")?;
    check(request.emails.is_empty(), "Email subjectAltNames are not allowed")?;
    check(request.addresses.is_empty(), "IP subjectAltNames are not allowed")?;
    check(request.uris.is_empty(), "URI subjectAltNames are not allowed")?;
    is_node(request)?;
    exactly(usages, &["client auth", "digital signature", "key encipherment"])
}

/// Whether a kubelet may serve with this. Upstream: ValidateKubeletServingCSR.
pub(crate) fn kubelet_serving(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    check(request.organizations == ["system:nodes"], "subject organization is not system:nodes")?;
    let named = !request.dns_names.is_empty() || !request.addresses.is_empty();
    check(named, "DNS or IP subjectAltName is required")?;
    check(request.emails.is_empty(), "Email subjectAltNames are not allowed")?;
    check(request.uris.is_empty(), "URI subjectAltNames are not allowed")?;
    exactly(usages, &["digital signature", "key encipherment", "server auth"])?;
    is_node(request)
}

/// Whether any client of the API server may have this. Upstream: validAPIServerClientUsages.
pub(crate) fn client(usages: &[String]) -> Result<(), String> {
    for usage in usages {
        if !["digital signature", "key encipherment", "client auth"].contains(&usage.as_str()) {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
    }
    check(
        usages.iter().any(|usage| usage == "client auth"),
        "missing required usage for client certificate: client auth",
    )
}

fn check(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

fn is_node(request: &CertificateRequest) -> Result<(), String> {
    check(request.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:")
}

/// `key encipherment` is for RSA keys, and may be left out.
fn exactly(usages: &[String], wanted: &[&str]) -> Result<(), String> {
    let mut given: Vec<&str> = usages.iter().map(String::as_str).collect();
    given.sort_unstable();
    given.dedup();
    let without: Vec<&str> = wanted.iter().copied().filter(|usage| *usage != "key encipherment").collect();
    check(given == wanted || given == without, &format!("usages did not match [{}]", wanted.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    fn said(result: Result<(), String>) -> String {
        result.err().unwrap_or_default()
    }

    #[test]
    fn what_kubelets_may_have() {
        let good = CertificateRequest {
            common_name: "system:node:a".into(),
            organizations: vec!["system:nodes".into()],
            ..CertificateRequest::default()
        };
        let all = "client auth,digital signature,key encipherment";
        let check = |request: &CertificateRequest, of: &str, expect: &str| {
            assert_eq!(said(kubelet_client(request, &usages(of))), expect);
        };
        check(&good, all, "");
        check(&good, "digital signature,client auth", "");
        check(&good, "client auth", "usages did not match [client auth digital signature key encipherment]");
        let other = CertificateRequest { common_name: "jane".into(), ..good.clone() };
        check(&other, all, "subject common name does not begin with system:node:");
        check(&CertificateRequest::default(), all, "subject organization is not system:nodes");
        let named = CertificateRequest { dns_names: vec!["a".into()], ..good.clone() };
        check(&named, all, "DNS subjectAltNames are not allowed");
        let serving = usages("server auth,digital signature");
        assert_eq!(said(kubelet_serving(&named, &serving)), "");
        assert_eq!(said(kubelet_serving(&good, &serving)), "DNS or IP subjectAltName is required");
        let why = "usages did not match [digital signature key encipherment server auth]";
        assert_eq!(said(kubelet_serving(&named, &usages(all))), why);
    }

    #[test]
    fn what_clients_may_have() {
        let check = |of: &str, expect: &str| assert_eq!(said(client(&usages(of))), expect, "{of}");
        check("client auth", "");
        check("server auth,client auth", "invalid usage for client certificate: server auth");
        check("digital signature", "missing required usage for client certificate: client auth");
    }
}
