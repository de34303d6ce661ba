//! Durations as people read them. Upstream: apimachinery pkg/util/duration HumanDuration.

use jiff::Timestamp;

/// The time from `start` to `end`.
pub(super) fn between(start: Timestamp, end: Timestamp) -> String {
    human((end.as_millisecond() - start.as_millisecond()).div_euclid(1000))
}

pub(super) fn human(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let check = |seconds: i64, expect: &str| assert_eq!(human(seconds), expect);
        check(-5, "<invalid>");
        check(0, "0s");
        check(119, "119s");
        check(120, "2m");
        check(125, "2m5s");
        check(3600, "60m");
        check(3 * 3600 + 60, "3h1m");
        check(9 * 3600, "9h");
        check(50 * 3600, "2d2h");
        check(30 * 86400, "30d");
        check(900 * 86400, "2y170d");
    }
}
