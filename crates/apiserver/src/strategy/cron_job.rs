//! CronJob. Upstream: pkg/registry/batch/cronjob.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill, fill_absent, flag, text};
use super::{Context, Strategy, job, keep};

const NAME_MAX: usize = 52;
const FIELDS: [(&str, i64, i64); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6)];
const MACROS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

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
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        if name.len() > NAME_MAX {
            errors.invalid(&Path::new("metadata.name"), name, "must be no more than 52 characters");
        }
        let schedule = text(spec, "schedule");
        if schedule.is_empty() {
            errors.required(&path.child("schedule"), "");
        } else if schedule.contains("TZ=") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(&path.child("schedule"), schedule, why);
        } else if let Err(why) = check_schedule(schedule) {
            errors.invalid(&path.child("schedule"), schedule, why);
        }
        errors.non_negative(&path, spec, "startingDeadlineSeconds");
        if let Some(zone) = spec.str_at(&["timeZone"]) {
            let path = path.child("timeZone");
            if zone.is_empty() {
                errors.invalid(&path, zone, "timeZone must be nil or non-empty string");
            } else if zone.eq_ignore_ascii_case("local") {
                errors.invalid(
                    &path,
                    zone,
                    "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                );
            } else if jiff::tz::TimeZone::get(zone).is_err() {
                errors.invalid(&path, zone, format!("unknown time zone {zone}"));
            }
        }
        let policy = text(spec, "concurrencyPolicy");
        errors.needs_one_of(&path.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]);
        let template = path.child("jobTemplate");
        let job_path = template.child("spec");
        let job = spec.at(&["jobTemplate", "spec"]).unwrap_or(&empty);
        job::validate_spec(job, &job_path, errors);
        if flag(job, "manualSelector") {
            errors.not_supported(&job_path.child("manualSelector"), "true", &["nil", "false"]);
        }
        for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            errors.non_negative(&path, spec, key);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource.is_empty() {
            self.validate(ctx, new, errors);
        }
    }
}

/// Reads a schedule of five fields, a macro, or `@every` with a duration.
fn check_schedule(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let every =
            schedule.strip_prefix("@every ").is_some_and(|duration| duration.starts_with(|c: char| c.is_ascii_digit()));
        return if every || MACROS.contains(&schedule) {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    parts
        .iter()
        .zip(FIELDS)
        .try_for_each(|(part, field)| part.split(',').try_for_each(|range| check_range(range, field)))
}

fn check_range(range: &str, (name, low, high): (&str, i64, i64)) -> Result<(), String> {
    let number = |text: &str| -> Result<i64, String> {
        let names: &[&str] = match name {
            "month" => &MONTHS,
            "day of week" => &DAYS,
            _ => &[],
        };
        let lower = text.to_lowercase();
        if let Some(index) = names.iter().position(|name| *name == lower) {
            return Ok(index as i64 + low);
        }
        text.parse::<i64>()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (body, step) = match range.split_once('/') {
        Some((body, step)) => (body, Some(number(step)?)),
        None => (range, None),
    };
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    if matches!(body, "*" | "?") {
        return Ok(());
    }
    let (first, last) = match body.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => {
            let first = number(body)?;
            (first, if step.is_some() { high } else { first })
        }
    };
    if first < low {
        return Err(format!("beginning of range ({first}) below minimum ({low}): {range}"));
    }
    if last > high {
        return Err(format!("end of range ({last}) above maximum ({high}): {range}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {range}"));
    }
    Ok(())
}
