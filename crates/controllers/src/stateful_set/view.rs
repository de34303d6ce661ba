//! What is read of StatefulSets and their pods.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Value};
use jiff::Timestamp;
use serde::Deserialize;

use crate::meta::{between, one};
use crate::pod_view::PodView;

/// The label that names a pod's revision.
pub(super) const REVISION: &str = "controller-revision-hash";
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(super) struct StatefulSet {
    pub object: Arc<Object>,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Deserialize)]
struct Wire {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default = "one")]
    pub replicas: i64,
    pub selector: Value,
    #[serde(default)]
    pub template: Value,
    #[serde(default)]
    pub service_name: String,
    #[serde(default)]
    pub pod_management_policy: String,
    #[serde(default)]
    pub min_ready_seconds: u64,
    pub revision_history_limit: Option<i64>,
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    #[serde(default)]
    ordinals: Ordinals,
    #[serde(default)]
    pub volume_claim_templates: Vec<Value>,
    #[serde(default)]
    persistent_volume_claim_retention_policy: Retention,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UpdateStrategy {
    pub r#type: String,
    pub rolling_update: Option<RollingUpdate>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RollingUpdate {
    pub partition: i64,
    pub max_unavailable: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ordinals {
    start: i64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Retention {
    when_deleted: String,
    when_scaled: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub current_replicas: i64,
    pub current_revision: String,
    pub collision_count: Option<i64>,
}

impl StatefulSet {
    pub(super) fn read(object: &Arc<Object>) -> Result<StatefulSet, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(object.body())?;
        Ok(StatefulSet { object: object.clone(), spec: wire.spec, status: wire.status })
    }

    pub(super) fn name(&self) -> &str {
        self.object.name()
    }

    pub(super) fn replicas(&self) -> i64 {
        self.spec.replicas.max(0)
    }

    /// The first ordinal.
    pub(super) fn start(&self) -> i64 {
        self.spec.ordinals.start
    }

    pub(super) fn has_place(&self, ordinal: i64) -> bool {
        (self.start()..self.start() + self.replicas()).contains(&ordinal)
    }

    /// One pod after the other.
    pub(super) fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy != "Parallel"
    }

    pub(super) fn min_ready(&self) -> Duration {
        Duration::from_secs(self.spec.min_ready_seconds)
    }

    /// Whether claims go with the set, and with pods that scaling down takes.
    pub(super) fn deletes_claims(&self) -> (bool, bool) {
        let policy = &self.spec.persistent_volume_claim_retention_policy;
        (policy.when_deleted == "Delete", policy.when_scaled == "Delete")
    }

    pub(super) fn pod_name(&self, ordinal: i64) -> String {
        format!("{}-{ordinal}", self.name())
    }

    pub(super) fn claim_name(&self, template: &Value, ordinal: i64) -> String {
        let claim = template.str_at(&["metadata", "name"]).unwrap_or_default();
        format!("{claim}-{}-{ordinal}", self.name())
    }
}

/// A pod of the set, or one that is to be made.
pub(super) struct Replica {
    pub ordinal: i64,
    pub revision: String,
    pub pod: Pod,
}

pub(super) enum Pod {
    /// As it will be created.
    Missing(Value),
    Known {
        object: Arc<Object>,
        view: Arc<PodView>,
    },
}

impl Replica {
    pub(super) fn known(object: Arc<Object>, view: Arc<PodView>) -> Replica {
        let ordinal = parent_and_ordinal(object.name()).map_or(-1, |(_, ordinal)| ordinal);
        let revision = object.label(REVISION).unwrap_or_default().to_owned();
        Replica { ordinal, revision, pod: Pod::Known { object, view } }
    }

    pub(super) fn object(&self) -> Option<&Arc<Object>> {
        if let Pod::Known { object, .. } = &self.pod { Some(object) } else { None }
    }

    fn view(&self) -> Option<&PodView> {
        if let Pod::Known { view, .. } = &self.pod { Some(view) } else { None }
    }

    /// Empty while the pod is not there.
    pub(super) fn uid(&self) -> &str {
        self.object().map_or("", |object| object.uid())
    }

    fn phase(&self) -> &str {
        self.view().map_or("", |view| &view.phase)
    }

    /// The API server knows it.
    pub(super) fn is_created(&self) -> bool {
        self.object().is_some()
    }

    pub(super) fn is_pending(&self) -> bool {
        self.phase() == "Pending"
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.phase(), "Failed" | "Succeeded")
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.object().is_some_and(|object| object.is_deleting())
    }

    pub(super) fn is_running_and_ready(&self) -> bool {
        self.phase() == "Running" && self.view().is_some_and(PodView::is_ready)
    }

    /// It has been ready for long enough.
    pub(super) fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool {
        let since = self.view().and_then(|view| view.ready_since);
        since.is_some_and(|since| {
            min_ready.is_zero() || since.checked_add(min_ready).is_ok_and(|available| available <= now)
        })
    }

    pub(super) fn is_unavailable(&self, min_ready: Duration, now: Timestamp) -> bool {
        !self.is_available(min_ready, now) || self.is_terminating()
    }

    /// How long until it has been ready for long enough.
    pub(super) fn available_in(&self, min_ready: Duration, now: Timestamp) -> Option<Duration> {
        let at = self.view()?.ready_since?.checked_add(min_ready).ok()?;
        Some(between(now, at)).filter(|left| !left.is_zero())
    }
}

/// `web` and 3 of `web-3`.
pub(super) fn parent_and_ordinal(pod: &str) -> Option<(&str, i64)> {
    let (parent, digits) = pod.rsplit_once('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // An ordinal beyond 32 bits is none.
    plain.then(|| (parent, digits.parse::<i32>().map_or(-1, i64::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_sets_and_ordinals() {
        let check = |name: &str, expect: Option<(&str, i64)>| assert_eq!(parent_and_ordinal(name), expect);
        check("web-0", Some(("web", 0)));
        check("a-b-12", Some(("a-b", 12)));
        check("web-007", Some(("web", 7)));
        check("web", None);
        check("web-", None);
        check("web-x", None);
        check("web-99999999999", Some(("web", -1)));
    }
}
