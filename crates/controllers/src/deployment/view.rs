//! What is read of Deployments and ReplicaSets.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, Value};
use jiff::Timestamp;
use serde::Deserialize;

use super::hash::HASH_LABEL;
use crate::history::meaning;
use crate::meta::{Condition, created, one, scaled};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Upstream's way to say "no limit".
const NO_LIMIT: i64 = i32::MAX as i64;

pub(super) struct Deployment {
    pub object: Arc<Object>,
    pub annotations: BTreeMap<String, String>,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: WireMeta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireMeta {
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default = "one")]
    pub replicas: i64,
    pub selector: Value,
    pub template: Value,
    #[serde(default)]
    pub strategy: Strategy,
    #[serde(default)]
    pub min_ready_seconds: i64,
    pub revision_history_limit: Option<i64>,
    #[serde(default)]
    pub paused: bool,
    pub progress_deadline_seconds: Option<i64>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Strategy {
    pub r#type: String,
    pub rolling_update: Option<RollingUpdate>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RollingUpdate {
    pub max_surge: Value,
    pub max_unavailable: Value,
}

#[derive(Clone, Debug, Deserialize, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub observed_generation: i64,
    pub replicas: i64,
    pub updated_replicas: i64,
    pub ready_replicas: i64,
    pub available_replicas: i64,
    pub unavailable_replicas: i64,
    pub terminating_replicas: Option<i64>,
    pub collision_count: Option<i64>,
    pub conditions: Vec<Condition>,
}

impl Deployment {
    pub(super) fn read(object: &Arc<Object>) -> Result<Deployment, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(object.body())?;
        Ok(Deployment {
            object: object.clone(),
            annotations: wire.metadata.annotations,
            spec: wire.spec,
            status: wire.status,
        })
    }

    pub(super) fn is_rolling(&self) -> bool {
        self.spec.strategy.r#type != "Recreate"
    }

    pub(super) fn progress_deadline(&self) -> Option<i64> {
        self.spec.progress_deadline_seconds.filter(|seconds| *seconds != NO_LIMIT)
    }

    pub(super) fn history_limit(&self) -> Option<usize> {
        let limit = self.spec.revision_history_limit.filter(|limit| *limit != NO_LIMIT)?;
        Some(limit.max(0) as usize)
    }

    /// How many pods more than asked for there may be while rolling.
    pub(super) fn max_surge(&self) -> i64 {
        if self.is_rolling() { self.fenceposts().0 } else { 0 }
    }

    /// How many pods fewer than asked for may be available while rolling.
    pub(super) fn max_unavailable(&self) -> i64 {
        if !self.is_rolling() || self.spec.replicas == 0 {
            return 0;
        }
        self.fenceposts().1.min(self.spec.replicas)
    }

    /// Surge rounded up, unavailable rounded down; never both 0, or nothing would ever move.
    fn fenceposts(&self) -> (i64, i64) {
        let rolling = self.spec.strategy.rolling_update.clone().unwrap_or_default();
        let surge = scaled(&rolling.max_surge, self.spec.replicas, f64::ceil);
        let unavailable = scaled(&rolling.max_unavailable, self.spec.replicas, f64::floor);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }
}

/// A ReplicaSet of the Deployment.
#[derive(Clone)]
pub(super) struct ReplicaSet {
    pub object: Arc<Object>,
    pub created: Timestamp,
    pub annotations: BTreeMap<String, String>,
    pub template: Value,
    pub min_ready_seconds: i64,
    /// As its spec asks.
    pub replicas: i64,
    pub status: Status,
}

impl ReplicaSet {
    pub(super) fn read(object: Arc<Object>) -> Result<ReplicaSet, serde_json::Error> {
        #[derive(Deserialize)]
        struct WireSet {
            #[serde(default)]
            metadata: WireMeta,
            spec: WireSpec,
            #[serde(default)]
            status: Status,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct WireSpec {
            #[serde(default = "one")]
            replicas: i64,
            #[serde(default)]
            min_ready_seconds: i64,
            #[serde(default)]
            template: Value,
        }
        let wire: WireSet = serde_json::from_slice(object.body())?;
        Ok(ReplicaSet {
            created: created(&object),
            object,
            annotations: wire.metadata.annotations,
            template: wire.spec.template,
            min_ready_seconds: wire.spec.min_ready_seconds,
            replicas: wire.spec.replicas,
            status: wire.status,
        })
    }

    pub(super) fn name(&self) -> &str {
        self.object.name()
    }

    fn number(&self, annotation: &str) -> Option<i64> {
        self.annotations.get(annotation)?.parse().ok()
    }

    /// A size that somebody may have written by hand.
    fn size(&self, annotation: &str) -> Option<i64> {
        self.number(annotation).filter(|size| (0..=i64::from(i32::MAX)).contains(size))
    }

    /// The Deployment's size when this set was last scaled.
    pub(super) fn desired(&self) -> Option<i64> {
        self.size(DESIRED)
    }

    pub(super) fn max_replicas(&self) -> Option<i64> {
        self.size(MAX_REPLICAS)
    }

    /// 0 where there is none.
    pub(super) fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or_default()
    }

    /// How many of its pods are ending: none of a set that nobody has looked at yet, unknown where that is not told.
    pub(super) fn terminating(&self) -> Option<i64> {
        let is_new = self.status.observed_generation == 0;
        self.status.terminating_replicas.or_else(|| is_new.then_some(0))
    }
}

/// A template in the form in which two equal ones are equal: without the hash label, and without what says nothing.
pub(super) fn comparable(template: &Value) -> Value {
    let mut template = template.clone();
    template.remove(&["metadata", "labels", HASH_LABEL]);
    meaning(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenceposts_are_upstreams() {
        let check = |replicas: i64, surge: &str, unavailable: &str, expect: (i64, i64)| {
            let json = format!(
                r#"{{"metadata":{{"name":"d"}},"spec":{{"replicas":{replicas},"selector":{{}},"template":{{}},"strategy":
                    {{"type":"RollingUpdate","rollingUpdate":{{"maxSurge":{surge},"maxUnavailable":{unavailable}}}}}}}}}"#
            );
            let deployment = Deployment::read(&Arc::new(Object::parse(json.as_bytes()).unwrap())).unwrap();
            assert_eq!((deployment.max_surge(), deployment.max_unavailable()), expect);
        };
        check(10, "\"25%\"", "\"25%\"", (3, 2));
        check(1, "\"25%\"", "\"25%\"", (1, 0));
        check(3, "0", "0", (0, 1));
        check(2, "1", "5", (1, 2));
        check(0, "\"25%\"", "\"25%\"", (0, 0));
    }

    #[test]
    fn templates_compare_by_what_they_say() {
        let check = |a: &str, b: &str, equal: bool| {
            let parse = |text: &str| comparable(&Value::parse(text.as_bytes()).unwrap());
            assert_eq!(parse(a) == parse(b), equal, "{a} {b}");
        };
        check(
            r#"{"metadata":{"labels":{"a":"b","pod-template-hash":"x"}}}"#,
            r#"{"metadata":{"labels":{"a":"b"}}}"#,
            true,
        );
        check(r#"{"metadata":{"creationTimestamp":null},"spec":{"volumes":[]}}"#, r#"{"spec":{}}"#, true);
        check(r#"{"spec":{"volumes":[{"emptyDir":{}}]}}"#, r#"{"spec":{"volumes":[{}]}}"#, false);
    }
}
