//! Tables: what `kubectl get` shows. Columns come from the kind table; cells that are more than a field are computed here.
//!
//! Upstream: pkg/printers/internalversion, apiserver handlers/response.go.

mod cells;
mod duration;
mod network;
mod nodes;
mod others;
mod pods;
mod storage;
mod workloads;

use std::io::Write;
use std::sync::Arc;

use api::{Cell, Column, Kind};
use apimachinery::{Object, Selector, Status, Value};
use bytes::Bytes;
use client::{ObjectList, WatchEvent};
use env::Env;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde_json::json;

use crate::answer::{framed, list_meta, partial_object};
use crate::extension::{self, Version};
use crate::registry::Resource;

/// A kind's table in the making.
#[derive(Clone)]
pub(crate) struct Table {
    kind: Option<&'static Kind>,
    /// Of `meta.k8s.io`.
    version: &'static str,
    include: Include,
    env: Env,
    /// The columns of a definition.
    custom: Option<Arc<Version>>,
}

/// What a row holds besides its cells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Table {
    pub(crate) fn new(
        kind: Option<&'static Kind>,
        version: &'static str,
        include: &str,
        env: &Env,
    ) -> Result<Table, Status> {
        let include = match include {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::Nothing,
            "Object" => Include::Object,
            other => {
                let why = "must be 'Metadata', 'Object', 'None', or empty";
                let error = apimachinery::FieldError::invalid("includeObject", other, why);
                return Err(Status::bad_request(format!("Unable to convert to Table as requested: {error}")));
            }
        };
        Ok(Table { kind, version, include, env: env.clone(), custom: None })
    }

    /// Shows the columns that the resource's definition has.
    pub(crate) fn show_custom(&mut self, resource: &Resource) {
        self.custom = resource.as_custom().map(|custom| custom.version.clone());
    }

    pub(crate) fn of_object(&self, object: &Object) -> Bytes {
        let metadata = json!({ "resourceVersion": revision_text(object.revision()) });
        self.document(&metadata, [object].into_iter(), self.columns_for(object), true)
    }

    pub(crate) fn of_list(&self, list: &ObjectList) -> Bytes {
        let columns = self.kind.map_or(DEFAULT, |kind| kind.columns);
        self.document(&list_meta(list), list.items.iter().map(|item| &**item), columns, true)
    }

    /// Each event's object is a table of one row; only the first one repeats the columns.
    pub(crate) fn of_watch(self, events: BoxStream<'static, WatchEvent>) -> BoxStream<'static, std::io::Result<Bytes>> {
        let mut first = true;
        events
            .map(move |event| {
                let (name, object) = match &event {
                    WatchEvent::Added(object) => ("ADDED", object),
                    WatchEvent::Modified(object) => ("MODIFIED", object),
                    WatchEvent::Deleted(object) => ("DELETED", object),
                    WatchEvent::Error(status) => return Ok(framed("ERROR", &status.to_json())),
                    WatchEvent::Bookmark { revision, .. } => {
                        let metadata = json!({ "resourceVersion": revision.to_string() });
                        let table = self.document(&metadata, std::iter::empty(), &[], std::mem::take(&mut first));
                        return Ok(framed("BOOKMARK", table.trim_ascii_end()));
                    }
                };
                let metadata = json!({ "resourceVersion": revision_text(object.revision()) });
                let columns = self.columns_for(object);
                let table = self.document(&metadata, [&**object].into_iter(), columns, std::mem::take(&mut first));
                Ok(framed(name, table.trim_ascii_end()))
            })
            .boxed()
    }

    fn columns_for(&self, object: &Object) -> &'static [Column] {
        match object.kind() {
            "Scale" => SCALE,
            told => self.kind.filter(|kind| kind.kind == told).map_or(DEFAULT, |kind| kind.columns),
        }
    }

    fn document<'a>(
        &self,
        metadata: &serde_json::Value,
        objects: impl Iterator<Item = &'a Object>,
        columns: &[Column],
        with_columns: bool,
    ) -> Bytes {
        let columns = if self.custom.is_some() { NAME } else { columns };
        let mut definitions: Vec<serde_json::Value> = columns.iter().map(definition).collect();
        definitions.extend(self.custom.iter().flat_map(|version| &version.columns).map(custom_definition));
        let definitions = if with_columns { json!(definitions) } else { serde_json::Value::Null };
        let mut out = format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{}\",\"metadata\":{metadata},\"columnDefinitions\":{definitions},\"rows\":[",
            self.version
        )
        .into_bytes();
        let now = self.env.now();
        for (index, object) in objects.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.row(object, columns, now, &mut out);
        }
        out.extend_from_slice(b"]}\n");
        out.into()
    }

    fn row(&self, object: &Object, columns: &[Column], now: Timestamp, out: &mut Vec<u8>) {
        let value = object.to_value();
        let row = Row { object, value: &value, now };
        let mut cells: Vec<Value> = columns.iter().map(|column| row.cell(column)).collect();
        let since =
            |time: &str| time.parse().map_or_else(|_| "<invalid>".to_owned(), |time| duration::between(time, now));
        let customs = self.custom.iter().flat_map(|version| &version.columns);
        cells.extend(customs.map(|column| column.cell(&value, since).unwrap_or_default()));
        let cells = Value::Array(cells);
        let _ = write!(out, "{{\"cells\":{cells}");
        match self.include {
            Include::Nothing => out.extend_from_slice(b",\"object\":null"),
            Include::Metadata => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&partial_object(object, self.version));
            }
            Include::Object => {
                out.extend_from_slice(b",\"object\":");
                object.write_json(out);
            }
        }
        out.push(b'}');
    }
}

/// Columns of what has none.
const DEFAULT: &[Column] = &[
    Column { name: "Name", ty: "string", format: "name", priority: 0, cell: Cell::Name },
    Column { name: "Created At", ty: "date", format: "", priority: 0, cell: Cell::Created },
];

/// The first column of every definition.
const NAME: &[Column] = DEFAULT.split_at(1).0;

/// Of any kind's `scale`, which no resource lists.
const SCALE: &[Column] = &[
    Column { name: "Name", ty: "string", format: "", priority: 0, cell: Cell::Name },
    Column { name: "Desired", ty: "integer", format: "", priority: 0, cell: Cell::At(&["spec", "replicas"]) },
    Column { name: "Available", ty: "integer", format: "", priority: 0, cell: Cell::At(&["status", "replicas"]) },
    Column { name: "Age", ty: "string", format: "", priority: 0, cell: Cell::Age },
];

fn revision_text(revision: u64) -> String {
    if revision == 0 { String::new() } else { revision.to_string() }
}

fn definition(column: &Column) -> serde_json::Value {
    json!({
        "name": column.name,
        "type": column.ty,
        "format": column.format,
        "description": "",
        "priority": column.priority,
    })
}

fn custom_definition(column: &extension::Column) -> serde_json::Value {
    json!({
        "name": column.name,
        "type": column.ty,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

/// One object as its cells see it.
struct Row<'a> {
    object: &'a Object,
    value: &'a Value,
    now: Timestamp,
}

const NONE: &str = "<none>";

impl Row<'_> {
    fn cell(&self, column: &Column) -> Value {
        match column.cell {
            Cell::Name => self.object.name().into(),
            Cell::Age => self.since(&["metadata", "creationTimestamp"]).into(),
            Cell::Created => self.value.at(&["metadata", "creationTimestamp"]).cloned().unwrap_or_default(),
            Cell::At(path) => match self.value.at(path) {
                Some(value) if !value.is_null() => value.clone(),
                _ => match column.ty {
                    "integer" => 0.into(),
                    "boolean" => false.into(),
                    _ => "".into(),
                },
            },
            Cell::Count(path) => match self.value.at(path) {
                Some(Value::Array(items)) => items.len() as i64,
                Some(Value::Object(map)) => map.len() as i64,
                _ => 0,
            }
            .into(),
            Cell::Labels(path) => labels(self.value.at(path)).into(),
            Cell::Selector(path) => match Selector::from_label_selector(self.value.at(path)) {
                Ok(selector) if !selector.is_everything() && self.value.at(path).is_some() => selector.to_string(),
                _ => NONE.to_owned(),
            }
            .into(),
            Cell::ContainerNames(path) => self.containers(path, "name").into(),
            Cell::ContainerImages(path) => self.containers(path, "image").into(),
            Cell::Computed => cells::computed(self, column.name),
        }
    }

    /// The time since a timestamp, as people read it.
    fn since(&self, path: &[&str]) -> String {
        let text = self.value.str_at(path).unwrap_or_default();
        text.parse::<Timestamp>().map_or_else(|_| "<unknown>".to_owned(), |time| duration::between(time, self.now))
    }

    fn containers(&self, path: &[&str], member: &str) -> String {
        let spec = self.value.at(path);
        let containers = spec.map(|spec| spec.items_at(&["containers"])).unwrap_or_default();
        let texts: Vec<&str> = containers.iter().filter_map(|container| container.str_at(&[member])).collect();
        texts.join(",")
    }

    fn text(&self, path: &[&str]) -> &str {
        self.value.str_at(path).unwrap_or_default()
    }

    /// The string at a path, or `<none>`.
    fn text_or_none(&self, path: &[&str]) -> String {
        or_none(self.text(path).to_owned())
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// `a=b,c=d`
fn labels(map: Option<&Value>) -> String {
    let members = map.and_then(Value::as_object).into_iter().flat_map(|map| map.iter());
    let pairs: Vec<String> =
        members.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or_none(pairs.join(","))
}

#[cfg(test)]
mod tests;
