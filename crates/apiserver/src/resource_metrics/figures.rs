//! Figures as objects and texts.

use api::Kind;
use apimachinery::{Object, Quantity, Value, format_time};
use jiff::Timestamp;

use super::samples::{Figures, Used};

/// A NodeMetrics or PodMetrics of `object`.
pub(super) fn show(kind: &Kind, object: &Object, figures: &Figures, now: &str) -> Value {
    let mut value = Value::object();
    value.set(&["apiVersion"], kind.api_version());
    value.set(&["kind"], kind.kind);
    value.set(&["metadata", "name"], object.name());
    if kind.namespaced {
        value.set(&["metadata", "namespace"], object.namespace());
    }
    value.set(&["metadata", "creationTimestamp"], now);
    for (key, label) in object.labels() {
        value.set(&["metadata", "labels", key], label.as_str());
    }
    let at = Timestamp::from_millisecond((figures.at * 1000.0) as i64).unwrap_or_default();
    value.set(&["timestamp"], format_time(at));
    value.set(&["window"], duration(figures.window));
    if kind.namespaced {
        let container = |(name, used): &(String, Used)| {
            let mut container = usage(used);
            container.set(&["name"], name.as_str());
            container
        };
        value.set(&["containers"], figures.used.iter().map(container).collect::<Vec<_>>());
    } else if let Some((_, used)) = figures.used.first() {
        value.set(&["usage"], usage(used).remove(&["usage"]).unwrap_or_default());
    }
    value
}

/// What the containers of a PodMetrics use together.
pub(crate) fn sum(pod: &Value, resource: &str) -> String {
    let containers = pod.items_at(&["containers"]).iter();
    let used = containers.filter_map(|container| Quantity::from_value(container.at(&["usage", resource])?)?.ok());
    let total: f64 = used.map(Quantity::as_f64).sum();
    match resource {
        "cpu" => cores((total * 1e9).round() as u64),
        _ => bytes(total as u64),
    }
}

fn usage(used: &Used) -> Value {
    let mut value = Value::object();
    value.set(&["usage", "cpu"], cores(used.nanocores));
    value.set(&["usage", "memory"], bytes(used.bytes));
    value
}

/// In the largest unit that has no fraction.
fn cores(nanocores: u64) -> String {
    scaled(nanocores, 1000, &["n", "u", "m", "", "k"])
}

fn bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &["", "Ki", "Mi", "Gi", "Ti"])
}

fn scaled(mut number: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    while number > 0 && number.is_multiple_of(step) && unit + 1 < units.len() {
        (number, unit) = (number / step, unit + 1);
    }
    if number == 0 { "0".to_owned() } else { format!("{number}{}", units[unit]) }
}

/// As Go writes durations, to the millisecond.
fn duration(seconds: f64) -> String {
    let milliseconds = (seconds * 1000.0).round() as u64;
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let mut text = format!("{}.{:03}", rest / 1000, rest % 1000);
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    match (hours, minutes) {
        (0, 0) => format!("{text}s"),
        (0, minutes) => format!("{minutes}m{text}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{text}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_gos() {
        let check = |seconds: f64, expect: &str| assert_eq!(duration(seconds), expect);
        check(15.0, "15s");
        check(15.024, "15.024s");
        check(60.5, "1m0.5s");
        check(3600.0, "1h0m0s");
        check(0.25, "250ms");
        check(10.0, "10s");
        assert_eq!((cores(0), cores(1500), cores(2_000_000), cores(1_000_000_000)).0, "0");
        assert_eq!([cores(1500), cores(2_000_000), cores(1_000_000_000)], ["1500n", "2m", "1"]);
        assert_eq!([bytes(1000), bytes(2048), bytes(3 << 20)], ["1000", "2Ki", "3Mi"]);
        let pod = r#"{"containers":[{"usage":{"cpu":"1500n","memory":"1Ki"}},{"usage":{"cpu":"1m","memory":"1Ki"}}]}"#;
        let pod = Value::parse(pod.as_bytes()).unwrap();
        assert_eq!((sum(&pod, "cpu").as_str(), sum(&pod, "memory").as_str()), ("1001500n", "2Ki"));
    }
}
