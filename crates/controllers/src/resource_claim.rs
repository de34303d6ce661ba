//! Pods get the resource claims that their templates describe, and claims lose the pods that are done, then their devices. Upstream:
//! pkg/controller/resourceclaim.

mod make;
mod users;

use apimachinery::{Object, ObjectKey, Value};
use client::Resource;

use crate::meta::{mentions, node_of, parsed};

pub(crate) use make::PodClaims;
pub(crate) use users::ClaimUsers;

pub(crate) const CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");

/// What an entry of a pod's `spec.resourceClaims` means.
pub(crate) enum Entry<'a> {
    /// A claim made by the user.
    Named(&'a str),
    /// A claim made from a template; the name is known when there is one.
    Made {
        template: &'a str,
        name: Option<&'a str>,
    },
    /// It was found that none is needed.
    Needless,
    Unsupported,
}

fn entry<'a>(pod: &'a Value, entry: &'a Value) -> Entry<'a> {
    if let Some(name) = entry.str_at(&["resourceClaimName"]) {
        return Entry::Named(name);
    }
    let Some(template) = entry.str_at(&["resourceClaimTemplateName"]) else { return Entry::Unsupported };
    let statuses = pod.items_at(&["status", "resourceClaimStatuses"]);
    match statuses.iter().find(|status| status.str_at(&["name"]) == entry.str_at(&["name"])) {
        None => Entry::Made { template, name: None },
        Some(status) => match status.str_at(&["resourceClaimName"]) {
            Some(name) => Entry::Made { template, name: Some(name) },
            None => Entry::Needless,
        },
    }
}

pub(crate) fn entries(pod: &Value) -> impl Iterator<Item = Entry<'_>> {
    pod.items_at(&["spec", "resourceClaims"]).iter().map(|each| entry(pod, each))
}

impl Entry<'_> {
    /// The claim's name, and whether it must be the pod's own.
    pub(crate) fn claim(&self) -> Option<(&str, bool)> {
        match self {
            Entry::Named(name) => Some((name, false)),
            Entry::Made { name, .. } => name.map(|name| (name, true)),
            Entry::Needless | Entry::Unsupported => None,
        }
    }
}

/// The claims that the pod uses.
fn claims_of(pod: &Object) -> Vec<ObjectKey> {
    let value = parsed(pod);
    let named = |entry: Entry<'_>| entry.claim().map(|(name, _)| ObjectKey::new(pod.namespace(), name));
    entries(&value).filter_map(named).collect()
}

/// Most pods have none: this looks for the word only.
pub(crate) fn has_claims(pod: &Object) -> bool {
    mentions(pod, "\"resourceClaims\"")
}

/// Whether it is certain that none of the pod's containers runs or will run.
fn is_done(pod: &Object) -> bool {
    let ended = || matches!(parsed(pod).str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
    pod.is_deleting() && node_of(pod).is_none() || ended()
}

fn is_allocated(claim: &Value) -> bool {
    claim.at(&["status", "allocation"]).is_some_and(|allocation| !allocation.is_null())
}

pub(crate) fn is_reserved(claim: &Value, pod: &Object) -> bool {
    claim.items_at(&["status", "reservedFor"]).iter().any(|user| user.str_at(&["uid"]) == Some(pod.uid()))
}
