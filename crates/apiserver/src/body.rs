//! Request bodies: from bytes of some media type to a checked [`Value`] of an expected kind.

mod json_error;

use std::borrow::Cow;

use apimachinery::schema::{self, DecodeError, StrictError, Type};
use apimachinery::{FieldError, GroupKind, Status, Value};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memmem;
use serde::Deserialize;

use crate::registry::{FieldValidation, PatchKind};

pub(crate) use json_error::json_error;

/// The largest body that is read. Upstream: MaxRequestBodyBytes.
pub(crate) const MAX_BYTES: usize = 3 * 1024 * 1024;

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What kind of object a body should hold.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub schema: Type<'a>,
}

/// A decoded body and what its author should be warned of.
pub(crate) struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    /// From `Content-Type`; JSON when there is none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Media, Status> {
        match content_type(headers).as_str() {
            "" if !headers.contains_key(CONTENT_TYPE) => Ok(Media::Json),
            "application/json" => Ok(Media::Json),
            "application/yaml" => Ok(Media::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Media::Protobuf),
            _ => Err(Status::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: {ACCEPTED}"
            ))),
        }
    }
}

/// The media type of the body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Decodes the object a write brings. The value is canonical, with `apiVersion` and `kind`.
pub(crate) fn decode(
    headers: &HeaderMap,
    body: &Bytes,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let Some(text) = json_text(headers, body, expected)? else { return decode_protobuf(body, expected) };
    let decoded = expected.schema.decode(&text);
    let head = Head::of(&decoded, &text).map_err(|why| expected.unrecognized(&why, body))?;
    expected.check(&head)?;
    let cannot = |why: String| expected.cannot_handle(&head, &why);
    let decoded = decoded.map_err(|error| cannot(error.to_string()))?;
    let mut warnings = Vec::new();
    let problems: Vec<String> = decoded.problems.iter().map(ToString::to_string).collect();
    match validation {
        _ if problems.is_empty() => {}
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings = problems,
        FieldValidation::Strict => return Err(cannot(format!("strict decoding error: {}", problems.join(", ")))),
    }
    let mut value = decoded.value;
    expected.stamp(&mut value);
    Ok(Decoded { value, warnings })
}

/// Decodes a custom resource. `form` brings it into its form and names the fields it lost.
pub(crate) fn decode_custom(
    headers: &HeaderMap,
    body: &Bytes,
    expected: Expected<'_>,
    validation: FieldValidation,
    form: impl FnOnce(&mut Value) -> Vec<StrictError>,
) -> Result<Decoded, Status> {
    let Some(text) = json_text(headers, body, expected)? else {
        return Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml",
        ));
    };
    let head = Head::read(&text).map_err(|why| expected.unrecognized(&why, body))?;
    if head.kind.is_empty() {
        let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(&text));
        return Err(expected.unrecognized(&why, body));
    }
    if head.api_version != expected.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            head.api_version,
            expected.api_version()
        )));
    }
    let parsed = Value::parse_strict(&text);
    let (mut value, duplicates) = parsed.map_err(|error| expected.cannot_handle(&head, &error.message))?;
    if head.kind != expected.kind {
        let name = value.str_at(&["metadata", "name"]).unwrap_or_default();
        let error = FieldError::invalid("kind", head.kind.as_str(), format!("must be {}", expected.kind));
        let kind = GroupKind { group: expected.group.to_owned(), kind: expected.kind.to_owned() };
        return Err(Status::invalid(&kind, name, &[error]));
    }
    if let Some(why) = crate::extension::metadata_error(&value) {
        return Err(expected.cannot_handle(&head, &why));
    }
    expected.stamp(&mut value);
    let duplicates = duplicates.into_iter().map(StrictError::Duplicate);
    let problems: Vec<String> = duplicates.chain(form(&mut value)).map(|problem| problem.to_string()).collect();
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            Err(expected.cannot_handle(&head, &format!("strict decoding error: {}", problems.join(", "))))
        }
        FieldValidation::Warn => Ok(Decoded { value, warnings: problems }),
        _ => Ok(Decoded { value, warnings: Vec::new() }),
    }
}

/// Reads a body of any kind of options (`DeleteOptions`), which clients send under many API versions.
pub(crate) fn decode_options(headers: &HeaderMap, body: &Bytes, kind: &str) -> Result<Value, Status> {
    let schema = api::type_of("meta.k8s.io", "v1", kind).ok_or_else(|| Status::internal("no such options"))?;
    let expected = Expected { group: "", version: "v1", kind, schema };
    let Some(text) = json_text(headers, body, expected)? else {
        let message = api::protobuf::decode_as(schema, body);
        return Ok(message.map_err(|error| expected.unrecognized(&error.to_string(), body))?.value);
    };
    let decoded = schema.decode(&text);
    let head = Head::of(&decoded, &text).map_err(Status::bad_request)?;
    if !head.kind.is_empty() && head.kind != kind {
        return Err(Status::bad_request(not_registered(&head)));
    }
    let decoded = decoded.map_err(|error| expected.cannot_handle(&head, &error.to_string()))?;
    Ok(decoded.value)
}

/// Reads a patch, which has no schema of its own.
pub(crate) fn decode_patch(kind: PatchKind, body: &Bytes) -> Result<Value, Status> {
    Value::parse(body).map_err(|error| {
        let why = json_error(body).unwrap_or_else(|| error.to_string());
        Status::bad_request(if kind == PatchKind::Strategic { why } else { format!("error decoding patch: {why}") })
    })
}

/// Reads the configuration of a server-side apply, which has a schema only once it is known what it is.
pub(crate) fn decode_config(body: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
    let failed = |why: String| Status::bad_request(format!("error decoding YAML: {why}"));
    let value: serde_json::Value = serde_yaml_ng::from_slice(body)
        .map_err(|error| failed(format!("error converting YAML to JSON: {}", yaml_error(&error))))?;
    let value = Value::parse(value.to_string().as_bytes()).map_err(|error| failed(error.to_string()))?;
    let value = match value {
        Value::Null => Value::object(),
        Value::Object(_) => value,
        other => {
            let what = other.type_name();
            let why = format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}");
            return Err(failed(format!("error unmarshaling JSON: while decoding JSON: {why}")));
        }
    };
    let twice = match validation {
        FieldValidation::Ignore => None,
        _ => duplicate(body),
    };
    match (validation, twice) {
        (FieldValidation::Strict, Some(why)) => Err(Status::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {why}"
        ))),
        (_, twice) => Ok(Decoded { value, warnings: twice.into_iter().collect() }),
    }
}

/// The first key that a YAML text has twice in one map: `line 7: key "k" already set in map`.
fn duplicate(body: &[u8]) -> Option<String> {
    let strict: Result<serde_yaml_ng::Value, _> = serde_yaml_ng::from_slice(body);
    let error = strict.err()?;
    let begins = error.location().map_or(1, |location| location.line());
    let text = error.to_string();
    let key = text.split("entry with key ").nth(1)?.trim_end_matches(|c: char| c != '"');
    let bare = key.trim_matches('"');
    // The lexer tells where the map begins.
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = std::str::from_utf8(body).ok()?.lines().collect();
    let depth = indent(lines.get(begins - 1)?);
    let is_key = |line: &str| {
        let rest = line.trim_start().strip_prefix(key).or_else(|| line.trim_start().strip_prefix(bare));
        indent(line) == depth && rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    let mut found = lines.iter().enumerate().skip(begins - 1).filter(|(_, line)| is_key(line));
    let line = found.nth(1).map_or(begins, |(index, _)| index + 1);
    Some(format!("line {line}: key {key} already set in map"))
}

/// Whether a body says `managedFields: []`, which asks to forget all managers.
pub(crate) fn forgets_managers(headers: &HeaderMap, body: &[u8]) -> bool {
    if memmem::find(body, b"managedFields").is_none() {
        return false;
    }
    let value = match Media::of(headers) {
        Ok(Media::Json) => serde_json::from_slice::<serde_json::Value>(body).ok(),
        Ok(Media::Yaml) => serde_yaml_ng::from_slice(body).ok(),
        _ => None,
    };
    value.is_some_and(|value| value["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty))
}

fn decode_protobuf(body: &Bytes, expected: Expected<'_>) -> Result<Decoded, Status> {
    let fallback = expected.api_version();
    let message = api::protobuf::decode(body, Some((&fallback, expected.kind)))
        .map_err(|error| expected.unrecognized(&error.to_string(), body))?;
    expected.check(&Head { api_version: message.api_version, kind: message.kind })?;
    let mut value = message.value;
    expected.stamp(&mut value);
    Ok(Decoded { value, warnings: Vec::new() })
}

/// The body as JSON; `None` when it is protobuf.
fn json_text<'a>(
    headers: &HeaderMap,
    body: &'a Bytes,
    expected: Expected<'_>,
) -> Result<Option<Cow<'a, [u8]>>, Status> {
    match Media::of(headers)? {
        Media::Json => Ok(Some(Cow::Borrowed(body))),
        Media::Yaml => {
            let value: serde_json::Value =
                serde_yaml_ng::from_slice(body).map_err(|error| expected.unrecognized(&yaml_error(&error), body))?;
            Ok(Some(Cow::Owned(value.to_string().into_bytes())))
        }
        Media::Protobuf => Ok(None),
    }
}

/// In upstream's words: the line before the problem.
fn yaml_error(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(location) => {
            let problem = text.split(" at line ").next().unwrap_or(&text);
            // Its parser counts lines from 0, its scanner from 1.
            match location.line() - usize::from(problem.starts_with("did not find expected")) {
                0 => format!("yaml: {problem}"),
                line => format!("yaml: line {line}: {problem}"),
            }
        }
        None => format!("yaml: {text}"),
    }
}

/// What a document says it is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    api_version: String,
    kind: String,
}

impl Head {
    /// What was decoded without any problem need not be read again.
    fn of(decoded: &Result<schema::Decoded, DecodeError>, json: &[u8]) -> Result<Head, String> {
        match decoded {
            Ok(decoded) if decoded.problems.is_empty() => {
                let text = |key: &str| decoded.value.str_at(&[key]).unwrap_or_default().to_owned();
                Ok(Head { api_version: text("apiVersion"), kind: text("kind") })
            }
            _ => Head::read(json),
        }
    }

    /// Fails with what is wrong with the document.
    fn read(json: &[u8]) -> Result<Head, String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Lenient {
            api_version: Option<serde_json::Value>,
            kind: Option<serde_json::Value>,
        }
        let failed = |why: String| format!("couldn't get version/kind; json parse error: {why}");
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(failed(json_error(json).unwrap_or_else(|| no_object(json))));
        }
        match serde_json::from_slice::<Lenient>(json) {
            Ok(lenient) => {
                let text = |value: Option<serde_json::Value>, name: &str| match value {
                    None | Some(serde_json::Value::Null) => Ok(String::new()),
                    Some(serde_json::Value::String(text)) => Ok(text),
                    Some(_) => {
                        Err(failed(format!("json: cannot unmarshal into Go struct field .{name} of type string")))
                    }
                };
                Ok(Head { api_version: text(lenient.api_version, "apiVersion")?, kind: text(lenient.kind, "kind")? })
            }
            // A duplicate `kind` is for the strict check to name.
            Err(error) if error.is_data() && error.to_string().starts_with("duplicate field") => Ok(Head::default()),
            Err(error) => Err(failed(json_error(json).unwrap_or_else(|| error.to_string()))),
        }
    }
}

/// What is wrong with a document that is JSON and no object.
fn no_object(json: &[u8]) -> String {
    let what = match json.trim_ascii_start().first() {
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "number",
    };
    let target =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    format!("json: cannot unmarshal {what} into Go value of type {target}")
}

/// Versions that are no longer served, and that upstream still knows the kinds of.
const OLD_VERSIONS: [&str; 9] = [
    "apps/v1beta1",
    "apps/v1beta2",
    "autoscaling/v2beta1",
    "autoscaling/v2beta2",
    "batch/v1beta1",
    "extensions/v1beta1",
    "networking.k8s.io/v1beta1",
    "policy/v1beta1",
    "rbac.authorization.k8s.io/v1beta1",
];

fn not_registered(head: &Head) -> String {
    let Head { api_version, kind } = head;
    format!("no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/runtime/scheme.go:111\"")
}

/// What upstream calls the package of a group's own types, which some messages name.
pub(crate) fn internal_package(group: &str) -> &str {
    match group {
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}

impl Expected<'_> {
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn check(&self, head: &Head) -> Result<(), Status> {
        let wanted = self.api_version();
        if !head.kind.is_empty() && head.kind != self.kind {
            let (group, version) = head.api_version.rsplit_once('/').unwrap_or(("", &head.api_version));
            if api::kind(group, version, &head.kind).is_none() {
                return Err(self.cannot_handle(head, &not_registered(head)));
            }
            let why = format!(
                "converting ({version}.{}) to ({}.{}): unknown conversion",
                head.kind,
                internal_package(self.group),
                self.kind
            );
            return Err(self.cannot_handle(head, &why));
        }
        if !head.api_version.is_empty() && head.api_version != wanted {
            let (group, version) = head.api_version.rsplit_once('/').unwrap_or(("", &head.api_version));
            if api::kind(group, version, self.kind).is_none() && !OLD_VERSIONS.contains(&&*head.api_version) {
                return Err(self.cannot_handle(head, &not_registered(head)));
            }
            return Err(Status::bad_request(format!(
                "the API version in the data ({}) does not match the expected API version ({wanted})",
                head.api_version
            )));
        }
        Ok(())
    }

    fn stamp(&self, value: &mut Value) {
        value.set(&["apiVersion"], self.api_version());
        value.set(&["kind"], self.kind);
        if value.get("metadata").is_none() {
            value.set(&["metadata"], Value::object());
        }
    }

    fn cannot_handle(&self, head: &Head, why: &str) -> Status {
        let kind = if head.kind.is_empty() { self.kind } else { &head.kind };
        let version = match head.api_version.rsplit_once('/') {
            Some((_, version)) => version,
            None if head.api_version.is_empty() => self.version,
            None => &head.api_version,
        };
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", self.kind))
    }

    fn unrecognized(&self, why: &str, body: &[u8]) -> Status {
        if body.is_empty() {
            return Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {why} (<empty>)",
                self.kind
            ));
        }
        let printable = body.starts_with(b"{");
        let shown = &body[..body.len().min(30)];
        let more = if body.len() > 30 { " ..." } else { "" };
        let summary = match printable {
            true => format!("{}{more}", String::from_utf8_lossy(shown)),
            false => format!("{}{more}", shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        };
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({summary})",
            self.kind
        ))
    }
}
