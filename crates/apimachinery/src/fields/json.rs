//! `FieldsV1`: a set's JSON form, and back.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::set::{Entry, FieldSet, Node};
use super::{PathElement, walk::string_of};
use crate::Value;

impl FieldSet {
    /// Appends `{"f:spec":{"f:replicas":{}}}`, keys sorted.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_members(false, out);
        out.push(b'}');
    }

    fn write_members(&self, owned: bool, out: &mut Vec<u8>) {
        let mut first = true;
        if owned && !self.is_empty() {
            out.extend_from_slice(b"\".\":{}");
            first = false;
        }
        for entry in &self.0 {
            if !first {
                out.push(b',');
            }
            first = false;
            entry.element.write_json(out);
            out.extend_from_slice(b":{");
            entry.below.write_members(entry.owned, out);
            out.push(b'}');
        }
    }

    /// Reads what a client may have written.
    pub fn parse(json: &Value) -> Result<FieldSet, String> {
        Ok(node_of(json)?.below)
    }
}

fn node_of(json: &Value) -> Result<Node, String> {
    let Value::Object(map) = json else {
        return Err(format!("fields are objects, not {}", string_of(json)));
    };
    let mut node = Node::default();
    for (key, value) in map.iter() {
        if key == "." {
            node.owned = true;
            continue;
        }
        // A kind of element from a later version says nothing to us.
        let Some(element) = PathElement::parse(key)? else { continue };
        let child = node_of(value)?;
        let mut one = FieldSet::default();
        one.push(element, child);
        node.below.union(one);
    }
    node.owned |= node.below.is_empty();
    Ok(node)
}

/// Reads what a server wrote: the elements are taken as they are.
impl<'de> Deserialize<'de> for FieldSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FieldSet, D::Error> {
        Ok(deserializer.deserialize_map(NodeVisitor)?.below)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut node = Node::default();
        while let Some(Name(key)) = map.next_key()? {
            if key == "." {
                node.owned = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Some(element) = PathElement::trusted(key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let Child(child) = map.next_value()?;
            node.below.0.push(Entry { element, owned: child.owned, below: child.below });
        }
        node.below.sort();
        node.owned |= node.below.is_empty();
        Ok(node)
    }
}

struct Child(Node);

impl<'de> Deserialize<'de> for Child {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Child, D::Error> {
        deserializer.deserialize_map(NodeVisitor).map(Child)
    }
}

/// A key that is borrowed from the text where it can be.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'de>, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}
