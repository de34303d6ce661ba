//! Fields that the schema doesn't name go. Upstream: apiextensions pkg/apiserver/schema/pruning and objectmeta.

use apimachinery::schema::StrictError;
use apimachinery::{Map, Value};

use super::{Additional, Node, below};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Node {
    /// Prunes a whole object, and brings its metadata and that of embedded objects into their form. Names what went.
    pub(crate) fn prune(&self, value: &mut Value) -> Vec<StrictError> {
        let mut gone = Vec::new();
        prune(Some(self), value, true, "", &mut gone);
        gone
    }
}

impl Node {
    /// Prunes a value that is no whole object. Names the paths that went.
    pub(crate) fn prune_part(&self, value: &mut Value) -> Vec<String> {
        let mut gone = Vec::new();
        prune(Some(self), value, false, "", &mut gone);
        let path = |problem| match problem {
            StrictError::Unknown(path) | StrictError::Duplicate(path) => path,
        };
        gone.into_iter().map(path).collect()
    }
}

fn prune(node: Option<&Node>, value: &mut Value, root: bool, path: &str, gone: &mut Vec<StrictError>) {
    let root = root || node.is_some_and(|node| node.embedded);
    let keeps = node.is_some_and(|node| node.preserve_unknown);
    match value {
        Value::Object(map) => {
            if root {
                coerce_metadata(map, path, gone);
            }
            map.retain(|name, member| {
                if root && matches!(name, "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                let at = below(path, name);
                let property = node.and_then(|node| node.properties.get(name));
                match (property, node.map(|node| &node.additional)) {
                    (Some(property), _) => prune(Some(property), member, false, &at, gone),
                    (None, Some(Additional::Schema(additional))) => prune(Some(additional), member, false, &at, gone),
                    (None, _) if keeps => {}
                    (None, Some(Additional::Bool(_))) => prune(None, member, false, &at, gone),
                    (None, _) => {
                        gone.push(StrictError::Unknown(at));
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(items) => {
            let item_node = node.and_then(|node| node.items.as_deref());
            if keeps && item_node.is_none() {
                return;
            }
            for (index, item) in items.iter_mut().enumerate() {
                prune(item_node, item, false, &format!("{path}[{index}]"), gone);
            }
        }
        _ => {}
    }
}

/// Metadata in its form, as far as it can be brought there; validation speaks of the rest.
fn coerce_metadata(map: &mut Map, path: &str, gone: &mut Vec<StrictError>) {
    let Some(ty) = api::type_named(META) else { return };
    let Some(metadata) = map.get_mut("metadata").filter(|metadata| metadata.as_object().is_some()) else { return };
    let Ok(decoded) = ty.canonical(metadata.clone()) else { return };
    *metadata = decoded.value;
    let prefix = below(path, "metadata");
    gone.extend(decoded.problems.into_iter().map(|problem| match problem {
        StrictError::Unknown(at) => StrictError::Unknown(below(&prefix, &at)),
        StrictError::Duplicate(at) => StrictError::Duplicate(below(&prefix, &at)),
    }));
}

/// Why the metadata of an object is none: a message of upstream's decoder.
pub(crate) fn metadata_error(value: &Value) -> Option<String> {
    let metadata = value.get("metadata").filter(|metadata| !metadata.is_null())?;
    let ty = api::type_named(META)?;
    ty.canonical(metadata.clone()).err().map(|error| error.to_string())
}
