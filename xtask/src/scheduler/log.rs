//! Scores, as upstream's scheduler tells them at `-v=10`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What the log says of one pod's last attempt.
#[derive(Debug, Default, PartialEq)]
pub struct Scores {
    /// Weighted, by plugin, then node.
    pub plugins: BTreeMap<String, BTreeMap<String, i64>>,
    pub totals: BTreeMap<String, i64>,
}

impl Scores {
    /// Reads the lines about `pod` (`namespace/name`).
    pub fn read(log: &str, pod: &str) -> Scores {
        let mut scores = Scores::default();
        let about = format!("pod=\"{pod}\"");
        for line in log.lines().filter(|line| line.contains(&about)) {
            let Some(node) = field(line, "node") else { continue };
            let Some(score) = field(line, "score").and_then(|text| text.parse().ok()) else { continue };
            if line.contains("\"Plugin scored node for pod\"") {
                let plugin = field(line, "plugin").unwrap_or_default();
                scores.plugins.entry(plugin).or_default().insert(node, score);
            } else if line.contains("\"Calculated node's final score for pod\"") {
                scores.totals.insert(node, score);
            }
        }
        scores
    }

    pub fn to_value(&self) -> Value {
        json!(self.plugins)
    }
}

/// `key="value"` or `key=value`.
fn field(line: &str, key: &str) -> Option<String> {
    let at = line.find(&format!(" {key}="))? + key.len() + 2;
    let rest = &line[at..];
    let end = |stop: char, text: &str| text.find(stop).unwrap_or(text.len());
    match rest.strip_prefix('"') {
        Some(quoted) => Some(quoted[..end('"', quoted)].to_owned()),
        None => Some(rest[..end(' ', rest)].to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read() {
        let log = r#"I1 1 schedule_one.go:1] "Plugin scored node for pod" pod="ns/a" plugin="NodeAffinity" node="n1" score=200
I1 1 schedule_one.go:1] "Plugin scored node for pod" pod="ns/b" plugin="NodeAffinity" node="n1" score=7
I1 1 schedule_one.go:1] "Calculated node's final score for pod" pod="ns/a" node="n1" score=300
"#;
        let scores = Scores::read(log, "ns/a");
        assert_eq!(scores.to_value(), json!({"NodeAffinity": {"n1": 200}}));
        assert_eq!(scores.totals, BTreeMap::from([("n1".to_owned(), 300)]));
    }
}
