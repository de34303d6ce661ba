//! The devices there are, by node and pool. Upstream: GatherPools.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{Device, ResourceSlice};

use super::{DeviceId, node_matches};
use crate::affinity::NodeLabels;

type PoolId = (Arc<str>, Arc<str>);

/// All slices, indexed; made once for many allocations.
#[derive(Debug, Default)]
pub struct Inventory {
    slices: Vec<Entry>,
    by_node: HashMap<String, Vec<usize>>,
    /// Slices that aren't of one node.
    elsewhere: Vec<usize>,
    by_pool: HashMap<PoolId, Vec<usize>>,
}

#[derive(Debug)]
struct Entry {
    slice: Arc<ResourceSlice>,
    pool: PoolId,
    devices: Vec<DeviceId>,
}

/// A pool, as far as it can be used on a node.
pub(super) struct Pool<'a> {
    pub driver: &'a str,
    pub name: &'a str,
    pub state: State,
    pub devices: Vec<Candidate<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Usable,
    /// Slices are missing.
    Incomplete,
    /// Two devices have one name.
    Invalid,
}

/// A device that the node reaches.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub id: &'a DeviceId,
    pub device: &'a Device,
    pub slice: &'a ResourceSlice,
}

impl Inventory {
    pub fn new(slices: impl IntoIterator<Item = Arc<ResourceSlice>>) -> Inventory {
        let mut inventory = Inventory::default();
        for slice in slices {
            inventory.add(slice);
        }
        inventory
    }

    fn add(&mut self, slice: Arc<ResourceSlice>) {
        let spec = &slice.spec;
        let pool: PoolId = (spec.driver.as_str().into(), spec.pool.name.as_str().into());
        let id = |device: &Device| DeviceId {
            driver: pool.0.clone(),
            pool: pool.1.clone(),
            device: device.name.as_str().into(),
        };
        let devices = spec.devices.iter().flatten().map(id).collect();
        let at = self.slices.len();
        // Those that need features which are off by default count for their pool's completeness only.
        let usable =
            spec.per_device_node_selection.is_none() && spec.shared_counters.as_ref().is_none_or(Vec::is_empty);
        if usable {
            match spec.node_name.as_deref().filter(|name| !name.is_empty()) {
                Some(node) => self.by_node.entry(node.to_owned()).or_default().push(at),
                None => self.elsewhere.push(at),
            }
        }
        self.by_pool.entry(pool.clone()).or_default().push(at);
        self.slices.push(Entry { slice, pool, devices });
    }

    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The pools that the node reaches, by name.
    pub(super) fn pools(&self, node: &dyn NodeLabels) -> Vec<Pool<'_>> {
        let own = self.by_node.get(node.name()).into_iter().flatten();
        let far = self.elsewhere.iter().filter(|at| {
            let spec = &self.slices[**at].slice.spec;
            node_matches(node, None, spec.all_nodes, spec.node_selector.as_ref())
        });
        let mut pools: BTreeMap<&PoolId, Vec<&Entry>> = BTreeMap::new();
        for at in own.chain(far) {
            let entry = &self.slices[*at];
            let known = pools.entry(&entry.pool).or_default();
            let generation = known.first().map(|first| first.slice.spec.pool.generation);
            if generation.is_some_and(|known| entry.slice.spec.pool.generation < known) {
                continue;
            }
            if generation.is_some_and(|known| entry.slice.spec.pool.generation > known) {
                known.clear();
            }
            known.push(entry);
        }
        pools.into_iter().filter_map(|(id, entries)| self.pool(id, &entries)).collect()
    }

    /// `None`: its driver is about to replace it.
    fn pool<'a>(&'a self, id: &'a PoolId, entries: &[&'a Entry]) -> Option<Pool<'a>> {
        let first = &entries.first()?.slice.spec.pool;
        let mut pool = Pool { driver: &id.0, name: &id.1, state: State::Usable, devices: Vec::new() };
        if entries.len() as i64 != first.resource_slice_count {
            let generations = || self.by_pool[id].iter().map(|at| self.slices[*at].slice.spec.pool.generation);
            if generations().any(|generation| generation > first.generation) {
                return None;
            }
            let known = generations().filter(|generation| *generation == first.generation).count();
            if known as i64 != first.resource_slice_count {
                pool.state = State::Incomplete;
                return Some(pool);
            }
        }
        let mut names = HashSet::new();
        for entry in entries {
            for (id, device) in entry.devices.iter().zip(entry.slice.spec.devices.iter().flatten()) {
                if !names.insert(&*id.device) {
                    return Some(Pool { state: State::Invalid, devices: Vec::new(), ..pool });
                }
                pool.devices.push(Candidate { id, device, slice: &entry.slice });
            }
        }
        Some(pool)
    }
}
