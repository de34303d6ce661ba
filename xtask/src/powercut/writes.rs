//! What was acknowledged, against what is there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Each writer goes round so many keys.
pub const SLOTS: u64 = 8;

/// Everything that writers said they wrote.
#[derive(Default)]
pub struct Writes {
    writers: BTreeMap<u32, Writer>,
    /// The newest revision that was acknowledged.
    pub newest: u64,
    acknowledged: u64,
}

#[derive(Default)]
struct Writer {
    /// The revision of each acknowledged step; steps are made one after the other.
    acknowledged: BTreeMap<u64, u64>,
    /// What the machine says is there: step and revision by key.
    found: BTreeMap<u64, (u64, u64)>,
}

impl Writes {
    /// `ack WRITER STEP REVISION`, or `key WRITER STEP REVISION` for what is there; whether the line was one of these.
    pub fn heard(&mut self, line: &str) -> Result<bool> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what @ ("ack" | "key"), writer, n, revision] = words.as_slice() else { return Ok(false) };
        let (writer, n, revision): (u32, u64, u64) = (writer.parse()?, n.parse()?, revision.parse()?);
        let state = self.writers.entry(writer).or_default();
        if *what == "key" {
            state.found.insert(n % SLOTS, (n, revision));
            return Ok(true);
        }
        let before = state.acknowledged.last_key_value().map_or((0, 0), |(n, revision)| (*n, *revision));
        ensure!(n == before.0 + 1, "writer {writer} acknowledges {n} after {}", before.0);
        ensure!(revision > before.1, "writer {writer} is told revision {revision} after {}", before.1);
        state.acknowledged.insert(n, revision);
        self.newest = self.newest.max(revision);
        self.acknowledged += 1;
        Ok(true)
    }

    /// The machine starts again, and tells anew what is there.
    pub fn forget_found(&mut self) {
        self.writers.values_mut().for_each(|writer| writer.found.clear());
    }

    /// All that was acknowledged is there, at its revision, and at most one step more of each writer. What is there counts from now on.
    pub fn verify(&mut self) -> Result<()> {
        let mut adopted = 0;
        for (name, writer) in &mut self.writers {
            let last = writer.acknowledged.last_key_value().map_or(0, |(n, _)| *n);
            let found = writer.found.values().map(|(n, _)| *n).max().unwrap_or(0);
            ensure!(found >= last, "writer {name}: step {last} was acknowledged, and {found} is the last there is");
            ensure!(found <= last + 1, "writer {name}: step {found} is there, and no more than {} was begun", last + 1);
            for slot in 0..SLOTS {
                let expected = (1..=found).rev().find(|n| n % SLOTS == slot);
                let there = writer.found.get(&slot);
                match (expected, there) {
                    (None, None) => {}
                    (Some(n), Some((there, revision))) if n == *there => match writer.acknowledged.get(&n) {
                        Some(told) => {
                            ensure!(told == revision, "writer {name}: step {n} was told {told} and is {revision}")
                        }
                        None => {
                            ensure!(n == last + 1, "writer {name}: step {n} is nobody's");
                            writer.acknowledged.insert(n, *revision);
                            adopted = adopted.max(*revision);
                        }
                    },
                    _ => bail!("writer {name}: key {slot} should be of step {expected:?} and is {there:?}"),
                }
            }
            // Only what a key can still hold is asked for again.
            while writer.acknowledged.len() as u64 > SLOTS + 1 {
                writer.acknowledged.pop_first();
            }
        }
        self.newest = self.newest.max(adopted);
        Ok(())
    }

    /// How many were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

/// The number that is a line's `n`-th word.
pub fn word(line: &str, n: usize) -> Result<u64> {
    let word = line.split(' ').nth(n).with_context(|| format!("{line:?} ends early"))?;
    word.parse().with_context(|| format!("{line:?} has no number there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears the lines, then verifies.
    fn check(lines: &[&str], expect: Result<(), &str>) {
        let mut writes = Writes::default();
        let heard = lines.iter().try_for_each(|line| writes.heard(line).map(|known| assert!(known)));
        let said = heard.and_then(|()| writes.verify()).map_err(|error| error.to_string());
        assert_eq!(said, expect.map_err(str::to_owned), "{lines:?}");
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        check(&[], Ok(()));
        check(&["ack 0 1 5", "ack 1 1 6", "key 0 1 5", "key 1 1 6"], Ok(()));
        check(&["ack 0 1 5", "key 0 1 5", "key 0 2 6"], Ok(()));
        check(&["key 0 1 5"], Ok(()));
        check(&["ack 0 1 5"], Err("writer 0: step 1 was acknowledged, and 0 is the last there is"));
        check(&["ack 0 1 5", "key 0 1 4"], Err("writer 0: step 1 was told 5 and is 4"));
        check(&["ack 0 1 5", "key 0 3 7"], Err("writer 0: step 3 is there, and no more than 2 was begun"));
        check(&["ack 0 1 5", "ack 0 2 6", "key 0 2 6"], Err("writer 0: key 1 should be of step Some(1) and is None"));
        check(&["ack 0 1 5", "ack 0 3 6"], Err("writer 0 acknowledges 3 after 1"));
        check(&["ack 0 1 5", "ack 0 2 5"], Err("writer 0 is told revision 5 after 5"));
    }
}
