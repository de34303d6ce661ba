//! CEL's standard functions, and those of optionals.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::time::{civil, parse_duration, show_duration, show_time};
use crate::decl::ListKind;
use crate::error::{failed, no_overload};
use crate::eval::Outcome;
use crate::types::Type;
use crate::value::{Key, List, Map, Value, same_keys};

/// The range of times that CEL knows: years 1 to 9999.
const TIME_RANGE: (i64, i64) = (-62_135_596_800, 253_402_300_799);

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Option<Outcome<'a>> {
    Some(match (name, args) {
        ("_==_", [a, b]) => Ok(Value::Bool(a.equals(b))),
        ("_!=_", [a, b]) => Ok(Value::Bool(!a.equals(b))),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => compared(name, a, b),
        ("_+_", [a, b]) => add(a, b),
        ("_-_", [a, b]) => subtract(a, b),
        ("_*_" | "_/_" | "_%_", [a, b]) => arithmetic(name, a, b),
        ("!_", [Value::Bool(b)]) => Ok(Value::Bool(!b)),
        ("-_", [Value::Int(n)]) => n.checked_neg().map_or_else(int_overflow, |n| Ok(Value::Int(n))),
        ("-_", [Value::Double(f)]) => Ok(Value::Double(-f)),
        ("_[_]", [operand, index]) => super::index(operand, index),
        ("@in", [item, container]) => super::contained(item, container),
        ("size", [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))]) => {
            Ok(Value::Int(value.size() as i64))
        }
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.type_of())),
        ("bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint", [value]) => {
            convert(name, value)
        }
        ("contains", [Value::String(a), Value::String(b)]) => Ok(Value::Bool(a.contains(&**b))),
        ("startsWith", [Value::String(a), Value::String(b)]) => Ok(Value::Bool(a.starts_with(&**b))),
        ("endsWith", [Value::String(a), Value::String(b)]) => Ok(Value::Bool(a.ends_with(&**b))),
        (_, [Value::Timestamp(at)]) if name.starts_with("get") => clock(name, *at, None)?,
        (_, [Value::Timestamp(at), Value::String(zone)]) if name.starts_with("get") => clock(name, *at, Some(zone))?,
        (_, [Value::Duration(nanos)]) if name.starts_with("get") => Ok(Value::Int(match name {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            "getMilliseconds" => nanos / 1_000_000 % 1000,
            _ => return None,
        })),
        ("optional.of", [value]) => Ok(Value::some(value.clone())),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(if is_zero(value) { Value::Optional(None) } else { Value::some(value.clone()) })
        }
        ("hasValue", [Value::Optional(inner)]) => Ok(Value::Bool(inner.is_some())),
        ("value", [Value::Optional(Some(inner))]) => Ok(inner.as_ref().clone()),
        ("value", [Value::Optional(None)]) => failed("optional.none() dereference"),
        ("or", [first @ Value::Optional(inner), second]) => {
            Ok(if inner.is_some() { first.clone() } else { second.clone() })
        }
        ("orValue", [Value::Optional(inner), second]) => {
            Ok(inner.as_ref().map_or(second.clone(), |inner| inner.as_ref().clone()))
        }
        ("first" | "last", [Value::List(list)]) => {
            let at = if name == "first" { 0 } else { list.len().wrapping_sub(1) };
            Ok(Value::Optional(list.get(at).map(Rc::new)))
        }
        ("unwrapOpt" | "optional.unwrap", [Value::List(list)]) => Ok(Value::list(
            list.iter()
                .filter_map(|item| {
                    if let Value::Optional(inner) = item { inner.map(|inner| inner.as_ref().clone()) } else { None }
                })
                .collect(),
        )),
        ("cel.@mapInsert", [Value::Map(map), key, value]) => match Key::of(key) {
            Some(key) => inserted(map, [(key, value.clone())]),
            None => failed(format!("unsupported key type: {}", key.type_of())),
        },
        ("cel.@mapInsert", [Value::Map(map), Value::Map(more)]) => {
            let entries: Vec<_> =
                more.keys().into_iter().filter_map(|key| Some((key.clone(), more.get(&key)?.ok()?))).collect();
            inserted(map, entries)
        }
        _ => return None,
    })
}

fn inserted<'a>(map: &Map<'a>, entries: impl IntoIterator<Item = (Key, Value<'a>)>) -> Outcome<'a> {
    let mut out: BTreeMap<Key, Value<'a>> = match map {
        Map::Values(values) => values.as_ref().clone(),
        other => other.keys().into_iter().filter_map(|key| Some((key.clone(), other.get(&key)?.ok()?))).collect(),
    };
    for (key, value) in entries {
        if out.contains_key(&key) {
            return failed(format!("insert failed: key {key} already exists"));
        }
        out.insert(key, value);
    }
    Ok(Value::Map(Map::Values(Rc::new(out))))
}

fn int_overflow<'a>() -> Outcome<'a> {
    failed("integer overflow")
}

fn compared<'a>(name: &str, a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    if matches!((a, b), (Value::Double(_), _) | (_, Value::Double(_))) && a.compare(b).is_none() {
        let numbers = |value: &Value<'_>| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
        return if numbers(a) && numbers(b) { failed("NaN values cannot be ordered") } else { no_overload() };
    }
    let Some(order) = a.compare(b) else { return no_overload() };
    Ok(Value::Bool(match name {
        "_<_" => order == Ordering::Less,
        "_<=_" => order != Ordering::Greater,
        "_>_" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn moved<'a>(at: Timestamp, nanos: i128) -> Outcome<'a> {
    let moved = Timestamp::from_nanosecond(at.as_nanosecond() + nanos).ok().filter(in_range);
    moved.map_or_else(|| failed("timestamp overflow"), |at| Ok(Value::Timestamp(at)))
}

fn in_range(at: &Timestamp) -> bool {
    (TIME_RANGE.0..=TIME_RANGE.1).contains(&at.as_second())
}

fn add<'a>(a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map_or_else(int_overflow, |n| Ok(Value::Int(n))),
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_add(*b).map_or_else(|| failed("unsigned integer overflow"), |n| Ok(Value::Uint(n)))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::string(format!("{}{}", &**a, &**b))),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map_or_else(|| failed("duration overflow"), |n| Ok(Value::Duration(n)))
        }
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            moved(*at, (*by).into())
        }
        (Value::List(a), Value::List(b)) => Ok(Value::list(joined(a, b))),
        _ => no_overload(),
    }
}

/// Lists end to end; a set takes what it lacks, a map replaces items of the same keys.
fn joined<'a>(a: &List<'a>, b: &List<'a>) -> Vec<Value<'a>> {
    let mut out: Vec<Value<'a>> = a.iter().collect();
    match a.kind() {
        ListKind::Atomic => out.extend(b.iter()),
        ListKind::Set => {
            for item in b.iter() {
                if !out.iter().any(|known| known.equals(&item)) {
                    out.push(item);
                }
            }
        }
        ListKind::Map(keys) => {
            for item in b.iter() {
                match out.iter_mut().find(|known| same_keys(known, &item, keys)) {
                    Some(known) => *known = item,
                    None => out.push(item),
                }
            }
        }
    }
    out
}

fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_sub(*b).map_or_else(int_overflow, |n| Ok(Value::Int(n))),
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_sub(*b).map_or_else(|| failed("unsigned integer overflow"), |n| Ok(Value::Uint(n)))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map_or_else(|| failed("duration overflow"), |n| Ok(Value::Duration(n)))
        }
        (Value::Timestamp(at), Value::Duration(by)) => moved(*at, -i128::from(*by)),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = i64::try_from(a.as_nanosecond() - b.as_nanosecond());
            nanos.map_or_else(|_| failed("duration overflow"), |n| Ok(Value::Duration(n)))
        }
        _ => no_overload(),
    }
}

fn arithmetic<'a>(name: &str, a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    match (name, a, b) {
        ("_/_", Value::Int(_), Value::Int(0)) | ("_/_", Value::Uint(_), Value::Uint(0)) => failed("division by zero"),
        ("_%_", Value::Int(_), Value::Int(0)) | ("_%_", Value::Uint(_), Value::Uint(0)) => failed("modulus by zero"),
        (_, Value::Int(a), Value::Int(b)) => {
            let result = match name {
                "_*_" => a.checked_mul(*b),
                "_/_" => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            result.map_or_else(int_overflow, |n| Ok(Value::Int(n)))
        }
        ("_*_", Value::Uint(a), Value::Uint(b)) => {
            a.checked_mul(*b).map_or_else(|| failed("unsigned integer overflow"), |n| Ok(Value::Uint(n)))
        }
        ("_/_", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        ("_%_", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        ("_*_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("_/_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => no_overload(),
    }
}

pub(crate) fn convert<'a>(to: &str, value: &Value<'a>) -> Outcome<'a> {
    let range = |what: &str| failed(format!("{what} out of range"));
    match (to, value) {
        ("bool", Value::Bool(_))
        | ("bytes", Value::Bytes(_))
        | ("double", Value::Double(_))
        | ("duration", Value::Duration(_))
        | ("int", Value::Int(_))
        | ("string", Value::String(_))
        | ("timestamp", Value::Timestamp(_))
        | ("uint", Value::Uint(_)) => Ok(value.clone()),
        ("bool", Value::String(text)) => match &**text {
            "true" | "TRUE" | "True" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "FALSE" | "False" | "f" | "0" => Ok(Value::Bool(false)),
            _ => failed("type conversion error from 'string' to 'bool'"),
        },
        ("bytes", Value::String(text)) => Ok(Value::Bytes(text.as_bytes().into())),
        ("double", Value::Int(n)) => Ok(Value::Double(*n as f64)),
        ("double", Value::Uint(n)) => Ok(Value::Double(*n as f64)),
        ("double", Value::String(text)) => match text.parse() {
            Ok(f) => Ok(Value::Double(f)),
            Err(_) => failed("type conversion error from 'string' to 'double'"),
        },
        ("duration", Value::Int(n)) => {
            n.checked_mul(1_000_000_000).map_or_else(|| range("duration"), |n| Ok(Value::Duration(n)))
        }
        ("duration", Value::String(text)) => match parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => failed(format!("time: invalid duration {:?}", &**text)),
        },
        ("int", Value::Double(f))
            if f.is_finite() && *f > -9.223_372_036_854_776e18 && *f < 9.223_372_036_854_776e18 =>
        {
            Ok(Value::Int(*f as i64))
        }
        ("int", Value::Double(_)) => range("range"),
        ("int", Value::Uint(n)) => i64::try_from(*n).map_or_else(|_| failed("integer overflow"), |n| Ok(Value::Int(n))),
        ("int", Value::Timestamp(at)) => Ok(Value::Int(at.as_second())),
        ("int", Value::Duration(nanos)) => Ok(Value::Int(*nanos)),
        ("int", Value::String(text)) => match text.parse() {
            Ok(n) => Ok(Value::Int(n)),
            Err(_) => failed("type conversion error from 'string' to 'int'"),
        },
        ("uint", Value::Int(n)) => {
            u64::try_from(*n).map_or_else(|_| failed("unsigned integer overflow"), |n| Ok(Value::Uint(n)))
        }
        ("uint", Value::Double(f)) if *f >= 0.0 && *f < 1.844_674_407_370_955_2e19 => Ok(Value::Uint(*f as u64)),
        ("uint", Value::Double(_)) => failed("unsigned integer overflow"),
        ("uint", Value::String(text)) => match text.parse() {
            Ok(n) => Ok(Value::Uint(n)),
            Err(_) => failed("type conversion error from 'string' to 'uint'"),
        },
        ("timestamp", Value::Int(n)) => match Timestamp::from_second(*n).ok().filter(in_range) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => failed("timestamp overflow"),
        },
        ("timestamp", Value::String(text)) => match apimachinery::parse_time(text).filter(in_range) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => failed(format!(
                "parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"",
                &**text
            )),
        },
        ("string", value) if text(value).is_some() => Ok(Value::string(text(value).unwrap_or_default())),
        (_, value) => failed(format!("no such overload: {to}({})", value.type_name())),
    }
}

/// What `string(value)` says.
pub(crate) fn text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(f) => double(*f),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Value::Timestamp(at) => show_time(*at),
        Value::Duration(nanos) => show_duration(*nanos),
        Value::Opaque(opaque) => opaque.text()?,
        _ => return None,
    })
}

/// As Go's `%g` with as many digits as needed.
pub(crate) fn double(f: f64) -> String {
    if f.is_nan() {
        return "NaN".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if f != 0.0 && (f.abs() < 1e-4 || f.abs() >= 1e21) {
        let text = format!("{f:e}");
        let Some((mantissa, exponent)) = text.split_once('e') else { return text };
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    f.to_string()
}

fn clock<'a>(name: &str, at: Timestamp, zone: Option<&str>) -> Option<Outcome<'a>> {
    let Some(civil): Option<DateTime> = civil(at, zone) else {
        return Some(failed(format!("unknown time zone {}", zone.unwrap_or_default())));
    };
    let n = match name {
        "getFullYear" => i64::from(civil.year()),
        "getMonth" => i64::from(civil.month()) - 1,
        "getDayOfYear" => i64::from(civil.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(civil.day()) - 1,
        "getDate" => i64::from(civil.day()),
        "getDayOfWeek" => i64::from(civil.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(civil.hour()),
        "getMinutes" => i64::from(civil.minute()),
        "getSeconds" => i64::from(civil.second()),
        "getMilliseconds" => i64::from(civil.millisecond()),
        _ => return None,
    };
    Some(Ok(Value::Int(n)))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(f) => *f == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Duration(nanos) => *nanos == 0,
        Value::Timestamp(at) => at.as_second() == TIME_RANGE.0,
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Optional(inner) => inner.as_ref().is_none_or(|inner| is_zero(inner)),
        Value::Type(ty) => *ty == Type::Error,
        Value::Opaque(_) => false,
    }
}
