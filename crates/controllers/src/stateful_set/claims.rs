//! The claims of a set's pods: made before the pods, and owned as the retention policy says.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, OwnerReference, Value};
use client::resources;

use super::view::{Replica, StatefulSet};
use super::{Failure, Sync};
use crate::meta::{controller_reference, metadata};

/// Who a claim's owner may be: the set or one of its pods.
#[derive(Clone, Copy)]
struct Owner<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    /// Empty for a pod that is not there.
    uid: &'a str,
}

impl Owner<'_> {
    /// By name, whatever its uid.
    fn is_named_by(&self, reference: &OwnerReference) -> bool {
        reference.api_version == self.api_version && reference.kind == self.kind && reference.name == self.name
    }

    fn owns(&self, claim: &Object) -> bool {
        claim.owners().iter().any(|reference| reference.uid == self.uid)
    }

    /// Another object of the same name owned it.
    fn is_stale_in(&self, claim: &Object) -> bool {
        let named = claim.owners().iter().find(|reference| self.is_named_by(reference));
        named.is_some_and(|reference| reference.uid != self.uid)
    }
}

/// One claim of one pod.
struct Claim<'a> {
    object: &'a Object,
    set: Owner<'a>,
    pod: Owner<'a>,
    deletes: (bool, bool),
    /// The pod is not wanted any more.
    condemned: bool,
}

impl Claim<'_> {
    /// Who should own it: the set, the pod.
    fn wanted_owners(&self) -> (bool, bool) {
        match self.deletes {
            (when_deleted, false) => (when_deleted, false),
            (when_deleted, true) => (when_deleted && !self.condemned, self.condemned),
        }
    }

    fn has_other_controller(&self) -> bool {
        if self.deletes == (false, false) {
            return false;
        }
        self.object.owners().iter().any(|reference| {
            for owner in [&self.set, &self.pod] {
                if owner.is_named_by(reference) {
                    return reference.uid != owner.uid;
                }
            }
            reference.controller
        })
    }

    /// The set or the pod owns it without controlling it.
    fn has_idle_owner(&self) -> bool {
        let ours = |uid: &str| uid == self.set.uid || uid == self.pod.uid;
        self.object.owners().iter().any(|reference| ours(&reference.uid) && !reference.controller)
    }

    fn is_right(&self) -> bool {
        if self.set.is_stale_in(self.object) || self.pod.is_stale_in(self.object) {
            return true; // an earlier set's: the garbage collector's to take away
        }
        let owned = (self.set.owns(self.object), self.pod.owns(self.object));
        if self.has_other_controller() {
            return owned == (false, false);
        }
        !self.has_idle_owner() && owned == self.wanted_owners()
    }
}

impl Sync<'_> {
    /// Creates the claims of the pod of `ordinal` that are missing.
    pub(super) async fn create_claims(&self, ordinal: i64) -> Result<(), Failure> {
        let mut failures = Vec::new();
        let pod = self.set.pod_name(ordinal);
        for claim in self.set.claims(ordinal) {
            let name = claim.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
            match self.claim(&name) {
                Some(known) if known.is_deleting() => failures.push(Failure::ClaimIsDeleted { name }),
                Some(_) => {}
                None => match self.client.create(&resources::PERSISTENT_VOLUME_CLAIMS, &claim).await {
                    Ok(_) => self.tell_claim(&pod, &name, None),
                    Err(source) => {
                        if !source.is_already_exists() {
                            self.tell_claim(&pod, &name, Some(&source));
                        }
                        failures.push(Failure::CreateClaim { name, source });
                    }
                },
            }
        }
        Failure::all(failures)
    }

    /// Whether a claim still belongs to an earlier pod of that name, with which it will go.
    pub(super) fn has_stale_claim(&self, replica: &Replica) -> bool {
        let set = self.set;
        set.deletes_claims().1
            && set.spec.volume_claim_templates.iter().any(|template| {
                let claim = self.claim(&set.claim_name(template, replica.ordinal));
                claim.is_some_and(|claim| pod_owner(&set.pod_name(replica.ordinal), replica.uid()).is_stale_in(&claim))
            })
    }

    /// Whether the replica's claims are owned as the policy says.
    pub(super) fn claims_are_right(&self, replica: &Replica) -> bool {
        let name = self.set.pod_name(replica.ordinal);
        self.known_claims(replica).all(|claim| self.claim_of(&claim, &name, replica).is_right())
    }

    /// Gives the replica's claims the owners that the policy asks for, if they have others.
    pub(super) async fn own_claims(&self, replica: &Replica) -> Result<(), Failure> {
        if self.claims_are_right(replica) { Ok(()) } else { self.settle_claims(replica).await }
    }

    /// The same, and tells in any case of claims that another controls.
    pub(super) async fn settle_claims(&self, replica: &Replica) -> Result<(), Failure> {
        let name = self.set.pod_name(replica.ordinal);
        for object in self.known_claims(replica) {
            let claim = self.claim_of(&object, &name, replica);
            let disputed = claim.has_other_controller();
            if disputed {
                let message = format!(
                    "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a manging controller, the retention \
                     policy is ignored for this claim",
                    object.name()
                );
                self.events.warning(&self.set.object, "ConflictingController", message);
            }
            if claim.is_right() {
                continue;
            }
            let mut references = metadata(&object).items_at(&["ownerReferences"]).to_vec();
            references.retain(|reference| {
                let text = |key: &str| reference.str_at(&[key]).unwrap_or_default();
                let named = |owner: &Owner<'_>| {
                    text("apiVersion") == owner.api_version && text("kind") == owner.kind && text("name") == owner.name
                };
                !named(&claim.set) && !named(&claim.pod)
            });
            if !disputed {
                let (set, pod) = claim.wanted_owners();
                if set {
                    references.push(controller_reference(&self.set.object));
                }
                if let Some(object) = replica.object().filter(|_| pod) {
                    references.push(controller_reference(object));
                }
            }
            let mut value = object.to_value();
            match references.is_empty() {
                true => drop(value.remove(&["metadata", "ownerReferences"])),
                false => value.set(&["metadata", "ownerReferences"], Value::Array(references)),
            }
            let updated = self.client.update(&resources::PERSISTENT_VOLUME_CLAIMS, &value).await;
            updated.map_err(|source| Failure::OwnClaim { name: object.name().to_owned(), source })?;
        }
        Ok(())
    }

    /// The replica's claims that are there.
    fn known_claims(&self, replica: &Replica) -> impl Iterator<Item = Arc<Object>> {
        let templates = self.set.spec.volume_claim_templates.iter();
        templates.filter_map(|template| self.claim(&self.set.claim_name(template, replica.ordinal)))
    }

    fn claim_of<'a>(&'a self, object: &'a Object, pod: &'a str, replica: &'a Replica) -> Claim<'a> {
        Claim {
            object,
            set: set_owner(self.set),
            pod: pod_owner(pod, replica.uid()),
            deletes: self.set.deletes_claims(),
            condemned: !self.set.has_place(replica.ordinal),
        }
    }

    fn claim(&self, name: &str) -> Option<Arc<Object>> {
        self.claims.get(&ObjectKey::new(self.set.object.namespace(), name))
    }

    fn tell_claim(&self, pod: &str, claim: &str, error: Option<&client::Error>) {
        let (object, set) = (&self.set.object, self.set.name());
        match error {
            None => {
                let message = format!("Create Claim {claim} Pod {pod} in StatefulSet {set} success");
                self.events.normal(object, "SuccessfulCreate", message);
            }
            Some(error) => {
                let message = format!("Create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {error}");
                self.events.warning(object, "FailedCreate", message);
            }
        }
    }
}

fn set_owner(set: &StatefulSet) -> Owner<'_> {
    Owner { api_version: "apps/v1", kind: "StatefulSet", name: set.name(), uid: set.object.uid() }
}

fn pod_owner<'a>(name: &'a str, uid: &'a str) -> Owner<'a> {
    Owner { api_version: "v1", kind: "Pod", name, uid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_follow_the_policy() {
        const SET: &str = r#"{"apiVersion":"apps/v1","kind":"StatefulSet","name":"web","uid":"s","controller":true}"#;
        const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","name":"web-0","uid":"p","controller":true}"#;
        const IDLE: &str = r#"{"apiVersion":"apps/v1","kind":"StatefulSet","name":"web","uid":"s"}"#;
        const STALE: &str = r#"{"apiVersion":"v1","kind":"Pod","name":"web-0","uid":"old","controller":true}"#;
        const OTHER: &str = r#"{"apiVersion":"v1","kind":"Thing","name":"x","uid":"x","controller":true}"#;
        let check = |deletes: (bool, bool), condemned: bool, owners: &[&str], right: bool| {
            let json = format!(r#"{{"metadata":{{"name":"data-web-0","ownerReferences":[{}]}}}}"#, owners.join(","));
            let object = Object::parse(json.as_bytes()).unwrap();
            let set = Owner { api_version: "apps/v1", kind: "StatefulSet", name: "web", uid: "s" };
            let claim = Claim { object: &object, set, pod: pod_owner("web-0", "p"), deletes, condemned };
            assert_eq!(claim.is_right(), right, "{deletes:?} {condemned} {owners:?}");
        };
        check((false, false), false, &[], true);
        check((false, false), false, &[SET], false);
        check((false, false), false, &[OTHER], true);
        check((true, false), false, &[SET], true);
        check((true, false), true, &[SET], true);
        check((true, false), false, &[], false);
        check((true, false), false, &[IDLE], false);
        check((true, false), false, &[OTHER], true);
        check((true, false), false, &[OTHER, SET], false);
        check((false, true), false, &[], true);
        check((false, true), true, &[], false);
        check((false, true), true, &[POD], true);
        check((true, true), false, &[SET], true);
        check((true, true), true, &[SET], false);
        check((true, true), true, &[POD], true);
        check((true, true), true, &[STALE], true);
    }
}
