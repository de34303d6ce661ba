//! StatefulSet. Upstream: pkg/registry/apps/statefulset.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill, fill_absent, has, items_mut, text};
use super::{Context, Strategy, keep, persistent_volume_claim, pod, workload};

pub(super) struct StatefulSet {
    /// Whether `maxUnavailable` is kept where it isn't already (MaxUnavailableStatefulSet).
    pub(super) max_unavailable: bool,
}

/// What an update may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

const MAX_UNAVAILABLE: [&str; 4] = ["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"];

impl Strategy for StatefulSet {
    fn resource(&self) -> (&'static str, &'static str) {
        ("apps", "statefulsets")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill(spec, "podManagementPolicy", "OrderedReady");
        fill_absent(spec, "replicas", 1);
        fill_absent(spec, "revisionHistoryLimit", 10);
        let update = spec.make_object().entry("updateStrategy");
        fill(update, "type", "RollingUpdate");
        if text(update, "type") == "RollingUpdate" {
            let rolling = update.make_object().entry("rollingUpdate");
            fill_absent(rolling, "partition", 0);
            if self.max_unavailable {
                fill_absent(rolling, "maxUnavailable", 1);
            }
        }
        let retention = spec.make_object().entry("persistentVolumeClaimRetentionPolicy");
        fill(retention, "whenDeleted", "Retain");
        fill(retention, "whenScaled", "Retain");
        for claim in items_mut(spec, "volumeClaimTemplates") {
            fill(claim, "apiVersion", "v1");
            fill(claim, "kind", "PersistentVolumeClaim");
            persistent_volume_claim::default_claim(claim);
        }
        if let Some(template) = spec.get_mut("template") {
            pod::defaults::template(template);
        }
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        if !self.max_unavailable {
            new.remove(&MAX_UNAVAILABLE);
        }
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if !self.max_unavailable && old.at(&MAX_UNAVAILABLE).is_none() {
            new.remove(&MAX_UNAVAILABLE);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        let policy = text(spec, "podManagementPolicy");
        if !matches!(policy, "OrderedReady" | "Parallel") {
            errors.invalid(&path.child("podManagementPolicy"), policy, "must be 'OrderedReady' or 'Parallel'");
        }
        let update = spec.get("updateStrategy").unwrap_or(&empty);
        let update_path = path.child("updateStrategy");
        let rolling_path = update_path.child("rollingUpdate");
        match text(update, "type") {
            "OnDelete" if has(update, "rollingUpdate") => {
                let shown = update.get("rollingUpdate").cloned().unwrap_or_default();
                errors.invalid(&rolling_path, shown, "only allowed for updateStrategy 'RollingUpdate'");
            }
            "OnDelete" => {}
            "RollingUpdate" => {
                let rolling = update.get("rollingUpdate").unwrap_or(&empty);
                errors.non_negative(&rolling_path, rolling, "partition");
                workload::int_or_percent(rolling, "maxUnavailable", &rolling_path, errors);
                if has(rolling, "maxUnavailable") && workload::is_zero(rolling, "maxUnavailable") {
                    let shown = rolling.get("maxUnavailable").cloned().unwrap_or_default();
                    errors.invalid(&rolling_path.child("maxUnavailable"), shown, "cannot be 0");
                }
                workload::at_most_all(rolling, "maxUnavailable", &rolling_path, errors);
            }
            _ => errors.invalid(&update_path, update, "must be 'RollingUpdate' or 'OnDelete'"),
        }
        let retention = spec.get("persistentVolumeClaimRetentionPolicy").unwrap_or(&empty);
        let retention_path = path.child("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            errors.one_of(&retention_path.child(key), text(retention, key), &["Retain", "Delete"]);
        }
        for key in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
            errors.non_negative(&path, spec, key);
        }
        if let Some(ordinals) = spec.get("ordinals") {
            errors.non_negative(&path.child("ordinals"), ordinals, "start");
        }
        workload::selector(spec, "statefulset", &path, errors);
        // The volumes that mounts name may come from claim templates.
        let mut with_claims = spec.clone();
        mount_claims(&mut with_claims);
        workload::template(&with_claims, "StatefulSet", &path, errors);
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let counts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            workload::status_counts(new.get("status").unwrap_or(&Value::Null), &counts, errors);
            return workload::not_decremented(new, old, "collisionCount", errors);
        }
        self.validate(ctx, new, errors);
        let mut munged = new.get("spec").cloned().unwrap_or_default();
        let before = old.get("spec").cloned().unwrap_or_default();
        for key in MUTABLE {
            keep(&mut munged, &before, &[key]);
        }
        if munged != before {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                       'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.forbidden(&Path::new("spec"), why);
        }
    }
}

/// Adds a volume for each claim template that the template has none for, as its pods will have.
fn mount_claims(spec: &mut Value) {
    let claims: Vec<String> = spec
        .items_at(&["volumeClaimTemplates"])
        .iter()
        .filter_map(|claim| claim.str_at(&["metadata", "name"]).map(str::to_owned))
        .collect();
    let mut volumes = spec.items_at(&["template", "spec", "volumes"]).to_vec();
    for name in claims {
        if volumes.iter().all(|volume| text(volume, "name") != name) {
            let mut volume = Value::object();
            volume.set(&["name"], name.as_str());
            volume.set(&["persistentVolumeClaim", "claimName"], name);
            volumes.push(volume);
        }
    }
    if !volumes.is_empty() {
        spec.set(&["template", "spec", "volumes"], volumes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rolling: &str) -> Value {
        let text = format!(r#"{{"spec":{{"updateStrategy":{{"type":"RollingUpdate","rollingUpdate":{rolling}}}}}}}"#);
        Value::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_may_be_missing_is_defaulted_only_where_the_feature_is_on() {
        let check = |max_unavailable: bool, rolling: &str, expect: Option<Value>| {
            let mut value = set(rolling);
            StatefulSet { max_unavailable }.default(&mut value);
            assert_eq!(value.at(&MAX_UNAVAILABLE), expect.as_ref(), "{max_unavailable} {rolling}");
        };
        check(false, "{}", None);
        check(true, "{}", Some(1.into()));
        check(true, r#"{"maxUnavailable":"50%"}"#, Some("50%".into()));
    }
}
