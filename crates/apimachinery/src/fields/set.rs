//! `FieldSet`: a set of field paths, as a tree.

use super::PathElement;
use crate::schema::{Shape, Type};

/// A set of paths. What is below a path may be in the set without it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet(pub(super) Vec<Entry>);

/// What is said of one element: sorted by element, never both not owned and nothing below.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub element: PathElement,
    /// The path that ends here is in the set.
    pub owned: bool,
    pub below: FieldSet,
}

/// A value's part in a set that is being made: itself, and what is in it.
#[derive(Default)]
pub(super) struct Node {
    pub owned: bool,
    pub below: FieldSet,
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A set of paths of field names.
    pub fn of_fields(paths: &[&[&'static str]]) -> FieldSet {
        let mut set = FieldSet::default();
        for path in paths {
            let path: Vec<PathElement> = path.iter().map(|name| PathElement::field(*name)).collect();
            set.insert(&path);
        }
        set
    }

    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = match self.find(first) {
            Ok(at) => at,
            Err(at) => {
                let entry = Entry { element: first.clone(), owned: false, below: FieldSet::default() };
                self.0.insert(at, entry);
                at
            }
        };
        let entry = &mut self.0[at];
        match rest {
            [] => entry.owned = true,
            rest => entry.below.insert(rest),
        }
    }

    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|entry| entry.owned),
            [first, rest @ ..] => self.get(first).is_some_and(|entry| entry.below.has(rest)),
        }
    }

    fn find(&self, element: &PathElement) -> Result<usize, usize> {
        self.0.binary_search_by(|entry| entry.element.cmp(element))
    }

    pub(super) fn get(&self, element: &PathElement) -> Option<&Entry> {
        self.find(element).ok().map(|at| &self.0[at])
    }

    /// Adds what `node` says of `element`, which comes after all others.
    pub(super) fn push(&mut self, element: PathElement, node: Node) {
        if node.owned || !node.below.is_empty() {
            self.0.push(Entry { element, owned: node.owned, below: node.below });
        }
    }

    /// Brings pushed entries into order.
    pub(super) fn sort(&mut self) {
        if !self.0.is_sorted_by(|a, b| a.element < b.element) {
            self.0.sort_by(|a, b| a.element.cmp(&b.element));
        }
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: FieldSet) {
        if self.is_empty() {
            *self = other;
            return;
        }
        if other.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.0.len() + other.0.len());
        let mut ours = std::mem::take(&mut self.0).into_iter().peekable();
        for theirs in other.0 {
            while let Some(entry) = ours.next_if(|entry| entry.element < theirs.element) {
                merged.push(entry);
            }
            match ours.next_if(|entry| entry.element == theirs.element) {
                Some(mut entry) => {
                    entry.owned |= theirs.owned;
                    entry.below.union(theirs.below);
                    merged.push(entry);
                }
                None => merged.push(theirs),
            }
        }
        merged.extend(ours);
        self.0 = merged;
    }

    /// Takes every path of `other` away; what is below them stays.
    pub fn subtract(&mut self, other: &FieldSet) {
        self.take(other, false);
    }

    /// Takes every path of `other` away with all that is below.
    pub fn subtract_all(&mut self, other: &FieldSet) {
        self.take(other, true);
    }

    fn take(&mut self, other: &FieldSet, with_below: bool) {
        let mut rest = other.0.as_slice();
        self.0.retain_mut(|entry| {
            while let Some((first, more)) = rest.split_first()
                && first.element < entry.element
            {
                rest = more;
            }
            let Some(taken) = rest.first().filter(|first| first.element == entry.element) else { return true };
            if taken.owned && with_below {
                return false;
            }
            entry.owned &= !taken.owned;
            entry.below.take(&taken.below, with_below);
            entry.owned || !entry.below.is_empty()
        });
    }

    /// The paths that both sets have.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut rest = other.0.as_slice();
        let mut out = FieldSet::default();
        for entry in &self.0 {
            while let Some((first, more)) = rest.split_first()
                && first.element < entry.element
            {
                rest = more;
            }
            if let Some(both) = rest.first().filter(|first| first.element == entry.element) {
                let node = Node { owned: entry.owned && both.owned, below: entry.below.intersection(&both.below) };
                out.push(entry.element.clone(), node);
            }
        }
        out
    }

    /// What begins as one of the patterns does, in which `None` stands for any element, and the way there.
    pub(super) fn matching(&self, patterns: &[&[Option<&str>]]) -> FieldSet {
        let mut out = FieldSet::default();
        for entry in &self.0 {
            let rests: Vec<&[Option<&str>]> = patterns
                .iter()
                .filter_map(|pattern| {
                    let (first, rest) = pattern.split_first()?;
                    let fits = first.is_none_or(|name| entry.element == PathElement::field(name.to_owned()));
                    fits.then_some(rest)
                })
                .collect();
            match rests.as_slice() {
                [] => {}
                rests if rests.iter().any(|rest| rest.is_empty()) => out.0.push(entry.clone()),
                rests => {
                    let node = Node { owned: entry.owned, below: entry.below.matching(rests) };
                    out.push(entry.element.clone(), node);
                }
            }
        }
        out
    }

    /// The set with every declared field that has something below. Upstream: EnsureNamedFieldsAreMembers.
    pub(super) fn with_named_fields(&self, ty: Option<Type<'_>>) -> FieldSet {
        let entries = self.0.iter().map(|entry| {
            let declared = match &entry.element {
                PathElement::Field(name) => ty.is_some_and(|ty| ty.field(name).is_some()),
                PathElement::Item(_) => false,
            };
            Entry {
                element: entry.element.clone(),
                owned: entry.owned || declared && !entry.below.is_empty(),
                below: entry.below.with_named_fields(below(ty, &entry.element)),
            }
        });
        FieldSet(entries.collect())
    }

    /// Every path, those that end at a level before those that go deeper.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    fn collect(&self, way: &mut Vec<PathElement>, found: &mut Vec<Vec<PathElement>>) {
        for entry in self.0.iter().filter(|entry| entry.owned) {
            found.push(way.iter().chain([&entry.element]).cloned().collect());
        }
        for entry in &self.0 {
            way.push(entry.element.clone());
            entry.below.collect(way, found);
            way.pop();
        }
    }
}

/// The type of what an element leads to.
fn below<'t>(ty: Option<Type<'t>>, element: &PathElement) -> Option<Type<'t>> {
    let ty = ty?;
    match (element, ty.shape()) {
        (PathElement::Field(name), _) => ty.child(name),
        (PathElement::Item(text), Shape::Array { .. }) if text.starts_with("k:") => ty.item(),
        _ => None,
    }
}
