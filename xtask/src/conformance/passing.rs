//! What passed before: `conformance/passing.txt`, one spec a line, and how long each took, `conformance/durations.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::{Outcome, Spec, sig};

/// The specs that pass.
pub const PASSING: &str = "conformance/passing.txt";
/// The seconds they took.
const DURATIONS: &str = "conformance/durations.txt";

/// How many specs a sample has.
const SAMPLE: usize = 40;
/// What counts as quick, in seconds.
const QUICK: u64 = 12;

#[derive(Debug, Default, PartialEq)]
pub struct Record {
    pub passing: BTreeSet<String>,
    durations: BTreeMap<String, u64>,
}

impl Record {
    /// As committed; empty where there is none yet.
    pub fn read(root: &Path) -> Result<Record> {
        let durations = text(&root.join(DURATIONS))?;
        let durations = durations.lines().filter_map(|line| {
            let (seconds, name) = line.split_once(' ')?;
            Some((name.to_owned(), seconds.parse().ok()?))
        });
        let durations = durations.collect();
        let passing = text(&root.join(PASSING))?.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
        Ok(Record { passing, durations })
    }

    /// Adds what passed in every run, and how long it took at the most. What was recorded stays where it is less than twice off, so that
    /// a run changes few lines.
    pub fn bless<'a>(&mut self, passed: &BTreeSet<String>, ran: impl Iterator<Item = &'a Spec>) {
        self.passing.extend(passed.iter().cloned());
        let mut longest: BTreeMap<&str, u64> = BTreeMap::new();
        for spec in ran.filter(|spec| spec.outcome == Outcome::Passed) {
            let longest = longest.entry(&spec.name).or_default();
            *longest = (*longest).max(spec.took.as_secs_f64().ceil() as u64);
        }
        for (name, seconds) in longest {
            let known = self.durations.entry(name.to_owned()).or_insert(seconds);
            if seconds > 2 * *known || 2 * seconds < *known {
                *known = seconds;
            }
        }
        self.durations.retain(|name, _| self.passing.contains(name));
    }

    pub fn write(&self, root: &Path) -> Result<()> {
        let mut durations = String::new();
        for (name, seconds) in &self.durations {
            writeln!(durations, "{seconds} {name}").ok();
        }
        let passing: String = self.passing.iter().map(|name| format!("{name}\n")).collect();
        for (file, text) in [(PASSING, passing), (DURATIONS, durations)] {
            fs::write(root.join(file), text).with_context(|| format!("writing {file}"))?;
        }
        Ok(())
    }

    /// About forty quick specs with the label: from every SIG in turn the one that a stable hash of the names puts first, of those
    /// that pass, may run beside others and were quick.
    pub fn sample(&self, label: &str) -> Vec<String> {
        let label = format!("[{label}]");
        let mut sigs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, seconds) in &self.durations {
            let alone = ["[Serial]", "[Disruptive]", "[Slow]"].iter().any(|mark| name.contains(mark));
            if *seconds <= QUICK && !alone && name.contains(&label) && self.passing.contains(name) {
                sigs.entry(sig(name)).or_default().push(name);
            }
        }
        for names in sigs.values_mut() {
            names.sort_by_key(|name| (hash(name), *name));
        }
        let turns = sigs.values().map(Vec::len).max().unwrap_or(0);
        let mut sample: Vec<String> = (0..turns)
            .flat_map(|turn| sigs.values().filter_map(move |names| names.get(turn)))
            .take(SAMPLE)
            .map(|name| (*name).to_owned())
            .collect();
        sample.sort();
        sample
    }
}

fn text(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("reading {}", path.display())),
    }
}

/// FNV-1a: the same in every build.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn passed(name: &str, seconds: u64) -> Spec {
        Spec {
            name: name.into(),
            outcome: Outcome::Passed,
            took: Duration::from_secs(seconds),
            reason: String::new(),
            log: String::new(),
        }
    }

    fn blessed(specs: &[Spec]) -> Record {
        let mut record = Record::default();
        record.bless(&specs.iter().map(|spec| spec.name.clone()).collect(), specs.iter());
        record
    }

    #[test]
    fn a_record_comes_back_as_written() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("conformance")).unwrap();
        assert_eq!(Record::read(root.path()).unwrap(), Record::default());
        let record = blessed(&[passed("[sig-b] two", 2), passed("[sig-a] one", 7)]);
        record.write(root.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join(PASSING)).unwrap(), "[sig-a] one\n[sig-b] two\n");
        assert_eq!(fs::read_to_string(root.path().join(DURATIONS)).unwrap(), "7 [sig-a] one\n2 [sig-b] two\n");
        assert_eq!(Record::read(root.path()).unwrap(), record);
    }

    #[test]
    fn durations_change_only_by_much() {
        let mut record = blessed(&[passed("a", 6), passed("b", 6)]);
        let again = [passed("a", 9), passed("b", 2)];
        record.bless(&BTreeSet::new(), again.iter());
        assert_eq!(record.durations, BTreeMap::from([("a".into(), 6), ("b".into(), 2)]));
    }

    #[test]
    fn a_sample_takes_from_every_sig_in_turn() {
        let mut specs: Vec<Spec> = (0..100).map(|n| passed(&format!("[sig-a] {n} [Conformance]"), 1)).collect();
        specs.extend((0..3).map(|n| passed(&format!("[sig-b] {n} [Conformance]"), 1)));
        specs.push(passed("[sig-c] slow [Conformance]", 90));
        specs.push(passed("[sig-c] [Serial] alone [Conformance]", 1));
        specs.push(passed("[sig-c] other", 1));
        let sample = blessed(&specs).sample("Conformance");
        assert_eq!(sample.len(), SAMPLE);
        assert_eq!(sample.iter().filter(|name| sig(name) == "b").count(), 3);
        assert_eq!(sample.iter().filter(|name| sig(name) == "c").count(), 0);
        assert_eq!(sample, blessed(&specs).sample("Conformance"));
    }
}
