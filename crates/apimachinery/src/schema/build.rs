//! Making a schema at run time, as for a CustomResourceDefinition.

use std::borrow::Cow;

use super::{Field, ListType, Node, NodeId, PatchStrategy, Presence, Schema, Shape};
use crate::value::Key;

/// Collects nodes; ids are handed out as they are pushed.
#[derive(Debug, Default)]
pub struct Builder {
    nodes: Vec<Node>,
    fields: Vec<Field>,
}

impl Builder {
    pub fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// A place for a node that is defined later: how types that contain themselves are made. Any JSON until then.
    pub fn reserve(&mut self) -> NodeId {
        self.push(Node::of(Shape::Raw))
    }

    /// An object with these fields and no others.
    pub fn object(&mut self, name: impl Into<Key>, fields: Vec<Field>) -> NodeId {
        let id = self.reserve();
        self.define_object(id, name, fields);
        id
    }

    /// Gives a reserved place its object.
    pub fn define_object(&mut self, id: NodeId, name: impl Into<Key>, mut fields: Vec<Field>) {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let (first, len) = (self.fields.len() as u32, fields.len() as u32);
        self.fields.append(&mut fields);
        let shape = Shape::Object { first, len, preserve_unknown: false, atomic: false };
        self.nodes[id.0 as usize] = Node { name: name.into(), shape, nullable: false };
    }

    /// Gives a reserved place its node.
    pub fn define(&mut self, id: NodeId, node: Node) {
        self.nodes[id.0 as usize] = node;
    }

    /// A pushed node, to change it.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub fn finish(self) -> Schema {
        Schema::from_parts(self.nodes, self.fields)
    }
}

impl Node {
    /// An anonymous node.
    pub fn of(shape: Shape) -> Node {
        Node { name: Cow::Borrowed(""), shape, nullable: false }
    }

    pub fn string() -> Node {
        Node::of(Shape::String { values: Cow::Borrowed(&[]) })
    }

    pub fn integer(bits: u8) -> Node {
        Node::of(Shape::Integer { bits })
    }

    pub fn map(value: NodeId) -> Node {
        Node::of(Shape::Map { value, atomic: false })
    }

    /// An atomic list.
    pub fn list(item: NodeId) -> Node {
        Node::of(Shape::Array { item, list: ListType::Atomic, keys: Cow::Borrowed(&[]) })
    }

    pub fn set_list(item: NodeId) -> Node {
        Node::of(Shape::Array { item, list: ListType::Set, keys: Cow::Borrowed(&[]) })
    }

    /// A list whose items are identified by `keys`.
    pub fn map_list(item: NodeId, keys: &[&'static str]) -> Node {
        let keys = keys.iter().map(|key| Cow::Borrowed(*key)).collect();
        Node::of(Shape::Array { item, list: ListType::Map, keys: Cow::Owned(keys) })
    }
}

impl Field {
    /// An optional field without default that is kept as given.
    pub fn new(name: impl Into<Key>, node: NodeId) -> Field {
        Field {
            name: name.into(),
            node,
            required: false,
            presence: Presence::Given,
            patch: PatchStrategy::Default,
            patch_merge_key: None,
            default: None,
        }
    }

    pub fn required(mut self) -> Field {
        self.required = true;
        self
    }

    pub fn presence(mut self, presence: Presence) -> Field {
        self.presence = presence;
        self
    }

    /// A constant default, as JSON.
    pub fn default_json(mut self, json: impl Into<Key>) -> Field {
        self.default = Some(json.into());
        self
    }

    pub fn patch(mut self, strategy: PatchStrategy) -> Field {
        self.patch = strategy;
        self
    }

    /// Strategic merge patches merge the list by this field of its items.
    pub fn merge_by(mut self, key: impl Into<Key>) -> Field {
        self.patch = PatchStrategy::Merge;
        self.patch_merge_key = Some(key.into());
        self
    }
}
