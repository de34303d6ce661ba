//! What was measured of both, side by side.

use std::fmt::Write as _;

use serde_json::Value;

/// A table with a line for each shape and size that both ran, or one of them.
pub fn table(results: &[Value]) -> String {
    let mut text = String::from(
        "| Shape | Nodes | Pods/s | Upstream | Ratio | p50 / p99 ms | Upstream | CPU s | Upstream | Ratio | MiB | Upstream | Ratio | Server CPU s |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut cells: Vec<(&str, u64)> = Vec::new();
    for result in results {
        let cell = (result["shape"].as_str().unwrap_or_default(), result["nodes"].as_u64().unwrap_or_default());
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
    for (shape, nodes) in cells {
        let of = |who: &str| results.iter().find(|r| r["shape"] == shape && r["nodes"] == nodes && r["who"] == who);
        let (ours, upstream) = (of("ours"), of("upstream"));
        let number = |result: Option<&Value>, field: &str| result.and_then(|result| result.pointer(field)?.as_f64());
        let show = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        let both = |field: &str, digits| (number(ours, field), number(upstream, field), digits);
        let pair = |(a, b, digits): (Option<f64>, Option<f64>, usize), more_is_better: bool| {
            let ratio = a.zip(b).map(|(a, b)| if more_is_better { a / b } else { b / a });
            format!("{} | {} | {}", show(a, digits), show(b, digits), show(ratio, 1))
        };
        let attempt = |result| {
            let millis = |field| show(number(result, field).map(|micros| micros / 1000.0), 2);
            format!("{} / {}", millis("/attempt/p50_us"), millis("/attempt/p99_us"))
        };
        let _ = writeln!(
            text,
            "| {shape} | {nodes} | {} | {} | {} | {} | {} | {} / {} |",
            pair(both("/throughput", 0), true),
            attempt(ours),
            attempt(upstream),
            pair(both("/cpu_seconds", 2), false),
            pair(both("/rss_mib", 0), false),
            show(number(ours, "/server_cpu_seconds"), 2),
            show(number(upstream, "/server_cpu_seconds"), 2),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ratios_tell_how_much_better_ours_is() {
        let result = |who: &str, rate: f64, cpu: f64, rss: u64| {
            json!({"who": who, "shape": "basic", "nodes": 100, "throughput": rate, "cpu_seconds": cpu, "rss_mib": rss,
                "server_cpu_seconds": 0.5, "attempt": {"p50_us": 60, "p99_us": 90}})
        };
        let text = table(&[result("ours", 3000.0, 0.5, 20), result("upstream", 500.0, 2.0, 100)]);
        let line = text.lines().nth(2).unwrap();
        assert_eq!(
            line,
            "| basic | 100 | 3000 | 500 | 6.0 | 0.06 / 0.09 | 0.06 / 0.09 | 0.50 | 2.00 | 4.0 | 20 | 100 | 5.0 | 0.50 / 0.50 |"
        );
        assert!(table(&[result("ours", 1.0, 1.0, 1)]).contains("| 1 | - | - |"));
    }
}
