//! Rows of the kind table for custom resources. Equal rows are made once and kept as those of built-in kinds are: a definition
//! that comes and goes costs nothing anew.

use std::collections::HashMap;

use api::{Kind, Selectable, Storage, Subresource};
use parking_lot::Mutex;

use super::{Definition, Version};

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const EDIT: &[&str] = &["get", "patch", "update"];

/// All rows that were ever wanted.
#[derive(Default)]
pub(crate) struct Rows(Mutex<HashMap<String, &'static Kind>>);

impl Rows {
    /// The row of a version.
    pub(crate) fn of(&self, definition: &Definition, version: &Version) -> &'static Kind {
        let stored = &definition.stored().name;
        let Definition { group, plural, kind, list_kind, short_names, categories, namespaced, .. } = definition;
        let fields = definition.fields();
        let own: Vec<&str> = version.fields.iter().map(|(label, _)| label.as_str()).collect();
        let key = format!(
            "{group} {} {plural} {kind} {list_kind} {short_names:?} {categories:?} {namespaced} {stored} {} {} {fields:?} {own:?}",
            version.name,
            version.status,
            version.scale.is_some()
        );
        let mut known = self.0.lock();
        if let Some(row) = known.get(&key) {
            return row;
        }
        let row: &'static Kind = Box::leak(Box::new(row(definition, version)));
        known.insert(key, row);
        row
    }
}

fn keep(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn keep_all(texts: &[String]) -> &'static [&'static str] {
    Box::leak(texts.iter().map(|text| keep(text)).collect())
}

fn row(definition: &Definition, version: &Version) -> Kind {
    let (group, kind, name) = (keep(&definition.group), keep(&definition.kind), keep(&version.name));
    let resource = keep(&definition.plural);
    let mut subresources = Vec::new();
    if version.status {
        subresources.push(Subresource { name: "status", group, version: name, kind, verbs: EDIT });
    }
    if version.scale.is_some() {
        subresources.push(Subresource {
            name: "scale",
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            verbs: EDIT,
        });
    }
    let selectable: Vec<Selectable> = version
        .fields
        .iter()
        .map(|(label, path)| Selectable { label: keep(label), path: keep_all(path), or: &[] })
        .collect();
    Kind {
        group,
        version: name,
        kind,
        list_kind: keep(&definition.list_kind),
        resource,
        type_name: keep(&definition.model_name(&version.name)),
        short_names: keep_all(&definition.short_names),
        categories: keep_all(&definition.categories),
        namespaced: definition.namespaced,
        verbs: VERBS,
        subresources: Box::leak(subresources.into_boxed_slice()),
        storage: Some(Storage {
            group,
            version: keep(&definition.stored().name),
            path: keep(&format!("{}/{}", definition.group, definition.plural)),
        }),
        selectable: Box::leak(selectable.into_boxed_slice()),
        columns: &[],
        enforced: true,
    }
}
