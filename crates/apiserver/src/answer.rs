//! Answers: what a request came to, and its encoding for the wire.

mod encode;
mod metadata;

use std::sync::Arc;

use apimachinery::{Object, Status};
use bytes::Bytes;
use client::{ObjectList, WatchEvent};
use futures_util::stream::BoxStream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(crate) use encode::{WireBody, Wish, encode, framed};
pub(crate) use metadata::{list_meta, partial_list, partial_object, partial_watch};

/// What a request came to.
pub(crate) struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub content: Content,
}

/// What an answer says. Lists and watches know what they are lists and watches of.
pub(crate) enum Content {
    /// In the form that `Content-Type` says.
    Bytes(Bytes),
    Status(Status),
    Object(Arc<Object>),
    List {
        list: ObjectList,
        api_version: String,
        /// `PodList`
        kind: String,
    },
    Watch {
        events: BoxStream<'static, WatchEvent>,
        api_version: String,
        kind: String,
    },
    /// Bytes without a known length.
    Stream(BoxStream<'static, std::io::Result<Bytes>>),
}

impl Answer {
    pub(crate) fn new(code: StatusCode, content: Content) -> Answer {
        Answer { code, headers: HeaderMap::new(), content }
    }

    pub(crate) fn ok(content: Content) -> Answer {
        Answer::new(StatusCode::OK, content)
    }

    pub(crate) fn object(object: Arc<Object>) -> Answer {
        Answer::ok(Content::Object(object))
    }

    pub(crate) fn created(object: Arc<Object>, created: bool) -> Answer {
        Answer::new(if created { StatusCode::CREATED } else { StatusCode::OK }, Content::Object(object))
    }

    /// JSON that is no object of a kind.
    pub(crate) fn json(code: StatusCode, json: impl Into<Bytes>) -> Answer {
        Answer::new(code, Content::Bytes(json.into())).with(CONTENT_TYPE, "application/json")
    }

    pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
        Answer::new(code, Content::Bytes(text.into()))
            .with(CONTENT_TYPE, "text/plain; charset=utf-8")
            .with(http::header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Answer {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Adds a `Warning` header; texts that no header can hold are left out.
    pub(crate) fn warn(&mut self, text: &str) {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let clean: String = quoted.chars().filter(|c| !c.is_control()).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{clean}\"")) {
            self.headers.append(http::header::WARNING, value);
        }
    }
}

impl From<Status> for Answer {
    fn from(status: Status) -> Answer {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let answer = Answer::new(code, Content::Status(status));
        if retry > 0 { answer.with(http::header::RETRY_AFTER, &retry.to_string()) } else { answer }
    }
}

impl From<Answer> for client::Response {
    fn from(answer: Answer) -> client::Response {
        let body = match answer.content {
            Content::Bytes(bytes) => client::Body::Bytes(bytes),
            Content::Status(status) => client::Body::Status(status),
            Content::Object(object) => client::Body::Object(object),
            Content::List { list, .. } => client::Body::List(list),
            Content::Watch { events, .. } => client::Body::Watch(events),
            Content::Stream(stream) => client::Body::Stream(stream),
        };
        client::Response { code: answer.code, headers: answer.headers, body }
    }
}
