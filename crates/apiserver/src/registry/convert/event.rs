//! `events.k8s.io/v1` and core `v1` Events name the same facts differently. Upstream: pkg/apis/events/v1 conversion.

use apimachinery::Value;

use super::rename;

/// Name in `events.k8s.io/v1`, name in core.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

pub(super) fn to_core(value: &mut Value) {
    for (events, core) in NAMES {
        rename(value, events, core);
    }
}

pub(super) fn from_core(value: &mut Value) {
    for (events, core) in NAMES {
        rename(value, core, events);
    }
    // Core always says these.
    for key in ["reportingController", "reportingInstance"] {
        if value.str_at(&[key]) == Some("") {
            value.remove(&[key]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_round() {
        let core = Value::parse(br#"{"involvedObject":{"name":"a"},"message":"m","count":2,"type":"Normal"}"#).unwrap();
        let mut value = core.clone();
        from_core(&mut value);
        assert_eq!(value.str_at(&["note"]), Some("m"));
        to_core(&mut value);
        assert_eq!(value, core);
    }
}
