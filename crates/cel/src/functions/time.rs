//! Durations in Go's notation, and times by time zone.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// `1h30m`, `-1.5s`, in nanoseconds. Upstream: Go's `time.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Some(0);
    }
    let mut rest = unsigned;
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let (unit, scale) =
            UNITS.iter().filter(|(unit, _)| after.starts_with(unit)).max_by_key(|(unit, _)| unit.len())?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*scale as i128)?)?;
        if !fraction.is_empty() {
            total += (format!("0.{fraction}").parse::<f64>().ok()? * scale) as i128;
        }
        rest = &after[unit.len()..];
    }
    if unsigned.is_empty() {
        return None;
    }
    i64::try_from(if text.starts_with('-') { -total } else { total }).ok()
}

/// As CEL shows a duration: seconds with a fraction where there is one.
pub(crate) fn show_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// RFC 3339 with as much of a fraction as there is.
pub(crate) fn show_time(at: Timestamp) -> String {
    at.to_string()
}

/// The wall clock's reading at a place: `UTC`, `-02:00`, `Europe/Berlin`.
pub(crate) fn civil(at: Timestamp, zone: Option<&str>) -> Option<DateTime> {
    let zone = match zone {
        None | Some("UTC" | "") => TimeZone::UTC,
        Some(name) => match name.split_once(':') {
            Some((hours, minutes)) => {
                let sign = if hours.starts_with('-') { -1 } else { 1 };
                let hours: i32 = hours.parse().ok()?;
                let minutes: i32 = minutes.parse().ok()?;
                TimeZone::fixed(Offset::from_seconds(hours * 3600 + sign * minutes * 60).ok()?)
            }
            None => TimeZone::get(name).ok()?,
        },
    };
    Some(at.to_zoned(zone).datetime())
}
