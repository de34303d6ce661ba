//! Durations as Go writes them: `1h30m`, `1.5h`, `90s`.

const UNITS: [(&str, f64); 8] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
/// What a Go duration can hold, in seconds.
const MAX: f64 = i64::MAX as f64 / 1e9;

/// Whole seconds; the error is Go's.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if !number.bytes().any(|digit| digit.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let number = if number.starts_with('.') { format!("0{number}") } else { number.to_owned() };
        seconds += number.parse::<f64>().map_err(|_| invalid())? * factor;
        if seconds > MAX {
            return Err(invalid());
        }
        rest = after;
    }
    // A hair more, as 0.1 s ten times is a second.
    let seconds = (seconds + 1e-10).floor() as i64;
    Ok(if negative { -seconds } else { seconds })
}
