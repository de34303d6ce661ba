//! What nodes have in common is kept once: thousands of them differ in little more than their names.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use rules::Resources;

/// Texts and amounts of nodes.
#[derive(Debug, Default)]
pub struct Common {
    texts: HashSet<Arc<str>>,
    /// When so many are known, those that no node has any more are forgotten.
    limit: usize,
    /// The amounts seen last. Nodes of one kind come one after the other, so that few are enough.
    amounts: VecDeque<Arc<Resources>>,
}

const TEXTS: usize = 1024;
const AMOUNTS: usize = 16;

impl Common {
    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        if self.texts.len() >= self.limit {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.limit = (self.texts.len() * 2).max(TEXTS);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(text.clone());
        text
    }

    pub fn amounts(&mut self, amounts: Resources) -> Arc<Resources> {
        if let Some(known) = self.amounts.iter().find(|known| ***known == amounts) {
            return known.clone();
        }
        let amounts = Arc::new(amounts);
        self.amounts.truncate(AMOUNTS - 1);
        self.amounts.push_front(amounts.clone());
        amounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_kept_once() {
        let mut common = Common::default();
        let [first, second, other] = ["zone-a", "zone-a", "zone-b"].map(|text| common.text(text));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
        let amounts = |cpu| Resources { milli_cpu: cpu, ..Resources::default() };
        let [first, second, other] = [4, 4, 8].map(|cpu| common.amounts(amounts(cpu)));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn what_nobody_has_is_forgotten() {
        let mut common = Common::default();
        let kept = common.text("kept");
        (0..TEXTS * 4).for_each(|i| drop(common.text(&i.to_string())));
        assert!(common.texts.len() <= TEXTS);
        assert!(Arc::ptr_eq(&kept, &common.text("kept")));
        (0..100).for_each(|cpu| drop(common.amounts(Resources { milli_cpu: cpu, ..Resources::default() })));
        assert_eq!(common.amounts.len(), AMOUNTS);
    }
}
