//! Scalars with a form of their own: their check and their canonical text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

/// How Go writes a time that was never set.
pub(super) const ZERO_TIME: &str = "0001-01-01T00:00:00";

/// RFC 3339 in UTC with whole seconds. Upstream: metav1.Time.
pub(super) fn time(text: &str) -> Result<String, String> {
    if is_utc_seconds(text) {
        return Ok(text.to_owned());
    }
    let time = parse_time(text).ok_or_else(|| time_error(text, "2006-01-02T15:04:05Z07:00"))?;
    Ok(format_time(time, "%Y-%m-%dT%H:%M:%SZ"))
}

/// RFC 3339 in UTC with six digits of fraction. Upstream: metav1.MicroTime.
pub(super) fn micro_time(text: &str) -> Result<String, String> {
    let error = || time_error(text, "2006-01-02T15:04:05.000000Z07:00");
    let fraction = text.split_once('.').map(|(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    let time = parse_time(text).filter(|_| fraction == Some(6)).ok_or_else(error)?;
    Ok(format_time(time, "%Y-%m-%dT%H:%M:%S.%6fZ"))
}

/// Whether [`time`] would change nothing.
pub(super) fn is_time(text: &str) -> bool {
    is_utc_seconds(text) && !text.starts_with(ZERO_TIME)
}

/// Whether [`micro_time`] would change nothing; not told of times at the end of all.
pub(super) fn is_micro_time(text: &str) -> bool {
    let fraction = |text: &str| text.starts_with('.') && text[1..].bytes().all(|byte| byte.is_ascii_digit());
    text.is_ascii()
        && text.len() == 27
        && text.ends_with('Z')
        && fraction(&text[19..26])
        && has_rfc3339_shape(text.as_bytes())
        && text < "9999"
        && !text.starts_with(ZERO_TIME)
        && text[..19].parse::<DateTime>().is_ok()
}

fn is_utc_seconds(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 20 && has_rfc3339_shape(bytes) && bytes[19] == b'Z' && text[..19].parse::<DateTime>().is_ok()
}

/// `YYYY-MM-DDTHH:MM:SS` and something after it.
fn has_rfc3339_shape(text: &[u8]) -> bool {
    const PATTERN: &[u8] = b"0000-00-00T00:00:00";
    // A leap second has no place in Go's time.
    text.len() > PATTERN.len()
        && text[17..19] != *b"60"
        && PATTERN.iter().zip(text).all(|(want, have)| if *want == b'0' { have.is_ascii_digit() } else { want == have })
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let zone = text.get(19..)?;
    let zone = zone.trim_start_matches(|c: char| matches!(c, '.' | ',') || c.is_ascii_digit());
    let zone_ok = zone == "Z" || (zone.len() == 6 && zone.as_bytes()[3] == b':');
    if !has_rfc3339_shape(text.as_bytes()) || !zone_ok {
        return None;
    }
    text.parse().ok()
}

fn format_time(time: Timestamp, format: &str) -> String {
    // The format is ours and complete, so it can't fail.
    strtime::format(format, &time.to_zoned(TimeZone::UTC)).unwrap_or_default()
}

fn time_error(text: &str, layout: &str) -> String {
    format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")
}

/// Checks base64 and takes line breaks out, as Go does.
pub(super) fn base64(text: &str) -> Result<String, String> {
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&plain) {
        Ok(_) => Ok(plain),
        Err(error) => {
            use base64::DecodeError::{InvalidByte, InvalidLastSymbol, InvalidLength, InvalidPadding};
            let at = match error {
                InvalidByte(at, _) | InvalidLastSymbol(at, _) => at,
                InvalidLength(_) | InvalidPadding => plain.len(),
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: fn(&str) -> Result<String, String>, text: &str, expect: Option<&str>) {
        assert_eq!(form(text).ok().as_deref(), expect, "{text}");
    }

    #[test]
    fn times_are_utc_seconds() {
        check(time, "2024-05-01T10:00:00Z", Some("2024-05-01T10:00:00Z"));
        check(time, "2024-05-01T12:00:00.75+02:00", Some("2024-05-01T10:00:00Z"));
        for bad in ["", "2024-05-01", "2024-05-01 10:00:00Z", "2024-13-01T10:00:00Z", "2024-05-01T10:00:00", "x"] {
            check(time, bad, None);
        }
        check(time, "9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z"));
        check(time, "2024-05-01T10:00:00,5Z", Some("2024-05-01T10:00:00Z"));
        check(time, "2024-05-01T10:00:60Z", None);
        check(micro_time, "2024-05-01T12:00:00.123456+02:00", Some("2024-05-01T10:00:00.123456Z"));
        check(micro_time, "2024-05-01T12:00:00Z", None);
        for text in ["2024-05-01T12:00:00.123456Z", "2024-02-30T12:00:00.123456Z", "2024-05-01T12:00:00.1234567Z"] {
            assert_eq!(is_micro_time(text), micro_time(text).as_deref() == Ok(text), "{text}");
        }
        for text in ["2024-05-01T12:00:00Z", "2024-02-30T12:00:00Z", "2024-05-01T12:00:00+00:00"] {
            assert_eq!(is_time(text), time(text).as_deref() == Ok(text), "{text}");
        }
    }

    #[test]
    fn base64_may_have_line_breaks() {
        check(base64, "YWI\nj", Some("YWIj"));
        check(base64, "YWI", None);
        assert_eq!(base64("a?bc").unwrap_err(), "illegal base64 data at input byte 1");
    }
}
