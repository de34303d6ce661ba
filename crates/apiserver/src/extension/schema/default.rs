//! Defaults of a schema. Upstream: apiextensions pkg/apiserver/schema/defaulting.

use apimachinery::Value;

use super::Node;

impl Node {
    /// Fills in defaults; a null where none may be gets the default, or goes.
    pub(crate) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|name, member| {
                    let node = self.member(name);
                    !(member.is_null() && node.is_some_and(|node| !node.nullable && node.default.is_none()))
                });
                for (name, property) in &self.properties {
                    if let Some(default) = &property.default
                        && map.get(name).is_none_or(|member| member.is_null() && !property.nullable)
                    {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (name, member) in map.iter_mut() {
                    if let Some(node) = self.member(name) {
                        node.fill_null(member);
                        node.fill(member);
                    }
                }
            }
            Value::Array(items) => {
                let Some(node) = self.items.as_deref() else { return };
                for item in items {
                    node.fill_null(item);
                    node.fill(item);
                }
            }
            _ => {}
        }
    }

    fn fill_null(&self, value: &mut Value) {
        if value.is_null()
            && !self.nullable
            && let Some(default) = &self.default
        {
            *value = default.clone();
        }
    }
}
