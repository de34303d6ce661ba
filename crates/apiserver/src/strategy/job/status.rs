//! How a Job's status may change: whoever manages the Job, it tells the same story. Upstream: ValidateJobStatusUpdate with the
//! options of getStatusValidationOptions: what was wrong before and isn't touched is let pass.

use apimachinery::Value;

use super::super::field::{Errors, Path, Report, has, int, items, member, text};
use super::indexes;
use super::spec::bare;

const STATUS: Path<'static> = Path::new("status");

/// A Job before or after the change.
struct Side<'a> {
    spec: &'a Value,
    status: &'a Value,
}

impl<'a> Side<'a> {
    fn of(job: &'a Value) -> Side<'a> {
        let part = |key: &str| job.get(key).unwrap_or(&Value::Null);
        Side { spec: part("spec"), status: part("status") }
    }

    fn held(&self, r#type: &str, status: &str) -> bool {
        items(self.status, "conditions").iter().any(|c| text(c, "type") == r#type && text(c, "status") == status)
    }

    fn is(&self, r#type: &str) -> bool {
        self.held(r#type, "True")
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn is_indexed(&self) -> bool {
        text(self.spec, "completionMode") == "Indexed"
    }

    fn uncounted(&self, list: &str) -> &[Value] {
        self.status.items_at(&["uncountedTerminatedPods", list])
    }

    fn time(&self, key: &str) -> Option<&str> {
        self.status.str_at(&[key])
    }
}

/// What differs between the two.
struct Changes<'a> {
    new: &'a Side<'a>,
    old: &'a Side<'a>,
}

impl Changes<'_> {
    fn member(&self, key: &str) -> bool {
        member(self.new.status, key) != member(self.old.status, key)
    }

    fn number(&self, key: &str) -> bool {
        int(self.new.status, key) != int(self.old.status, key)
    }

    fn condition(&self, r#type: &str) -> bool {
        self.new.is(r#type) != self.old.is(r#type)
    }

    fn finished(&self) -> bool {
        self.new.is_finished() != self.old.is_finished()
    }

    fn uncounted(&self) -> bool {
        ["succeeded", "failed"].iter().any(|list| self.new.uncounted(list) != self.old.uncounted(list))
    }
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old) = (&Side::of(new), &Side::of(old));
    let changed = Changes { new, old };
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.non_negative(&STATUS, new.status, key);
    }
    validate_uncounted(new, errors);
    validate_conditions(&changed, errors);
    validate_counts(&changed, errors);
    validate_indexes(&changed, errors);
    validate_late(&changed, errors);
    validate_steps(&changed, errors);
}

fn validate_uncounted(new: &Side<'_>, errors: &mut Errors) {
    let path = STATUS.child("uncountedTerminatedPods");
    let mut seen: Vec<&Value> = Vec::new();
    for list in ["succeeded", "failed"] {
        let path = path.child(list);
        for (i, uid) in new.uncounted(list).iter().enumerate() {
            if uid.as_str().is_none_or(str::is_empty) {
                errors.invalid(&path.index(i), "", "must not be empty");
            } else if seen.contains(&uid) {
                errors.duplicate(&path.index(i), uid);
            } else {
                seen.push(uid);
            }
        }
    }
}

fn validate_conditions(changed: &Changes<'_>, errors: &mut Errors) {
    let new = changed.new;
    let conditions = STATUS.child("conditions");
    let (complete, failed) = (new.is("Complete"), new.is("Failed"));
    let complete_changed = changed.condition("Complete");
    if (complete_changed || changed.condition("Failed")) && complete && failed {
        errors.add(bare(&conditions, "cannot set Complete=True and Failed=true conditions"));
    }
    if (complete_changed || changed.condition("FailureTarget")) && complete && new.is("FailureTarget") {
        errors.add(bare(&conditions, "cannot set Complete=True and FailureTarget=true conditions"));
    }
    let (start, end) = (new.time("startTime"), new.time("completionTime"));
    let at = STATUS.child("completionTime");
    let end_changed = changed.member("completionTime");
    if complete_changed || end_changed {
        match end {
            Some(end) if !complete => {
                errors.invalid(&at, end, "cannot set completionTime when there is no Complete=True condition");
            }
            None if complete => errors.required(&at, "completionTime is required for Complete jobs"),
            _ => {}
        }
    }
    // Both are RFC 3339 in UTC and whole seconds: their order is that of their texts.
    if (changed.member("startTime") || end_changed)
        && let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        errors.invalid(&at, end, "must be equal to or after `startTime`");
    }
    if (changed.condition("Failed") || changed.member("failedIndexes")) && failed && !new.is("FailureTarget") {
        errors.add(bare(&conditions, "cannot set Failed=True condition without the FailureTarget=true condition"));
    }
    let met = new.is("SuccessCriteriaMet");
    if (complete_changed || changed.condition("SuccessCriteriaMet")) && complete && !met {
        errors
            .add(bare(&conditions, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"));
    }
}

fn validate_counts(changed: &Changes<'_>, errors: &mut Errors) {
    let (new, finished) = (changed.new, changed.new.is_finished());
    if !finished {
        return;
    }
    if (changed.finished() || changed.number("active")) && int(new.status, "active") > 0 {
        errors.invalid(&STATUS.child("active"), int(new.status, "active"), "active>0 is invalid for finished job");
    }
    let never_began = new.spec.bool_at(&["suspend"]) == Some(true) && new.spec.i64_at(&["completions"]) == Some(0);
    if (changed.finished() || changed.member("startTime")) && !never_began && new.time("startTime").is_none() {
        errors.required(&STATUS.child("startTime"), "startTime is required for finished job");
    }
    let uncounted = new.uncounted("succeeded").len() + new.uncounted("failed").len();
    if (changed.finished() || changed.uncounted()) && uncounted > 0 {
        let shown = new.status.get("uncountedTerminatedPods");
        errors.invalid(&STATUS.child("uncountedTerminatedPods"), shown, "must be empty for finished job");
    }
}

fn validate_indexes(changed: &Changes<'_>, errors: &mut Errors) {
    let new = changed.new;
    let (completed_changed, failed_changed) = (
        text(new.status, "completedIndexes") != text(changed.old.status, "completedIndexes"),
        changed.member("failedIndexes"),
    );
    let completed = text(new.status, "completedIndexes");
    let failed = new.status.str_at(&["failedIndexes"]);
    let completions = new.spec.i64_at(&["completions"]);
    let (completed_path, failed_path) = (STATUS.child("completedIndexes"), STATUS.child("failedIndexes"));
    if completed_changed
        && let Some(completions) = completions
        && let Err(why) = indexes::count(completed, completions)
    {
        errors.invalid(&completed_path, completed, format!("error parsing completedIndexes: {why}"));
    }
    let limited = has(new.spec, "backoffLimitPerIndex");
    if failed_changed
        && limited
        && let (Some(completions), Some(failed)) = (completions, failed)
        && let Err(why) = indexes::count(failed, completions)
    {
        errors.invalid(&failed_path, failed, format!("error parsing failedIndexes: {why}"));
    }
    if completed_changed && !completed.is_empty() && !new.is_indexed() {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.invalid(&completed_path, completed, why);
    }
    if let Some(failed) = failed {
        if failed_changed && !limited {
            let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.invalid(&failed_path, failed, why);
        }
        if (failed_changed || completed_changed)
            && let Some(index) = indexes::overlap(completed, failed, completions.unwrap_or_default())
        {
            let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.invalid(&failed_path, failed, why);
        }
    }
}

fn validate_late(changed: &Changes<'_>, errors: &mut Errors) {
    let new = changed.new;
    let conditions = STATUS.child("conditions");
    let terminating = int(new.status, "terminating");
    if (changed.finished() || changed.member("terminating")) && terminating > 0 && new.is_finished() {
        errors.invalid(&STATUS.child("terminating"), terminating, "terminating>0 is invalid for finished job");
    }
    let ready = int(new.status, "ready");
    if (changed.member("ready") || changed.number("active")) && ready > int(new.status, "active") {
        errors.invalid(&STATUS.child("ready"), ready, "cannot set more ready pods than active");
    }
    let met = new.is("SuccessCriteriaMet");
    if met && new.is("Failed") {
        errors.add(bare(&conditions, "cannot set SuccessCriteriaMet=True and Failed=true conditions"));
    }
    if met && new.is("FailureTarget") {
        errors.add(bare(&conditions, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"));
    }
    if has(new.spec, "successPolicy") && !met && new.is("Complete") {
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        errors.add(bare(&conditions, why));
    }
}

/// What may not be taken back.
fn validate_steps(changed: &Changes<'_>, errors: &mut Errors) {
    let (new, old) = (changed.new, changed.old);
    let conditions = STATUS.child("conditions");
    for r#type in ["Failed", "Complete", "FailureTarget"] {
        if old.is(r#type) && !new.is(r#type) {
            errors.add(bare(&conditions, &format!("cannot disable the terminal {type}=True condition")));
        }
    }
    // An elastic Job shrinks.
    let elastic = new.is_indexed() && member(new.spec, "completions") == member(new.spec, "parallelism");
    for (key, counts) in [("failed", true), ("succeeded", !elastic)] {
        let n = int(new.status, key);
        if counts && n < int(old.status, key) {
            errors.invalid(&STATUS.child(key), n, format!("cannot decrease the {key} counter"));
        }
    }
    if let (Some(now), Some(before)) = (new.time("completionTime"), old.time("completionTime"))
        && now != before
    {
        errors.invalid(&STATUS.child("completionTime"), now, "field is immutable");
    }
    let resuming = old.is("Suspended") && new.held("Suspended", "False");
    let suspended = new.spec.bool_at(&["suspend"]) == Some(true);
    if changed.member("startTime") && !resuming && old.time("startTime").is_some() && !suspended {
        errors.required(&STATUS.child("startTime"), "startTime cannot be removed for unsuspended job");
    }
    let (meets, met) = (new.is("SuccessCriteriaMet"), old.is("SuccessCriteriaMet"));
    if met && !meets {
        errors.add(bare(&conditions, "cannot disable the SuccessCriteriaMet=True condition"));
    }
    if old.is("Complete") && !met && meets {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.add(bare(&conditions, why));
    }
}
