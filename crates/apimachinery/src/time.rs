//! Points in time as objects hold them: RFC 3339 in UTC, with seconds (`Time`) or microseconds (`MicroTime`).

use jiff::Timestamp;

/// `2026-01-02T15:04:05Z`; the fraction is cut off. Upstream: `metav1.Time`.
pub fn format_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T15:04:05.678901Z`. Upstream: `metav1.MicroTime`.
pub fn format_micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads either form, with any offset. `None` if it is neither.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    // A date alone, or a blank for the `T`, is not RFC 3339.
    (text.as_bytes().get(10) == Some(&b'T')).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_round() {
        let at: Timestamp = "2026-01-02T15:04:05.678901234Z".parse().unwrap();
        assert_eq!(format_time(at), "2026-01-02T15:04:05Z");
        assert_eq!(format_micro_time(at), "2026-01-02T15:04:05.678901Z");
        assert_eq!(format_micro_time(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
        assert_eq!(parse_time("2026-01-02T17:04:05.678901234+02:00"), Some(at));
        assert_eq!(parse_time(&format_time(at)).map(format_time).as_deref(), Some("2026-01-02T15:04:05Z"));
        for text in ["", "2026-01-02", "2026-01-02 15:04:05Z", "now", "2026-13-02T15:04:05Z"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
