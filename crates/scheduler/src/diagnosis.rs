//! Why no node suits, in upstream's sentence. Upstream: framework.FitError.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{Finality, Rejection};

/// What an attempt that found no node learned.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    pub rejections: Rejections,
    /// Of the nodes that nobody looked at.
    pub absent: Option<Rejection>,
    /// Said before nodes were looked at.
    pub pre_filter: String,
    /// Said by those who tried to help.
    pub post_filter: String,
    /// Whose events may help.
    pub plugins: BTreeSet<&'static str>,
}

/// Why nodes were rejected, by slot. Thousands are mostly rejected for the same few reasons, which are kept once.
#[derive(Debug, Default)]
pub struct Rejections {
    kinds: Vec<(Rejection, usize)>,
    /// One more than the place in `kinds`; 0: not rejected.
    by_slot: Vec<u32>,
    count: usize,
}

/// So many of the last kinds are compared with a new one: where each node has a reason of its own, comparing all would take too long.
const COMPARED: usize = 16;

impl Rejections {
    /// Rejects the node in the slot, in place of what was said before.
    pub fn insert(&mut self, slot: u32, rejection: Rejection) {
        let slot = slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, 0);
        }
        match self.by_slot[slot] {
            0 => self.count += 1,
            before => self.kinds[before as usize - 1].1 -= 1,
        }
        let recent = self.kinds.len().saturating_sub(COMPARED);
        let known = self.kinds[recent..].iter().position(|(known, _)| *known == rejection);
        let kind = known.map(|at| recent + at).unwrap_or_else(|| {
            self.kinds.push((rejection, 0));
            self.kinds.len() - 1
        });
        self.kinds[kind].1 += 1;
        self.by_slot[slot] = kind as u32 + 1;
    }

    /// Why the node in the slot was rejected, if it was.
    pub fn get(&self, slot: u32) -> Option<&Rejection> {
        let kind = self.by_slot.get(slot as usize)?.checked_sub(1)?;
        Some(&self.kinds[kind as usize].0)
    }

    /// How many nodes were rejected.
    pub fn len(&self) -> usize {
        self.count
    }
}

impl Diagnosis {
    /// Why the node in the slot was rejected; one that nobody looked at and nothing is said about can't be helped.
    pub fn finality(&self, slot: u32) -> Finality {
        let rejection = self.rejections.get(slot).or(self.absent.as_ref());
        rejection.map_or(Finality::Unresolvable, |rejection| rejection.finality)
    }

    pub fn message(&self) -> String {
        let mut message = format!("0/{} nodes are available:", self.nodes);
        if self.pre_filter.is_empty() {
            let reasons = self.reasons();
            if !reasons.is_empty() {
                message.push_str(&format!(" {reasons}."));
            }
        } else {
            message.push_str(&format!(" {}.", self.pre_filter));
        }
        if !self.post_filter.is_empty() {
            message.push_str(&format!(" {}", self.post_filter));
        }
        message
    }

    /// How often each reason was given, sorted as text.
    fn reasons(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (rejection, nodes) in self.rejections.kinds.iter().filter(|(_, nodes)| *nodes > 0) {
            rejection.reasons.iter().for_each(|reason| *counts.entry(reason).or_default() += nodes);
        }
        let silent = self.nodes.saturating_sub(self.rejections.len());
        if silent > 0 {
            let absent = self.absent.iter().flat_map(|rejection| &rejection.reasons);
            absent.for_each(|reason: &Cow<'static, str>| *counts.entry(reason).or_default() += silent);
        }
        let mut reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort_unstable();
        reasons.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted() {
        let mut diagnosis = Diagnosis { nodes: 13, ..Diagnosis::default() };
        for slot in 0..10 {
            diagnosis.rejections.insert(slot, Rejection::because("Insufficient cpu"));
        }
        let mut both = Rejection::because("Insufficient cpu");
        both.reasons.push("Too many pods".into());
        diagnosis.rejections.insert(10, both);
        diagnosis.absent = Some(Rejection::unresolvable("node(s) didn't satisfy plugin(s) [NodeAffinity]"));
        let expect = "0/13 nodes are available: 1 Too many pods, 11 Insufficient cpu, \
            2 node(s) didn't satisfy plugin(s) [NodeAffinity].";
        assert_eq!(diagnosis.message(), expect);
        assert_eq!(diagnosis.finality(12), Finality::Unresolvable);
        diagnosis.post_filter = "preemption: none.".into();
        assert_eq!(diagnosis.message(), format!("{expect} preemption: none."));
        diagnosis.pre_filter = "pod has unbound immediate PersistentVolumeClaims".into();
        assert_eq!(
            diagnosis.message(),
            "0/13 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: none."
        );
    }
}
