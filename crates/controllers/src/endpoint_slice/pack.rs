//! Sharing endpoints out among slices, with as few writes as possible. Upstream: reconcileByPortMapping.

use std::sync::Arc;

use apimachinery::{Object, Value};

/// How many endpoints fit in a slice.
const CAPACITY: usize = 100;

/// Endpoints that serve on the same ports.
pub(crate) struct Desired {
    pub ports: Vec<Value>,
    pub endpoints: Vec<Value>,
}

/// One write.
#[derive(Debug)]
pub(crate) enum Change {
    Create(Value),
    Update(Value),
    Delete(Arc<Object>),
}

/// A slice under consideration.
struct Slice {
    object: Arc<Object>,
    value: Value,
    endpoints: Vec<Value>,
    changed: bool,
}

/// What brings `existing` slices of `family` to tell `desired`. `dress` sets the labels that every slice has.
pub(crate) fn changes(
    existing: &[Arc<Object>],
    family: &str,
    desired: Vec<Desired>,
    dress: impl Fn(&mut Value),
) -> Vec<Change> {
    let mut slices: Vec<Slice> = existing.iter().filter_map(|object| Slice::of(object, family, &dress)).collect();
    let mut changes = Vec::new();
    let mut kept = Vec::new();
    let nothing = desired.is_empty();
    for desired in desired {
        let ports: Vec<_> = desired.ports.iter().map(port_key).collect();
        let serves_there = |slice: &Slice| slice.ports().iter().map(port_key).eq(ports.iter().copied());
        let (same, others): (Vec<_>, Vec<_>) = slices.into_iter().partition(serves_there);
        slices = others;
        kept.extend(settle(same, family, desired, &dress, &mut changes));
    }
    if nothing && kept.is_empty() && changes.is_empty() {
        // Somebody may wait for a slice to know that there are no endpoints.
        let mut empty = slices.iter().position(|slice| slice.endpoints.is_empty() && slice.ports().is_empty());
        if empty.is_none() && !slices.is_empty() {
            slices[0].endpoints.clear();
            slices[0].value.set(&["ports"], Value::Null);
            slices[0].changed = true;
            empty = Some(0);
        }
        match empty {
            Some(i) => kept.push(slices.remove(i)),
            None => changes.push(Change::Create(new_slice(family, &[], Vec::new(), &dress))),
        }
    }
    changes.extend(slices.into_iter().map(|slice| Change::Delete(slice.object)));
    changes.extend(kept.into_iter().filter(|slice| slice.changed).map(Slice::into_update));
    changes
}

/// Puts `desired` into `slices`, all of the same ports. Returns those that stay.
fn settle(
    mut slices: Vec<Slice>,
    family: &str,
    desired: Desired,
    dress: &impl Fn(&mut Value),
    changes: &mut Vec<Change>,
) -> Vec<Slice> {
    let mut left: Vec<Option<Value>> = desired.endpoints.into_iter().map(Some).collect();
    for slice in &mut slices {
        slice.keep(&mut left);
    }
    let mut left: Vec<Value> = left.into_iter().flatten().collect();
    // Slices that are written anyway take more, the fullest first.
    let mut order: Vec<usize> = (0..slices.len()).filter(|i| slices[*i].changed).collect();
    order.sort_by_key(|i| std::cmp::Reverse(slices[*i].endpoints.len()));
    for i in order {
        slices[i].fill(&mut left);
    }
    // Then one that all the rest fits into, as tightly as possible.
    while !left.is_empty() {
        let rest = left.len() % CAPACITY;
        let fits = |i: &usize| slices[*i].endpoints.len() + rest <= CAPACITY && !slices[*i].changed;
        let best = (0..slices.len()).filter(fits).max_by_key(|i| slices[*i].endpoints.len());
        match best.filter(|_| left.len() < CAPACITY) {
            Some(i) => slices[i].fill(&mut left),
            None => {
                let part = left.drain(..left.len().min(CAPACITY)).collect();
                changes.push(Change::Create(new_slice(family, &desired.ports, part, dress)));
            }
        }
    }
    let (empty, kept): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.endpoints.is_empty());
    changes.extend(empty.into_iter().map(|slice| Change::Delete(slice.object)));
    kept
}

impl Slice {
    fn of(object: &Arc<Object>, family: &str, dress: &impl Fn(&mut Value)) -> Option<Slice> {
        let before = object.to_value();
        if before.str_at(&["addressType"]) != Some(family) {
            return None;
        }
        let mut value = before.clone();
        dress(&mut value);
        let changed = value != before;
        let endpoints = value.items_at(&["endpoints"]).to_vec();
        Some(Slice { object: object.clone(), value, endpoints, changed })
    }

    fn ports(&self) -> &[Value] {
        self.value.items_at(&["ports"])
    }

    /// Keeps the endpoints that are still wanted, as they are wanted now.
    fn keep(&mut self, wanted: &mut [Option<Value>]) {
        let before = std::mem::take(&mut self.endpoints);
        for old in &before {
            let same = |new: &&mut Option<Value>| new.as_ref().is_some_and(|new| target(new) == target(old));
            if let Some(new) = wanted.iter_mut().find(same).and_then(Option::take) {
                self.endpoints.push(new);
            }
        }
        self.changed |= self.endpoints != before;
    }

    fn fill(&mut self, left: &mut Vec<Value>) {
        let n = left.len().min(CAPACITY.saturating_sub(self.endpoints.len()));
        self.changed |= n > 0;
        self.endpoints.extend(left.drain(..n));
    }

    fn into_update(mut self) -> Change {
        self.value.set(&["endpoints"], list(self.endpoints));
        Change::Update(self.value)
    }
}

/// What makes two ports the same one, defaults filled in.
fn port_key(port: &Value) -> (&str, Option<i64>, &str, &str) {
    let text = |field| port.str_at(&[field]);
    let protocol = text("protocol").unwrap_or("TCP");
    (text("name").unwrap_or_default(), port.i64_at(&["port"]), protocol, text("appProtocol").unwrap_or_default())
}

/// What makes two endpoints the same one.
fn target(endpoint: &Value) -> (Option<&str>, &[Value]) {
    (endpoint.str_at(&["targetRef", "uid"]), endpoint.items_at(&["addresses"]))
}

/// Upstream tells nothing as `null`.
fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn new_slice(family: &str, ports: &[Value], endpoints: Vec<Value>, dress: &impl Fn(&mut Value)) -> Value {
    let mut slice = Value::object();
    dress(&mut slice);
    slice.set(&["addressType"], family);
    slice.set(&["endpoints"], list(endpoints));
    slice.set(&["ports"], list(ports.to_vec()));
    slice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: usize) -> Value {
        let json = format!(r#"{{"addresses":["10.0.{}.{}"],"targetRef":{{"uid":"u{n}"}}}}"#, n / 250, n % 250);
        Value::parse(json.as_bytes()).unwrap()
    }

    fn slice(name: &str, range: std::ops::Range<usize>) -> Arc<Object> {
        let mut value = new_slice("IPv4", &port(80), range.map(endpoint).collect(), &|_| {});
        value.set(&["metadata", "name"], name);
        Arc::new(Object::new(&value, 1).unwrap())
    }

    fn port(n: i64) -> Vec<Value> {
        vec![Value::parse(format!(r#"{{"port":{n}}}"#).as_bytes()).unwrap()]
    }

    /// What is done, as letters with the number of endpoints.
    fn check(existing: &[Arc<Object>], desired: &[(i64, std::ops::Range<usize>)], expect: &[&str]) {
        let desired = desired
            .iter()
            .map(|(number, range)| Desired { ports: port(*number), endpoints: range.clone().map(endpoint).collect() })
            .collect();
        let size = |value: &Value| value.items_at(&["endpoints"]).len();
        let mut done: Vec<String> = changes(existing, "IPv4", desired, |_| {})
            .iter()
            .map(|change| match change {
                Change::Create(value) => format!("+{}", size(value)),
                Change::Update(value) => format!("~{}:{}", value.str_at(&["metadata", "name"]).unwrap(), size(value)),
                Change::Delete(object) => format!("-{}", object.name()),
            })
            .collect();
        done.sort();
        assert_eq!(done, expect);
    }

    #[test]
    fn endpoints_are_shared_out_with_few_writes() {
        check(&[], &[(80, 0..250)], &["+100", "+100", "+50"]);
        check(&[slice("a", 0..3)], &[(80, 0..3)], &[]);
        check(&[slice("a", 0..3)], &[(80, 0..5)], &["~a:5"]);
        check(&[slice("a", 0..3)], &[(80, 1..3)], &["~a:2"]);
        // Only one slice is written where one suffices.
        check(&[slice("a", 0..90), slice("b", 90..100)], &[(80, 0..105)], &["~a:95"]);
        check(&[slice("a", 0..90), slice("b", 90..100)], &[(80, 1..120)], &["~a:100", "~b:19"]);
        check(&[slice("a", 0..90), slice("b", 90..100)], &[(80, 0..90)], &["-b"]);
        check(&[slice("a", 0..100)], &[(80, 0..301)], &["+1", "+100", "+100"]);
        // Other ports are told in other slices.
        check(&[slice("a", 0..2)], &[(81, 0..1), (80, 1..2)], &["+1", "~a:1"]);
        check(&[slice("a", 0..2)], &[(81, 0..2)], &["+2", "-a"]);
        // No endpoints are told by an empty slice.
        check(&[], &[], &["+0"]);
        check(&[slice("a", 0..2), slice("b", 2..3)], &[], &["-b", "~a:0"]);
    }
}
