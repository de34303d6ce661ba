//! `PartialObjectMetadata`: objects of which only the metadata is shown.

use apimachinery::Object;
use bytes::Bytes;
use client::{ObjectList, WatchEvent};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::json;

use super::encode::{bookmark, framed};

const API_VERSION: &str = "meta.k8s.io/v1";
const KIND: &str = "PartialObjectMetadata";

/// The object's metadata as an object of its own; `version` is that of `meta.k8s.io`.
pub(crate) fn partial_object(object: &Object, version: &str) -> Vec<u8> {
    let mut out = format!("{{\"kind\":\"{KIND}\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":").into_bytes();
    let metadata = object.metadata_json();
    let inside = metadata.strip_suffix(b"}").unwrap_or(metadata);
    out.extend_from_slice(inside);
    if object.revision() != 0 {
        let comma = if inside.ends_with(b"{") { "" } else { "," };
        out.extend_from_slice(format!("{comma}\"resourceVersion\":\"{}\"", object.revision()).as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

pub(crate) fn partial_list(list: &ObjectList) -> Bytes {
    let mut out = format!(
        "{{\"kind\":\"{KIND}List\",\"apiVersion\":\"{API_VERSION}\",\"metadata\":{},\"items\":[",
        list_meta(list)
    )
    .into_bytes();
    for (index, object) in list.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&partial_object(object, "v1"));
    }
    out.extend_from_slice(b"]}\n");
    out.into()
}

pub(crate) fn partial_watch(events: BoxStream<'static, WatchEvent>) -> BoxStream<'static, std::io::Result<Bytes>> {
    let line = |event: WatchEvent| match &event {
        WatchEvent::Added(object) => framed("ADDED", &partial_object(object, "v1")),
        WatchEvent::Modified(object) => framed("MODIFIED", &partial_object(object, "v1")),
        WatchEvent::Deleted(object) => framed("DELETED", &partial_object(object, "v1")),
        WatchEvent::Bookmark { revision, initial_events_end } => {
            framed("BOOKMARK", &bookmark(*revision, *initial_events_end, API_VERSION, KIND))
        }
        WatchEvent::Error(status) => framed("ERROR", &status.to_json()),
    };
    events.map(move |event| Ok(line(event))).boxed()
}

/// A list's metadata.
pub(crate) fn list_meta(list: &ObjectList) -> serde_json::Value {
    let mut metadata = json!({ "resourceVersion": list.revision.to_string() });
    if !list.continue_token.is_empty() {
        metadata["continue"] = list.continue_token.clone().into();
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}
