//! Certificate signing requests go some time after they have been answered, or have not. Upstream:
//! pkg/controller/certificates/cleaner.

use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, DeleteOptions, IgnoreNotFound, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch,
};
use jiff::Timestamp;

use crate::Setup;
use crate::meta::{between, created, time};

const REQUESTS: Resource = Resource::cluster("certificates.k8s.io", "v1", "certificatesigningrequests");
/// How long an answered request, and one that waits, is kept.
const ANSWERED: Duration = Duration::from_secs(3600);
const WAITING: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct CsrCleaner {
    requests: Informer,
}

impl CsrCleaner {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        CsrCleaner { requests: setup.informers.of(&REQUESTS) }
    }
}

/// When nobody needs the request any more.
fn expires(request: &Object) -> Option<Timestamp> {
    let value = request.to_value();
    let conditions = value.items_at(&["status", "conditions"]);
    if conditions.is_empty() {
        return created(request).checked_add(WAITING).ok();
    }
    let is_issued = value.str_at(&["status", "certificate"]).is_some_and(|certificate| !certificate.is_empty());
    let ends = conditions.iter().filter_map(|condition: &Value| {
        let keep = match condition.str_at(&["type"])? {
            "Approved" if !is_issued => WAITING,
            "Approved" | "Denied" | "Failed" => ANSWERED,
            _ => return None,
        };
        time(Some(condition.str_at(&["lastUpdateTime"])?)).checked_add(keep).ok()
    });
    ends.min()
}

impl Controller for CsrCleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn workers(&self) -> usize {
        1
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.requests.clone())]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(request) = self.requests.get(key) else { return Ok(Requeue::No) };
        let Some(end) = expires(&request) else { return Ok(Requeue::No) };
        let left = between(ctx.env().now(), end);
        if !left.is_zero() {
            return Ok(Requeue::After(left));
        }
        ctx.client().delete(&REQUESTS, key, &DeleteOptions::uid(request.uid())).await.ignore_not_found()?;
        Ok(Requeue::No)
    }
}
