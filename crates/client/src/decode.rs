//! From bytes on the wire to objects, lists, watch events and failures.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Reason, Status, Value};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::DecodeError;
use crate::{Body, Glance, ObjectList, Trim, WatchEvent, Written};

/// All of a body's bytes.
pub(crate) async fn collect(body: Body) -> Result<Bytes, DecodeError> {
    match body {
        Body::Bytes(bytes) => Ok(bytes),
        Body::Status(status) => Ok(status.to_json().into()),
        Body::Object(object) => Ok(object.to_json().into()),
        Body::Stream(mut stream) => {
            let Some(first) = stream.next().await.transpose()? else { return Ok(Bytes::new()) };
            let Some(second) = stream.next().await.transpose()? else { return Ok(first) };
            let mut all = BytesMut::from(first);
            all.extend_from_slice(&second);
            while let Some(chunk) = stream.next().await {
                all.extend_from_slice(&chunk?);
            }
            Ok(all.freeze())
        }
        Body::List(_) => Err(DecodeError::Shape("bytes instead of a list")),
        Body::Watch(_) => Err(DecodeError::Shape("bytes instead of a watch")),
    }
}

/// The failure that an answer with an error code tells.
pub(crate) async fn failure(code: StatusCode, body: Body) -> Status {
    if let Body::Status(status) = body {
        return status;
    }
    let bytes = collect(body).await.unwrap_or_default();
    if let Ok(Some(status)) = as_status(&bytes) {
        return status;
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2048)]).trim().to_owned();
    let reason = match code.as_u16() {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        429 => Reason::TooManyRequests,
        500 => Reason::InternalError,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        _ => Reason::Unknown,
    };
    let message = if text.is_empty() { format!("the server answered {code}") } else { text };
    Status::new(code.as_u16(), reason, message)
}

/// The bytes as a `Status`, if they are one.
pub(crate) fn as_status(bytes: &[u8]) -> Result<Option<Status>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Head<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        api_version: Cow<'a, str>,
    }
    let head: Head = serde_json::from_slice(bytes)?;
    if head.kind == "Status" && head.api_version == "v1" {
        return serde_json::from_slice(bytes).map(Some);
    }
    Ok(None)
}

pub(crate) async fn object(body: Body) -> Result<Arc<Object>, DecodeError> {
    match body {
        Body::Object(object) => Ok(object),
        body => Ok(Arc::new(Object::parse(&collect(body).await?)?)),
    }
}

/// What an answer says of the object that was written, without the rest of it.
pub(crate) async fn written(body: Body) -> Result<Written, DecodeError> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata<'a> {
        #[serde(borrow)]
        namespace: Cow<'a, str>,
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        uid: Cow<'a, str>,
        #[serde(borrow)]
        resource_version: Cow<'a, str>,
    }
    if let Body::Object(object) = &body {
        let (key, uid) = (object.key().clone(), object.uid().to_owned());
        return Ok(Written { key, uid, revision: object.revision() });
    }
    let bytes = collect(body).await?;
    let Answer { metadata } = serde_json::from_slice(&bytes)?;
    Ok(Written {
        key: ObjectKey::new(metadata.namespace, metadata.name),
        uid: metadata.uid.into_owned(),
        revision: metadata.resource_version.parse().unwrap_or_default(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireList<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(default)]
    metadata: WireListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireListMeta {
    resource_version: String,
    r#continue: Option<String>,
    remaining_item_count: Option<u64>,
}

/// What the reader wants of an object.
fn answer(mut value: Value, trim: Option<Trim>) -> Result<Arc<Object>, DecodeError> {
    let fields = trim.map(|trim| trim(&mut value)).unwrap_or_default();
    if fields.is_empty() {
        return Ok(Arc::new(Object::from_answer(&value)?));
    }
    let revision = value.str_at(&["metadata", "resourceVersion"]).and_then(|text| text.parse().ok());
    Ok(Arc::new(Object::with_fields(&value, revision.unwrap_or_default(), fields)?))
}

/// `trim`: of objects from the wire.
pub(crate) async fn list(body: Body, trim: Option<Trim>) -> Result<ObjectList, DecodeError> {
    let bytes = match body {
        Body::List(list) => return Ok(list),
        body => collect(body).await?,
    };
    let list: WireList = serde_json::from_slice(&bytes)?;
    // Items of a typed list leave out what the list's own kind says.
    let kind = list.kind.strip_suffix("List").unwrap_or_default();
    let mut items = Vec::new();
    for raw in list.items.unwrap_or_default() {
        let mut value = value(raw.get().as_bytes(), trim)?;
        if value.get("kind").is_none() && !kind.is_empty() {
            value.set(&["kind"], kind);
            value.set(&["apiVersion"], &*list.api_version);
        }
        items.push(answer(value, trim)?);
    }
    Ok(ObjectList {
        revision: list.metadata.resource_version.parse().unwrap_or_default(),
        items,
        continue_token: list.metadata.r#continue.unwrap_or_default(),
        remaining: list.metadata.remaining_item_count,
    })
}

pub(crate) fn watch(
    body: Body,
    trim: Option<Trim>,
    glance: Option<Glance>,
) -> Result<BoxStream<'static, WatchEvent>, DecodeError> {
    match body {
        Body::Watch(events) => Ok(events),
        Body::Stream(chunks) => Ok(watch_lines(chunks, trim, glance)),
        Body::Bytes(bytes) => Ok(watch_lines(stream::iter([Ok(bytes)]).boxed(), trim, glance)),
        Body::Status(_) | Body::Object(_) | Body::List(_) => Err(DecodeError::Shape("a watch")),
    }
}

/// Events separated by line ends, in chunks that respect no boundary. What cannot be read ends the stream with an error event;
/// a connection that breaks just ends it, as the server's own closing does.
fn watch_lines(
    chunks: BoxStream<'static, std::io::Result<Bytes>>,
    trim: Option<Trim>,
    glance: Option<Glance>,
) -> BoxStream<'static, WatchEvent> {
    struct Reader {
        chunks: BoxStream<'static, std::io::Result<Bytes>>,
        buffer: BytesMut,
        /// How much of the buffer has no line end.
        searched: usize,
        ended: bool,
        glance: Option<Glance>,
    }
    let reader = Reader { chunks, buffer: BytesMut::new(), searched: 0, ended: false, glance };
    stream::unfold(reader, move |mut reader| async move {
        loop {
            if reader.ended {
                return None;
            }
            if let Some(end) = memchr::memchr(b'\n', &reader.buffer[reader.searched..]) {
                let line = reader.buffer.split_to(reader.searched + end + 1);
                reader.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                if let Some(event) = reader.glance.as_ref().and_then(|glance| glanced(&line, glance)) {
                    return Some((event, reader));
                }
                let event = watch_event(&line, trim).unwrap_or_else(|error| {
                    tracing::debug!(%error, "unreadable watch event");
                    WatchEvent::Error(Status::new(500, Reason::InternalError, "unreadable watch event"))
                });
                reader.ended = matches!(event, WatchEvent::Error(_));
                return Some((event, reader));
            }
            reader.searched = reader.buffer.len();
            match reader.chunks.next().await {
                Some(Ok(chunk)) => reader.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => {
                    tracing::debug!(%error, "watch broke");
                    return None;
                }
                None => return None,
            }
        }
    })
    .boxed()
}

/// A change of which nothing but its revision is told any more.
fn glanced(line: &[u8], glance: &Glance) -> Option<WatchEvent> {
    let (kind, object) = plain_frame(line)?;
    let revision = (kind == "MODIFIED").then(|| glance(object))??;
    Some(WatchEvent::Bookmark { revision, initial_events_end: false })
}

fn watch_event(line: &[u8], trim: Option<Trim>) -> Result<WatchEvent, DecodeError> {
    // As servers write frames; what is none of theirs is read with more patience.
    if let Some((kind, object)) = plain_frame(line)
        && let Ok(event) = framed(kind, object, trim)
    {
        return Ok(event);
    }
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let frame: Frame = serde_json::from_slice(line)?;
    framed(&frame.r#type, frame.object.get().as_bytes(), trim)
}

/// Type and object of `{"type":"…","object":…}`.
fn plain_frame(line: &[u8]) -> Option<(&str, &[u8])> {
    let rest = line.trim_ascii_end().strip_prefix(br#"{"type":""#)?.strip_suffix(b"}")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    let (kind, rest) = rest.split_at(end);
    Some((std::str::from_utf8(kind).ok()?, rest.strip_prefix(br#"","object":"#)?))
}

fn framed(kind: &str, json: &[u8], trim: Option<Trim>) -> Result<WatchEvent, DecodeError> {
    let object = || answer(value(json, trim)?, trim);
    match kind {
        "ADDED" => Ok(WatchEvent::Added(object()?)),
        "MODIFIED" => Ok(WatchEvent::Modified(object()?)),
        "DELETED" => Ok(WatchEvent::Deleted(object()?)),
        "BOOKMARK" => {
            let value = value(json, None)?;
            let revision = value.str_at(&["metadata", "resourceVersion"]).and_then(|text| text.parse().ok());
            let end = value.str_at(&["metadata", "annotations", "k8s.io/initial-events-end"]) == Some("true");
            Ok(WatchEvent::Bookmark { revision: revision.unwrap_or_default(), initial_events_end: end })
        }
        "ERROR" => Ok(WatchEvent::Error(serde_json::from_slice(json)?)),
        _ => Err(DecodeError::Shape("a watch event")),
    }
}

/// What is long and wanted by nobody who trims isn't read.
fn value(json: &[u8], trim: Option<Trim>) -> Result<Value, DecodeError> {
    let without: &[&str] = if trim.is_some() { &["metadata", "managedFields"] } else { &[] };
    Ok(Value::parse_canonical_without(json, without).map_err(apimachinery::ObjectError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn items_of_a_list_know_their_kind() {
        let json = br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"t","remainingItemCount":3},
            "items":[{"metadata":{"name":"a","resourceVersion":"4"}},{"kind":"X","apiVersion":"g/v1","metadata":{"name":"b"}}]}"#;
        let list = list(Body::Bytes(Bytes::from_static(json)), None).await.unwrap();
        assert_eq!((list.revision, list.continue_token.as_str(), list.remaining), (9, "t", Some(3)));
        assert_eq!((list.items[0].kind(), list.items[0].revision(), list.items[1].kind()), ("Pod", 4, "X"));
        let empty =
            super::list(Body::Bytes(Bytes::from_static(br#"{"kind":"PodList","items":null}"#)), None).await.unwrap();
        assert!(empty.items.is_empty());
    }

    #[tokio::test]
    async fn a_watch_is_read_across_chunk_borders() {
        let wire = concat!(
            "{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"name\":\"ä\",\"resourceVersion\":\"5\"}}}\n\n",
            "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"resourceVersion\":\"8\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n",
            "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}}\n",
            "{\"type\":\"ADDED\",\"object\":{\"metadata\":{}}}\n",
        );
        for size in [1, 7, 64, wire.len()] {
            let chunks: Vec<_> = wire.as_bytes().chunks(size).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let events: Vec<_> = watch(Body::Stream(stream::iter(chunks).boxed()), None, None).unwrap().collect().await;
            assert_eq!(events.len(), 3, "chunks of {size}");
            assert!(matches!(&events[0], WatchEvent::Added(pod) if pod.name() == "ä" && pod.revision() == 5));
            assert!(matches!(&events[1], WatchEvent::Bookmark { revision: 8, initial_events_end: true }));
            assert!(matches!(&events[2], WatchEvent::Error(status) if status.code == 410));
        }
    }

    #[test]
    fn frames_are_read_in_whatever_form() {
        let check = |line: &str| match watch_event(line.as_bytes(), None) {
            Ok(WatchEvent::Modified(pod)) => assert_eq!((pod.name(), pod.revision()), ("a", 5), "{line}"),
            other => panic!("{line}: {other:?}"),
        };
        check(r#"{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"a","resourceVersion":"5"}}}"#);
        check(r#"{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"5","name":"a"},"kind":"Pod"}} "#);
        check(r#"{ "object": {"kind":"Pod","metadata":{"name":"a","resourceVersion":"5"}}, "type": "MODIFIED" }"#);
        check(r#"{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"5"}},"more":{}}"#);
        assert!(watch_event(br#"{"type":"MODIFIED","object":{"metadata":{"name":"a"}}"#, None).is_err());
    }

    #[tokio::test]
    async fn an_answer_is_read_for_little() {
        let json =
            br#"{"kind":"Pod","metadata":{"name":"a-x7","namespace":"n","resourceVersion":"9","uid":"u"},"spec":{}}"#;
        let expect = Written { key: ObjectKey::new("n", "a-x7"), uid: "u".into(), revision: 9 };
        assert_eq!(written(Body::Bytes(Bytes::from_static(json))).await.unwrap(), expect);
        let object = Arc::new(Object::parse(json).unwrap());
        assert_eq!(written(Body::Object(object)).await.unwrap(), expect);
        assert!(written(Body::Bytes(Bytes::from_static(b"{}"))).await.is_err());
    }

    #[tokio::test]
    async fn objects_are_trimmed_on_demand() {
        fn trim(object: &mut Value) -> Vec<(&'static str, String)> {
            assert!(object.at(&["metadata", "managedFields"]).is_none());
            vec![("spec.nodeName", "n1".into())]
        }
        let object =
            r#"{"kind":"Pod","metadata":{"managedFields":[{"manager":"m"}],"name":"a","resourceVersion":"7"}}"#;
        let items = format!(r#"{{"kind":"PodList","items":[{object}]}}"#);
        let event = format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n");
        let check = async |wanted: Option<Trim>, managed: &str, node: Option<&str>| {
            let listed = list(Body::Bytes(items.clone().into()), wanted).await.unwrap().items;
            let events: Vec<_> = watch(Body::Bytes(event.clone().into()), wanted, None).unwrap().collect().await;
            let [WatchEvent::Added(watched)] = &*events else { panic!("{events:?}") };
            for object in [&listed[0], watched] {
                assert_eq!(object.managed_fields(), managed.as_bytes());
                assert_eq!((object.field("spec.nodeName"), object.revision()), (node, 7));
            }
        };
        check(Some(trim), "", Some("n1")).await;
        check(None, r#"[{"manager":"m"}]"#, None).await;
    }

    #[tokio::test]
    async fn a_glance_may_be_enough() {
        let wire = ["ADDED", "MODIFIED", "DELETED"].map(|kind| {
            let object = |name| format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"7"}}}}"#);
            ["seen", "new"].map(|name| format!("{{\"type\":\"{kind}\",\"object\":{}}}\n", object(name))).concat()
        });
        let glance: Glance = Arc::new(|json| json.windows(4).any(|word| word == b"seen").then_some(7));
        let events = watch(Body::Bytes(wire.concat().into()), None, Some(glance)).unwrap();
        let told = events.map(|event| match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                object.name().to_owned()
            }
            WatchEvent::Bookmark { revision, .. } => revision.to_string(),
            WatchEvent::Error(status) => status.message,
        });
        assert_eq!(told.collect::<Vec<_>>().await, ["seen", "new", "7", "new", "seen", "new"]);
    }

    #[tokio::test]
    async fn a_failure_without_status_keeps_its_code() {
        let status = failure(StatusCode::FORBIDDEN, Body::Bytes(Bytes::from_static(b"go away\n"))).await;
        assert_eq!((status.code, status.reason, status.message.as_str()), (403, Reason::Forbidden, "go away"));
        let json = br#"{"kind":"Status","apiVersion":"v1","code":409,"reason":"AlreadyExists"}"#;
        let status = failure(StatusCode::CONFLICT, Body::Bytes(Bytes::from_static(json))).await;
        assert!(status.is_already_exists());
    }
}
