//! Counts of requests, as Prometheus reads them. Upstream: apiserver pkg/endpoints/metrics.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::StatusCode;
use parking_lot::Mutex;

use crate::request::RequestInfo;

/// What requests are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

/// The counters of one server.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<(Labels, u16), u64>>);

impl Labels {
    /// `known`: it is about a resource that is served.
    pub(super) fn of(info: &RequestInfo, known: bool) -> Labels {
        // Other paths and names are anybody's: only their verb is told, so that nobody can make counters at will.
        let known = info.is_resource && known;
        let told = |text: &String| if known { text.clone() } else { String::new() };
        Labels {
            verb: info.verb.to_uppercase(),
            group: told(&info.group),
            version: told(&info.version),
            resource: told(&info.resource),
            subresource: if info.subresource.len() < 32 { told(&info.subresource) } else { String::new() },
        }
    }
}

impl Metrics {
    pub(super) fn count(&self, labels: Labels, code: StatusCode) {
        *self.0.lock().entry((labels, code.as_u16())).or_default() += 1;
    }

    /// The text form.
    pub(super) fn text(&self) -> String {
        let mut out = String::from(
            "# HELP apiserver_request_total Requests answered, by verb, group, version, resource, subresource and code.\n\
             # TYPE apiserver_request_total counter\n",
        );
        for ((labels, code), n) in self.0.lock().iter() {
            let Labels { verb, group, version, resource, subresource } = labels;
            let _ = writeln!(
                out,
                "apiserver_request_total{{code=\"{code}\",group={group:?},resource={resource:?},\
                 subresource={subresource:?},verb={verb:?},version={version:?}}} {n}"
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_are() {
        let metrics = Metrics::default();
        let count = |target: &str, code: StatusCode| {
            let (info, _) = RequestInfo::parse(&Method::GET, target);
            let known = api::resource(&info.group, &info.version, &info.resource).is_some();
            metrics.count(Labels::of(&info, known), code);
        };
        count("/api/v1/namespaces/default/pods/a", StatusCode::OK);
        count("/api/v1/namespaces/default/pods/b", StatusCode::OK);
        count("/api/v1/namespaces/default/pods/c/log", StatusCode::OK);
        count("/apis/made/up/names", StatusCode::NOT_FOUND);
        let text = metrics.text();
        let line = |rest: &str| text.lines().any(|line| line == format!("apiserver_request_total{rest}"));
        assert!(line(r#"{code="200",group="",resource="pods",subresource="",verb="GET",version="v1"} 2"#), "{text}");
        assert!(line(r#"{code="200",group="",resource="pods",subresource="log",verb="GET",version="v1"} 1"#), "{text}");
        assert!(!text.contains("names"), "{text}");
    }
}
