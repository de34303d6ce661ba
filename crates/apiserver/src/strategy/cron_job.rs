//! CronJob. Upstream: pkg/registry/batch/cronjob.

use apimachinery::{FieldError, Value};

use rules::cron::Schedule;

use super::field::{Errors, Path, Report, fill, fill_absent, flag, has, member, text};
use super::{Context, Strategy, job, keep, pod};

const NAME_MAX: usize = 52;

pub(super) struct CronJob;

impl Strategy for CronJob {
    fn resource(&self) -> (&'static str, &'static str) {
        ("batch", "cronjobs")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill(spec, "concurrencyPolicy", "Allow");
        fill_absent(spec, "suspend", false);
        fill_absent(spec, "successfulJobsHistoryLimit", 3);
        fill_absent(spec, "failedJobsHistoryLimit", 1);
        if let Some(job) = spec.at_mut(&["jobTemplate", "spec"]) {
            job::default_template(job);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(new, None, errors);
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        if name.len() > NAME_MAX {
            errors.invalid(&Path::new("metadata.name"), name, "must be no more than 52 characters");
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource.is_empty() {
            validate_spec(new, Some(old), errors);
        }
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        if !ctx.subresource.is_empty() || old.is_some_and(|old| old.get("spec") == new.get("spec")) {
            return Vec::new();
        }
        let empty = Value::object();
        let template = new.at(&["spec", "jobTemplate", "spec"]).unwrap_or(&empty);
        let mut warnings = Vec::new();
        if old.is_none() {
            warnings.extend(job::name_warning(new));
        }
        warnings.extend(job::spec_warning(template, "spec.jobTemplate.spec"));
        let pod = |value: &Value| value.at(&["spec", "jobTemplate", "spec", "template"]).cloned().unwrap_or_default();
        if old.is_none_or(|old| pod(old) != pod(new)) {
            warnings.extend(pod::validation::warnings(&pod(new), "spec.jobTemplate.spec.template."));
        }
        if old.is_some() && new.str_at(&["spec", "schedule"]).is_some_and(|schedule| schedule.contains("TZ")) {
            warnings.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// Upstream: validateCronJobSpec.
fn validate_spec(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let empty = Value::object();
    let spec = new.get("spec").unwrap_or(&empty);
    let before = old.and_then(|old| old.get("spec"));
    let path = Path::new("spec");
    validate_schedule(spec, before, &path.child("schedule"), errors);
    errors.non_negative(&path, spec, "startingDeadlineSeconds");
    if let Some(zone) = spec.str_at(&["timeZone"])
        && before.is_none_or(|before| before.str_at(&["timeZone"]) != Some(zone))
    {
        validate_zone(zone, &path.child("timeZone"), errors);
    }
    let policy = text(spec, "concurrencyPolicy");
    errors.needs_one_of(&path.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]);
    let template = path.child("jobTemplate");
    let job_path = template.child("spec");
    let job = spec.at(&["jobTemplate", "spec"]).unwrap_or(&empty);
    job::validate_spec(job, &job_path, errors);
    if let Some(selector) = member(job, "selector") {
        errors.invalid(&job_path.child("selector"), selector, "`selector` will be auto-generated");
    }
    if flag(job, "manualSelector") {
        errors.not_supported(&job_path.child("manualSelector"), "true", &["nil", "false"]);
    }
    for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.non_negative(&path, spec, key);
    }
}

fn validate_schedule(spec: &Value, before: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        return errors.required(path, "");
    }
    if let Err(error) = Schedule::parse(schedule) {
        errors.invalid(path, schedule, error.to_string());
    }
    if !schedule.contains("TZ") {
        return;
    }
    let allowed = before.is_some_and(|before| text(before, "schedule").contains("TZ"));
    if !allowed {
        errors.invalid(path, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if has(spec, "timeZone") {
        errors.invalid(path, schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn validate_zone(zone: &str, path: &Path<'_>, errors: &mut Errors) {
    if zone.is_empty() {
        return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.starts_with('-') && part.len() <= 14 && part.chars().all(allowed)
    };
    let unknown = format!("unknown time zone {zone}");
    if !zone.split('/').all(is_part) {
        return errors.invalid(path, zone, unknown);
    }
    if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, why);
    }
    if zone != "Local" && rules::cron::time_zone(zone).is_none() {
        errors.invalid(path, zone, unknown);
    }
}
