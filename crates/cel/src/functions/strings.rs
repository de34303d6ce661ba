//! Functions of strings: cel-go's extension of version 2, and Kubernetes' `find` and `findAll`.

use std::fmt::Write;

use super::pattern;
use super::standard::{double, text};
use super::time::{show_duration, show_time};
use crate::error::failed;
use crate::eval::Outcome;
use crate::program::Program;
use crate::value::{List, Map, Value};

pub(super) fn call<'a>(program: &Program, name: &str, args: &[Value<'a>]) -> Option<Outcome<'a>> {
    if let (Some(Value::List(list)), "join") = (args.first(), name) {
        let separator = args.get(1).and_then(Value::as_str).unwrap_or_default();
        let items: Option<Vec<String>> = list.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        return Some(
            items.map_or_else(|| failed("no such overload"), |items| Ok(Value::string(items.join(separator)))),
        );
    }
    let Some(Value::String(target)) = args.first() else { return None };
    let target: &str = target;
    Some(match (name, &args[1..]) {
        ("matches", [Value::String(regex)]) => match pattern::of(program, regex) {
            Some(regex) => Ok(Value::Bool(regex.is_match(target))),
            None => bad_pattern(regex),
        },
        ("find", [Value::String(regex)]) => match pattern::of(program, regex) {
            Some(regex) => Ok(Value::string(regex.find(target).map_or("", |found| found.as_str()))),
            None => failed(format!("Illegal regex: error parsing regexp: {}", &**regex)),
        },
        ("findAll", [Value::String(regex), rest @ ..]) => match pattern::of(program, regex) {
            Some(regex) => {
                let limit = match rest {
                    [Value::Int(n)] if *n >= 0 => *n as usize,
                    _ => usize::MAX,
                };
                Ok(Value::list(
                    regex.find_iter(target).take(limit).map(|found| Value::string(found.as_str())).collect(),
                ))
            }
            None => failed(format!("Illegal regex: error parsing regexp: {}", &**regex)),
        },
        ("charAt", [Value::Int(at)]) => {
            let count = target.chars().count() as i64;
            if *at < 0 || *at > count {
                return Some(failed(format!("index out of range: {at}")));
            }
            Ok(Value::string(target.chars().nth(*at as usize).map(String::from).unwrap_or_default()))
        }
        ("format", [Value::List(values)]) => format(target, values),
        ("indexOf" | "lastIndexOf", [Value::String(needle), rest @ ..]) => found(name, target, needle, rest),
        ("lowerAscii", []) => Ok(Value::string(target.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::string(target.to_ascii_uppercase())),
        ("replace", [Value::String(from), Value::String(to), rest @ ..]) => Ok(Value::string(match rest {
            [Value::Int(n)] if *n >= 0 => target.replacen(&**from, to, *n as usize),
            _ => target.replace(&**from, to),
        })),
        ("split", [Value::String(by), rest @ ..]) => {
            let limit = if let [Value::Int(n)] = rest { *n } else { -1 };
            Ok(Value::list(split(target, by, limit).into_iter().map(Value::string).collect()))
        }
        ("substring", [Value::Int(from), rest @ ..]) => {
            let count = target.chars().count() as i64;
            let to = if let [Value::Int(to)] = rest { *to } else { count };
            if *from < 0 || *from > count {
                return Some(failed(format!("index out of range: {from}")));
            }
            if to < 0 || to > count {
                return Some(failed(format!("index out of range: {to}")));
            }
            if *from > to {
                return Some(failed(format!("invalid substring range. start: {from}, end: {to}")));
            }
            Ok(Value::string(target.chars().skip(*from as usize).take((to - from) as usize).collect::<String>()))
        }
        ("trim", []) => Ok(Value::string(target.trim())),
        ("strings.quote", []) => Ok(Value::string(quote(target))),
        _ => return None,
    })
}

fn bad_pattern<'a>(pattern: &str) -> Outcome<'a> {
    failed(format!("error parsing regexp: {pattern}"))
}

fn found<'a>(name: &str, target: &str, needle: &str, rest: &[Value<'a>]) -> Outcome<'a> {
    let chars: Vec<char> = target.chars().collect();
    let sought: Vec<char> = needle.chars().collect();
    let offset = if let [Value::Int(at)] = rest { Some(*at) } else { None };
    if let Some(at) = offset
        && (at < 0 || at > chars.len() as i64)
        && !(needle.is_empty() && name == "indexOf" && at >= 0)
    {
        return failed(format!("index out of range: {at}"));
    }
    let last = chars.len().checked_sub(sought.len());
    let fits = |at: &usize| chars[*at..].starts_with(&sought);
    let at = match (name, last) {
        (_, None) => None,
        ("indexOf", Some(last)) => (offset.unwrap_or(0) as usize..=last).find(fits),
        (_, Some(last)) => (0..=offset.map_or(last, |at| last.min(at as usize))).rev().find(fits),
    };
    Ok(Value::Int(at.map_or(-1, |at| at as i64)))
}

/// As Go's `strings.SplitN`.
fn split(target: &str, by: &str, limit: i64) -> Vec<String> {
    if limit == 0 {
        return Vec::new();
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if by.is_empty() {
        let mut out: Vec<String> = target.chars().take(limit.saturating_sub(1)).map(String::from).collect();
        let rest: String = target.chars().skip(out.len()).collect();
        if !rest.is_empty() {
            out.push(rest);
        }
        return out;
    }
    target.splitn(limit, by).map(str::to_owned).collect()
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `"%s is %d".format([...])`.
fn format<'a>(pattern: &str, values: &List<'a>) -> Outcome<'a> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            match digits.parse::<usize>() {
                Ok(n) if n <= 100 => precision = Some(n),
                _ => return failed(format!("could not parse formatting clause: invalid precision {digits:?}")),
            }
        }
        let Some(verb) = chars.next() else { return failed("unexpected end of string") };
        let Some(value) = values.get(next) else { return failed(format!("index {next} out of range")) };
        next += 1;
        let written = clause(verb, precision, &value);
        match written {
            Some(text) => out.push_str(&text),
            None if !"sdfeboxX".contains(verb) => {
                return failed(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\""));
            }
            None => {
                return failed(format!("error during formatting: {}, was given {}", only_for(verb), value.type_name()));
            }
        }
    }
    Ok(Value::string(out))
}

/// What a clause takes, in cel-go's words.
fn only_for(verb: char) -> &'static str {
    match verb {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    }
}

/// The first clause of a format that there is none of.
pub(crate) fn unknown_clause(pattern: &str) -> Option<char> {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        let verb = chars.find(|c| *c != '.' && !c.is_ascii_digit())?;
        if !"%sdfeboxX".contains(verb) {
            return Some(verb);
        }
    }
    None
}

fn clause(verb: char, precision: Option<usize>, value: &Value<'_>) -> Option<String> {
    let precision = precision.unwrap_or(6);
    Some(match (verb, value) {
        ('s', value) => shown(value)?,
        ('d', Value::Int(n)) => n.to_string(),
        ('d', Value::Uint(n)) => n.to_string(),
        ('f' | 'e', value) => {
            let f = match value {
                Value::Double(f) => *f,
                Value::Int(n) if verb == 'f' => *n as f64,
                Value::Uint(n) if verb == 'f' => *n as f64,
                _ => return None,
            };
            if !f.is_finite() {
                return Some(double(f).trim_start_matches('+').replace("Inf", "Infinity"));
            }
            if verb == 'f' { format!("{f:.precision$}") } else { scientific(f, precision) }
        }
        ('b', Value::Int(n)) => radix(*n, |n| format!("{n:b}")),
        ('b', Value::Uint(n)) => format!("{n:b}"),
        ('b', Value::Bool(b)) => u8::from(*b).to_string(),
        ('o', Value::Int(n)) => radix(*n, |n| format!("{n:o}")),
        ('o', Value::Uint(n)) => format!("{n:o}"),
        ('x', Value::Int(n)) => radix(*n, |n| format!("{n:x}")),
        ('x', Value::Uint(n)) => format!("{n:x}"),
        ('x', Value::String(text)) => hex(text.as_bytes()),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', value) => clause('x', None, value)?.to_uppercase(),
        _ => return None,
    })
}

fn radix(n: i64, write: impl Fn(u64) -> String) -> String {
    format!("{}{}", if n < 0 { "-" } else { "" }, write(n.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn scientific(f: f64, precision: usize) -> String {
    let text = format!("{f:.precision$e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    let raised = |c: char| match c {
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' | '4'..='9' => char::from_u32(0x2070 + (c as u32 - '0' as u32)).unwrap_or(c),
        c => c,
    };
    let sign = if sign == '-' { "\u{207b}" } else { "" };
    let exponent: String = format!("{digits:0>2}").chars().map(raised).collect();
    format!("{mantissa}\u{d7}10{sign}{exponent}")
}

/// What `%s` makes of a value.
fn shown(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Null => "null".to_owned(),
        Value::Timestamp(at) => show_time(*at),
        Value::Duration(nanos) => show_duration(*nanos),
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(|item| inner(&item)).collect::<Option<_>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entries: Vec<String> = map
                .keys()
                .iter()
                .map(|key| Some(format!("{}:{}", inner(&key.value())?, inner(&member(map, key)?)?)))
                .collect::<Option<_>>()?;
            format!("{{{}}}", entries.join(", "))
        }
        Value::Type(ty) => ty.to_string(),
        Value::Double(f) => double(*f),
        other => text(other)?,
    })
}

/// Texts within lists and maps are quoted.
fn inner(value: &Value<'_>) -> Option<String> {
    let text = shown(value)?;
    Some(if matches!(value, Value::String(_)) { quote(&text) } else { text })
}

fn member<'a>(map: &Map<'a>, key: &crate::value::Key) -> Option<Value<'a>> {
    map.get(key)?.ok()
}
