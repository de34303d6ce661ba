//! When what endpoints tell changed, for those who measure how long it takes to arrive. Upstream: TriggerTimeTracker.

use std::collections::BTreeMap;

use apimachinery::{Object, ObjectKey};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::meta::created;
use crate::service::Backend;

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

    /// The earliest change since the last call, as the annotation tells it.
    pub(crate) fn changed(&self, key: &ObjectKey, service: &Object, backends: &[Backend]) -> Option<String> {
        let pods: BTreeMap<String, Timestamp> =
            backends.iter().filter_map(|b| Some((b.object.name().to_owned(), b.view.ready_changed?))).collect();
        let state = State { service: created(service), pods };
        let mut states = self.0.lock();
        let before = states.get(key);
        let known = |name: &str| before.and_then(|before| before.pods.get(name));
        let pods = state.pods.iter().filter(|(name, at)| known(name).is_none_or(|known| known < at));
        let service_changed = before.is_none_or(|before| before.service < state.service);
        let times = pods.map(|(_, at)| *at).chain(service_changed.then_some(state.service));
        let earliest = times.min().map(|at| at.to_string());
        states.insert(key.clone(), state);
        earliest
    }
}
