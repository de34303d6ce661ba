//! The schema and the protobuf numbers, from what the build script makes of `tables/types.txt`.

use std::borrow::Cow;
use std::sync::LazyLock;

use apimachinery::Key;
use apimachinery::schema::{Field, ListType, Node, NodeId, PatchStrategy, Presence, Schema, Shape, Type};

/// Every type of every built-in kind. Made in a fraction of a millisecond when it is first used.
pub static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::from_parts(read_nodes(), read_fields()));

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
    let (names, _) = NAME_WORDS.as_chunks::<2>();
    let index = names.binary_search_by(|[known, _]| text(*known).cmp(name)).ok()?;
    Some(SCHEMA.at(NodeId(names[index][1])))
}

/// Every named type, sorted by name.
pub fn named_types() -> impl Iterator<Item = (&'static str, Type<'static>)> {
    NAME_WORDS.as_chunks::<2>().0.iter().map(|[name, id]| (text(*name), SCHEMA.at(NodeId(*id))))
}

/// An object type's protobuf entries, by rising number; none for a type without a message.
pub(crate) fn wires(ty: Type<'static>) -> &'static [Wire] {
    let (first, len) = WIRE_RANGES[ty.id().0 as usize];
    &WIRES[first as usize..(first + len) as usize]
}

fn text(number: u32) -> &'static str {
    let number = number as usize;
    let start = if number == 0 { 0 } else { TEXT_ENDS[number - 1] };
    &TEXT[start as usize..TEXT_ENDS[number] as usize]
}

fn key(number: u32) -> Key {
    Cow::Borrowed(text(number))
}

fn keys(numbers: &[u32]) -> Cow<'static, [Key]> {
    if numbers.is_empty() { Cow::Borrowed(&[]) } else { numbers.iter().map(|number| key(*number)).collect() }
}

/// The empty text stands for none.
fn optional(number: u32) -> Option<Key> {
    (number > 0).then(|| key(number))
}

fn read_nodes() -> Vec<Node> {
    let mut nodes = Vec::with_capacity(WIRE_RANGES.len());
    let mut rest: &[u32] = &NODE_WORDS;
    while let Some((len, words)) = rest.split_first() {
        let (node, following) = words.split_at(*len as usize);
        nodes.push(Node { name: key(node[1]), shape: read_shape(node[0], &node[2..]), nullable: false });
        rest = following;
    }
    nodes
}

/// The numbers of the shapes are those of the build script's `arena.rs`.
fn read_shape(shape: u32, words: &[u32]) -> Shape {
    match (shape, words) {
        (0, [first, len, atomic]) => {
            Shape::Object { first: *first, len: *len, preserve_unknown: false, atomic: *atomic == 1 }
        }
        (1, [value, atomic]) => Shape::Map { value: NodeId(*value), atomic: *atomic == 1 },
        (2, [item, list, names @ ..]) => {
            let list = [ListType::Atomic, ListType::Set, ListType::Map][*list as usize];
            Shape::Array { item: NodeId(*item), list, keys: keys(names) }
        }
        (3, values) => Shape::String { values: keys(values) },
        (4, _) => Shape::Bytes,
        (5, _) => Shape::Integer { bits: 32 },
        (6, _) => Shape::Integer { bits: 64 },
        (7, _) => Shape::Number,
        (8, _) => Shape::Boolean,
        (9, _) => Shape::IntOrString,
        (10, _) => Shape::Quantity,
        (11, _) => Shape::Time,
        (12, _) => Shape::MicroTime,
        (13, _) => Shape::Raw,
        _ => unreachable!("the build script writes no other shape"),
    }
}

fn read_fields() -> Vec<Field> {
    const PRESENCES: [Presence; 5] =
        [Presence::Given, Presence::NonEmpty, Presence::NonZero, Presence::Always, Presence::AlwaysNull];
    const STRATEGIES: [PatchStrategy; 5] = [
        PatchStrategy::Default,
        PatchStrategy::Merge,
        PatchStrategy::Replace,
        PatchStrategy::RetainKeys,
        PatchStrategy::MergeRetainKeys,
    ];
    let (fields, _) = FIELD_WORDS.as_chunks::<7>();
    let read = |[name, node, required, presence, patch, by, default]: &[u32; 7]| Field {
        name: key(*name),
        node: NodeId(*node),
        required: *required == 1,
        presence: PRESENCES[*presence as usize],
        patch: STRATEGIES[*patch as usize],
        patch_merge_key: optional(*by),
        default: optional(*default),
    };
    fields.iter().map(read).collect()
}

const fn w(tag: u16, field: u16, inline: u32) -> Wire {
    Wire { tag, field, inline: NodeId(inline) }
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));
