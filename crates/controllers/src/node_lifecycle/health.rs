//! Whether a node still reports, by its status and its Lease.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Value};
use client::{Client, Error, resources};
use tokio::time::Instant;

use super::conditions;
use crate::meta::{metadata, now, write_status_at};

/// How long a node may be silent; and one that has never reported.
const GRACE: Duration = Duration::from_secs(50);
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// What was seen of a node. Only our own clock counts: the node's may be wrong.
pub(super) struct Health {
    pub uid: String,
    heard: Instant,
    reported: bool,
    heartbeat: String,
    renewed: String,
    /// Its pods are to be told that it is not ready.
    pub untold: bool,
}

impl Health {
    /// One that never reported counts from when it was made, `age` ago.
    pub(super) fn new(node: &Object, age: Duration, now: Instant) -> Health {
        let silent = ready(node).is_none();
        Health {
            uid: node.uid().to_owned(),
            heard: if silent { now.checked_sub(age).unwrap_or(now) } else { now },
            reported: false,
            heartbeat: String::new(),
            renewed: String::new(),
            untold: false,
        }
    }

    pub(super) fn observe(&mut self, node: &Object, lease: Option<&Object>, now: Instant) {
        let ready = conditions_value(node, "Ready");
        let heartbeat = ready.as_ref().and_then(|ready| ready.str_at(&["lastHeartbeatTime"])).unwrap_or_default();
        let lease = lease.map(Object::to_value);
        let renewed = lease.as_ref().and_then(|lease| lease.str_at(&["spec", "renewTime"])).unwrap_or_default();
        let reported = ready.is_some();
        // What we wrote ourselves is no sign of life: it leaves the heartbeat as it was.
        if heartbeat != self.heartbeat || renewed != self.renewed || reported && !self.reported {
            self.heard = now;
            self.heartbeat = heartbeat.to_owned();
            self.renewed = renewed.to_owned();
        }
        self.reported = reported;
    }

    pub(super) fn expires(&self) -> Instant {
        self.heard + if self.reported { GRACE } else { STARTUP_GRACE }
    }
}

/// The `Ready` condition's status, if there is one.
pub(super) fn ready(node: &Object) -> Option<String> {
    conditions(node).into_iter().find(|condition| condition.r#type == "Ready").map(|ready| ready.status)
}

fn conditions_value(node: &Object, r#type: &str) -> Option<Value> {
    let value = node.to_value();
    value.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some(r#type)).cloned()
}

/// Says that nothing is known of the node.
pub(super) async fn mark_unknown(client: &Client, node: &Arc<Object>) -> Result<Arc<Object>, Error> {
    let value = node.to_value();
    let mut conditions = value.items_at(&["status", "conditions"]).to_vec();
    let transition = now(client.env());
    for r#type in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let known = conditions.iter_mut().find(|condition| condition.str_at(&["type"]) == Some(r#type));
        let (condition, reason, message) = match known {
            Some(condition) if condition.str_at(&["status"]) == Some("Unknown") => continue,
            Some(condition) => (condition, "NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => {
                let mut condition = Value::object();
                condition.set(&["type"], r#type);
                let created = metadata(node).str_at(&["creationTimestamp"]).unwrap_or_default().to_owned();
                condition.set(&["lastHeartbeatTime"], created);
                conditions.push(condition);
                let condition = conditions.last_mut().expect("one was pushed");
                (condition, "NodeStatusNeverUpdated", "Kubelet never posted node status.")
            }
        };
        condition.set(&["status"], "Unknown");
        condition.set(&["reason"], reason);
        condition.set(&["message"], message);
        condition.set(&["lastTransitionTime"], &transition);
    }
    let mut fields = Value::object();
    fields.set(&["conditions"], Value::Array(conditions));
    write_status_at(client, &resources::NODES, node, &fields).await
}
