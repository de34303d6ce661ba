//! Why no node suits, in upstream's sentence. Upstream: framework.FitError.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::framework::{Finality, Rejection};

/// What an attempt that found no node learned.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// By slot.
    pub rejections: HashMap<u32, Rejection>,
    /// Of the nodes that nobody looked at.
    pub absent: Option<Rejection>,
    /// Said before nodes were looked at.
    pub pre_filter: String,
    /// Said by those who tried to help.
    pub post_filter: String,
    /// Whose events may help.
    pub plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    /// Why the node in the slot was rejected; one that nobody looked at and nothing is said about can't be helped.
    pub fn finality(&self, slot: u32) -> Finality {
        let rejection = self.rejections.get(&slot).or(self.absent.as_ref());
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
        let said = self.rejections.values().flat_map(|rejection| &rejection.reasons);
        said.for_each(|reason| *counts.entry(reason).or_default() += 1);
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
