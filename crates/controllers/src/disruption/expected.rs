//! How many pods the owners of a budget's pods ask for together.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, OwnerReference};
use client::{Client, Informer, resources};

use super::Failure;
use crate::Setup;
use crate::scale::scale_of;

/// Where sizes are looked up: known owners through informers, others through their scale subresource.
pub(super) struct Scales {
    replication_controllers: Informer,
    replica_sets: Informer,
    deployments: Informer,
    stateful_sets: Informer,
}

/// An owner's uid and size.
type Scale = (String, i64);

impl Scales {
    pub(super) fn new(setup: &Setup<'_>) -> Scales {
        Scales {
            replication_controllers: setup.informers.of(&resources::REPLICATION_CONTROLLERS),
            replica_sets: setup.informers.of(&resources::REPLICA_SETS),
            deployments: setup.informers.of(&resources::DEPLOYMENTS),
            stateful_sets: setup.informers.of(&resources::STATEFUL_SETS),
        }
    }

    pub(super) fn informers(&self) -> impl Iterator<Item = Informer> {
        let all = [&self.replication_controllers, &self.replica_sets, &self.deployments, &self.stateful_sets];
        all.map(Informer::clone).into_iter()
    }

    /// The sum of the owners' sizes, and the pods that nobody controls.
    pub(super) async fn expected(&self, client: &Client, pods: &[Arc<Object>]) -> Result<(i64, Vec<String>), Failure> {
        let (mut owners, mut asked, mut unmanaged) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for pod in pods {
            let Some(owner) = pod.controller() else {
                unmanaged.push(pod.name().to_owned());
                continue;
            };
            if asked.insert(owner.uid.clone(), ()).is_some() {
                continue;
            }
            let scale = match self.known(owner, pod.namespace()) {
                Some(scale) => Some(scale),
                None => by_subresource(client, owner, pod.namespace()).await?,
            };
            let (uid, size) = scale.ok_or_else(|| Failure::NoController(pod.name().to_owned()))?;
            owners.insert(uid, size);
        }
        Ok((owners.values().sum(), unmanaged))
    }

    /// The size of an owner that an informer knows; of a ReplicaSet that a Deployment controls, the Deployment's.
    fn known(&self, owner: &OwnerReference, namespace: &str) -> Option<Scale> {
        let group = group_of(owner);
        match (owner.kind.as_str(), group) {
            ("ReplicationController", "") => size(&self.replication_controllers, owner, namespace),
            ("StatefulSet", "apps") => size(&self.stateful_sets, owner, namespace),
            ("ReplicaSet", "apps" | "extensions") => {
                let set = find(&self.replica_sets, owner, namespace)?;
                match set.controller().filter(|controller| controller.kind == "Deployment") {
                    Some(deployment) => size(&self.deployments, deployment, namespace),
                    None => size(&self.replica_sets, owner, namespace),
                }
            }
            _ => None,
        }
    }
}

fn group_of(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

fn find(informer: &Informer, owner: &OwnerReference, namespace: &str) -> Option<Arc<Object>> {
    informer.get(&ObjectKey::new(namespace, &*owner.name)).filter(|object| object.uid() == owner.uid)
}

fn size(informer: &Informer, owner: &OwnerReference, namespace: &str) -> Option<Scale> {
    let object = find(informer, owner, namespace)?;
    Some((object.uid().to_owned(), object.to_value().i64_at(&["spec", "replicas"]).unwrap_or(1)))
}

/// Asks the owner's scale subresource. `None`: the owner is not there.
async fn by_subresource(client: &Client, owner: &OwnerReference, namespace: &str) -> Result<Option<Scale>, Failure> {
    let key = ObjectKey::new(namespace, &*owner.name);
    let found = scale_of(client, &owner.api_version, &owner.kind, &key).await?;
    let found = found.filter(|(_, scale)| scale.uid() == owner.uid);
    Ok(found.map(|(_, scale)| (owner.uid.clone(), scale.to_value().i64_at(&["spec", "replicas"]).unwrap_or_default())))
}
