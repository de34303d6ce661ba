//! A moment as clocks of a zone show it, moved about as Go's `time` package moves it.

use jiff::Timestamp;
use jiff::civil::{self, DateTime};
use jiff::tz::TimeZone;

/// A moment, in whole seconds, and what the clocks show.
pub(super) struct Local<'z> {
    seconds: i64,
    date: DateTime,
    zone: &'z TimeZone,
}

impl<'z> Local<'z> {
    /// The first whole second after `moment`.
    pub(super) fn after(moment: Timestamp, zone: &'z TimeZone) -> Option<Local<'z>> {
        Local::at(moment.as_nanosecond().div_euclid(1_000_000_000) as i64 + 1, zone)
    }

    fn at(seconds: i64, zone: &'z TimeZone) -> Option<Local<'z>> {
        let date = zone.to_datetime(Timestamp::from_second(seconds).ok()?);
        Some(Local { seconds, date, zone })
    }

    /// When clocks show `date`. Where they skip it or show it twice, the choice is that of Go's `time.Date`.
    fn showing(date: DateTime, zone: &'z TimeZone) -> Option<Local<'z>> {
        let as_utc = TimeZone::UTC.to_timestamp(date).ok()?.as_second();
        let offset = |seconds: i64| Some(i64::from(zone.to_offset(Timestamp::from_second(seconds).ok()?).seconds()));
        let guess = as_utc - offset(as_utc)?;
        Local::at(as_utc - offset(guess)?, zone)
    }

    pub(super) fn date(&self) -> DateTime {
        self.date
    }

    pub(super) fn timestamp(&self) -> Timestamp {
        // It was one before.
        Timestamp::from_second(self.seconds).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn plus(self, seconds: i64) -> Option<Local<'z>> {
        Local::at(self.seconds.checked_add(seconds)?, self.zone)
    }

    pub(super) fn month_begins(self) -> Option<Local<'z>> {
        Local::showing(self.date.date().first_of_month().at(0, 0, 0, 0), self.zone)
    }

    pub(super) fn day_begins(self) -> Option<Local<'z>> {
        Local::showing(self.date.date().at(0, 0, 0, 0), self.zone)
    }

    pub(super) fn hour_begins(self) -> Option<Local<'z>> {
        Local::showing(self.date.date().at(self.date.hour(), 0, 0, 0), self.zone)
    }

    pub(super) fn minute_begins(self) -> Option<Local<'z>> {
        let seconds = self.seconds - self.seconds.rem_euclid(60);
        Local::at(seconds, self.zone)
    }

    /// The same time of day a month later; the day is the first one.
    pub(super) fn next_month(self) -> Option<Local<'z>> {
        let (year, month) = match (self.date.year(), self.date.month()) {
            (year, 12) => (year.checked_add(1)?, 1),
            (year, month) => (year, month + 1),
        };
        let date = civil::Date::new(year, month, self.date.day()).ok()?;
        Local::showing(date.to_datetime(self.date.time()), self.zone)
    }

    /// The beginning of the next day, also where clocks skip midnight.
    pub(super) fn next_day(self) -> Option<Local<'z>> {
        let date = self.date.date().tomorrow().ok()?;
        let next = Local::showing(date.to_datetime(self.date.time()), self.zone)?;
        match i64::from(next.date.hour()) {
            0 => Some(next),
            hour if hour > 12 => next.plus((24 - hour) * 3600),
            hour => next.plus(-hour * 3600),
        }
    }
}
