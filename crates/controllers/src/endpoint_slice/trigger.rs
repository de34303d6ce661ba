//! When what endpoints tell changed, for those who measure how long it takes to arrive. Upstream: TriggerTimeTracker.

use std::collections::BTreeMap;

use apimachinery::{Object, ObjectKey};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::meta::created;

/// What was known of each Service.
#[derive(Default)]
pub(crate) struct Triggers(Mutex<BTreeMap<ObjectKey, State>>);

struct State {
    service: Timestamp,
    pods: BTreeMap<String, Timestamp>,
}

impl Triggers {
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// The earliest change since the last call, as the annotation tells it; at first the Service itself. `pods`: when each changed.
    pub(crate) fn changed(
        &self,
        key: &ObjectKey,
        service: &Object,
        pods: BTreeMap<String, Timestamp>,
    ) -> Option<String> {
        let service = created(service);
        let mut states = self.0.lock();
        let earliest = match states.get(key) {
            None => Some(service),
            Some(before) => {
                let changed = pods.iter().filter(|(name, at)| before.pods.get(*name).is_none_or(|known| known < *at));
                changed.map(|(_, at)| *at).chain((before.service < service).then_some(service)).min()
            }
        };
        states.insert(key.clone(), State { service, pods });
        earliest.map(|at| at.to_string())
    }
}
