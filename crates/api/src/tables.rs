//! The arrays that the build script makes of `tables/types.txt`.

use std::borrow::Cow;

use apimachinery::Key;
use apimachinery::schema::{Field, ListType, Node, NodeId, PatchStrategy, Presence, Schema, Shape, Type};

/// Every type of every built-in kind.
pub static SCHEMA: Schema = Schema::fixed(&NODES, &FIELDS);

/// One entry of a protobuf message: the number, and either the field's index in the object or an inlined message.
#[derive(Debug)]
pub(crate) struct Wire {
    pub tag: u16,
    /// Index into the object's fields, or [`INLINE`].
    pub field: u16,
    /// The inlined type.
    pub inline: NodeId,
}

pub(crate) const INLINE: u16 = u16::MAX;

/// A type by its full name, such as `io.k8s.api.core.v1.PodSpec`.
pub fn type_named(name: &str) -> Option<Type<'static>> {
    let index = NAMES.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    Some(SCHEMA.at(NodeId(NAMES[index].1)))
}

/// Every named type, sorted by name.
pub fn named_types() -> impl Iterator<Item = (&'static str, Type<'static>)> {
    NAMES.iter().map(|(name, id)| (*name, SCHEMA.at(NodeId(*id))))
}

/// An object type's protobuf entries, by rising number; none for a type without a message.
pub(crate) fn wires(ty: Type<'static>) -> &'static [Wire] {
    let (first, len) = WIRE_RANGES[ty.id().0 as usize];
    &WIRES[first as usize..(first + len) as usize]
}

const fn object(name: &'static str, first: u32, len: u32, atomic: bool) -> Node {
    Node {
        name: Cow::Borrowed(name),
        shape: Shape::Object { first, len, preserve_unknown: false, atomic },
        nullable: false,
    }
}

const fn scalar(shape: Shape) -> Node {
    Node { name: Cow::Borrowed(""), shape, nullable: false }
}

const fn special(name: &'static str, shape: Shape) -> Node {
    Node { name: Cow::Borrowed(name), shape, nullable: false }
}

const fn string(name: &'static str, values: &'static [Key]) -> Node {
    Node { name: Cow::Borrowed(name), shape: Shape::String { values: Cow::Borrowed(values) }, nullable: false }
}

const fn array(name: &'static str, item: u32, list: ListType, keys: &'static [Key]) -> Node {
    let shape = Shape::Array { item: NodeId(item), list, keys: Cow::Borrowed(keys) };
    Node { name: Cow::Borrowed(name), shape, nullable: false }
}

const fn map(name: &'static str, value: u32, atomic: bool) -> Node {
    Node { name: Cow::Borrowed(name), shape: Shape::Map { value: NodeId(value), atomic }, nullable: false }
}

const fn f(
    name: &'static str,
    node: u32,
    required: bool,
    presence: Presence,
    patch: PatchStrategy,
    by: Option<&'static str>,
    default: Option<&'static str>,
) -> Field {
    Field {
        name: Cow::Borrowed(name),
        node: NodeId(node),
        required,
        presence,
        patch,
        patch_merge_key: borrowed(by),
        default: borrowed(default),
    }
}

const fn borrowed(text: Option<&'static str>) -> Option<Key> {
    match text {
        Some(text) => Some(Cow::Borrowed(text)),
        None => None,
    }
}

const fn w(tag: u16, field: u16, inline: u32) -> Wire {
    Wire { tag, field, inline: NodeId(inline) }
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));
