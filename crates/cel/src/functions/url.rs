//! URLs as Go's `net/url` takes them apart: absolute ones, or absolute paths.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::eval::Outcome;
use crate::value::{Key, Map, Value};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// With the port.
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// Upstream: `url.ParseRequestURI`, as the library `urls` calls it.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let wrong = |why: &str| Err(format!("URL parse error during conversion from string: parse {text:?}: {why}"));
        if text.is_empty() {
            return wrong("empty url");
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return wrong("net/url: invalid control character in URL");
        }
        let scheme_end = text.find([':', '/', '?', '#']).filter(|at| text[*at..].starts_with(':'));
        let (scheme, rest) = match scheme_end {
            Some(0) => return wrong("missing protocol scheme"),
            Some(at) => {
                let scheme = &text[..at];
                let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
                if !valid {
                    return wrong(if scheme.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
                        "first path segment in URL cannot contain colon"
                    } else {
                        "invalid URI for request"
                    });
                }
                (scheme.to_ascii_lowercase(), &text[at + 1..])
            }
            None => (String::new(), text),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            return if scheme.is_empty() {
                wrong("invalid URI for request")
            } else {
                Ok(Url { scheme, host: String::new(), path: String::new(), query: query.to_owned() })
            };
        }
        let (authority, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"))
        {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if let Some(bracketed) = host.strip_prefix('[') {
            let Some((_, port)) = bracketed.split_once(']') else { return wrong("missing ']' in host") };
            if !valid_port(port) {
                return wrong(&format!("invalid port {port:?} after host"));
            }
        } else if let Some(at) = host.rfind(':')
            && !valid_port(&host[at..])
        {
            return wrong(&format!("invalid port {:?} after host", &host[at..]));
        }
        if let Some(bad) = host.chars().find(|c| " \"<>\\^`{|}".contains(*c)) {
            return wrong(&format!("invalid character {:?} in host name", bad.to_string()));
        }
        if let Some(bad) = bad_escape(path) {
            return wrong(&format!("invalid URL escape {bad:?}"));
        }
        Ok(Url { scheme, host: host.to_owned(), path: path.to_owned(), query: query.to_owned() })
    }

    pub(crate) fn get<'a>(&self, name: &str) -> Option<Outcome<'a>> {
        Some(Ok(match name {
            "getScheme" => Value::string(self.scheme.as_str()),
            "getHost" => Value::string(self.host.as_str()),
            "getHostname" => Value::string(self.host_and_port().0),
            "getPort" => Value::string(self.host_and_port().1),
            "getEscapedPath" => Value::string(escaped(&self.path)),
            "getQuery" => {
                let mut values: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
                for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
                        values.entry(Key::String(key.into())).or_default().push(Value::string(value));
                    }
                }
                let map = values.into_iter().map(|(key, list)| (key, Value::list(list))).collect();
                Value::Map(Map::Values(Rc::new(map)))
            }
            _ => return None,
        }))
    }

    fn host_and_port(&self) -> (&str, &str) {
        match self.host.rfind(':').filter(|at| self.host[*at..].find(']').is_none()) {
            Some(at) => (self.host[..at].trim_matches(['[', ']']), &self.host[at + 1..]),
            None => (self.host.trim_matches(['[', ']']), ""),
        }
    }
}

fn valid_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn bad_escape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let wrong = (0..bytes.len()).find(|&at| {
        bytes[at] == b'%' && !(bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
    })?;
    Some(String::from_utf8_lossy(&bytes[wrong..bytes.len().min(wrong + 3)]).into_owned())
}

/// As Go's `EscapedPath`: what must be escaped is.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = [bytes.next()?, bytes.next()?];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
            }
            byte => out.push(byte),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
