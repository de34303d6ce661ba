//! Which start is due, and when the next one will be. Upstream: pkg/controller/cronjob utils.go.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rules::cron::Schedule;

/// So much later than planned a CronJob is looked at, as clocks may be a little apart.
const MARGIN: Duration = Duration::from_millis(100);
/// More missed starts than this are worth a warning.
const MANY: i64 = 100;

/// A schedule in its zone, with what was started before.
pub(super) struct Plan<'a> {
    pub schedule: &'a Schedule,
    pub zone: &'a TimeZone,
    /// The last start, or when the CronJob was made.
    pub since: Timestamp,
    pub starting_deadline: Option<i64>,
}

/// The starts that were due.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Due {
    /// The last of them.
    pub latest: Option<Timestamp>,
    /// From when on starts were looked for.
    earliest: Timestamp,
    missed: i64,
}

impl Due {
    pub(super) fn is_many(&self) -> bool {
        self.missed > MANY
    }
}

/// The schedule fires never, or always.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct NoInterval;

impl Plan<'_> {
    /// The start that is due. Upstream: nextScheduleTime.
    pub(super) fn due(&self, now: Timestamp) -> Result<Due, NoInterval> {
        let deadline =
            self.starting_deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        self.between(deadline.map_or(self.since, |deadline| deadline.max(self.since)), now)
    }

    /// How long until the CronJob is to be looked at again. Upstream: nextScheduleTimeDuration.
    pub(super) fn next_in(&self, now: Timestamp) -> Option<Duration> {
        let from = match self.between(self.since, now) {
            Err(NoInterval) => now,
            Ok(Due { latest: Some(latest), .. }) => latest,
            Ok(Due { missed: 0, earliest, .. }) => earliest,
            Ok(_) => now,
        };
        let wait = self.next(from)?.duration_since(now);
        Some(Duration::try_from(wait).unwrap_or_default() + MARGIN)
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, self.zone)
    }

    /// Counts by the distance of the first two: where that is not always the same, only about. Upstream: mostRecentScheduleTime.
    fn between(&self, earliest: Timestamp, now: Timestamp) -> Result<Due, NoInterval> {
        let first = self.next(earliest).ok_or(NoInterval)?;
        if now < first {
            return Ok(Due { earliest, ..Due::default() });
        }
        let second = self.next(first).ok_or(NoInterval)?;
        if now < second {
            return Ok(Due { latest: Some(first), earliest, missed: 0 });
        }
        let interval = second.duration_since(first).as_secs();
        if interval < 1 {
            return Err(NoInterval);
        }
        let missed = now.duration_since(first).as_secs() / interval + 1;
        let from = first.checked_add(SignedDuration::from_secs((missed - 2) * interval)).unwrap_or(first);
        let mut latest = None;
        let mut time = self.next(from);
        while let Some(due) = time.filter(|time| *time <= now) {
            latest = Some(due);
            time = self.next(due);
        }
        Ok(Due { latest, earliest, missed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, since: &str, now: &str, deadline: Option<i64>, due: &str, many: bool, next: &str) {
        let (schedule, now): (_, Timestamp) = (Schedule::parse(schedule).unwrap(), now.parse().unwrap());
        let plan = Plan {
            schedule: &schedule,
            zone: &TimeZone::UTC,
            since: since.parse().unwrap(),
            starting_deadline: deadline,
        };
        let found = plan.due(now).unwrap();
        assert_eq!(found.latest.map(|time| time.to_string()).unwrap_or_default(), due);
        assert_eq!(found.is_many(), many);
        let wait = plan.next_in(now).unwrap();
        assert_eq!((now + (wait - MARGIN)).to_string(), next);
    }

    #[test]
    fn the_last_start_that_is_due() {
        let since = "2026-01-01T10:00:00Z";
        check("0 * * * *", since, "2026-01-01T10:30:00Z", None, "", false, "2026-01-01T11:00:00Z");
        check("0 * * * *", since, "2026-01-01T11:00:00Z", None, "2026-01-01T11:00:00Z", false, "2026-01-01T12:00:00Z");
        check("0 * * * *", since, "2026-01-01T15:10:00Z", None, "2026-01-01T15:00:00Z", false, "2026-01-01T16:00:00Z");
        check("0 * * * *", since, "2026-01-01T15:10:00Z", Some(60), "", false, "2026-01-01T16:00:00Z");
        check("0 * * * *", since, "2026-01-11T15:10:00Z", None, "2026-01-11T15:00:00Z", true, "2026-01-11T16:00:00Z");
        // Unequal distances: Mondays to Fridays, four starts a day.
        let irregular = "30 6-16/4 * * 1-5";
        check(
            irregular,
            "2022-06-06T09:00:00Z",
            "2022-06-09T14:00:00Z",
            None,
            "2022-06-09T10:30:00Z",
            false,
            "2022-06-09T14:30:00Z",
        );
        check("@every 1h", since, "2026-01-01T12:20:00Z", None, "2026-01-01T12:00:00Z", false, "2026-01-01T13:00:00Z");
    }

    #[test]
    fn a_schedule_that_never_fires() {
        let schedule = Schedule::parse("59 23 31 2 *").unwrap();
        let since = Timestamp::UNIX_EPOCH;
        let plan = Plan { schedule: &schedule, zone: &TimeZone::UTC, since, starting_deadline: None };
        assert_eq!(plan.due(since), Err(NoInterval));
        assert_eq!(plan.next_in(since), None);
    }
}
