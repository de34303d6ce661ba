//! Approved requests for the signers of `kubernetes.io` get their certificate. Upstream: pkg/controller/certificates/signer.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::ObjectKey;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use client::{Controller, Informer, ReconcileContext, ReconcileError, Requeue, Watch};
use env::Env;
use pki::{CertificateRequest, ClusterPki};

use crate::Setup;
use crate::csr::{KUBELET_CLIENT, REQUESTS, View, client, kubelet_client, kubelet_serving};

/// How long a certificate is good at most, and at least.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(600);
/// Other clocks may be behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// One that is good for less than this is not shortened by the time it is dated back.
const SHORT: Duration = Duration::from_secs(8 * 3600);

pub(crate) struct CsrSigning {
    requests: Informer,
    pki: Option<Arc<ClusterPki>>,
}

impl CsrSigning {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        CsrSigning { requests: setup.informers.of(&REQUESTS), pki: setup.config.pki.clone() }
    }
}

fn is_ours(signer: &str) -> bool {
    let name = signer.strip_prefix("kubernetes.io/").unwrap_or_default();
    signer == KUBELET_CLIENT || ["kube-apiserver-client", "kubelet-serving", "legacy-unknown"].contains(&name)
}

/// Whether the signer signs such requests; the error is upstream's.
fn check(signer: &str, request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    match signer {
        KUBELET_CLIENT => kubelet_client(request, usages),
        "kubernetes.io/kubelet-serving" => kubelet_serving(request, usages),
        "kubernetes.io/kube-apiserver-client" => client(usages),
        _ => Ok(()),
    }
}

/// What is asked for, or why it never will be: nothing about a request changes, so none is tried twice.
fn certificate(pki: &ClusterPki, env: &Env, request: &View) -> Result<String, String> {
    let parsed = request.parsed().map_err(|error| error.to_string())?;
    let usages = request.usages();
    check(request.signer(), &parsed, &usages)?;
    let now = env.now();
    let lifetime = lifetime(request.value.i64_at(&["spec", "expirationSeconds"]));
    let end = if lifetime < SHORT { lifetime } else { lifetime - BACKDATE };
    pki.ca().sign(&parsed, &usages, now - BACKDATE, now + end).map_err(|error| {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    })
}

fn lifetime(asked: Option<i64>) -> Duration {
    let asked = asked.map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
    asked.map_or(LONGEST, |asked| asked.clamp(SHORTEST, LONGEST))
}

impl Controller for CsrSigning {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.requests.clone())]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let (Some(object), Some(pki)) = (self.requests.get(key), &self.pki) else { return Ok(Requeue::No) };
        let mut request = View::of(&object);
        let approved = request.has("Approved") && !request.has("Denied");
        if !approved || request.is_issued() || request.has("Failed") || !is_ours(request.signer()) {
            return Ok(Requeue::No);
        }
        let answered = match certificate(pki, ctx.env(), &request) {
            Ok(certificate) => {
                request.value.set(&["status", "certificate"], BASE64_STANDARD.encode(certificate));
                request.value
            }
            Err(why) => request.with(ctx.env(), "Failed", "SignerValidationFailure", &why),
        };
        ctx.client().update_status(&REQUESTS, &answered).await?;
        Ok(Requeue::No)
    }
}
