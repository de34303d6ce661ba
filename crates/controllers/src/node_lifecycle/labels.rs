//! The elder names of a node's labels, for those who still select by them. Upstream: reconcileNodeLabels.

use apimachinery::{Object, Value};
use client::{Client, Error, IgnoreNotFound, PatchKind, resources};

/// A label and its elder name.
const ELDER: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// Gives the node the elder labels that follow from its labels.
pub(super) async fn complete(client: &Client, node: &Object) -> Result<(), Error> {
    let mut patch = Value::object();
    for (label, elder) in ELDER {
        if let Some(value) = node.label(label).filter(|value| node.label(elder) != Some(value)) {
            patch.set(&["metadata", "labels", elder], value);
        }
    }
    if patch.as_object().is_none_or(|patch| patch.is_empty()) {
        return Ok(());
    }
    patch.set(&["metadata", "uid"], node.uid());
    client.patch(&resources::NODES, node.key(), PatchKind::Merge, &patch).await.ignore_not_found()
}
