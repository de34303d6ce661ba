//! What is read of a CronJob, and the status that is written.

use apimachinery::{Object, Value};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{list, seconds};

#[derive(Deserialize)]
pub(super) struct View {
    pub spec: Spec,
    #[serde(default)]
    pub status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub schedule: String,
    pub time_zone: Option<String>,
    pub starting_deadline_seconds: Option<i64>,
    #[serde(default)]
    pub concurrency_policy: String,
    #[serde(default)]
    pub suspend: bool,
    #[serde(default)]
    pub job_template: Value,
    pub successful_jobs_history_limit: Option<usize>,
    pub failed_jobs_history_limit: Option<usize>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub active: Vec<Reference>,
    pub last_schedule_time: Option<Timestamp>,
    pub last_successful_time: Option<Timestamp>,
}

/// A Job that was started and has not ended.
#[derive(Clone, Deserialize, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Reference {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub api_version: String,
    pub resource_version: String,
}

impl Reference {
    pub(super) fn to(job: &Object) -> Reference {
        Reference {
            kind: "Job".to_owned(),
            namespace: job.namespace().to_owned(),
            name: job.name().to_owned(),
            uid: job.uid().to_owned(),
            api_version: "batch/v1".to_owned(),
            resource_version: job.revision().to_string(),
        }
    }
}

impl Status {
    pub(super) fn is_active(&self, uid: &str) -> bool {
        self.active.iter().any(|reference| reference.uid == uid)
    }

    pub(super) fn forget(&mut self, uid: &str) {
        self.active.retain(|reference| reference.uid != uid);
    }

    /// The members of the status, as they are written; null is not there.
    pub(super) fn fields(&self) -> Value {
        let mut fields = Value::object();
        let time = |time: Option<Timestamp>| time.map_or(Value::Null, |time| seconds(time).into());
        fields.set(&["active"], list(&self.active));
        fields.set(&["lastScheduleTime"], time(self.last_schedule_time));
        fields.set(&["lastSuccessfulTime"], time(self.last_successful_time));
        fields
    }
}
