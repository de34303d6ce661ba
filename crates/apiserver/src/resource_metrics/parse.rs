//! The kubelet's `/metrics/resource`, line by line. Upstream: metrics-server pkg/scraper/client/resource/decode.go.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What a kubelet says of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scrape {
    pub node: Option<Point>,
    /// By namespace, pod and container.
    pub containers: BTreeMap<(String, String), BTreeMap<String, Point>>,
}

/// One sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// In seconds since 1970, as everything is here.
    pub at: f64,
    /// When it began to be counted; 0 if nobody knows.
    pub since: f64,
    /// Processor time used so far.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
}

/// Reads a kubelet's text; lines without a time are of `now`.
pub(super) fn scrape(text: &str, now: Timestamp) -> Scrape {
    let mut scrape = Scrape::default();
    let now = now.as_millisecond() as f64 / 1000.0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels, value, at)) = sample(line) else { continue };
        let at = at.unwrap_or(now);
        if let Some(figure) = name.strip_prefix("node_") {
            set(scrape.node.get_or_insert_default(), figure, value, at);
        } else if let Some(figure) = name.strip_prefix("container_") {
            let of = |name: &str| labels.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let (Some(namespace), Some(pod), Some(container)) = (of("namespace"), of("pod"), of("container")) else {
                continue;
            };
            let containers = scrape.containers.entry((namespace, pod)).or_default();
            set(containers.entry(container).or_default(), figure, value, at);
        }
    }
    scrape
}

fn set(point: &mut Point, figure: &str, value: f64, at: f64) {
    match figure {
        "cpu_usage_seconds_total" => (point.cpu, point.at) = (value, at),
        "memory_working_set_bytes" => {
            point.memory = value as u64;
            if point.at == 0.0 {
                point.at = at;
            }
        }
        "start_time_seconds" => point.since = value,
        _ => {}
    }
}

type Sample<'t> = (&'t str, Vec<(&'t str, &'t str)>, f64, Option<f64>);

/// `name{a="b",c="d"} value [milliseconds]`
fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    // The names of pods and containers hold neither commas nor quotes.
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    let labels = pairs.map(|(key, value)| (key.trim(), value.trim().trim_matches('"'))).collect();
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let at = words.next().and_then(|at| at.parse::<f64>().ok()).map(|milliseconds| milliseconds / 1000.0);
    Some((name.trim(), labels, value, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelets_text_is_understood() {
        let text = r#"# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="a",namespace="ns",pod="p"} 4.710169 1633253812125
container_memory_working_set_bytes{container="a",namespace="ns",pod="p"} 1.253376e+06 1633253812125
container_start_time_seconds{container="a",namespace="ns",pod="p"} 1.633252712e+09
node_cpu_usage_seconds_total 357.35491
node_memory_working_set_bytes 1.616273408e+09 1633253809720
pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 4.67812 1633253803935
scrape_error 0
nonsense
"#;
        let now = Timestamp::from_second(1_633_253_900).unwrap();
        let scrape = scrape(text, now);
        let node = scrape.node.unwrap();
        assert_eq!(node, Point { at: 1_633_253_900.0, since: 0.0, cpu: 357.35491, memory: 1_616_273_408 });
        let found = scrape.containers[&("ns".to_owned(), "p".to_owned())]["a"];
        let expect = Point { at: 1_633_253_812.125, since: 1_633_252_712.0, cpu: 4.710169, memory: 1_253_376 };
        assert_eq!(found, expect);
        assert_eq!(scrape.containers.len(), 1);
    }
}
