//! What server-side apply knows of a schema: how its lists and maps merge. Upstream: managedfields' type converter.

use std::borrow::Cow;
use std::collections::HashMap;

use apimachinery::schema::{Builder, Field, ListType, Node as MergeNode, NodeId, Schema, Shape, Type};

use super::{Additional, Node};

/// A schema in the form that managers of fields work with.
#[derive(Debug)]
pub(crate) struct Arena {
    schema: Schema,
    root: NodeId,
}

impl Arena {
    /// `name` stands in messages.
    pub(crate) fn new(name: &str, node: &Node) -> Arena {
        let mut maker = Maker { builder: Builder::default(), copied: HashMap::new() };
        let root = maker.object(node, true);
        maker.builder.node_mut(root).name = Cow::Owned(name.to_owned());
        Arena { schema: maker.builder.finish(), root }
    }

    pub(crate) fn ty(&self) -> Type<'_> {
        self.schema.at(self.root)
    }
}

struct Maker {
    builder: Builder,
    /// Built-in types by their id.
    copied: HashMap<u32, NodeId>,
}

impl Maker {
    fn node(&mut self, node: &Node) -> NodeId {
        let id = match node.ty.as_str() {
            _ if node.int_or_string => self.builder.push(MergeNode::of(Shape::IntOrString)),
            "object" => self.object(node, node.embedded),
            "array" => self.list(node),
            "string" => self.builder.push(MergeNode::string()),
            "integer" => self.builder.push(MergeNode::integer(64)),
            "number" => self.builder.push(MergeNode::of(Shape::Number)),
            "boolean" => self.builder.push(MergeNode::of(Shape::Boolean)),
            _ => self.builder.push(MergeNode::of(Shape::Raw)),
        };
        self.builder.node_mut(id).nullable = node.nullable;
        id
    }

    fn list(&mut self, node: &Node) -> NodeId {
        let item = match &node.items {
            Some(item) => self.node(item),
            None => self.builder.push(MergeNode::of(Shape::Raw)),
        };
        let list = match node.list_type.as_str() {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        };
        let keys = node.list_keys.iter().map(|key| Cow::Owned(key.clone())).collect();
        self.builder.push(MergeNode::of(Shape::Array { item, list, keys: Cow::Owned(keys) }))
    }

    fn object(&mut self, node: &Node, resource: bool) -> NodeId {
        if node.properties.is_empty() && !resource {
            let value = match &node.additional {
                Additional::Schema(value) => Some(self.node(value)),
                Additional::Bool(true) => Some(self.builder.push(MergeNode::of(Shape::Raw))),
                _ => None,
            };
            if let Some(value) = value {
                return self.builder.push(MergeNode::of(Shape::Map { value, atomic: node.atomic_map }));
            }
        }
        let mut fields: Vec<Field> = Vec::new();
        for (name, property) in &node.properties {
            if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let id = self.node(property);
            let mut field = Field::new(name.clone(), id);
            field.default = property.default.as_ref().map(|default| Cow::Owned(default.to_string()));
            fields.push(field);
        }
        if resource {
            for name in ["apiVersion", "kind"] {
                let text = self.builder.push(MergeNode::string());
                fields.push(Field::new(name, text));
            }
            let metadata = match api::type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
                Some(ty) => self.copy(ty),
                None => self.builder.push(MergeNode::of(Shape::Raw)),
            };
            fields.push(Field::new("metadata", metadata));
        }
        let id = self.builder.object("", fields);
        if let Shape::Object { preserve_unknown, atomic, .. } = &mut self.builder.node_mut(id).shape {
            *preserve_unknown = node.preserve_unknown;
            *atomic = node.atomic_map;
        }
        id
    }

    /// A built-in type among the others.
    fn copy(&mut self, ty: Type<'static>) -> NodeId {
        if let Some(known) = self.copied.get(&ty.id().0) {
            return *known;
        }
        let id = self.builder.reserve();
        self.copied.insert(ty.id().0, id);
        let mut node = ty.node().clone();
        match &mut node.shape {
            Shape::Object { atomic, .. } => {
                let atomic = *atomic;
                let fields: Vec<Field> =
                    ty.fields().iter().map(|field| Field { node: self.copy(ty.of(field)), ..field.clone() }).collect();
                self.builder.define_object(id, node.name.clone(), fields);
                if let Shape::Object { atomic: own, .. } = &mut self.builder.node_mut(id).shape {
                    *own = atomic;
                }
                return id;
            }
            Shape::Map { value, .. } => *value = self.copy(ty.schema().at(*value)),
            Shape::Array { item, .. } => *item = self.copy(ty.schema().at(*item)),
            _ => {}
        }
        self.builder.define(id, node);
        id
    }
}
