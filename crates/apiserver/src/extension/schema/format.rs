//! Formats of texts that are checked; others are ignored. Upstream: kube-openapi pkg/validation/strfmt.

use std::net::{Ipv4Addr, Ipv6Addr};

use apimachinery::validation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) fn fits(format: &str, text: &str) -> bool {
    let digits = || text.chars().filter(char::is_ascii_digit).count();
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match format {
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "uri" => text.starts_with('/') || text.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme)),
        "email" => text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !host.is_empty() && !host.contains('@') && !text.contains(char::is_whitespace)
        }),
        "hostname" => text.len() <= 255 && text.trim_end_matches('.').split('.').all(is_host_label),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => validation::cidr_legacy(text).is_empty(),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "isbn" => matches!(digits(), 9 | 10 | 13),
        "isbn10" => matches!(digits(), 9 | 10),
        "isbn13" => digits() == 13,
        "creditcard" => (13..=19).contains(&digits()) && luhn(text),
        "ssn" => text.len() == 11 && digits() == 9 && text.as_bytes()[3] == b'-' && text.as_bytes()[6] == b'-',
        "hexcolor" => {
            let hex = text.strip_prefix('#').unwrap_or(text);
            matches!(hex.len(), 3 | 6) && is_hex(hex)
        }
        "rgbcolor" => text.starts_with("rgb(") && text.ends_with(')'),
        "byte" => STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "date-time" | "datetime" => text.len() > 10 && text.replacen(' ', "T", 1).parse::<jiff::Timestamp>().is_ok(),
        "duration" => is_duration(text),
        _ => true,
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn is_host_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let bare: String = text.chars().filter(|c| *c != '-').collect();
    bare.len() == 32
        && bare.bytes().all(|byte| byte.is_ascii_hexdigit())
        && version.is_none_or(|version| bare.chars().nth(12) == Some(version))
}

fn luhn(text: &str) -> bool {
    let digits = text.chars().rev().filter_map(|c| c.to_digit(10));
    let doubled = digits.enumerate().map(|(index, digit)| match (index % 2, digit * 2) {
        (0, _) => digit,
        (_, double) => double / 10 + double % 10,
    });
    doubled.sum::<u32>().is_multiple_of(10)
}

/// Go's `1h30m`, or words such as `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: &str = " ns us µs ms s m h d w nanosecond nanoseconds microsecond microseconds millisecond milliseconds sec \
                         secs second seconds min mins minute minutes hour hours day days week weeks ";
    let mut rest = text.trim().trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if number == 0 {
            return false;
        }
        rest = rest[number..].trim_start();
        let unit = rest.len() - rest.trim_start_matches(char::is_alphabetic).len();
        if unit == 0 || !UNITS.contains(&format!(" {} ", rest[..unit].to_lowercase())) {
            return false;
        }
        rest = rest[unit..].trim_start();
    }
    true
}
