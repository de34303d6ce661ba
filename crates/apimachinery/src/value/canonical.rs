//! From canonical JSON, as [`Value::write_json`] writes it, back to a value: several times faster than reading what anybody may
//! have written.

use super::text::plain_length;
use super::{Key, Map, Number, Value, names};

/// As in [`super::parse`].
const MAX_DEPTH: usize = 120;

/// Reads a whole document, but for the member at the path `without` if that isn't empty; `None` for whatever isn't canonical, and for
/// floats.
pub(super) fn parse(json: &str, without: &[&str]) -> Option<Value> {
    let mut reader = Reader { text: json, at: 0, entries: Vec::new(), items: Vec::new() };
    let value = reader.value(0, without)?;
    (reader.at == json.len()).then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// What was read of objects and lists that have not ended: each gets the room that it needs once its length is known.
    entries: Vec<(Key, Value)>,
    items: Vec<Value>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Whether another item comes before `end`.
    fn another(&mut self, end: u8) -> Option<bool> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => Some(true),
            byte if byte == end => Some(false),
            _ => None,
        }
    }

    fn value(&mut self, depth: usize, without: &[&str]) -> Option<Value> {
        match self.peek()? {
            b'"' => self.string().map(Value::String),
            b'{' if depth < MAX_DEPTH => self.object(depth + 1, without),
            b'[' if depth < MAX_DEPTH => self.array(depth + 1),
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        let found = self.text[self.at..].starts_with(word);
        self.at += word.len();
        found.then_some(value)
    }

    fn object(&mut self, depth: usize, without: &[&str]) -> Option<Value> {
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(Value::object());
        }
        let first = self.entries.len();
        loop {
            let start = self.at + 1;
            let key = match self.plain() {
                Some(end) => names::key(&self.text[start..end]),
                None => names::key(&self.string()?),
            };
            if self.entries[first..].last().is_some_and(|(last, _)| *last >= key) {
                return None;
            }
            self.expect(b':')?;
            let below = match without {
                [last] if *last == key => None,
                [next, rest @ ..] if *next == key => Some(rest),
                _ => Some(&[][..]),
            };
            match below {
                Some(below) => {
                    let value = self.value(depth, below)?;
                    self.entries.push((key, value));
                }
                None => self.pass()?,
            }
            if !self.another(b'}')? {
                return Some(Value::Object(Map(self.entries.drain(first..).collect())));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(Value::Array(Vec::new()));
        }
        let first = self.items.len();
        loop {
            let item = self.value(depth, &[])?;
            self.items.push(item);
            if !self.another(b']')? {
                return Some(Value::Array(self.items.drain(first..).collect()));
            }
        }
    }

    /// Passes a value, of which nothing is asked but where it ends.
    fn pass(&mut self) -> Option<()> {
        let (bytes, start) = (self.text.as_bytes(), self.at);
        let mut depth = 0;
        loop {
            match *bytes.get(self.at)? {
                b'"' if self.plain().is_none() => drop(self.string()?),
                b'"' => {}
                b',' | b'}' | b']' if depth == 0 => return (self.at > start).then_some(()),
                byte => {
                    match byte {
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    self.at += 1;
                }
            }
        }
    }

    /// Passes a string without escapes, and says where its closing quote is; `None` leaves it unread.
    fn plain(&mut self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        if *bytes.get(self.at)? != b'"' {
            return None;
        }
        let start = self.at + 1;
        let end = start + plain_length(&bytes[start..]);
        if *bytes.get(end)? != b'"' {
            return None;
        }
        self.at = end + 1;
        Some(end)
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at + 1;
        if let Some(end) = self.plain() {
            return Some(self.text[start..end].to_owned());
        }
        self.expect(b'"')?;
        let bytes = self.text.as_bytes();
        let mut out = String::new();
        loop {
            let stop = self.at + plain_length(&bytes[self.at..]);
            out.push_str(&self.text[self.at..stop]);
            self.at = stop + 1;
            bytes.get(stop)?;
            if bytes[stop] == b'"' {
                return Some(out);
            }
            if bytes[stop] != b'\\' {
                return None;
            }
            let escaped = self.peek()?;
            self.at += 1;
            out.push(match escaped {
                b'"' => '"',
                b'\\' => '\\',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let code = self.text.get(self.at..self.at + 4)?;
                    self.at += 4;
                    // Halves of pairs are for the other reader.
                    char::from_u32(u32::from_str_radix(code, 16).ok()?)?
                }
                _ => return None,
            });
        }
    }

    fn number(&mut self) -> Option<Value> {
        let bytes = &self.text.as_bytes()[self.at..];
        let end = bytes.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(bytes.len());
        let text = &self.text[self.at..self.at + end];
        // What is large or has a fraction is for the other reader.
        let number: i64 = text.parse().ok()?;
        self.at += end;
        Some(Value::Number(Number::Int(number)))
    }
}
