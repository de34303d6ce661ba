//! Sharing endpoints out among slices, with as few writes as possible. Upstream: reconcileByPortMapping, finalize.

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

/// A slice that is there.
pub(crate) struct Slice {
    object: Arc<Object>,
    value: Value,
    pub endpoints: Vec<Value>,
    pub changed: bool,
}

/// What becomes of the slices of one family.
#[derive(Default)]
pub(crate) struct Plan {
    pub kept: Vec<Slice>,
    pub gone: Vec<Slice>,
    pub made: Vec<Desired>,
}

/// How `existing` slices of one family, all of the same owner, come to tell `desired`. Where `hinted`, hints follow from the whole, later:
/// those that are there stay until then.
pub(crate) fn plan(existing: Vec<Slice>, desired: Vec<Desired>, hinted: bool) -> Plan {
    let mut plan = Plan::default();
    let mut slices = existing;
    for desired in desired {
        let (same, others): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.serves_on(&desired.ports));
        slices = others;
        plan.settle(same, desired, hinted);
    }
    // Nobody serves on their ports any more.
    plan.gone.extend(slices);
    plan
}

impl Plan {
    /// Puts `desired` into `slices`, all of the same ports.
    fn settle(&mut self, mut slices: Vec<Slice>, desired: Desired, hinted: bool) {
        let mut left: Vec<Option<Value>> = desired.endpoints.into_iter().map(Some).collect();
        for slice in &mut slices {
            slice.keep(&mut left, hinted);
        }
        let (emptied, mut slices): (Vec<_>, Vec<_>) =
            slices.into_iter().partition(|slice| slice.changed && slice.endpoints.is_empty());
        self.gone.extend(emptied);
        let mut left: Vec<Value> = left.into_iter().flatten().collect();
        // Slices that are written anyway take more, the fullest first.
        let mut order: Vec<usize> = (0..slices.len()).filter(|i| slices[*i].changed).collect();
        order.sort_by_key(|i| std::cmp::Reverse(slices[*i].endpoints.len()));
        for i in order {
            slices[i].fill(&mut left);
        }
        // Then one that all the rest fits into, as tightly as possible.
        while !left.is_empty() {
            let fits = |i: &usize| slices[*i].endpoints.len() + left.len() <= CAPACITY && !slices[*i].changed;
            let best = (0..slices.len()).filter(fits).max_by_key(|i| slices[*i].endpoints.len());
            match best.filter(|_| left.len() < CAPACITY) {
                Some(i) => slices[i].fill(&mut left),
                None => {
                    let endpoints = left.drain(..left.len().min(CAPACITY)).collect();
                    self.made.push(Desired { ports: desired.ports.clone(), endpoints });
                }
            }
        }
        let (empty, kept): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.endpoints.is_empty());
        self.gone.extend(empty);
        self.kept.extend(kept);
    }

    /// Somebody may wait for a slice to know that there are no endpoints: so there is always one.
    pub(crate) fn tell_of_none(&mut self) {
        if !self.kept.is_empty() || !self.made.is_empty() {
            return;
        }
        match &self.gone[..] {
            [one] if !one.changed && one.endpoints.is_empty() && one.ports().is_empty() => {
                self.kept.append(&mut self.gone);
            }
            _ => self.made.push(Desired { ports: Vec::new(), endpoints: Vec::new() }),
        }
    }

    /// The writes, in the order in which nothing is missing meanwhile. `dress` gives every slice what all have.
    pub(crate) fn changes(mut self, family: &str, dress: impl Fn(&mut Value)) -> Vec<Change> {
        // What would go tells under its own name what would come.
        let recycled = self.gone.len().min(self.made.len());
        for mut slice in self.gone.drain(..recycled) {
            let Some(made) = self.made.pop() else { break };
            slice.value.set(&["ports"], list(made.ports));
            slice.endpoints = made.endpoints;
            slice.changed = true;
            self.kept.push(slice);
        }
        let new = |made: Desired| Change::Create(new_slice(family, made.ports, made.endpoints, &dress));
        let mut changes: Vec<Change> = self.made.into_iter().map(new).collect();
        changes.extend(self.kept.into_iter().filter(|slice| slice.changed).map(Slice::into_update));
        changes.extend(self.gone.into_iter().map(|slice| Change::Delete(slice.object)));
        changes
    }
}

impl Slice {
    /// `None` for one of another family. `dress` gives it what all slices have.
    pub(crate) fn of(object: &Arc<Object>, family: &str, dress: impl Fn(&mut Value)) -> Option<Slice> {
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

    /// Whether its ports are these, in any order.
    pub(crate) fn serves_on(&self, ports: &[Value]) -> bool {
        let sorted = |ports: &[Value]| {
            let mut keys: Vec<_> = ports.iter().map(port_key).map(|key| format!("{key:?}")).collect();
            keys.sort_unstable();
            keys
        };
        self.ports().len() == ports.len() && sorted(self.ports()) == sorted(ports)
    }

    /// Keeps the endpoints that are still wanted, as they are wanted now.
    fn keep(&mut self, wanted: &mut [Option<Value>], hinted: bool) {
        let before = std::mem::take(&mut self.endpoints);
        for old in &before {
            let same = |new: &&mut Option<Value>| new.as_ref().is_some_and(|new| target(new) == target(old));
            if let Some(mut new) = wanted.iter_mut().find(same).and_then(Option::take) {
                if let Some(hints) = old.get("hints").filter(|_| hinted) {
                    new.set(&["hints"], hints);
                }
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

/// What makes two endpoints the same one. Upstream: hashEndpoint.
pub(crate) fn target(endpoint: &Value) -> (&[Value], [&str; 3]) {
    let text = |path: &[&str]| endpoint.str_at(path).unwrap_or_default();
    let names = [text(&["hostname"]), text(&["targetRef", "namespace"]), text(&["targetRef", "name"])];
    (endpoint.items_at(&["addresses"]), names)
}

/// Upstream tells nothing as `null`.
fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn new_slice(family: &str, ports: Vec<Value>, endpoints: Vec<Value>, dress: &impl Fn(&mut Value)) -> Value {
    let mut slice = Value::object();
    dress(&mut slice);
    slice.set(&["addressType"], family);
    slice.set(&["endpoints"], list(endpoints));
    slice.set(&["ports"], list(ports));
    slice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: usize) -> Value {
        let json = format!(r#"{{"addresses":["10.0.{}.{}"],"targetRef":{{"name":"p{n}"}}}}"#, n / 250, n % 250);
        Value::parse(json.as_bytes()).unwrap()
    }

    fn slice(name: &str, range: std::ops::Range<usize>) -> Arc<Object> {
        slice_on(name, &[80], range)
    }

    fn slice_on(name: &str, numbers: &[i64], range: std::ops::Range<usize>) -> Arc<Object> {
        let mut value = new_slice("IPv4", ports(numbers), range.map(endpoint).collect(), &|_| {});
        value.set(&["metadata", "name"], name);
        Arc::new(Object::new(&value, 1).unwrap())
    }

    fn ports(numbers: &[i64]) -> Vec<Value> {
        numbers.iter().map(|n| Value::parse(format!(r#"{{"port":{n}}}"#).as_bytes()).unwrap()).collect()
    }

    /// What is done, as letters with the number of endpoints, in its order.
    fn check(existing: &[Arc<Object>], desired: &[(&[i64], std::ops::Range<usize>)], expect: &[&str]) {
        let desired = desired
            .iter()
            .map(|(numbers, range)| Desired { ports: ports(numbers), endpoints: range.clone().map(endpoint).collect() })
            .collect();
        let size = |value: &Value| value.items_at(&["endpoints"]).len();
        let existing = existing.iter().filter_map(|object| Slice::of(object, "IPv4", |_| {})).collect();
        let mut plan = plan(existing, desired, false);
        plan.tell_of_none();
        let done: Vec<String> = plan
            .changes("IPv4", |_| {})
            .iter()
            .map(|change| match change {
                Change::Create(value) => format!("+{}", size(value)),
                Change::Update(value) => format!("~{}:{}", value.str_at(&["metadata", "name"]).unwrap(), size(value)),
                Change::Delete(object) => format!("-{}", object.name()),
            })
            .collect();
        assert_eq!(done, expect);
    }

    #[test]
    fn endpoints_are_shared_out_with_few_writes() {
        let web: &[i64] = &[80];
        check(&[], &[(web, 0..250)], &["+100", "+100", "+50"]);
        check(&[slice("a", 0..3)], &[(web, 0..3)], &[]);
        check(&[slice("a", 0..3)], &[(web, 0..5)], &["~a:5"]);
        check(&[slice("a", 0..3)], &[(web, 1..3)], &["~a:2"]);
        // Only one slice is written where one suffices.
        check(&[slice("a", 0..90), slice("b", 90..100)], &[(web, 0..105)], &["~a:95"]);
        check(&[slice("a", 0..90), slice("b", 90..100)], &[(web, 1..120)], &["~a:100", "~b:19"]);
        check(&[slice("a", 0..90), slice("b", 90..100)], &[(web, 0..90)], &["-b"]);
        check(&[slice("a", 0..100)], &[(web, 0..301)], &["+100", "+100", "+1"]);
        // What is emptied goes where another takes the rest; else it takes it itself.
        check(&[slice("a", 0..5), slice("b", 5..10)], &[(web, 5..15)], &["~b:10", "-a"]);
        check(&[slice("a", 0..5)], &[(web, 5..10)], &["~a:5"]);
        // Other ports are told in other slices, by the name of one that would go.
        check(&[slice("a", 0..2)], &[(&[81], 0..1), (web, 1..2)], &["+1", "~a:1"]);
        check(&[slice("a", 0..2)], &[(&[81], 0..2)], &["~a:2"]);
        check(&[slice("a", 0..2), slice("b", 2..4)], &[(&[81], 0..4)], &["~a:4", "-b"]);
        check(&[slice_on("a", &[81, 80], 0..2)], &[(&[80, 81], 0..3)], &["~a:3"]);
        // No endpoints are told by an empty slice.
        check(&[], &[], &["+0"]);
        check(&[slice_on("a", &[], 0..0)], &[], &[]);
        check(&[slice_on("a", &[], 0..0)], &[(web, 0..2)], &["~a:2"]);
        check(&[slice_on("a", &[], 0..0), slice_on("b", &[], 0..0)], &[], &["~a:0", "-b"]);
        check(&[slice("a", 0..2), slice("b", 2..3)], &[], &["~a:0", "-b"]);
    }
}
