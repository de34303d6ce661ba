//! `Status`: how the API says that a request failed, and the field errors inside it.
//!
//! Texts follow upstream's because clients match on them. Upstream: apimachinery pkg/api/errors, pkg/util/validation/field.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{GroupKind, GroupResource, Value};

/// A failed (or, with code 200, succeeded) request. Serialises as a `v1` `Status` object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct Status {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Details>,
}

/// What a failure was about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

/// One field's or one rule's part in a failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

macro_rules! reasons {
    ($($name:ident)*) => {
        /// The machine-readable reason, spelled as upstream's.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Reason { #[default] Unknown, $($name),* }

        impl Reason {
            /// The spelling on the wire; empty for `Unknown`.
            pub fn as_str(self) -> &'static str {
                match self { Reason::Unknown => "", $(Reason::$name => stringify!($name)),* }
            }

            fn parse(text: &str) -> Reason {
                match text { $(stringify!($name) => Reason::$name,)* _ => Reason::Unknown }
            }
        }
    };
}

reasons! {
    Unauthorized Forbidden NotFound AlreadyExists Conflict Gone Invalid ServerTimeout StoreReadError Timeout TooManyRequests
    BadRequest MethodNotAllowed NotAcceptable RequestEntityTooLarge UnsupportedMediaType InternalError Expired
    ServiceUnavailable
}

impl Status {
    /// A failure with no details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: None }
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Status {
        Status::new(404, Reason::NotFound, format!("{resource} {name:?} not found")).about(resource, name)
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Status {
        Status::new(409, Reason::AlreadyExists, format!("{resource} {name:?} already exists")).about(resource, name)
    }

    /// `why` is for example "the object has been modified; please apply your changes to the latest version and try again".
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Status {
        Status::new(409, Reason::Conflict, format!("Operation cannot be fulfilled on {resource} {name:?}: {why}"))
            .about(resource, name)
    }

    /// The conflict of a write whose resourceVersion is no longer current.
    pub fn modified(resource: &GroupResource, name: &str) -> Status {
        Status::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Status {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Status::new(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 422 with one cause for each error; `errors` must not be empty.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Status {
        let joined = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(FieldError::to_string).collect::<Vec<_>>().join(", ")),
        };
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.as_str().into(), message: e.body(), field: e.field.clone() })
            .collect();
        Status {
            code: 422,
            reason: Reason::Invalid,
            message: format!("{kind} {name:?} is invalid: {joined}"),
            details: Some(Details {
                name: name.into(),
                group: kind.group.clone(),
                kind: kind.kind.clone(),
                causes,
                ..Details::default()
            }),
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, Reason::BadRequest, message)
    }

    pub fn unauthorized() -> Status {
        Status::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// A method that is not served at a path that is.
    pub fn method_not_allowed() -> Status {
        Status {
            details: Some(Details::default()),
            ..Status::new(
                405,
                Reason::MethodNotAllowed,
                "the server does not allow this method on the requested resource",
            )
        }
    }

    /// 410 for a resourceVersion or continue token that history no longer covers.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, Reason::Expired, message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Status {
        Status::new(415, Reason::UnsupportedMediaType, message)
    }

    /// A body of a type that nothing at the path takes.
    pub fn no_such_media_type() -> Status {
        Status { details: Some(Details::default()), ..Status::unsupported_media_type("415: Unsupported Media Type") }
    }

    /// An answer of a type that nothing at the path gives.
    pub fn no_representation(available: &str) -> Status {
        Status {
            details: Some(Details::default()),
            ..Status::not_acceptable(format!("406: Not Acceptable\n\nAvailable representations: {available}"))
        }
    }

    pub fn not_acceptable(message: impl Into<String>) -> Status {
        Status::new(406, Reason::NotAcceptable, message)
    }

    pub fn too_large(message: impl Into<String>) -> Status {
        Status::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {}", message.into()))
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Status {
        let mut status = Status::new(429, Reason::TooManyRequests, message);
        status.details = Some(Details { retry_after_seconds, ..Details::default() });
        status
    }

    pub fn timeout(message: impl Into<String>) -> Status {
        Status::new(504, Reason::Timeout, format!("Timeout: {}", message.into()))
    }

    /// Field errors as upstream tells them where no kind is at hand: a bare 500. `None` where there are none.
    pub fn plain(errors: &[FieldError]) -> Option<Status> {
        let message = match errors {
            [] => return None,
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(FieldError::to_string).collect::<Vec<_>>().join(", ")),
        };
        Some(Status::new(500, Reason::Unknown, message))
    }

    pub fn service_unavailable(message: impl Into<String>) -> Status {
        Status::new(503, Reason::ServiceUnavailable, message)
    }

    pub fn internal(error: impl fmt::Display) -> Status {
        let mut status = Status::new(500, Reason::InternalError, format!("Internal error occurred: {error}"));
        status.details = Some(Details {
            causes: vec![Cause { message: error.to_string(), ..Cause::default() }],
            ..Details::default()
        });
        status
    }

    /// A path that no resource is served at.
    pub fn path_not_found() -> Status {
        Status {
            details: Some(Details::default()),
            ..Status::new(404, Reason::NotFound, "the server could not find the requested resource")
        }
    }

    /// The answer to a deletion that left nothing behind.
    pub fn deleted(resource: &GroupResource, name: &str, uid: &str) -> Status {
        let details = Details {
            name: name.into(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            uid: uid.into(),
            ..Details::default()
        };
        Status { code: 200, reason: Reason::Unknown, message: String::new(), details: Some(details) }
    }

    /// Names what the failure is about.
    pub fn about(mut self, resource: &GroupResource, name: &str) -> Status {
        let details = self.details.get_or_insert_default();
        details.name = name.into();
        details.group.clone_from(&resource.group);
        details.kind.clone_from(&resource.resource);
        self
    }

    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Status {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn is_success(&self) -> bool {
        self.code < 400
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// The JSON of the `v1` `Status` object.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a status has only string keys")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.message.is_empty() { self.reason.as_str() } else { &self.message })
    }
}

impl std::error::Error for Status {}

/// Why a field was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl FieldErrorKind {
    /// The cause's reason on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorKind::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::Internal => "Internal error",
        }
    }
}

/// One refused field: `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// `spec.containers[0].name`.
    pub field: String,
    /// The value as the message shows it (JSON for strings and composites); empty where the kind shows none.
    pub shown: String,
    pub detail: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, field: impl Into<String>, shown: String, detail: impl Into<String>) -> FieldError {
        FieldError { kind, field: field.into(), shown, detail: detail.into() }
    }

    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Required, field, String::new(), detail)
    }

    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Invalid, field, value.into().shown(), detail)
    }

    pub fn type_invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::TypeInvalid, field, value.into().shown(), detail)
    }

    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::Duplicate, field, value.into().shown(), "")
    }

    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::NotFound, field, value.into().shown(), "")
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Forbidden, field, String::new(), detail)
    }

    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> FieldError {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        FieldError::new(FieldErrorKind::NotSupported, field, value.into().shown(), detail)
    }

    pub fn too_long(field: impl Into<String>, max: usize) -> FieldError {
        FieldError::new(FieldErrorKind::TooLong, field, String::new(), format!("may not be more than {max} bytes"))
    }

    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> FieldError {
        let items = if max == 1 { "item" } else { "items" };
        FieldError::new(FieldErrorKind::TooMany, field, actual.to_string(), format!("must have at most {max} {items}"))
    }

    /// The message without the field's path, as it stands in a cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if !self.shown.is_empty() {
            text = format!("{text}: {}", self.shown);
        }
        if !self.detail.is_empty() {
            text = format!("{text}: {}", self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    kind: String,
    api_version: String,
    metadata: serde_json::Map<String, serde_json::Value>,
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "is_ok")]
    code: u16,
}

impl From<Status> for Wire {
    fn from(status: Status) -> Wire {
        Wire {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: Default::default(),
            status: if status.is_success() { "Success" } else { "Failure" }.into(),
            message: status.message,
            reason: status.reason.as_str().into(),
            details: status.details,
            code: status.code,
        }
    }
}

impl From<Wire> for Status {
    fn from(wire: Wire) -> Status {
        let code = match (wire.code, wire.status.as_str()) {
            (0, "Success") => 200,
            (0, _) => 500,
            (code, _) => code,
        };
        Status { code, reason: Reason::parse(&wire.reason), message: wire.message, details: wire.details }
    }
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A plain success says no code.
fn is_ok(code: &u16) -> bool {
    matches!(code, 0 | 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(Status::not_found(&deployments, "web").message, "deployments.apps \"web\" not found");
        let kind = GroupKind { group: "apps".into(), kind: "Deployment".into() };
        let errors = [
            FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0"),
            FieldError::required("spec.selector", ""),
        ];
        assert_eq!(
            Status::invalid(&kind, "web", &errors).message,
            "Deployment.apps \"web\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, \
             spec.selector: Required value]"
        );
        let unsupported = FieldError::not_supported("spec.type", "X", &["A", "B"]);
        assert_eq!(unsupported.to_string(), "spec.type: Unsupported value: \"X\": supported values: \"A\", \"B\"");
    }

    #[test]
    fn a_status_goes_round_the_wire() {
        let status = Status::conflict(&GroupResource::new("", "pods"), "a", "why");
        let back: Status = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(back, status);
        assert!(String::from_utf8(status.to_json()).unwrap().contains("\"status\":\"Failure\""));
    }
}
