//! The scheduler's decisions on objects alone: no API server, no queue, no clock. What comparisons with upstream and benchmarks of the decision itself
//! stand on.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let mut trial = scheduler::trial::Trial::new(&scheduler::Configuration::default());
//! trial.put(&serde_json::json!({"kind": "Node", "metadata": {"name": "n1"}, "status": {"allocatable": {"pods": "10"}}}));
//! let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": []}});
//! assert_eq!(trial.decide(&pod).await.node, Some("n1".into()));
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value as Any};
use serde_json::Value;

use crate::cache::Cache;
use crate::cluster::{Budget, Cluster, Kept, LabelMap, Store, set_selector};
use crate::config::Configuration;
use crate::cycle::Problem;
use crate::cycle::{Evaluated, Search, evaluate};
use crate::framework::{Cycle, Failed, Profile};
use crate::nominator::Nominator;
use crate::plugins::Parts;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// A cluster made of objects, and a profile that decides in it.
pub struct Trial {
    profiles: Vec<Profile>,
    percentage: u32,
    cache: Cache,
    snapshot: Snapshot,
    cluster: Arc<Cluster>,
    nominator: Nominator,
    search: Search,
}

/// What was decided about one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// One of the best nodes; none if no node suits.
    pub node: Option<String>,
    /// The nodes that suit, each with its total (0 if there is only one).
    pub feasible: BTreeMap<String, i64>,
    /// Weighted scores by plugin, then node; empty if fewer than two nodes suit.
    pub scores: BTreeMap<String, BTreeMap<String, i64>>,
    /// Why no node suits, in upstream's sentence.
    pub message: String,
    /// By node: what each claim without devices, `namespace/name`, would get there.
    pub allocations: BTreeMap<String, BTreeMap<String, Value>>,
    /// Where others go to make room, and who: `namespace/name`, sorted.
    pub preemption: Option<(String, Vec<String>)>,
}

impl Trial {
    /// Decides by the profile that a pod names; by the first one about pods that name none of them.
    ///
    /// # Panics
    /// If the configuration was not checked.
    pub fn new(configuration: &Configuration) -> Trial {
        let profiles = configuration.profiles(&Parts::default()).expect("a configuration is checked when it is read");
        Trial {
            profiles,
            percentage: configuration.percentage(),
            cache: Cache::default(),
            snapshot: Snapshot::default(),
            cluster: Arc::default(),
            nominator: Nominator::default(),
            search: Search::default(),
        }
    }

    /// Takes in an object, by its `kind`; others than those that matter are left alone.
    pub fn put(&mut self, object: &Value) {
        match object["kind"].as_str().unwrap_or_default() {
            "Node" => drop(serde_json::from_value(object.clone()).map(|node| self.cache.set_node(node))),
            "Pod" => {
                let Ok(pod) = serde_json::from_value(object.clone()) else { return };
                let info = Arc::new(PodInfo::new(&pod));
                let node = info.node.clone();
                if !node.is_empty() {
                    self.cache.place(info, &node);
                } else if !info.nominated.is_empty() {
                    self.nominator.set(info.clone(), &info.nominated.clone());
                }
            }
            kind => self.keep(kind, object),
        }
    }

    fn keep(&self, kind: &str, object: &Value) {
        let Some(object) = Any::from_serialize(object).ok().and_then(|value| Object::from_answer(&value).ok()) else {
            return;
        };
        let cluster = &self.cluster;
        match kind {
            "PersistentVolumeClaim" => store(&cluster.claims, &object, Kept::read),
            "PersistentVolume" => store(&cluster.volumes, &object, Kept::read),
            "StorageClass" => store(&cluster.classes, &object, Kept::read),
            "CSINode" => store(&cluster.csi_nodes, &object, Kept::read),
            "CSIDriver" => store(&cluster.csi_drivers, &object, Kept::read),
            "CSIStorageCapacity" => store(&cluster.csi_capacities, &object, Kept::read),
            "VolumeAttachment" => store(&cluster.attachments, &object, Kept::read),
            "ResourceClaim" => {
                let claim = Kept::read(&object).map(Arc::new);
                let key = ObjectKey::new(object.namespace(), object.name());
                cluster.follow_claim(&key, claim, object.revision());
            }
            "DeviceClass" => store(&cluster.device_classes, &object, Kept::read),
            "ResourceSlice" => store(&cluster.slices, &object, Kept::read),
            "PodDisruptionBudget" => store(&cluster.budgets, &object, Budget::read),
            "Namespace" => store(&cluster.namespaces, &object, LabelMap::labels),
            "Service" => store(&cluster.services, &object, LabelMap::selector),
            "ReplicationController" => store(&cluster.replication_controllers, &object, LabelMap::selector),
            "ReplicaSet" => store(&cluster.replica_sets, &object, set_selector),
            "StatefulSet" => store(&cluster.stateful_sets, &object, set_selector),
            _ => {}
        }
    }

    /// Takes a pod away.
    pub fn remove_pod(&mut self, uid: &str) {
        self.cache.remove(uid);
        self.nominator.remove(uid);
    }

    /// Decides about a pod; nothing changes.
    pub async fn decide(&mut self, pod: &Value) -> Decision {
        let Ok(pod) = serde_json::from_value(pod.clone()) else { return Decision::default() };
        let pod = Arc::new(PodInfo::new(&pod));
        let changes = self.cache.changes();
        self.snapshot.update(changes);
        let named = self.profiles.iter().find(|profile| profile.name == pod.scheduler);
        let Some(profile) = named.or(self.profiles.first()) else { return Decision::default() };
        let cycle = Cycle { pod: &pod, snapshot: &self.snapshot, cluster: &self.cluster };
        if self.snapshot.len() == 0 {
            let message = "no nodes available to schedule pods".into();
            return Decision { message, ..Decision::default() };
        }
        self.search.default_percentage = self.percentage;
        let first = |_| 0;
        let promises = self.nominator.promises();
        match evaluate(profile, cycle, &promises, &mut self.search, &[], &first).await {
            Ok(evaluated) => found(&evaluated),
            Err(Problem::Error(message)) => Decision { message, ..Decision::default() },
            Err(Problem::Unsuitable { mut diagnosis, filters }) => {
                let failed = Failed {
                    cycle,
                    diagnosis: &diagnosis,
                    filters: filters.as_ref(),
                    promises: &promises,
                    random: &first,
                    others_agree: false,
                };
                let after = profile.post_filter(&failed);
                diagnosis.post_filter = after.message;
                let named = |work: crate::framework::Preemption| {
                    let mut victims: Vec<String> = work.victims.iter().map(|pod| pod.key.to_string()).collect();
                    victims.sort_unstable();
                    (work.node, victims)
                };
                let preemption = after.work.map(named);
                Decision { message: diagnosis.message(), preemption, ..Decision::default() }
            }
        }
    }
}

fn found(evaluated: &Evaluated<'_>) -> Decision {
    let names = || evaluated.feasible.iter().map(|node| node.name().to_owned());
    let totals = evaluated.totals.iter().copied().chain(std::iter::repeat(0));
    let by_plugin = |(plugin, scores): &(&'static str, Vec<i64>)| {
        ((*plugin).to_owned(), names().zip(scores.iter().copied()).collect())
    };
    let allocated = |node: &&crate::node::NodeInfo| {
        let filter = evaluated.filters.of("DynamicResources");
        let allocations = filter.map(|filter| filter.allocations(node)).unwrap_or_default();
        let told = |(claim, allocation): (ObjectKey, _)| {
            (claim.to_string(), serde_json::to_value(allocation).expect("an allocation is plain data"))
        };
        (node.name().to_owned(), allocations.into_iter().map(told).collect())
    };
    Decision {
        node: Some(evaluated.node.clone()),
        allocations: evaluated.feasible.iter().map(allocated).collect(),
        feasible: names().zip(totals).collect(),
        scores: evaluated.scores.iter().map(by_plugin).collect(),
        ..Decision::default()
    }
}

fn store<T>(store: &Store<T>, object: &Object, read: fn(&Object) -> Option<T>) {
    let key = ObjectKey::new(object.namespace(), object.name());
    if let Some(value) = read(object) {
        store.set(key, Arc::new(value), object.revision());
    }
}
