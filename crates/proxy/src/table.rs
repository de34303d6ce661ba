//! All virtual addresses of the node, and the difference that a change of one Service makes. Pure.

use std::collections::{BTreeMap, HashMap};

use apimachinery::ObjectKey;
use linux::nft::{Batch, Data, Element, Family, Value};

use crate::driver::Network;
use crate::layout::{self, Chain, SetName, elements, ready_made, shared};
use crate::plan::{Balance, Vip};

/// What is to be in the kernel. The same Services give the same elements, whatever happened before.
#[derive(Debug, Default)]
pub struct Table {
    /// Who wants each virtual address; the first one has it.
    claims: BTreeMap<Vip, BTreeMap<ObjectKey, Balance>>,
    services: HashMap<ObjectKey, Vec<Vip>>,
    /// How many virtual addresses want an element, or a chain.
    shared: HashMap<(Family, SetName, Value), usize>,
    chains: HashMap<(Family, Chain), usize>,
}

/// The difference between two states of a [`Table`].
#[derive(Debug, Default)]
pub struct Changes {
    families: BTreeMap<Family, FamilyChanges>,
    /// Virtual addresses that may lead elsewhere now.
    pub(crate) vips: std::collections::BTreeSet<Vip>,
}

#[derive(Debug, Default)]
struct FamilyChanges {
    /// An element's state before and after.
    elements: BTreeMap<(SetName, Value), (Option<Element>, Option<Element>)>,
    /// Whether a chain was and is there.
    chains: BTreeMap<Chain, (bool, bool)>,
}

impl Table {
    /// Nothing.
    pub fn new() -> Table {
        let mut table = Table::default();
        for family in [Family::Ip, Family::Ip6] {
            table.chains.extend(ready_made().map(|chain| ((family, chain), 1)));
        }
        table
    }

    /// Takes over what `service` wants now (nothing: it is gone) and notes the difference.
    pub fn set(&mut self, service: &ObjectKey, wanted: Vec<(Vip, Balance)>, changes: &mut Changes) {
        let before = self.services.remove(service).unwrap_or_default();
        // Twice the same (an external address listed twice): once.
        let wanted: BTreeMap<Vip, Balance> = wanted.into_iter().collect();
        for vip in before.iter().filter(|vip| !wanted.contains_key(vip)) {
            self.claim(*vip, service, None, changes);
        }
        if !wanted.is_empty() {
            self.services.insert(service.clone(), wanted.keys().copied().collect());
        }
        for (vip, balance) in wanted {
            self.claim(vip, service, Some(balance), changes);
        }
    }

    /// The Services that have virtual addresses.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// Every virtual address.
    pub fn vips(&self) -> impl Iterator<Item = &Vip> {
        self.claims.keys()
    }

    /// Where a virtual address leads.
    pub fn balance(&self, vip: &Vip) -> Option<&Balance> {
        self.claims.get(vip)?.values().next()
    }

    /// The whole table, in the place of one that may exist; `affinity` is what clients are used to.
    pub(crate) fn batch(&self, family: Family, name: &str, network: &Network, affinity: Vec<Element>) -> Batch {
        let mut batch = layout::table(family, name, network);
        let ready_made: std::collections::HashSet<Chain> = ready_made().collect();
        let chains = self.chains.keys().filter(|(of, chain)| *of == family && !ready_made.contains(chain));
        let chains: std::collections::BTreeSet<Chain> = chains.map(|(_, chain)| *chain).collect();
        chains.iter().for_each(|chain| chain.write(&mut batch, network));
        let mut sets: BTreeMap<SetName, Vec<Element>> = BTreeMap::new();
        for (vip, claims) in self.claims.iter().filter(|(vip, _)| vip.family == family) {
            for (set, element) in claims.values().next().map(|balance| elements(vip, balance)).unwrap_or_default() {
                sets.entry(set).or_default().push(element);
            }
        }
        for (_, set, value) in self.shared.keys().filter(|(of, _, _)| *of == family) {
            sets.entry(*set).or_default().push(Element::key(value.clone()));
        }
        for (set, elements) in sets {
            batch.add_elements(set.name(), elements);
        }
        batch.add_elements(layout::AFFINITY, layout::affinity(family, affinity));
        batch
    }

    fn claim(&mut self, vip: Vip, service: &ObjectKey, balance: Option<Balance>, changes: &mut Changes) {
        let claims = self.claims.entry(vip).or_default();
        let before = claims.first_key_value().map(|(_, balance)| balance.clone());
        match balance {
            Some(balance) => claims.insert(service.clone(), balance),
            None => claims.remove(service),
        };
        let after = claims.first_key_value().map(|(_, balance)| balance.clone());
        if claims.is_empty() {
            self.claims.remove(&vip);
        }
        if before == after {
            return;
        }
        changes.vips.insert(vip);
        let noted = changes.families.entry(vip.family).or_default();
        if let Some(before) = &before {
            elements(&vip, before).into_iter().for_each(|(set, element)| noted.remove(set, element));
        }
        if let Some(after) = &after {
            elements(&vip, after).into_iter().for_each(|(set, element)| noted.add(set, element));
        }
        self.count_shared(&vip, before.as_ref(), after.as_ref(), noted);
        self.count_chains(&vip, before.as_ref(), after.as_ref(), noted);
    }

    fn count_shared(
        &mut self,
        vip: &Vip,
        before: Option<&Balance>,
        after: Option<&Balance>,
        noted: &mut FamilyChanges,
    ) {
        let of = |balance: Option<&Balance>| balance.map(|balance| shared(vip, balance)).unwrap_or_default();
        for (set, value) in of(after) {
            let count = self.shared.entry((vip.family, set, value.clone())).or_default();
            *count += 1;
            if *count == 1 {
                noted.add(set, Element::key(value));
            }
        }
        for (set, value) in of(before) {
            let key = (vip.family, set, value);
            if decrement(&mut self.shared, &key) {
                noted.remove(set, Element::key(key.2));
            }
        }
    }

    fn count_chains(
        &mut self,
        vip: &Vip,
        before: Option<&Balance>,
        after: Option<&Balance>,
        noted: &mut FamilyChanges,
    ) {
        let of = |balance: Option<&Balance>| {
            let chain = balance.and_then(|balance| Chain::of(vip, balance));
            chain.into_iter().flat_map(|chain| chain.needs().into_iter().chain([chain])).collect::<Vec<_>>()
        };
        for chain in of(after) {
            let count = self.chains.entry((vip.family, chain)).or_default();
            *count += 1;
            if *count == 1 {
                noted.chains.entry(chain).or_insert((false, true)).1 = true;
            }
        }
        for chain in of(before) {
            if decrement(&mut self.chains, &(vip.family, chain)) {
                noted.chains.entry(chain).or_insert((true, false)).1 = false;
            }
        }
    }
}

/// True if that was the last.
fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    let count = counts.get_mut(key).expect("what is given back was taken");
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
        return true;
    }
    false
}

impl FamilyChanges {
    fn remove(&mut self, set: SetName, element: Element) {
        let entry = self.elements.entry((set, element.key.clone()));
        entry.or_insert_with(|| (Some(element), None)).1 = None;
    }

    fn add(&mut self, set: SetName, element: Element) {
        let entry = self.elements.entry((set, element.key.clone())).or_default();
        entry.1 = Some(element);
    }
}

impl Changes {
    /// The transaction for one family.
    pub(crate) fn batch(&self, family: Family, name: &str, network: &Network) -> Batch {
        let mut batch = Batch::new(family, name);
        let Some(changes) = self.families.get(&family) else { return batch };
        let mut deleted: BTreeMap<SetName, Vec<Element>> = BTreeMap::new();
        let mut added: BTreeMap<SetName, Vec<Element>> = BTreeMap::new();
        for ((set, _), (before, after)) in changes.elements.iter().filter(|(_, (before, after))| before != after) {
            if let Some(before) = before {
                let key_only = Element { data: Data::None, ..before.clone() };
                deleted.entry(*set).or_default().push(key_only);
            }
            if let Some(after) = after {
                added.entry(*set).or_default().push(after.clone());
            }
        }
        for (chain, _) in changes.chains.iter().filter(|(_, state)| **state == (false, true)) {
            chain.write(&mut batch, network);
        }
        for (set, elements) in deleted {
            batch.delete_elements(set.name(), elements);
        }
        for (set, elements) in added {
            batch.add_elements(set.name(), elements);
        }
        for (chain, _) in changes.chains.iter().rev().filter(|(_, state)| **state == (true, false)) {
            chain.remove(&mut batch);
        }
        batch
    }
}
