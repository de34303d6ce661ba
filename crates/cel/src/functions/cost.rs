//! What a call costs when it runs. Upstream: cel-go interpreter/runtimecost.go, apiserver pkg/cel/library/cost.go.

use crate::value::Value;

/// Per character or byte gone through.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// Per character of a pattern.
pub(crate) const PATTERN: f64 = 0.25;

fn part(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// `overload` is empty where the checker could not tell one.
pub(crate) fn of_call(name: &str, overload: &str, args: &[Value<'_>], result: &Value<'_>) -> u64 {
    let size = |at: usize| args.get(at).map_or(1, Value::size);
    let traversal = |times: f64| part(size(0), times * TRAVERSAL);
    match name {
        "check" => return 350_000,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            return match args.first() {
                Some(Value::List(list)) => list.iter().map(|item| traversed(&item)).sum(),
                Some(value) => traversed(value),
                None => 0,
            };
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "cidr" | "isIP" | "isCIDR" | "quantity"
        | "isQuantity" | "semver" | "isSemver" => return traversal(1.0),
        "replace" | "split" | "ip.isCanonical" => return traversal(2.0),
        "join" => return part(result.size(), 2.0 * TRAVERSAL),
        "find" | "findAll" => return part(1 + size(0), TRAVERSAL) * part(size(1), PATTERN),
        "ip" if overload == "cidr_ip" => return 1,
        "ip" => return traversal(1.0),
        "containsIP" => {
            let parsed = if overload == "cidr_contains_ip_string" { part(size(1), TRAVERSAL) } else { 0 };
            return traversal(2.0) + parsed;
        }
        "containsCIDR" => {
            let parsed = if overload == "cidr_contains_cidr_string" { part(size(1), TRAVERSAL) } else { 0 };
            return traversal(2.0) + traversal(1.0) + 1 + parsed;
        }
        "sets.contains" | "sets.intersects" => return size(0) * size(1) + 1,
        "sets.equivalent" => return size(0) * size(1) * 2 + 1,
        "validate" => return part(size(1), TRAVERSAL).max(1),
        "_==_" | "_!=_" => return part(size(0).min(size(1)), TRAVERSAL),
        _ => {}
    }
    match overload {
        "starts_with_string" | "ends_with_string" => part(size(1), TRAVERSAL),
        "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => traversal(1.0),
        "in_list" => size(1),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => part(size(0).min(size(1)), TRAVERSAL),
        "add_string" | "add_bytes" => part(size(0) + size(1), TRAVERSAL),
        "matches_string" | "matches" => part(1 + size(0), TRAVERSAL) * part(size(1), PATTERN),
        "contains_string" => traversal(1.0) * part(size(1), TRAVERSAL),
        _ => 1,
    }
}

/// The cost of going through a value once.
fn traversed(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list.iter().map(|item| traversed(&item)).sum(),
        Value::Map(map) => map
            .keys()
            .iter()
            .map(|key| traversed(&key.value()) + map.get(key).and_then(Result::ok).map_or(0, |value| traversed(&value)))
            .sum(),
        _ => 1,
    }
}
