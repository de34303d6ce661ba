//! From an [`Answer`] to an HTTP response. Large bodies travel by reference; nothing is built as one buffer.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use apimachinery::{Object, Value};
use bytes::Bytes;
use client::{ObjectList, WatchEvent};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use super::{Answer, Content};
use crate::accept::Encoding;

/// Answers at least this large are compressed for clients that take it. Upstream: defaultGzipThresholdBytes.
const GZIP_THRESHOLD: usize = 128 * 1024;
const CHUNK: usize = 64 * 1024;
/// Events of a watch that are sent together when they come together.
const AT_ONCE: usize = 16;
/// Objects at least this large are not copied into chunks.
const BY_REFERENCE: usize = 32 * 1024;

pub(crate) type WireBody = UnsyncBoxBody<Bytes, std::io::Error>;
type Chunks = BoxStream<'static, std::io::Result<Bytes>>;

/// How the client wants its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub encoding: Encoding,
    pub pretty: bool,
    pub gzip: bool,
}

/// Encodes the answer.
pub(crate) fn encode(answer: Answer, wish: Wish) -> Response<WireBody> {
    let Answer { code, mut headers, content } = answer;
    let typed = |headers: &mut http::HeaderMap, text: &'static str| {
        headers.entry(CONTENT_TYPE).or_insert(http::HeaderValue::from_static(text));
    };
    let body = match content {
        Content::Bytes(bytes) => Encoded::Whole(bytes),
        Content::Stream(stream) => Encoded::Open(stream),
        Content::Watch { events, api_version, kind } => {
            typed(&mut headers, "application/json");
            Encoded::Open(watch(events, api_version, kind))
        }
        Content::Status(status) => rewritten(Encoded::Whole(line(status.to_json())), wish, &mut headers),
        Content::Object(object) => rewritten(Encoded::Whole(line(object.to_json())), wish, &mut headers),
        Content::List { list, api_version, kind } => {
            let size = list.items.iter().map(|item| item.body().len() + 48).sum();
            rewritten(Encoded::Sized(size, Box::new(ListChunks::new(list, &api_version, &kind))), wish, &mut headers)
        }
    };
    let wants_gzip = wish.gzip && body.size().is_some_and(|size| size >= GZIP_THRESHOLD);
    let body = match body {
        body if wants_gzip && !headers.contains_key(CONTENT_ENCODING) => {
            headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
            headers.append(VARY, http::HeaderValue::from_static("Accept-Encoding"));
            boxed(stream::iter(Gzip::new(body.chunks())).boxed())
        }
        Encoded::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
        Encoded::Sized(_, chunks) => boxed(stream::iter(chunks.map(Ok)).boxed()),
        Encoded::Open(stream) => boxed(stream),
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    *response.headers_mut() = headers;
    response
}

/// A body on its way.
enum Encoded {
    Whole(Bytes),
    /// About this many bytes.
    Sized(usize, Box<dyn Iterator<Item = Bytes> + Send>),
    Open(Chunks),
}

impl Encoded {
    fn size(&self) -> Option<usize> {
        match self {
            Encoded::Whole(bytes) => Some(bytes.len()),
            Encoded::Sized(size, _) => Some(*size),
            Encoded::Open(_) => None,
        }
    }

    fn chunks(self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        match self {
            Encoded::Whole(bytes) => Box::new(std::iter::once(bytes)),
            Encoded::Sized(_, chunks) => chunks,
            Encoded::Open(_) => Box::new(std::iter::empty()),
        }
    }
}

fn boxed(stream: Chunks) -> WireBody {
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}

fn line(mut json: Vec<u8>) -> Bytes {
    json.push(b'\n');
    json.into()
}

/// Brings JSON into the wished form; the usual wish is JSON as it is.
fn rewritten(body: Encoded, wish: Wish, headers: &mut http::HeaderMap) -> Encoded {
    let content_type = match wish.encoding {
        Encoding::Yaml => "application/yaml",
        Encoding::Json | Encoding::Protobuf => "application/json",
    };
    headers.entry(CONTENT_TYPE).or_insert(http::HeaderValue::from_static(content_type));
    if wish.encoding != Encoding::Yaml && !wish.pretty {
        return body;
    }
    let json: Vec<u8> = body.chunks().flatten().collect();
    let Ok(value) = Value::parse(&json) else { return Encoded::Whole(json.into()) };
    let text = match wish.encoding {
        Encoding::Yaml => serde_yaml_ng::to_string(&value).ok().map(String::into_bytes),
        _ => serde_json::to_vec_pretty(&value).ok().map(|mut text| {
            text.push(b'\n');
            text
        }),
    };
    Encoded::Whole(text.unwrap_or(json).into())
}

/// A list's JSON, piece by piece.
struct ListChunks {
    items: std::vec::IntoIter<Arc<Object>>,
    first: bool,
    ready: VecDeque<Bytes>,
    buffer: Vec<u8>,
    done: bool,
}

impl ListChunks {
    fn new(list: ObjectList, api_version: &str, kind: &str) -> ListChunks {
        let mut metadata = json!({ "resourceVersion": list.revision.to_string() });
        if !list.continue_token.is_empty() {
            metadata["continue"] = list.continue_token.into();
        }
        if let Some(remaining) = list.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
            json!(kind),
            json!(api_version)
        );
        ListChunks {
            items: list.items.into_iter(),
            first: true,
            ready: VecDeque::new(),
            buffer: head.into_bytes(),
            done: false,
        }
    }

    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.buffer).into());
        }
    }
}

impl Iterator for ListChunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.done {
                return None;
            }
            let Some(item) = self.items.next() else {
                self.buffer.extend_from_slice(b"]}\n");
                self.flush();
                self.done = true;
                continue;
            };
            if !std::mem::take(&mut self.first) {
                self.buffer.push(b',');
            }
            if item.body().len() >= BY_REFERENCE {
                let [head, revision, tail] = item.json_parts();
                self.flush();
                self.ready.extend([head, revision]);
                self.ready.push_back(tail);
            } else {
                item.write_json(&mut self.buffer);
                if self.buffer.len() >= CHUNK {
                    self.flush();
                }
            }
        }
    }
}

/// Compresses chunk by chunk.
struct Gzip {
    chunks: Box<dyn Iterator<Item = Bytes> + Send>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    fn new(chunks: Box<dyn Iterator<Item = Bytes> + Send>) -> Gzip {
        Gzip { chunks, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl Iterator for Gzip {
    type Item = std::io::Result<Bytes>;

    fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            let Some(chunk) = self.chunks.next() else {
                return Some(self.encoder.take()?.finish().map(Bytes::from));
            };
            if let Err(error) = encoder.write_all(&chunk) {
                self.encoder = None;
                return Some(Err(error));
            }
            if encoder.get_ref().len() >= CHUNK / 2 {
                return Some(Ok(std::mem::take(encoder.get_mut()).into()));
            }
        }
    }
}

fn watch(events: BoxStream<'static, WatchEvent>, api_version: String, kind: String) -> Chunks {
    let lines = move |events: Vec<WatchEvent>| {
        let mut out = Vec::new();
        events.iter().for_each(|event| write_event(event, &api_version, &kind, &mut out));
        Bytes::from(out)
    };
    events.ready_chunks(AT_ONCE).map(move |events| Ok(lines(events))).boxed()
}

/// Appends one event as a line of JSON.
fn write_event(event: &WatchEvent, api_version: &str, kind: &str, out: &mut Vec<u8>) {
    let (name, object) = match event {
        WatchEvent::Added(object) => ("ADDED", object),
        WatchEvent::Modified(object) => ("MODIFIED", object),
        WatchEvent::Deleted(object) => ("DELETED", object),
        WatchEvent::Bookmark { revision, initial_events_end } => {
            let bookmark = bookmark(*revision, *initial_events_end, api_version, kind);
            return out.extend_from_slice(&framed("BOOKMARK", &bookmark));
        }
        WatchEvent::Error(status) => return out.extend_from_slice(&framed("ERROR", &status.to_json())),
    };
    out.reserve(object.body().len() + 96);
    let _ = write!(out, "{{\"type\":\"{name}\",\"object\":");
    object.write_json(out);
    out.extend_from_slice(b"}\n");
}

/// The object of a bookmark: nothing but a revision.
pub(super) fn bookmark(revision: u64, initial_events_end: bool, api_version: &str, kind: &str) -> Vec<u8> {
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if initial_events_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata }).to_string().into_bytes()
}

/// One event whose object is given as JSON.
pub(crate) fn framed(name: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 48);
    let _ = write!(out, "{{\"type\":\"{name}\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}
