//! `Schema`: what a kind's documents look like, compiled into an arena of nodes, and the operations that follow it.
//!
//! Built-in kinds share one arena (crate `api`); a CustomResourceDefinition gets an arena of its own from a [`Builder`].
//! Code that walks a document takes a [`Type`]: a node together with its arena.
//!
//! ```
//! use apimachinery::schema::{Builder, Field, Node, Shape};
//! let mut builder = Builder::default();
//! let string = builder.push(Node::string());
//! let port = builder.object("v1.Port", vec![Field::new("name", string), Field::new("protocol", string).default_json("\"TCP\"")]);
//! let ports = builder.push(Node::map_list(port, &["name", "protocol"]));
//! let spec = builder.object("v1.Spec", vec![Field::new("ports", ports).merge_by("name")]);
//! let schema = builder.finish();
//! let ports = schema.at(spec).child("ports").unwrap();
//! assert_eq!(ports.list_keys(), ["name", "protocol"]);
//! assert_eq!(ports.item().unwrap().field("protocol").unwrap().default.as_deref(), Some("\"TCP\""));
//! ```

mod build;
mod complete;
mod decode;
mod scalar;
mod settle;

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

pub use build::Builder;
pub use decode::{DecodeError, Decoded, StrictError};

use crate::value::Key;

/// An arena of nodes. Fields of an object are neighbours in `fields`, sorted by name.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<Node>,
    fields: Vec<Field>,
    /// Per node: a constant default is in it or below it. Made when it is first asked for.
    defaulted: OnceLock<Vec<bool>>,
}

/// A node's place in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u32);

/// What one value may be.
#[derive(Clone, Debug)]
pub struct Node {
    /// The type's full name (`io.k8s.api.core.v1.PodSpec`); empty for anonymous lists, maps and scalars.
    pub name: Key,
    pub shape: Shape,
    /// An explicit null is a value of its own (CustomResourceDefinitions only).
    pub nullable: bool,
}

/// The form of a value.
#[derive(Clone, Debug)]
pub enum Shape {
    Object {
        /// The fields' range in the arena.
        first: u32,
        len: u32,
        /// Fields outside the schema are kept.
        preserve_unknown: bool,
        /// Merged as a whole (`x-kubernetes-map-type: atomic`).
        atomic: bool,
    },
    Map {
        value: NodeId,
        atomic: bool,
    },
    Array {
        item: NodeId,
        list: ListType,
        /// The fields that identify an item of a [`ListType::Map`].
        keys: Cow<'static, [Key]>,
    },
    String {
        /// The values upstream declares; empty where any string goes. Checked by validation, not by decoding.
        values: Cow<'static, [Key]>,
    },
    /// Base64 in JSON.
    Bytes,
    Integer {
        /// 32 or 64.
        bits: u8,
    },
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Any JSON.
    Raw,
}

/// How lists are merged by server-side apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// One field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: Key,
    pub node: NodeId,
    /// OpenAPI calls it required.
    pub required: bool,
    pub presence: Presence,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The item field by which a strategic merge patch matches list items.
    pub patch_merge_key: Option<Key>,
    /// A constant default, as JSON.
    pub default: Option<Key>,
}

/// When a field appears in the canonical form; what Go's struct tags say upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Where it was given, zero included (a pointer with `omitempty`).
    #[default]
    Given,
    /// Where it is not zero, nor an empty list or map (`omitempty`).
    NonEmpty,
    /// Where anything in it is set (a struct with `omitzero`).
    NonZero,
    /// Always, with its zero value where it was not given.
    Always,
    /// Always, `null` where it was not given (a list, map or pointer without `omitempty`).
    AlwaysNull,
}

/// A strategic merge patch's treatment of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatchStrategy {
    /// Maps are merged, lists replaced.
    #[default]
    Default,
    /// Lists are merged: by [`Field::patch_merge_key`], or as sets of scalars.
    Merge,
    Replace,
    /// Fields that the patch's `$retainKeys` doesn't name are dropped.
    RetainKeys,
    MergeRetainKeys,
}

/// A node and its arena: what code that walks a document holds.
#[derive(Clone, Copy)]
pub struct Type<'s> {
    schema: &'s Schema,
    id: NodeId,
}

impl Schema {
    /// An arena of parts. Each object's fields must be neighbours, sorted by name.
    pub fn from_parts(nodes: Vec<Node>, fields: Vec<Field>) -> Schema {
        Schema { nodes, fields, defaulted: OnceLock::new() }
    }

    pub fn at(&self, id: NodeId) -> Type<'_> {
        Type { schema: self, id }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// How many nodes there are; ids run from 0.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn fields(&self, first: u32, len: u32) -> &[Field] {
        &self.fields[first as usize..(first + len) as usize]
    }
}

impl<'s> Type<'s> {
    pub fn id(self) -> NodeId {
        self.id
    }

    pub fn schema(self) -> &'s Schema {
        self.schema
    }

    pub fn node(self) -> &'s Node {
        self.schema.node(self.id)
    }

    pub fn shape(self) -> &'s Shape {
        &self.node().shape
    }

    /// The full type name; empty for anonymous types.
    pub fn name(self) -> &'s str {
        &self.node().name
    }

    /// An object's fields, sorted by name; none for other shapes.
    pub fn fields(self) -> &'s [Field] {
        match self.shape() {
            Shape::Object { first, len, .. } => self.schema.fields(*first, *len),
            _ => &[],
        }
    }

    /// An object's field.
    pub fn field(self, name: &str) -> Option<&'s Field> {
        let fields = self.fields();
        let index = fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?;
        fields.get(index)
    }

    /// The type of a field of this object.
    pub fn of(self, field: &Field) -> Type<'s> {
        self.schema.at(field.node)
    }

    /// The type under `name`: of an object's field or of a map's values.
    pub fn child(self, name: &str) -> Option<Type<'s>> {
        match self.shape() {
            Shape::Object { .. } => self.field(name).map(|field| self.of(field)),
            Shape::Map { value, .. } => Some(self.schema.at(*value)),
            _ => None,
        }
    }

    /// The type of a list's items.
    pub fn item(self) -> Option<Type<'s>> {
        match self.shape() {
            Shape::Array { item, .. } => Some(self.schema.at(*item)),
            _ => None,
        }
    }

    /// The type of a map's values.
    pub fn values(self) -> Option<Type<'s>> {
        match self.shape() {
            Shape::Map { value, .. } => Some(self.schema.at(*value)),
            _ => None,
        }
    }

    /// The type under a path of field names; lists and maps on the way are entered by themselves, as `explain` does.
    pub fn walk(self, path: &[&str]) -> Option<Type<'s>> {
        let Some((name, rest)) = path.split_first() else {
            return Some(self);
        };
        match self.shape() {
            Shape::Array { item, .. } => self.schema.at(*item).walk(path),
            Shape::Map { value, .. } => self.schema.at(*value).walk(path),
            _ => self.child(name)?.walk(rest),
        }
    }

    /// How lists of this type merge in server-side apply; atomic for other shapes.
    pub fn list_type(self) -> ListType {
        match self.shape() {
            Shape::Array { list, .. } => *list,
            _ => ListType::Atomic,
        }
    }

    /// The key fields of a list of type map.
    pub fn list_keys(self) -> &'s [Key] {
        match self.shape() {
            Shape::Array { keys, .. } => keys,
            _ => &[],
        }
    }

    /// Server-side apply owns a value of this type as a whole.
    pub fn is_atomic(self) -> bool {
        match self.shape() {
            Shape::Object { atomic, .. } | Shape::Map { atomic, .. } => *atomic,
            Shape::Array { list, .. } => *list == ListType::Atomic,
            _ => true,
        }
    }

    /// Fields outside the schema are kept.
    pub fn preserves_unknown(self) -> bool {
        matches!(self.shape(), Shape::Raw | Shape::Object { preserve_unknown: true, .. })
    }
}

impl fmt::Debug for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Type({}, {:?})", self.id.0, self.node())
    }
}

#[cfg(test)]
mod tests;
