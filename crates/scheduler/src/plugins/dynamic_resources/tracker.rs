//! Which devices are taken: by claims that the API tells, and by those whose allocation is being written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::ObjectKey;
use k8s_openapi::api::resource::v1::ResourceClaim;
use parking_lot::Mutex;
use rules::devices::{DeviceId, devices_of, is_allocated};

/// Devices in use.
#[derive(Default)]
pub struct Devices {
    state: Mutex<State>,
}

/// By claim: the devices that it will have.
pub type Pending = HashMap<ObjectKey, HashSet<DeviceId>>;

#[derive(Default)]
struct State {
    of_claim: HashMap<ObjectKey, HashSet<DeviceId>>,
    /// How many claims have the device: never more than one, unless somebody else allocates, too.
    taken: Arc<HashMap<DeviceId, u32>>,
    pending: Arc<Pending>,
}

impl Devices {
    /// Takes in a claim's state; `None`: it is gone.
    pub fn follow(&self, key: &ObjectKey, claim: Option<&ResourceClaim>) {
        let new = claim.filter(|claim| is_allocated(claim)).map(devices_of).unwrap_or_default();
        let mut state = self.state.lock();
        let old = state.of_claim.remove(key).unwrap_or_default();
        if old != new {
            let taken = Arc::make_mut(&mut state.taken);
            for gone in old.difference(&new) {
                if let Some(count) = taken.get_mut(gone) {
                    *count -= 1;
                    if *count == 0 {
                        taken.remove(gone);
                    }
                }
            }
            for device in new.difference(&old) {
                *taken.entry(device.clone()).or_default() += 1;
            }
        }
        if !new.is_empty() {
            state.of_claim.insert(key.clone(), new);
        }
    }

    /// The claim is about to have these devices.
    pub fn begin(&self, key: ObjectKey, devices: HashSet<DeviceId>) {
        Arc::make_mut(&mut self.state.lock().pending).insert(key, devices);
    }

    /// It has them, or won't have them. False: it wasn't about to.
    pub fn end(&self, key: &ObjectKey) -> bool {
        let mut state = self.state.lock();
        state.pending.contains_key(key) && Arc::make_mut(&mut state.pending).remove(key).is_some()
    }

    /// What is taken, and what is about to be.
    pub fn look(&self) -> (Arc<HashMap<DeviceId, u32>>, Arc<Pending>) {
        let state = self.state.lock();
        (state.taken.clone(), state.pending.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_are_taken_and_given_back() {
        let devices = Devices::default();
        let check = |claim: &str, held: &[&str], expect: &[&str]| {
            let results: Vec<_> =
                held.iter().map(|name| json!({"request": "r", "driver": "d", "pool": "p", "device": name})).collect();
            let status = json!({"allocation": {"devices": {"results": results}}});
            let claim_json = json!({"metadata": {"name": claim}, "spec": {}, "status": status});
            let view: ResourceClaim = serde_json::from_value(claim_json).unwrap();
            devices.follow(&ObjectKey::new("ns", claim), (!held.is_empty()).then_some(&view));
            let mut taken: Vec<String> = devices.look().0.keys().map(|id| id.device.to_string()).collect();
            taken.sort_unstable();
            assert_eq!(taken, expect);
        };
        check("a", &["x", "y"], &["x", "y"]);
        check("b", &["y", "z"], &["x", "y", "z"]);
        check("a", &["x"], &["x", "y", "z"]);
        check("b", &[], &["x"]);
        check("a", &[], &[]);
    }
}
