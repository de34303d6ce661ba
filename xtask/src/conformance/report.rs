//! What became of the specs: ginkgo's JSON report in, figures and reasons out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::shown;

/// One spec and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub name: String,
    pub outcome: Outcome,
    pub took: Duration,
    /// Why it failed or was skipped, on one line.
    pub reason: String,
    /// Everything it said.
    pub log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Passed,
    Failed,
    /// It found that it can't run here.
    Skipped,
    /// It wants more nodes than the cluster has.
    NeedsNodes,
    /// The run ended while it ran.
    Interrupted,
}

impl Outcome {
    /// Whether it came to a verdict.
    pub fn has_run(self) -> bool {
        matches!(self, Outcome::Passed | Outcome::Failed)
    }

    /// Ginkgo's words.
    pub(super) fn named(state: &str, reason: &str) -> Outcome {
        match state {
            "passed" => Outcome::Passed,
            "skipped" | "pending" if wants_nodes(reason) => Outcome::NeedsNodes,
            "skipped" | "pending" => Outcome::Skipped,
            "interrupted" | "aborted" => Outcome::Interrupted,
            _ if wants_nodes(reason) => Outcome::NeedsNodes,
            _ => Outcome::Failed,
        }
    }
}

/// How upstream's specs say that they need another node.
fn wants_nodes(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    ["at least 2 nodes", "at least two nodes", "at least two ready nodes", "requires >= 2 nodes"]
        .iter()
        .any(|words| reason.contains(words))
}

/// The SIG in a spec's name.
pub fn sig(name: &str) -> &str {
    name.strip_prefix("[sig-").and_then(|rest| rest.split_once(']')).map_or("other", |(sig, _)| sig)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SuiteReport {
    #[serde(default)]
    spec_reports: Vec<SpecReport>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    #[serde(default)]
    leaf_node_text: String,
    #[serde(default)]
    leaf_node_type: String,
    state: String,
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    num_attempts: u32,
    failure: Option<Failure>,
    #[serde(default)]
    captured_ginkgo_writer_output: String,
    #[serde(default)]
    captured_std_out_err: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
    location: Option<Location>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Location {
    #[serde(default)]
    file_name: String,
    #[serde(default)]
    line_number: u64,
}

/// The specs of a report that were chosen (the others are in it too, as skipped without a word), and nodes around them that failed.
pub fn read(path: &Path) -> Result<Vec<Spec>> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("the report {}", path.display()))
}

fn parse(text: &[u8]) -> Result<Vec<Spec>> {
    let suites: Vec<SuiteReport> = serde_json::from_slice(text)?;
    Ok(suites.into_iter().flat_map(|suite| suite.spec_reports).filter_map(spec).collect())
}

fn spec(report: SpecReport) -> Option<Spec> {
    let is_spec = report.leaf_node_type == "It";
    let said_why = report.failure.as_ref().is_some_and(|failure| !failure.message.is_empty());
    let chosen = report.num_attempts > 0 || report.state != "skipped" || said_why;
    if is_spec && !chosen || !is_spec && report.state == "passed" {
        return None;
    }
    let mut texts = report.container_hierarchy_texts.unwrap_or_default();
    texts.push(if is_spec { report.leaf_node_text } else { format!("[{}]", report.leaf_node_type) });
    texts.retain(|text| !text.is_empty());
    let (message, location) = report.failure.map_or_else(Default::default, |f| (f.message, f.location));
    let mut log = report.captured_ginkgo_writer_output + &report.captured_std_out_err;
    if !message.is_empty() {
        let place = location.map_or_else(String::new, |l| format!("{}:{}", l.file_name, l.line_number));
        write!(log, "\n\n--- {}\n{message}\n{place}\n", report.state).ok();
    }
    Some(Spec {
        name: texts.join(" "),
        outcome: Outcome::named(&report.state, &message),
        took: Duration::from_nanos(report.run_time),
        reason: one_line(&message),
        log,
    })
}

/// The beginning of a message, on one line.
fn one_line(message: &str) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words,
    }
}

/// Figures per SIG.
pub fn summary(specs: &[Spec], took: Duration) -> String {
    let mut rows: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
    for spec in specs {
        for row in [sig(&spec.name), "total"] {
            rows.entry(row).or_default()[spec.outcome as usize] += 1;
        }
    }
    let total = rows.remove("total").unwrap_or_default();
    let mut text = format!("\n{:<20}{:>8}{:>8}{:>9}{:>13}\n", "SIG", "passed", "failed", "skipped", "needs nodes");
    for (name, [passed, failed, skipped, nodes, cut]) in rows.into_iter().chain([("total", total)]) {
        write!(text, "{name:<20}{passed:>8}{failed:>8}{skipped:>9}{nodes:>13}").ok();
        text.push_str(&if cut > 0 { format!("  ({cut} cut short)\n") } else { "\n".into() });
    }
    writeln!(text, "wall time {}", shown(took)).ok();
    text
}

/// Writes the log of each spec that didn't pass into `folder`/logs; for each its reason and where its log is.
pub fn failures(specs: &[Spec], folder: &Path) -> Result<String> {
    let logs = folder.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    let mut text = String::new();
    let mut used: BTreeMap<String, u32> = BTreeMap::new();
    for spec in specs.iter().filter(|spec| matches!(spec.outcome, Outcome::Failed | Outcome::Interrupted)) {
        let slug = slug(&spec.name);
        let times = used.entry(slug.clone()).or_default();
        *times += 1;
        let file = if *times > 1 { format!("{slug}-{times}.log") } else { format!("{slug}.log") };
        let path = logs.join(file);
        fs::write(&path, format!("{}\n\n{}", spec.name, spec.log)).context("writing a spec's log")?;
        let took = spec.took.as_secs();
        let word = if spec.outcome == Outcome::Failed { "FAILED" } else { "CUT SHORT" };
        writeln!(text, "{word} ({took}s) {}\n    {}\n    {}", spec.name, spec.reason, path.display()).ok();
    }
    for spec in specs.iter().filter(|spec| spec.outcome == Outcome::NeedsNodes) {
        writeln!(text, "needs nodes: {}", spec.name).ok();
    }
    fs::write(folder.join("summary.txt"), &text).context("writing the summary")?;
    Ok(text)
}

/// A file name for a spec.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().take(150) {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => slug.push(c.to_ascii_lowercase()),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_specs_are_read() {
        let report = br#"[{"SpecReports": [
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "State": "passed", "NumAttempts": 1},
            {"ContainerHierarchyTexts": ["[sig-node] Pods", ""], "LeafNodeType": "It", "LeafNodeText": "should run [Conformance]",
             "State": "passed", "RunTime": 1500000000, "NumAttempts": 1},
            {"ContainerHierarchyTexts": ["[sig-apps] Jobs"], "LeafNodeType": "It", "LeafNodeText": "end", "State": "failed", "NumAttempts": 1,
             "Failure": {"Message": "timed\n  out", "Location": {"FileName": "a.go", "LineNumber": 3}}, "CapturedGinkgoWriterOutput": "waited"},
            {"ContainerHierarchyTexts": ["[sig-apps] DaemonSet"], "LeafNodeType": "It", "LeafNodeText": "rolls", "State": "failed", "NumAttempts": 1,
             "Failure": {"Message": "Conformance test suite needs a cluster with at least 2 nodes."}},
            {"ContainerHierarchyTexts": ["[sig-x] not chosen"], "LeafNodeType": "It", "LeafNodeText": "x", "State": "skipped", "NumAttempts": 0}
        ]}]"#;
        let specs = parse(report).unwrap();
        let told: Vec<_> = specs.iter().map(|s| (s.name.as_str(), s.outcome, s.reason.as_str())).collect();
        assert_eq!(
            told,
            [
                ("[sig-node] Pods should run [Conformance]", Outcome::Passed, ""),
                ("[sig-apps] Jobs end", Outcome::Failed, "timed out"),
                (
                    "[sig-apps] DaemonSet rolls",
                    Outcome::NeedsNodes,
                    "Conformance test suite needs a cluster with at least 2 nodes."
                ),
            ]
        );
        assert_eq!(specs[0].took, Duration::from_millis(1500));
        assert!(specs[1].log.starts_with("waited\n") && specs[1].log.contains("a.go:3"));
        let summary = summary(&specs, Duration::from_secs(61));
        assert!(summary.contains("apps                       0       1        0            1\n"), "{summary}");
        assert!(summary.ends_with("wall time 1m01s\n"), "{summary}");
    }

    #[test]
    fn failures_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let spec = |log: &str| Spec {
            name: "[sig-apps] Jobs: end".into(),
            outcome: Outcome::Failed,
            took: Duration::from_secs(2),
            reason: "why".into(),
            log: log.into(),
        };
        let text = failures(&[spec("a"), spec("b")], folder.path()).unwrap();
        let second = folder.path().join("logs/sig-apps-jobs-end-2.log");
        assert!(
            text.contains(&format!("FAILED (2s) [sig-apps] Jobs: end\n    why\n    {}\n", second.display())),
            "{text}"
        );
        assert_eq!(fs::read_to_string(second).unwrap(), "[sig-apps] Jobs: end\n\nb");
    }

    #[test]
    fn names_tell_their_sig() {
        let check = |name: &str, expect: &str| assert_eq!(sig(name), expect, "{name}");
        check("[sig-api-machinery] Watchers should", "api-machinery");
        check("[SynchronizedBeforeSuite]", "other");
    }
}
