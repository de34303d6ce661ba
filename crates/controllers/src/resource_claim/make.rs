//! Pods get the resource claims that their templates describe.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch, resources,
};

use super::{CLAIMS, Entry, claims_of, entries, entry, has_claims, is_allocated, is_done, is_reserved};
use crate::Setup;
use crate::meta::{CONTROLLER_INDEX, by_controller, controller_reference, is_controller, metadata, node_of, parsed};

const TEMPLATES: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaimtemplates");

/// Pods by the resource claims that they use, `namespace/name`.
const USED_INDEX: &str = "resource-claims";
/// Pods by the templates of their resource claims, `namespace/name`.
const TEMPLATE_INDEX: &str = "resource-claim-templates";
/// On a generated claim: the pod's own name for it.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Who applies pods' statuses.
const MANAGER: &str = "ResourceClaimController";
/// Longer names are cut, so that a random part fits.
const MAX_BASE: usize = 57;
/// A claim that has so many users takes no more. Upstream: ResourceClaimReservedForMaxSize.
const MAX_USERS: usize = 256;

/// Why a pod's claim isn't there.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "checking for claim before creating it: pod {pod:?}, spec.resourceClaim {entry:?}: none of the supported fields are set"
    )]
    Unsupported { pod: String, entry: String },
    #[error("resource claim template {name:?}: resourceclaimtemplate.resource.k8s.io {name:?} not found")]
    NoTemplate { name: String },
    #[error("create ResourceClaim : {0}")]
    Create(client::Error),
}

#[derive(Debug, thiserror::Error)]
#[error("ResourceClaim {claim} was not created for pod {pod} (pod is not owner)")]
struct NotOwner {
    claim: ObjectKey,
    pod: ObjectKey,
}

/// Makes claims from templates.
pub(crate) struct PodClaims {
    pods: Informer,
    claims: Informer,
    templates: Informer,
    recorder: EventRecorder,
}

impl PodClaims {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.informers.of(&resources::PODS);
        pods.index(USED_INDEX, by_use);
        pods.index(TEMPLATE_INDEX, by_template);
        let claims = setup.informers.of(&CLAIMS);
        claims.index(CONTROLLER_INDEX, by_controller);
        PodClaims {
            pods,
            claims,
            templates: setup.informers.of(&TEMPLATES),
            recorder: setup.recorder("resource-claim-controller", "resource_claim"),
        }
    }

    /// The name of a claim that the pod's status doesn't tell yet. Upstream: handleClaim.
    async fn provide(
        &self,
        ctx: &ReconcileContext,
        pod: &Arc<Object>,
        value: &Value,
        each: &Value,
        name: &str,
    ) -> Result<Option<String>, Problem> {
        let template = match entry(value, each) {
            Entry::Named(_) | Entry::Needless => return Ok(None),
            Entry::Unsupported => {
                return Err(Problem::Unsupported { pod: pod.key().to_string(), entry: name.to_owned() });
            }
            Entry::Made { template, name: known } => {
                let claim = known.and_then(|known| self.claims.get(&ObjectKey::new(pod.namespace(), known)));
                if claim.is_some_and(|claim| is_controller(claim.controller(), pod)) {
                    return Ok(None);
                }
                template
            }
        };
        // One that was made, but never told.
        let mine = self.claims.by_index(CONTROLLER_INDEX, pod.uid());
        let of_entry = |claim: &&Arc<Object>| metadata(claim).str_at(&["annotations", POD_CLAIM]) == Some(name);
        if let Some(claim) = mine.iter().find(of_entry) {
            return Ok(Some(claim.name().to_owned()));
        }
        let found = self.templates.get(&ObjectKey::new(pod.namespace(), template));
        let template = found.ok_or_else(|| Problem::NoTemplate { name: template.to_owned() })?.to_value();
        let mut claim = Value::object();
        claim.set(&["apiVersion"], "resource.k8s.io/v1");
        claim.set(&["kind"], "ResourceClaim");
        claim.set(&["metadata", "namespace"], pod.namespace());
        claim.set(&["metadata", "generateName"], base_name(pod.name(), name));
        let mut owner = controller_reference(pod);
        owner.remove(&["blockOwnerDeletion"]);
        claim.set(&["metadata", "ownerReferences"], vec![owner]);
        for map in ["annotations", "labels"] {
            if let Some(given) = template.at(&["spec", "metadata", map]) {
                claim.set(&["metadata", map], given);
            }
        }
        claim.set(&["metadata", "annotations", POD_CLAIM], name);
        claim.set(&["spec"], template.at(&["spec", "spec"]).cloned().unwrap_or_else(Value::object));
        let made = ctx.client().create(&CLAIMS, &claim).await.map_err(Problem::Create)?;
        Ok(Some(made.name().to_owned()))
    }

    /// A pod that came to its node without the scheduler uses its claims, too.
    async fn reserve(&self, ctx: &ReconcileContext, pod: &Object, value: &Value) -> Result<(), ReconcileError> {
        for entry in entries(value) {
            if let Entry::Made { name: None, .. } = entry {
                // Told in a moment: the pod's event comes back here.
                return Ok(());
            }
            let Some((name, own)) = entry.claim() else { continue };
            let key = ObjectKey::new(pod.namespace(), name);
            let Some(claim) = self.claims.get(&key) else { return Ok(()) };
            if own && !is_controller(claim.controller(), pod) {
                return Err(NotOwner { claim: key, pod: pod.key().clone() }.into());
            }
            let mut claim = claim.to_value();
            if !may_reserve(&claim, pod) {
                continue;
            }
            let mut users = claim.items_at(&["status", "reservedFor"]).to_vec();
            let mut user = Value::object();
            user.set(&["resource"], "pods");
            user.set(&["name"], pod.name());
            user.set(&["uid"], pod.uid());
            users.push(user);
            claim.set(&["status", "reservedFor"], users);
            ctx.client().update_status(&CLAIMS, &claim).await?;
        }
        Ok(())
    }
}

fn by_use(pod: &Object) -> Vec<String> {
    if !has_claims(pod) {
        return Vec::new();
    }
    claims_of(pod).iter().map(ToString::to_string).collect()
}

fn by_template(pod: &Object) -> Vec<String> {
    if !has_claims(pod) {
        return Vec::new();
    }
    let value = parsed(pod);
    let template = |entry: Entry<'_>| match entry {
        Entry::Made { template, .. } => Some(format!("{}/{template}", pod.namespace())),
        _ => None,
    };
    entries(&value).filter_map(template).collect()
}

/// `<pod>-<entry>-`, both cut in proportion where that is too long.
fn base_name(pod: &str, entry: &str) -> String {
    let whole = format!("{pod}-{entry}-");
    if whole.len() <= MAX_BASE {
        return whole;
    }
    let cut = &pod[..pod.len() * MAX_BASE / whole.len()];
    format!("{cut}-{}", &entry[..entry.len() * MAX_BASE / whole.len()])
}

/// Whether the pod is missing among the claim's users, and there is room for it.
fn may_reserve(claim: &Value, pod: &Object) -> bool {
    is_allocated(claim) && !is_reserved(claim, pod) && claim.items_at(&["status", "reservedFor"]).len() < MAX_USERS
}

/// Whether something is to be done for the pod. Upstream: podNeedsWork.
fn needs_work(pod: &Object, claims: &Informer) -> bool {
    if pod.is_deleting() || !has_claims(pod) || is_done(pod) {
        return false;
    }
    let value = parsed(pod);
    for entry in entries(&value) {
        let (name, own) = match entry {
            Entry::Needless => return false,
            Entry::Unsupported | Entry::Made { name: None, .. } => return true,
            Entry::Named(name) => (name, false),
            Entry::Made { name: Some(name), .. } => (name, true),
        };
        let Some(claim) = claims.get(&ObjectKey::new(pod.namespace(), name)) else { return own };
        if own && !is_controller(claim.controller(), pod) {
            return false;
        }
        if node_of(pod).is_some() && may_reserve(&claim.to_value(), pod) {
            return true;
        }
    }
    false
}

impl Controller for PodClaims {
    fn name(&self) -> &'static str {
        "resourceclaim-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let claims = self.claims.clone();
        let of_pod = move |event: &Event| {
            let gone = matches!(event, Event::Deleted(_));
            let pod = event.object();
            if !gone && needs_work(pod, &claims) { vec![pod.key().clone()] } else { Vec::new() }
        };
        let (pods, claims) = (self.pods.clone(), self.claims.clone());
        let of_claim = move |event: &Event| {
            let users = pods.by_index(USED_INDEX, &event.object().key().to_string());
            let waiting = users.iter().filter(|pod| needs_work(pod, &claims));
            waiting.map(|pod| pod.key().clone()).collect()
        };
        let (pods, claims) = (self.pods.clone(), self.claims.clone());
        let of_template = move |event: &Event| {
            let Event::Added(template) = event else { return Vec::new() };
            let users = pods.by_index(TEMPLATE_INDEX, &template.key().to_string());
            let waiting = users.iter().filter(|pod| needs_work(pod, &claims));
            waiting.map(|pod| pod.key().clone()).collect()
        };
        vec![
            Watch::new(self.pods.clone(), of_pod),
            Watch::new(self.claims.clone(), of_claim),
            Watch::new(self.templates.clone(), of_template),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.is_deleting() && !is_done(pod)) else {
            return Ok(Requeue::No);
        };
        let value = pod.to_value();
        let mut made = Vec::new();
        for each in value.items_at(&["spec", "resourceClaims"]) {
            let name = each.str_at(&["name"]).unwrap_or_default();
            match self.provide(ctx, &pod, &value, each, name).await {
                Ok(None) => {}
                Ok(Some(claim)) => {
                    let mut status = Value::object();
                    status.set(&["name"], name);
                    status.set(&["resourceClaimName"], claim);
                    made.push(status);
                }
                Err(problem) => {
                    let message = format!("PodResourceClaim {name}: {problem}");
                    self.recorder.warning(&pod, "FailedResourceClaimCreation", message);
                    return Err(problem.into());
                }
            }
        }
        if !made.is_empty() {
            // Those told before stay told: what isn't applied again would go.
            let known = value.items_at(&["status", "resourceClaimStatuses"]).iter();
            made.extend(
                known
                    .filter(|known| !made.iter().any(|new| new.get("name") == known.get("name")))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            let mut applied = Value::object();
            applied.set(&["apiVersion"], "v1");
            applied.set(&["kind"], "Pod");
            for (field, text) in [("name", pod.name()), ("namespace", pod.namespace()), ("uid", pod.uid())] {
                applied.set(&["metadata", field], text);
            }
            applied.set(&["status", "resourceClaimStatuses"], made);
            ctx.client().apply(&resources::PODS, "status", &applied, MANAGER).await?;
        }
        if node_of(&pod).is_some() {
            self.reserve(ctx, &pod, &value).await?;
        }
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_on_both_sides() {
        let check = |pod: &str, entry: &str, expect: &str| assert_eq!(base_name(pod, entry), expect);
        check("pod", "gpu", "pod-gpu-");
        let (long, part) = ("p".repeat(100), "p".repeat(100 * 57 / 105));
        check(&long, "abc", &format!("{part}-a"));
    }
}
