//! The canonical form in place: most of what was patched is as canonical as it was.

use super::complete::is_empty;
use super::decode::{MAX_DEPTH, MAX_ENTERED};
use super::{Presence, Shape, Type, scalar};
use crate::quantity::Quantity;
use crate::value::{Map, Number, Value};

/// There is something that the visitors must see, as they know how to say it: an unknown field, a value of another type, too much
/// of everything. The value may be canonical in part by then.
pub(super) struct Unsettled;

/// Lists and objects so far.
#[derive(Default)]
pub(super) struct Entered(usize);

impl Entered {
    fn enter(&mut self, depth: usize) -> Result<(), Unsettled> {
        self.0 += 1;
        if depth >= MAX_DEPTH || self.0 > MAX_ENTERED { Err(Unsettled) } else { Ok(()) }
    }
}

impl Type<'_> {
    /// Brings `value` into its canonical form: what decoding its JSON would make of it.
    pub(super) fn settle(self, value: &mut Value, depth: usize, entered: &mut Entered) -> Result<(), Unsettled> {
        match (self.shape(), value) {
            (Shape::Raw, value) => settle_raw(value, depth, entered),
            (_, Value::Null) | (Shape::Boolean, Value::Bool(_)) => Ok(()),
            (Shape::String { .. } | Shape::IntOrString, Value::String(_)) => Ok(()),
            (Shape::Integer { bits: 32 } | Shape::IntOrString, Value::Number(Number::Int(n))) => {
                i32::try_from(*n).map(drop).map_err(|_| Unsettled)
            }
            (Shape::Integer { .. } | Shape::Number, Value::Number(Number::Int(_))) => Ok(()),
            (Shape::Object { .. }, Value::Object(map)) => {
                entered.enter(depth)?;
                self.settle_object(map, depth, entered)
            }
            (Shape::Map { value: ty, .. }, Value::Object(map)) => {
                entered.enter(depth)?;
                let ty = self.schema.at(*ty);
                map.iter_mut().try_for_each(|(_, value)| ty.settle_member(value, depth, entered))
            }
            (Shape::Array { item, .. }, Value::Array(items)) => {
                entered.enter(depth)?;
                let ty = self.schema.at(*item);
                items.iter_mut().try_for_each(|item| ty.settle_member(item, depth, entered))
            }
            (Shape::Quantity | Shape::Time | Shape::MicroTime | Shape::Bytes, value) => self.settle_text(value),
            _ => Err(Unsettled),
        }
    }

    /// A value of a map or an item of a list: null is its zero.
    fn settle_member(self, value: &mut Value, depth: usize, entered: &mut Entered) -> Result<(), Unsettled> {
        self.settle(value, depth + 1, entered)?;
        if value.is_null() && !self.node().nullable {
            *value = self.zero();
        }
        Ok(())
    }

    fn settle_object(self, map: &mut Map, depth: usize, entered: &mut Entered) -> Result<(), Unsettled> {
        // Fields and members are sorted by name: one walk over both.
        let mut fields = self.fields().iter().peekable();
        let mut absent = Vec::new();
        let mut settled = Ok(());
        let keeps = self.preserves_unknown();
        let mut settle = |name: &str, value: &mut Value| -> Result<bool, Unsettled> {
            while let Some(field) = fields.next_if(|field| *field.name < *name) {
                absent.extend(is_always_there(field.presence).then_some(field));
            }
            let Some(field) = fields.next_if(|field| *field.name == *name) else {
                return if keeps { settle_raw(value, depth + 1, entered).map(|()| true) } else { Err(Unsettled) };
            };
            let ty = self.of(field);
            ty.settle(value, depth + 1, entered)?;
            if value.is_null() && !ty.node().nullable {
                if field.presence == Presence::Always {
                    *value = ty.zero();
                }
                return Ok(is_always_there(field.presence));
            }
            Ok(match field.presence {
                Presence::NonEmpty => !is_empty(value),
                Presence::NonZero => *value != ty.zero(),
                Presence::Given | Presence::Always | Presence::AlwaysNull => true,
            })
        };
        map.retain(|name, value| {
            settled.is_err()
                || settle(name, value).unwrap_or_else(|unsettled| {
                    settled = Err(unsettled);
                    true
                })
        });
        settled?;
        absent.extend(fields.filter(|field| is_always_there(field.presence)));
        for field in absent {
            let value = if field.presence == Presence::Always { self.of(field).zero() } else { Value::Null };
            map.insert(field.name.clone(), value);
        }
        Ok(())
    }

    /// Scalars with a form of their own.
    fn settle_text(self, value: &mut Value) -> Result<(), Unsettled> {
        let Value::String(text) = value else { return Err(Unsettled) };
        let canonical = match self.shape() {
            Shape::Time if text.is_empty() => {
                *value = Value::Null;
                return Ok(());
            }
            Shape::Time if scalar::is_time(text) => return Ok(()),
            Shape::MicroTime if scalar::is_micro_time(text) => return Ok(()),
            Shape::Time => scalar::time(text),
            Shape::MicroTime => scalar::micro_time(text),
            Shape::Bytes => scalar::base64(text),
            _ => {
                text.trim().parse::<Quantity>().map(|quantity| quantity.to_string()).map_err(|error| error.to_string())
            }
        };
        let canonical = canonical.map_err(|_| Unsettled)?;
        match canonical.starts_with(scalar::ZERO_TIME) {
            true => *value = Value::Null,
            false => *text = canonical,
        }
        Ok(())
    }
}

/// Whether Go writes the field even where nothing was given.
fn is_always_there(presence: Presence) -> bool {
    matches!(presence, Presence::Always | Presence::AlwaysNull)
}

/// Any JSON stays as it is, if it isn't too deep.
fn settle_raw(value: &Value, depth: usize, entered: &mut Entered) -> Result<(), Unsettled> {
    match value {
        Value::Object(map) => {
            entered.enter(depth)?;
            map.iter().try_for_each(|(_, member)| settle_raw(member, depth + 1, entered))
        }
        Value::Array(items) => {
            entered.enter(depth)?;
            items.iter().try_for_each(|item| settle_raw(item, depth + 1, entered))
        }
        _ => Ok(()),
    }
}
