//! The binary form of objects: protobuf messages in upstream's envelope, transcoded by the field numbers of the type table.
//!
//! Decoding gives the same canonical [`Value`] that [`apimachinery::schema::Type::decode`] gives. Unknown field numbers are
//! skipped, as Go does. Upstream: apimachinery pkg/runtime/serializer/protobuf.

mod decode;
mod encode;
pub(crate) mod wire;

use apimachinery::schema::Type;
use apimachinery::{GroupVersion, Value};

use crate::kinds;

/// What every body starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// A decoded body.
#[derive(Debug)]
pub struct Message {
    /// As the envelope says; both may be empty.
    pub api_version: String,
    pub kind: String,
    /// With `apiVersion` and `kind`, in canonical form.
    pub value: Value,
}

/// What stands for a schema where something shorter may stand too. Upstream: apiextensions JSONSchemaPropsOr*.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Union {
    Array,
    Bool,
    Strings,
}

impl Union {
    const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

    fn of(ty: Type<'_>) -> Option<Union> {
        match ty.name().strip_prefix(Union::SCHEMA)? {
            "OrArray" => Some(Union::Array),
            "OrBool" => Some(Union::Bool),
            "OrStringArray" => Some(Union::Strings),
            _ => None,
        }
    }
}

/// Why bytes are no message of a type, or a value can't be made one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("unexpected end of message")]
    Truncated,
    #[error("varint is longer than 64 bits")]
    Varint,
    #[error("illegal tag or wire type {0}")]
    WireType(u64),
    #[error("wrong wire type for field {field} of {ty}")]
    FieldType { ty: String, field: String },
    #[error("string is not UTF-8")]
    Utf8,
    #[error("exceeded max depth")]
    Depth,
    #[error("too many messages in one body")]
    TooMany,
    #[error("{0}")]
    Scalar(String),
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("object {0} has no protobuf form")]
    NoMessage(String),
    #[error("content encoding {0:?} is not supported")]
    Encoding(String),
    #[error("value of type {ty} expected at {field}")]
    Shape { ty: &'static str, field: String },
}

/// Decodes an enveloped body by the kind that its envelope names; `fallback` is taken where it names none.
pub fn decode(bytes: &[u8], fallback: Option<(&str, &str)>) -> Result<Message, ProtobufError> {
    let mut envelope = Envelope::read(bytes)?;
    if envelope.kind.is_empty()
        && let Some((api_version, kind)) = fallback
    {
        (envelope.api_version, envelope.kind) = (api_version.to_owned(), kind.to_owned());
    }
    let Envelope { api_version, kind, raw, .. } = envelope;
    let ty = type_of(&api_version, &kind)?;
    let value = decode::message(ty, raw, &api_version, &kind)?;
    Ok(Message { api_version, kind, value })
}

/// Decodes an enveloped body as a message of `ty`, whatever kind its envelope names.
pub fn decode_as(ty: Type<'static>, bytes: &[u8]) -> Result<Message, ProtobufError> {
    let Envelope { api_version, kind, raw, .. } = Envelope::read(bytes)?;
    let value = decode::message(ty, raw, &api_version, &kind)?;
    Ok(Message { api_version, kind, value })
}

/// Encodes an object, with its envelope, by its own `apiVersion` and `kind`.
pub fn encode(value: &Value) -> Result<Vec<u8>, ProtobufError> {
    let api_version = value.str_at(&["apiVersion"]).unwrap_or_default();
    let kind = value.str_at(&["kind"]).unwrap_or_default();
    encode_as(type_of(api_version, kind)?, value)
}

/// Encodes an object of `ty`, with its envelope.
pub fn encode_as(ty: Type<'static>, value: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = MAGIC.to_vec();
    wire::put_message(&mut out, 1, |out| {
        for (tag, key) in [(1, "apiVersion"), (2, "kind")] {
            wire::put_bytes(out, tag, value.str_at(&[key]).unwrap_or_default().as_bytes());
        }
        Ok(())
    })?;
    wire::put_message(&mut out, 2, |out| encode::message(ty, value, out))?;
    wire::put_bytes(&mut out, 3, b"");
    wire::put_bytes(&mut out, 4, b"");
    Ok(out)
}

/// Upstream: runtime.Unknown.
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
}

impl Envelope<'_> {
    fn read(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(ProtobufError::NoMagic)?;
        let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
        while let Some((tag, value)) = wire::next(&mut rest)? {
            match (tag, value) {
                (1, wire::Value::Bytes(mut meta)) => {
                    while let Some((tag, value)) = wire::next(&mut meta)? {
                        match (tag, value) {
                            (1, wire::Value::Bytes(text)) => envelope.api_version = wire::text(text)?.to_owned(),
                            (2, wire::Value::Bytes(text)) => envelope.kind = wire::text(text)?.to_owned(),
                            _ => {}
                        }
                    }
                }
                (2, wire::Value::Bytes(raw)) => envelope.raw = raw,
                (3, wire::Value::Bytes(encoding)) if !encoding.is_empty() => {
                    return Err(ProtobufError::Encoding(wire::text(encoding)?.to_owned()));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// Options and Status are the same in every group, so also in those of custom kinds.
fn type_of(api_version: &str, kind: &str) -> Result<Type<'static>, ProtobufError> {
    let unknown = || ProtobufError::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let gv: GroupVersion = api_version.parse().map_err(|_| unknown())?;
    kinds::type_of(&gv.group, &gv.version, kind)
        .or_else(|| kinds::type_of("meta.k8s.io", "v1", kind))
        .ok_or_else(unknown)
}
