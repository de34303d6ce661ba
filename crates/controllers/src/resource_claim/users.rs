//! Claims lose the pods that are done, then their devices.

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, DeleteOptions, Event, IgnoreNotFound, Informer, ReconcileContext, ReconcileError, Requeue, Watch,
    resources,
};
use rules::devices::CLAIM_FINALIZER;

use super::{CLAIMS, claims_of, has_claims, is_allocated, is_done};
use crate::Setup;

#[derive(Debug, thiserror::Error)]
#[error("unsupported ReservedFor entry: {0}")]
struct UnknownUser(String);

/// Takes claims back from pods that are done, and devices from claims that nobody uses any more.
pub(crate) struct ClaimUsers {
    pods: Informer,
    claims: Informer,
}

impl ClaimUsers {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        ClaimUsers { pods: setup.informers.of(&resources::PODS), claims: setup.informers.of(&CLAIMS) }
    }

    async fn still_uses(
        &self,
        ctx: &ReconcileContext,
        claim: &ObjectKey,
        user: &Value,
    ) -> Result<bool, ReconcileError> {
        let name = user.str_at(&["name"]).unwrap_or_default();
        let key = ObjectKey::new(&*claim.namespace, name);
        let uid = user.str_at(&["uid"]).unwrap_or_default();
        if let Some(pod) = self.pods.get(&key) {
            return Ok(pod.uid() == uid && !is_done(&pod));
        }
        // The informer may not have seen it yet.
        Ok(ctx.client().find(&resources::PODS, &key).await?.is_some_and(|pod| pod.uid() == uid))
    }

    /// A generated claim needn't wait for its pod to be removed.
    async fn remove_if_done(&self, ctx: &ReconcileContext, claim: &Object) -> Result<(), ReconcileError> {
        let owner = claim.controller().filter(|owner| owner.kind == "Pod" && owner.api_version == "v1");
        let Some(owner) = owner else { return Ok(()) };
        let Some(pod) = self.pods.get(&ObjectKey::new(claim.namespace(), &*owner.name)) else { return Ok(()) };
        if pod.uid() == owner.uid && !is_done(&pod) {
            return Ok(());
        }
        Ok(ctx.client().delete(&CLAIMS, claim.key(), &DeleteOptions::default()).await.ignore_not_found()?)
    }
}

/// Takes the finalizer away.
async fn release(ctx: &ReconcileContext, mut claim: Value) -> Result<(), ReconcileError> {
    let mut finalizers = claim.items_at(&["metadata", "finalizers"]).to_vec();
    finalizers.retain(|held| held.as_str() != Some(CLAIM_FINALIZER));
    claim.set(&["metadata", "finalizers"], finalizers);
    Ok(ctx.client().update(&CLAIMS, &claim).await.ignore_not_found()?)
}

impl Controller for ClaimUsers {
    fn name(&self) -> &'static str {
        "resourceclaim-users-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_claim = |event: &Event| match event {
            Event::Deleted(_) => Vec::new(),
            _ => vec![event.object().key().clone()],
        };
        let of_pod = |event: &Event| {
            let pod = event.object();
            let done = || matches!(event, Event::Deleted(_)) || is_done(pod);
            if has_claims(pod) && done() { claims_of(pod) } else { Vec::new() }
        };
        vec![Watch::new(self.claims.clone(), of_claim), Watch::new(self.pods.clone(), of_pod)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(claim) = self.claims.get(key) else { return Ok(Requeue::No) };
        let mut value = claim.to_value();
        let users = value.items_at(&["status", "reservedFor"]).to_vec();
        let mut valid = Vec::new();
        for user in &users {
            let group = user.str_at(&["apiGroup"]).unwrap_or_default();
            if !group.is_empty() || user.str_at(&["resource"]) != Some("pods") {
                return Err(UnknownUser(user.to_string()).into());
            }
            if self.still_uses(ctx, key, user).await? {
                valid.push(user.clone());
            }
        }
        let protected = |claim: &Value| {
            claim.items_at(&["metadata", "finalizers"]).iter().any(|held| held.as_str() == Some(CLAIM_FINALIZER))
        };
        let unused = valid.is_empty();
        if valid.len() < users.len() {
            value.set(&["status", "reservedFor"], valid);
            if unused && protected(&value) {
                value.remove(&["status", "allocation"]);
            }
            let written = ctx.client().update_status(&CLAIMS, &value).await?.to_value();
            if protected(&written) && !is_allocated(&written) {
                release(ctx, written).await?;
            }
        } else if unused && claim.is_deleting() && protected(&value) {
            if is_allocated(&value) {
                value.remove(&["status", "allocation"]);
                value = ctx.client().update_status(&CLAIMS, &value).await?.to_value();
            }
            release(ctx, value).await?;
        }
        if unused && !claim.is_deleting() {
            self.remove_if_done(ctx, &claim).await?;
        }
        Ok(Requeue::No)
    }
}
