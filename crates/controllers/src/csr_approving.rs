//! Requests of kubelets for their client certificates are approved if who asks may ask for them. Upstream:
//! pkg/controller/certificates/approver.

use apimachinery::{ObjectKey, Value};
use client::{Client, Controller, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch, WriteOptions};

use crate::Setup;
use crate::csr::{KUBELET_CLIENT, REQUESTS, View, kubelet_client};

const REVIEWS: Resource = Resource::cluster("authorization.k8s.io", "v1", "subjectaccessreviews");

pub(crate) struct CsrApproving {
    requests: Informer,
}

/// Somebody asked for a kubelet's certificate who may not, as far as is known by now.
#[derive(Debug, thiserror::Error)]
#[error("recognized csr {name:?} as {tried:?} but subject access review was not approved")]
struct NotAllowed {
    name: String,
    tried: Vec<&'static str>,
}

impl CsrApproving {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        CsrApproving { requests: setup.informers.of(&REQUESTS) }
    }
}

/// Whether who made the request may create it as this subresource.
async fn may(client: &Client, request: &Value, subresource: &str) -> Result<bool, ReconcileError> {
    let mut review = Value::object();
    review.set(&["apiVersion"], "authorization.k8s.io/v1");
    review.set(&["kind"], "SubjectAccessReview");
    let attributes = [
        ("group", "certificates.k8s.io"),
        ("resource", "certificatesigningrequests"),
        ("verb", "create"),
        ("subresource", subresource),
    ];
    for (name, value) in attributes {
        review.set(&["spec", "resourceAttributes", name], value);
    }
    for (from, to) in [("username", "user"), ("uid", "uid"), ("groups", "groups"), ("extra", "extra")] {
        if let Some(value) = request.at(&["spec", from]) {
            review.set(&["spec", to], value.clone());
        }
    }
    let answer = client.create(&REVIEWS, &review).await?;
    Ok(answer.to_value().bool_at(&["status", "allowed"]) == Some(true))
}

impl Controller for CsrApproving {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.requests.clone())]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.requests.get(key) else { return Ok(Requeue::No) };
        let request = View::of(&object);
        if request.is_issued() || request.has("Approved") || request.has("Denied") {
            return Ok(Requeue::No);
        }
        if request.signer() != KUBELET_CLIENT {
            return Ok(Requeue::No);
        }
        // What cannot be read, the API server would have refused.
        let Ok(parsed) = request.parsed() else { return Ok(Requeue::No) };
        if kubelet_client(&parsed, &request.usages()).is_err() {
            return Ok(Requeue::No);
        }
        let is_own = request.value.str_at(&["spec", "username"]) == Some(&parsed.common_name);
        let own = ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
        let any = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
        let mut tried = Vec::new();
        for (subresource, message) in [own, any].into_iter().skip(usize::from(!is_own)) {
            tried.push(subresource);
            if may(ctx.client(), &request.value, subresource).await? {
                let approved = request.with(ctx.env(), "Approved", "AutoApproved", message);
                ctx.client().update_subresource(&REQUESTS, "approval", &approved, &WriteOptions::default()).await?;
                return Ok(Requeue::No);
            }
        }
        Err(NotAllowed { name: key.name.clone(), tried }.into())
    }
}
