//! The fields that a value sets.

use super::set::{FieldSet, Node};
use super::walk::{Form, TypeErrors, form, item_element, member};
use crate::Value;
use crate::schema::{Shape, Type};

/// Every field that `value` sets. Upstream: TypedValue.ToFieldSet.
pub fn fields_of(ty: Type<'_>, value: &Value) -> Result<FieldSet, TypeErrors> {
    Ok(walk(Some(ty), value)?.below)
}

fn walk(ty: Option<Type<'_>>, value: &Value) -> Result<Node, TypeErrors> {
    let mut node = Node::default();
    match (form(ty), value) {
        (Form::Map(ty), Value::Object(map)) => {
            let is_map = matches!(ty.shape(), Shape::Map { .. });
            for (name, value) in map.iter() {
                let (element, ty) = member(ty, name);
                let mut child = walk(ty, value).map_err(|errors| errors.below(&element))?;
                let empty = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                child.owned |= empty || is_map;
                node.below.push(element, child);
            }
        }
        (Form::List(ty), Value::Array(items)) => {
            let mut elements = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let element =
                    item_element(ty, item).map_err(|why| TypeErrors::one(format!("element {index}: {why}")))?;
                elements.push((element, item));
            }
            elements.sort_by(|a, b| a.0.cmp(&b.0));
            let mut elements = elements.into_iter().peekable();
            while let Some((element, item)) = elements.next() {
                let mut child = Node::default();
                let mut alone = true;
                while elements.next_if(|(next, _)| *next == element).is_some() {
                    alone = false;
                }
                if alone {
                    child = walk(ty.item(), item).map_err(|errors| errors.below(&element))?;
                }
                child.owned = true;
                node.below.push(element, child);
            }
        }
        (Form::Map(_) | Form::List(_), _) => {}
        (Form::Leaf, _) => node.owned = true,
    }
    Ok(node)
}
