//! Reads ginkgo's output as it comes.

use std::time::Duration;

use crate::conformance::report::{Outcome, Spec};

/// What a line told.
#[derive(Debug, PartialEq)]
pub enum News {
    /// So many specs were chosen.
    WillRun(usize),
    /// A spec came to its end (its log and reason come with the report).
    Ended(Spec),
    /// A spec runs longer than it may.
    Hangs(String),
}

/// Where in the output we are.
pub struct Follower {
    parallel: bool,
    expect: Expect,
    /// The spec that runs, where only one does.
    current: String,
}

#[derive(PartialEq)]
enum Expect {
    Anything,
    /// After a rule: the name of a spec that begins, or how one ended.
    Head,
    /// After how a spec ended: its name.
    Name(Outcome, Duration),
    /// After the word that somebody hangs: its name.
    Hanging,
}

impl Follower {
    /// With several processes a spec is told when it ended, with one as it goes.
    pub fn new(parallel: bool) -> Follower {
        Follower { parallel, expect: Expect::Anything, current: String::new() }
    }

    pub fn line(&mut self, line: &str) -> Option<News> {
        let text = line.trim();
        if let Some(count) = text.strip_prefix("Will run ").and_then(|rest| rest.split(' ').next()?.parse().ok()) {
            return Some(News::WillRun(count));
        }
        if text.starts_with("Automatically polling progress:") {
            self.expect = Expect::Hanging;
            return None;
        }
        if text.len() >= 30 && text.bytes().all(|byte| byte == b'-') {
            self.expect = Expect::Head;
            return None;
        }
        if text.is_empty() {
            return None;
        }
        match std::mem::replace(&mut self.expect, Expect::Anything) {
            Expect::Name(outcome, took) => Some(ended(text, outcome, took)),
            Expect::Hanging => {
                let name = text.split(" (Spec Runtime:").next().unwrap_or(text);
                Some(News::Hangs(plain(name)))
            }
            before => {
                if let Some((outcome, took)) = header(line) {
                    if self.parallel {
                        self.expect = Expect::Name(outcome, took);
                        return None;
                    }
                    return Some(ended(&self.current, outcome, took));
                }
                if before == Expect::Head {
                    self.current = text.to_owned();
                }
                None
            }
        }
    }
}

fn ended(name: &str, outcome: Outcome, took: Duration) -> News {
    News::Ended(Spec { name: plain(name), outcome, took, reason: String::new(), log: String::new() })
}

/// A name as the report has it: ginkgo's output marks the leaf of one that failed and adds the labels at the end.
fn plain(name: &str) -> String {
    let name = name.replacen(" [It] ", " ", 1);
    match name.rsplit_once(" [sig-") {
        Some((before, labels)) if !before.is_empty() && labels.ends_with(']') => before.to_owned(),
        _ => name,
    }
}

/// `• [1.5 seconds]`, `• [FAILED] [2.0 seconds]`, `S [SKIPPED] [0.1 seconds]`.
fn header(line: &str) -> Option<(Outcome, Duration)> {
    let rest = line.strip_prefix("• ").or_else(|| line.strip_prefix("S "))?;
    let (state, rest) = match rest.strip_prefix('[')?.split_once("] [") {
        Some((state, rest)) => (state.to_lowercase(), rest),
        None => ("passed".to_owned(), rest.strip_prefix('[')?),
    };
    let seconds: f64 = rest.strip_suffix(" seconds]")?.parse().ok()?;
    Some((Outcome::named(&state, ""), Duration::try_from_secs_f64(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parallel: bool, output: &str, expect: &[&str]) {
        let mut follower = Follower::new(parallel);
        let news: Vec<String> = output
            .lines()
            .filter_map(|line| follower.line(line))
            .map(|news| match news {
                News::WillRun(count) => count.to_string(),
                News::Ended(spec) => format!("{:?} {} {:?}", spec.outcome, spec.name, spec.took),
                News::Hangs(name) => format!("hangs {name}"),
            })
            .collect();
        assert_eq!(news, expect);
    }

    #[test]
    fn parallel_specs_are_told_at_their_end() {
        let rule = "------------------------------";
        let output = format!(
            "Will run 2 of 7000 specs\n{rule}\n• [1.500 seconds]\n[sig-a] one [Conformance] [sig-a, Conformance]\na.go:3\n{rule}\n{rule}\n• [FAILED] [2.000 seconds]\n\
             [sig-a] [It] two\nb.go:4\n\n  Timeline >>\n  STEP: x\n{rule}\n{rule}\nAutomatically polling progress:\n  \
             [sig-b] three (Spec Runtime: 15m0s)\n    c.go:5\n"
        );
        check(
            true,
            &output,
            &["2", "Passed [sig-a] one [Conformance] 1.5s", "Failed [sig-a] two 2s", "hangs [sig-b] three"],
        );
    }

    #[test]
    fn serial_specs_are_told_as_they_go() {
        let rule = "------------------------------";
        let output = format!(
            "{rule}\n[sig-a] one\na.go:3\n  STEP: x\n• [1.000 seconds]\n{rule}\n[sig-a] two\nb.go:4\n  [FAILED] oh\n\
             • [FAILED] [2.000 seconds]\n[sig-a] two [It] leaf\nb.go:4\n{rule}\n"
        );
        check(false, &output, &["Passed [sig-a] one 1s", "Failed [sig-a] two 2s"]);
    }
}
