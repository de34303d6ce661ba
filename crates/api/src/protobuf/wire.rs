//! Protobuf's wire format: tags, varints, lengths.

use super::ProtobufError;

/// A field's value as it lies on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32,
}

/// The next field and its number; `None` at the end.
pub(super) fn next<'b>(rest: &mut &'b [u8]) -> Result<Option<(u32, Value<'b>)>, ProtobufError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag > 0).ok_or(ProtobufError::WireType(key))?;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().map_err(|_| ProtobufError::Truncated)?)),
        2 => {
            let len = usize::try_from(varint(rest)?).map_err(|_| ProtobufError::Truncated)?;
            Value::Bytes(take(rest, len)?)
        }
        5 => {
            take(rest, 4)?;
            Value::Fixed32
        }
        _ => return Err(ProtobufError::WireType(key)),
    };
    Ok(Some((tag, value)))
}

fn take<'b>(rest: &mut &'b [u8], len: usize) -> Result<&'b [u8], ProtobufError> {
    let (taken, left) = rest.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
    *rest = left;
    Ok(taken)
}

pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first().ok_or(ProtobufError::Truncated)?;
        *rest = left;
        if shift == 63 && byte > 1 {
            return Err(ProtobufError::Varint);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Varint)
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Utf8)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_number(out: &mut Vec<u8>, tag: u16, value: u64) {
    put_varint(out, u64::from(tag) << 3);
    put_varint(out, value);
}

pub(super) fn put_double(out: &mut Vec<u8>, tag: u16, value: f64) {
    put_varint(out, u64::from(tag) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u16, bytes: &[u8]) {
    put_varint(out, u64::from(tag) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Puts what `write` appends as one field, its length before it.
pub(crate) fn put_message(
    out: &mut Vec<u8>,
    tag: u16,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), ProtobufError>,
) -> Result<(), ProtobufError> {
    put_varint(out, u64::from(tag) << 3 | 2);
    let start = out.len();
    // Most messages are short: one byte is kept for the length, and what follows is moved where it takes more.
    out.push(0);
    write(out)?;
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
        return Ok(());
    }
    let mut header = Vec::with_capacity(5);
    put_varint(&mut header, len as u64);
    out.splice(start..=start, header);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX, (-1i64) as u64] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint(&mut out.as_slice()), Ok(value));
        }
        assert_eq!(varint(&mut [0x80].as_slice()), Err(ProtobufError::Truncated));
        assert_eq!(varint(&mut [0xff; 11].as_slice()), Err(ProtobufError::Varint));
    }

    #[test]
    fn long_messages_have_long_lengths() {
        for len in [0, 127, 128, 20_000] {
            let mut out = Vec::new();
            put_message(&mut out, 1, |out| {
                out.resize(out.len() + len, 7);
                Ok(())
            })
            .unwrap();
            let Ok(Some((1, Value::Bytes(bytes)))) = next(&mut out.as_slice()) else { panic!() };
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|byte| *byte == 7));
        }
    }
}
