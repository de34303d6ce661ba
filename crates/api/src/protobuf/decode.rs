//! From messages to values.

use apimachinery::schema::{Field, Shape, Type};
use apimachinery::{Key, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Envelope, MAGIC, ProtobufError, Union, wire};
use crate::tables::{self, INLINE};

const MAX_DEPTH: usize = 100;
/// An empty message costs two bytes on the wire and some hundred in memory.
const MAX_MESSAGES: usize = 250_000;

/// A whole object, with `apiVersion` and `kind`, which messages don't hold.
pub(super) fn message(ty: Type<'static>, bytes: &[u8], api_version: &str, kind: &str) -> Result<Value, ProtobufError> {
    let mut decoder = Decoder { depth: 0, messages: 0 };
    let mut value = decoder.object(ty, bytes)?;
    for (key, text) in [("apiVersion", api_version), ("kind", kind)] {
        if !text.is_empty() && ty.field(key).is_some() {
            value.set(&[key], text);
        }
    }
    Ok(value)
}

struct Decoder {
    depth: usize,
    messages: usize,
}

/// Values found so far, by field index.
type Slots = Vec<(usize, Value)>;

impl Decoder {
    fn object(&mut self, ty: Type<'static>, bytes: &[u8]) -> Result<Value, ProtobufError> {
        if tables::wires(ty).is_empty() && !ty.fields().is_empty() {
            return Err(ProtobufError::NoMessage(ty.name().to_owned()));
        }
        self.enter()?;
        let mut slots = Slots::new();
        self.fields(ty, ty, bytes, &mut slots)?;
        self.depth -= 1;
        slots.sort_by_key(|(index, _)| *index);
        Ok(Value::Object(ty.complete(slots, Vec::new())))
    }

    fn enter(&mut self) -> Result<(), ProtobufError> {
        self.depth += 1;
        self.messages += 1;
        match () {
            () if self.depth > MAX_DEPTH => Err(ProtobufError::Depth),
            () if self.messages > MAX_MESSAGES => Err(ProtobufError::TooMany),
            () => Ok(()),
        }
    }

    /// Reads a message of type `ty` whose fields are also fields of `outer`, into the slots of `outer`.
    fn fields(
        &mut self,
        ty: Type<'static>,
        outer: Type<'static>,
        mut bytes: &[u8],
        slots: &mut Slots,
    ) -> Result<(), ProtobufError> {
        let entries = tables::wires(ty);
        while let Some((tag, found)) = wire::next(&mut bytes)? {
            let Ok(at) = entries.binary_search_by_key(&tag, |entry| u32::from(entry.tag)) else { continue };
            let entry = &entries[at];
            if entry.field == INLINE {
                let wire::Value::Bytes(inner) = found else {
                    return Err(ProtobufError::Shape { ty: "message", field: ty.name().to_owned() });
                };
                self.enter()?;
                self.fields(ty.schema().at(entry.inline), outer, inner, slots)?;
                self.depth -= 1;
                continue;
            }
            let field = &ty.fields()[usize::from(entry.field)];
            let index = match ty.id() == outer.id() {
                true => usize::from(entry.field),
                // Inlined fields have the names they have outside.
                false => outer.fields().iter().position(|known| known.name == field.name).unwrap_or(usize::MAX),
            };
            let slot = match slots.iter().rposition(|(known, _)| *known == index) {
                Some(at) => &mut slots[at].1,
                None => {
                    slots.push((index, Value::Null));
                    &mut slots.last_mut().expect("one was pushed").1
                }
            };
            self.field(ty, field, found, slot)?;
        }
        Ok(())
    }

    /// Adds what was found for a field to what is there of it.
    fn field(
        &mut self,
        owner: Type<'static>,
        field: &Field,
        found: wire::Value<'_>,
        slot: &mut Value,
    ) -> Result<(), ProtobufError> {
        let ty = owner.of(field);
        let wrong = || ProtobufError::FieldType { ty: owner.name().to_owned(), field: field.name.to_string() };
        match ty.shape() {
            Shape::Array { item, .. } if ty.name().is_empty() => {
                let item = ty.schema().at(*item);
                if !matches!(slot, Value::Array(_)) {
                    *slot = Value::Array(Vec::new());
                }
                let Value::Array(items) = slot else { return Err(wrong()) };
                if let (wire::Value::Bytes(mut packed), Shape::Integer { .. }) = (found, item.shape()) {
                    while !packed.is_empty() {
                        let number = wire::Value::Varint(wire::varint(&mut packed)?);
                        items.push(self.value(item, number)?.ok_or_else(wrong)?);
                    }
                } else {
                    let value = self.value(item, found)?.ok_or_else(wrong)?;
                    items.push(if value.is_null() { item.zero() } else { value });
                }
            }
            Shape::Map { value, .. } => {
                let wire::Value::Bytes(entry) = found else { return Err(wrong()) };
                let (key, value) = self.entry(ty.schema().at(*value), entry)?.ok_or_else(wrong)?;
                slot.make_object().insert(Key::Owned(key), value);
            }
            _ => *slot = self.value(ty, found)?.ok_or_else(wrong)?,
        }
        Ok(())
    }

    fn entry(&mut self, ty: Type<'static>, mut bytes: &[u8]) -> Result<Option<(String, Value)>, ProtobufError> {
        let (mut key, mut value) = (String::new(), Value::Null);
        while let Some((tag, found)) = wire::next(&mut bytes)? {
            match (tag, found) {
                (1, wire::Value::Bytes(text)) => key = wire::text(text)?.to_owned(),
                (2, found) => match self.value(ty, found)? {
                    Some(found) => value = found,
                    None => return Ok(None),
                },
                _ => {}
            }
        }
        if value.is_null() {
            value = ty.zero();
        }
        Ok(Some((key, value)))
    }

    /// One value; `None` if the wire type doesn't suit the shape.
    fn value(&mut self, ty: Type<'static>, found: wire::Value<'_>) -> Result<Option<Value>, ProtobufError> {
        Ok(Some(match (ty.shape(), found) {
            (Shape::String { .. }, wire::Value::Bytes(text)) => Value::from(wire::text(text)?),
            (Shape::Bytes, wire::Value::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
            (Shape::Boolean, wire::Value::Varint(flag)) => Value::Bool(flag != 0),
            (Shape::Integer { bits: 32 }, wire::Value::Varint(n)) => Value::from(n as i32),
            (Shape::Integer { .. }, wire::Value::Varint(n)) => Value::from(n as i64),
            (Shape::Number, wire::Value::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
            (Shape::Object { .. }, wire::Value::Bytes(bytes)) => self.object(ty, bytes)?,
            (Shape::Array { item, .. }, wire::Value::Bytes(bytes)) => self.items(ty.schema().at(*item), bytes)?,
            (Shape::Quantity, wire::Value::Bytes(bytes)) => quantity(bytes)?,
            (Shape::IntOrString, wire::Value::Bytes(bytes)) => int_or_string(bytes)?,
            (Shape::Time, wire::Value::Bytes(bytes)) => time(bytes, false)?,
            (Shape::MicroTime, wire::Value::Bytes(bytes)) => time(bytes, true)?,
            (Shape::Raw, wire::Value::Bytes(bytes)) => match Union::of(ty) {
                Some(union) => self.union(union, bytes)?,
                None => self.raw(bytes)?,
            },
            _ => return Ok(None),
        }))
    }

    /// A list with a message of its own.
    fn items(&mut self, item: Type<'static>, mut bytes: &[u8]) -> Result<Value, ProtobufError> {
        let mut items = Vec::new();
        while let Some((tag, found)) = wire::next(&mut bytes)? {
            if tag == 1
                && let Some(value) = self.value(item, found)?
            {
                items.push(value);
            }
        }
        Ok(Value::Array(items))
    }

    /// A schema, or something shorter that stands for one.
    fn union(&mut self, union: Union, mut bytes: &[u8]) -> Result<Value, ProtobufError> {
        let schema = tables::type_named(Union::SCHEMA).ok_or(ProtobufError::Depth)?;
        let (mut allows, mut whole, mut items) = (false, None, Vec::new());
        while let Some((tag, found)) = wire::next(&mut bytes)? {
            match (union, tag, found) {
                (Union::Bool, 1, wire::Value::Varint(flag)) => allows = flag != 0,
                (Union::Bool, 2, wire::Value::Bytes(found)) => whole = Some(self.object(schema, found)?),
                (Union::Array | Union::Strings, 1, wire::Value::Bytes(found)) => {
                    whole = Some(self.object(schema, found)?);
                }
                (Union::Array, 2, wire::Value::Bytes(found)) => items.push(self.object(schema, found)?),
                (Union::Strings, 2, wire::Value::Bytes(found)) => items.push(Value::from(wire::text(found)?)),
                _ => {}
            }
        }
        Ok(match (union, whole) {
            (Union::Bool, None) => Value::Bool(allows),
            (Union::Bool, Some(whole)) => whole,
            (_, Some(whole)) if items.is_empty() => whole,
            _ => Value::Array(items),
        })
    }

    /// JSON, or an enveloped object, within an object.
    fn raw(&mut self, mut bytes: &[u8]) -> Result<Value, ProtobufError> {
        let mut raw: &[u8] = &[];
        while let Some((tag, found)) = wire::next(&mut bytes)? {
            if let (1, wire::Value::Bytes(found)) = (tag, found) {
                raw = found;
            }
        }
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if !raw.starts_with(&MAGIC) {
            return Value::parse(raw).map_err(|error| ProtobufError::Scalar(error.message));
        }
        let Envelope { api_version, kind, raw } = Envelope::read(raw)?;
        let ty = super::type_of(&api_version, &kind)?;
        self.enter()?;
        let mut value = self.object(ty, raw)?;
        self.depth -= 1;
        value.set(&["apiVersion"], api_version);
        value.set(&["kind"], kind);
        Ok(value)
    }
}

fn quantity(mut bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut text = "";
    while let Some((tag, found)) = wire::next(&mut bytes)? {
        if let (1, wire::Value::Bytes(found)) = (tag, found) {
            text = wire::text(found)?;
        }
    }
    if text.is_empty() {
        return Ok(Value::from("0"));
    }
    let quantity: apimachinery::Quantity =
        text.parse().map_err(|error: apimachinery::QuantityError| ProtobufError::Scalar(error.to_string()))?;
    Ok(Value::String(quantity.to_string()))
}

fn int_or_string(mut bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    while let Some((tag, found)) = wire::next(&mut bytes)? {
        match (tag, found) {
            (1, wire::Value::Varint(kind)) => is_text = kind == 1,
            (2, wire::Value::Varint(n)) => number = n as i32,
            (3, wire::Value::Bytes(found)) => text = wire::text(found)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::from(text) } else { Value::from(number) })
}

/// Seconds and nanoseconds; null where there are none.
fn time(mut bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    while let Some((tag, found)) = wire::next(&mut bytes)? {
        match (tag, found) {
            (1, wire::Value::Varint(n)) => seconds = n as i64,
            (2, wire::Value::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    let nanos = if micro { nanos - nanos % 1000 } else { 0 };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| ProtobufError::Scalar(error.to_string()))?;
    Ok(Value::String(if micro { format!("{time:.6}") } else { time.to_string() }))
}
