//! What differs between two values of a type.

use super::set::{FieldSet, Node};
use super::walk::{Form, TypeErrors, form, item_element, items, member, members, same, zip};
use super::{PathElement, Reset};
use crate::Value;
use crate::schema::Type;

/// The fields in which two values differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Only in the old one.
    pub removed: FieldSet,
    /// In both, with another value.
    pub modified: FieldSet,
    /// Only in the new one.
    pub added: FieldSet,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Without the fields that the write doesn't reach.
    pub(super) fn filtered(mut self, reset: &Reset) -> Comparison {
        for set in [&mut self.removed, &mut self.modified, &mut self.added] {
            reset.filter(set);
        }
        self
    }
}

/// Compares two values of a type. Upstream: TypedValue.Compare.
pub fn compare(ty: Type<'_>, old: &Value, new: &Value) -> Result<Comparison, TypeErrors> {
    let nodes = walk(Some(ty), Some(old), Some(new))?;
    Ok(Comparison { removed: nodes.removed.below, modified: nodes.modified.below, added: nodes.added.below })
}

/// A value's part in the three sets.
#[derive(Default)]
struct Nodes {
    removed: Node,
    modified: Node,
    added: Node,
}

impl Nodes {
    fn push(&mut self, element: PathElement, child: Nodes) {
        let mut parts = [
            (&mut self.removed.below, child.removed),
            (&mut self.modified.below, child.modified),
            (&mut self.added.below, child.added),
        ]
        .into_iter()
        .filter(|(_, node)| node.owned || !node.below.is_empty())
        .peekable();
        while let Some((set, node)) = parts.next() {
            if parts.peek().is_none() {
                set.push(element, node);
                return;
            }
            set.push(element.clone(), node);
        }
    }

    fn note_presence(&mut self, old: Option<&Value>, new: Option<&Value>) {
        self.added.owned |= old.is_none();
        self.removed.owned |= new.is_none();
    }
}

fn walk(ty: Option<Type<'_>>, old: Option<&Value>, new: Option<&Value>) -> Result<Nodes, TypeErrors> {
    let mut nodes = Nodes::default();
    match form(ty) {
        Form::Map(ty) if members(old).is_some() || members(new).is_some() => {
            zip(members(old), members(new), |name, old, new| {
                // Most members of most updates are as they were.
                if old.is_some() && old == new {
                    return Ok(());
                }
                let (element, ty) = member(ty, name);
                let child = walk(ty, old, new).map_err(|errors| errors.below(&element))?;
                nodes.push(element, child);
                Ok(())
            })?;
            nodes.note_presence(old, new);
        }
        Form::List(ty) if !items(old).is_empty() || !items(new).is_empty() => {
            if old != new {
                walk_items(ty, items(old), items(new), &mut nodes)?;
            }
            nodes.note_presence(old, new);
        }
        _ => match (old, new) {
            (Some(old), Some(new)) => nodes.modified.owned = !same(old, new),
            _ => nodes.note_presence(old, new),
        },
    }
    Ok(nodes)
}

fn walk_items(ty: Type<'_>, old: &[Value], new: &[Value], nodes: &mut Nodes) -> Result<(), TypeErrors> {
    let (old, new) = (by_element(ty, old)?, by_element(ty, new)?);
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let left = if order.is_le() { old.next() } else { None };
        let right = if order.is_ge() { new.next() } else { None };
        let (left_items, right_items) =
            (left.as_ref().map_or(&[][..], |(_, items)| items), right.as_ref().map_or(&[][..], |(_, items)| items));
        let mut child = match (left_items, right_items) {
            ([_, _, ..], [_, _, ..]) => {
                let equal = left_items.len() == right_items.len()
                    && left_items.iter().zip(right_items).all(|(a, b)| same(a, b));
                let modified = Node { owned: !equal, ..Node::default() };
                Ok(Nodes { modified, ..Nodes::default() })
            }
            ([_, _, ..], []) | ([], [_, _, ..]) => Ok(Nodes::default()),
            ([_, _, ..], [one, ..]) => walk(ty.item(), None, Some(one)),
            ([one, ..], [_, _, ..]) => walk(ty.item(), Some(one), None),
            (left, right) => walk(ty.item(), left.first().copied(), right.first().copied()),
        };
        let (before, after) = (left_items.len() >= 2, right_items.len() >= 2);
        if let Ok(child) = &mut child {
            // Items that are there twice are one thing without parts.
            child.removed.owned |= before && !after;
            child.added.owned |= after && !before;
        }
        let Some((element, _)) = left.or(right) else { return Ok(()) };
        let child = child.map_err(|errors| errors.below(&element))?;
        nodes.push(element, child);
    }
}

/// The items of each element, sorted by element.
fn by_element<'v>(ty: Type<'_>, items: &'v [Value]) -> Result<Vec<(PathElement, Vec<&'v Value>)>, TypeErrors> {
    let mut found: Vec<(PathElement, Vec<&Value>)> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let element = item_element(ty, item).map_err(|why| TypeErrors::one(format!("element {index}: {why}")))?;
        found.push((element, vec![item]));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup_by(|later, kept| {
        let again = later.0 == kept.0;
        if again {
            kept.1.append(&mut later.1);
        }
        again
    });
    Ok(found)
}
