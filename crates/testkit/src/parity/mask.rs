//! Puts placeholders where two servers cannot agree.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use super::Answer;

/// Headers that clients use; of the second group only the presence matters.
const HEADERS: &[&str] = &[
    "allow",
    "cache-control",
    "content-encoding",
    "content-type",
    "location",
    "retry-after",
    "warning",
    "www-authenticate",
    "x-content-type-options",
];
const PRESENT: &[&str] = &["audit-id", "etag"];

pub(super) struct Mask<'a> {
    /// Values that other requests use by name.
    pub captured: &'a BTreeMap<String, String>,
    /// All that the client sent.
    pub sent: &'a str,
    pub server: SocketAddr,
}

impl Mask<'_> {
    pub(super) fn answer(&self, answer: Answer) -> Answer {
        let mut headers = BTreeMap::new();
        for (name, value) in answer.headers {
            if HEADERS.contains(&name.as_str()) {
                headers.insert(name, self.text(&value));
            } else if PRESENT.contains(&name.as_str()) {
                headers.insert(name, "present".to_owned());
            }
        }
        let mut body = self.value("", answer.body);
        mask_ages(&mut body);
        for event in body.as_array_mut().into_iter().flatten() {
            event.get_mut("object").into_iter().for_each(mask_ages);
        }
        Answer { code: answer.code, headers, body }
    }

    fn value(&self, key: &str, value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut members: Vec<(String, Value)> = map.into_iter().collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                let masked = members.into_iter().map(|(key, value)| {
                    let value = self.value(&key, value);
                    (self.text(&key), value)
                });
                Value::Object(masked.collect::<Map<_, _>>())
            }
            Value::Array(items) => {
                let mut items: Vec<Value> = items.into_iter().map(|item| self.value(key, item)).collect();
                // Upstream lists the rules of a user in no order, conflicts by manager in none, and managers by time.
                let conflicts = key == "causes" && items.iter().all(|cause| cause["reason"] == "FieldManagerConflict");
                if conflicts || matches!(key, "resourceRules" | "nonResourceRules" | "managedFields") {
                    items.sort_by_cached_key(Value::to_string);
                }
                Value::Array(items)
            }
            Value::String(text) => Value::String(self.string(key, text)),
            Value::Number(number) if self.is_chosen_port(key, &number.to_string()) => "<port>".into(),
            other => other,
        }
    }

    fn is_chosen_port(&self, key: &str, digits: &str) -> bool {
        let chosen = matches!(key, "nodePort" | "healthCheckNodePort") && digits != "0" && !self.sent.contains(digits);
        chosen || matches!(key, "targetPort" | "port") && digits == self.server.port().to_string()
    }

    fn string(&self, key: &str, text: String) -> String {
        match key {
            _ if text.is_empty() => text,
            "uid" if uuid_at(text.as_bytes()).is_some() => "<uid>".to_owned(),
            "resourceVersion" | "lastSyncResourceVersion"
                if text.bytes().all(|b| b.is_ascii_digit()) && text != "0" =>
            {
                "<revision>".to_owned()
            }
            "since" if is_date(&text) => "<date>".to_owned(),
            "continue" => "<continue>".to_owned(),
            "token" => "<token>".to_owned(),
            "hash" | "etag" => "<hash>".to_owned(),
            _ => self.text(&text),
        }
    }

    /// Masks within a text.
    fn text(&self, text: &str) -> String {
        let mut text = text.replace(&self.server.to_string(), "<server>");
        text = text.replace(&format!(":{}", self.server.port()), ":<port>");
        // Longest first: one value may be part of another.
        let mut captured: Vec<(&String, &String)> = self.captured.iter().filter(|(_, value)| value.len() > 1).collect();
        captured.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        for (name, value) in captured {
            text = replace_words(&text, value, &format!("${{{name}}}"));
        }
        for begin in ["too old resource version: ", "Too large resource version: "] {
            if let Some((before, rest)) = text.split_once(begin) {
                let (first, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
                // What is current may be a captured revision, or not.
                let rest: Vec<&str> = rest.split(": ").collect();
                let rest = match rest[..] {
                    [label, _] => format!("{label}: #"),
                    _ => squeezed(&rest.join(": ").replace(|c: char| c.is_ascii_digit(), "#")),
                };
                text = format!("{before}{begin}{first}{rest}");
            }
        }
        text = without_revisions(&text);
        if text.starts_with("-----BEGIN ") {
            return "<pem>".to_owned();
        }
        if text.starts_with("X509SHA256=") {
            return "X509SHA256=<hash>".to_owned();
        }
        self.tokens(&text)
    }

    /// Masks uuids, times, addresses of services and signed tokens.
    fn tokens(&self, text: &str) -> String {
        let bytes = text.as_bytes();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while at < bytes.len() {
            let starts = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
            let found = starts.then(|| self.token_at(&bytes[at..])).flatten();
            match found {
                Some((length, mask)) if !self.sent.contains(&text[at..at + length]) => {
                    out.push_str(mask);
                    at += length;
                }
                _ => {
                    let length = text[at..].chars().next().map_or(1, char::len_utf8);
                    out.push_str(&text[at..at + length]);
                    at += length;
                }
            }
        }
        out
    }

    fn token_at(&self, bytes: &[u8]) -> Option<(usize, &'static str)> {
        let token =
            || bytes.starts_with(b"eyJ").then(|| word(bytes, |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
        uuid_at(bytes)
            .map(|length| (length, "<uuid>"))
            .or_else(|| time_at(bytes).map(|length| (length, "<time>")))
            .or_else(|| service_address_at(bytes).map(|length| (length, "<ip>")))
            .or_else(|| volume_at(bytes).map(|length| (length, "kube-api-access-<random>")))
            .or_else(|| token().filter(|length| *length > 60).map(|length| (length, "<token>")))
    }
}

/// `2026-01-31`
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() })
}

/// Masks the revision of an object that is shown as JSON within a text.
fn without_revisions(text: &str) -> String {
    const KEY: &str = "resourceVersion";
    let mut parts = text.split(KEY);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value = part.trim_start_matches(['\\', '"', ':']);
        let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let quoted = value.len() < part.len() && value[digits..].starts_with(['\\', '"']);
        out.push_str(KEY);
        match digits {
            1.. if quoted => {
                out.push_str(&part[..part.len() - value.len()]);
                out.push('#');
                out.push_str(&value[digits..]);
            }
            _ => out.push_str(part),
        }
    }
    out
}

fn squeezed(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c != '#' || !out.ends_with('#') {
            out.push(c);
        }
    }
    out
}

/// Replaces `from` where it is no part of a longer word.
fn replace_words(text: &str, from: &str, to: &str) -> String {
    let joins = |b: u8| b.is_ascii_alphanumeric();
    let mut out = String::new();
    let (bytes, mut rest) = (text.as_bytes(), 0);
    for (at, _) in text.match_indices(from) {
        let before = at > 0 && joins(bytes[at - 1]);
        let after = bytes.get(at + from.len()).is_some_and(|b| joins(*b));
        if at >= rest && !before && !after {
            out.push_str(&text[rest..at]);
            out.push_str(to);
            rest = at + from.len();
        }
    }
    out + &text[rest..]
}

fn word(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| !belongs(*b)).unwrap_or(bytes.len())
}

fn uuid_at(bytes: &[u8]) -> Option<usize> {
    let fits = |(i, b): (usize, &u8)| if matches!(i, 8 | 13 | 18 | 23) { *b == b'-' } else { b.is_ascii_hexdigit() };
    (bytes.len() >= 36 && bytes[..36].iter().enumerate().all(fits)).then_some(36)
}

/// `2026-01-02T03:04:05Z`, with a fraction or without.
fn time_at(bytes: &[u8]) -> Option<usize> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let fits = |(b, shape): (&u8, &u8)| if *shape == b'0' { b.is_ascii_digit() } else { b == shape };
    if bytes.len() <= SHAPE.len() || !bytes.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let fraction = word(&bytes[SHAPE.len()..], |b| b == b'.' || b.is_ascii_digit());
    let end = SHAPE.len() + fraction;
    (bytes.get(end) == Some(&b'Z')).then_some(end + 1)
}

/// The name of a volume that admission made up.
fn volume_at(bytes: &[u8]) -> Option<usize> {
    let random = bytes.strip_prefix(b"kube-api-access-")?;
    let length = word(random, |b| b.is_ascii_alphanumeric());
    (length == 5).then_some("kube-api-access-".len() + length)
}

/// An address that the server gave to a Service; the first of the range is the same everywhere.
fn service_address_at(bytes: &[u8]) -> Option<usize> {
    let length = word(bytes, |b| b == b'.' || b.is_ascii_digit());
    let text = std::str::from_utf8(&bytes[..length]).ok()?;
    let text = text.trim_end_matches('.');
    match text.parse().ok()? {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            (a == 10 && (96..112).contains(&b) && text != "10.96.0.1").then_some(text.len())
        }
        IpAddr::V6(_) => None,
    }
}

/// Ages in a Table's cells.
fn mask_ages(table: &mut Value) {
    if table.get("kind").and_then(Value::as_str) != Some("Table") {
        return;
    }
    for row in table.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        for cell in row.get_mut("cells").and_then(Value::as_array_mut).into_iter().flatten() {
            if cell.as_str().is_some_and(is_age) {
                *cell = "<age>".into();
            }
        }
    }
}

fn is_age(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h', 'd', 'y'])
        && text.chars().all(|c| c.is_ascii_digit() || "smhdy".contains(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(given: Value, expected: Value) {
        let captured =
            BTreeMap::from([("rv".to_owned(), "123".to_owned()), ("name".to_owned(), "web-x7k2p".to_owned())]);
        let sent = "10.96.3.3 2026-01-01T00:00:00Z 30333";
        let mask = Mask { captured: &captured, sent, server: "127.0.0.1:6443".parse().unwrap() };
        let answer = Answer { code: 200, headers: BTreeMap::new(), body: given };
        assert_eq!(mask.answer(answer).body, expected);
    }

    #[test]
    fn what_servers_make_up_is_masked() {
        let uid = "0f3b2a5c-1111-4222-8333-944455556666";
        check(
            json!({"metadata": {"uid": uid, "resourceVersion": "7", "creationTimestamp": "2026-02-03T04:05:06Z", "managedFields": [{"manager": "b", "time": "2026-02-03T04:05:06Z"}, {"manager": "a"}]}}),
            json!({"metadata": {"uid": "<uid>", "resourceVersion": "<revision>", "creationTimestamp": "<time>", "managedFields": [{"manager": "a"}, {"manager": "b", "time": "<time>"}]}}),
        );
        check(
            json!({"message": format!("pods \"web-x7k2p\" of {uid} at 123, not 1234")}),
            json!({"message": "pods \"${name}\" of <uuid> at ${rv}, not 1234"}),
        );
        check(
            json!({"message": r#"{"resourceVersion":"12","a":"resourceVersion is 7"}"#}),
            json!({"message": r##"{"resourceVersion":"#","a":"resourceVersion is 7"}"##}),
        );
        check(json!({"clusterIP": "10.97.1.2", "nodePort": 31000}), json!({"clusterIP": "<ip>", "nodePort": "<port>"}));
        check(
            json!({"message": "too old resource version: 1 (450)"}),
            json!({"message": "too old resource version: 1 (#)"}),
        );
        check(
            json!({"kind": "Table", "rows": [{"cells": ["a", "2m3s", "<none>"]}]}),
            json!({"kind": "Table", "rows": [{"cells": ["a", "<age>", "<none>"]}]}),
        );
    }

    #[test]
    fn what_the_client_sent_stays() {
        let same = json!({"clusterIP": "10.96.3.3", "nodePort": 30333, "at": "2026-01-01T00:00:00Z", "ip": "10.96.0.1", "other": "10.1.2.3"});
        check(same.clone(), same);
    }
}
