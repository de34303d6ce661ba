//! Sets, maps and verdict maps, and their elements.

use std::net::IpAddr;
use std::time::Duration;

use crate::netfilter::{Messages, find, find_string, find_u32, find_u64};

/// A part of a key or value. Parts are padded to four bytes each, as registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A transport protocol's number.
    Protocol,
    /// A transport port.
    Port,
    /// A number in the machine's byte order.
    Number,
}

impl Field {
    /// The kernel's bytes of it, without padding.
    pub(crate) fn length(self) -> u32 {
        match self {
            Field::Ipv4 | Field::Number => 4,
            Field::Ipv6 => 16,
            Field::Protocol => 1,
            Field::Port => 2,
        }
    }

    /// The number that the `nft` program knows the type by.
    fn datatype(self) -> u32 {
        match self {
            Field::Ipv4 => 7,
            Field::Ipv6 => 8,
            Field::Protocol => 12,
            Field::Port => 13,
            Field::Number => 19,
        }
    }
}

pub(crate) fn datatype(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| all << 6 | field.datatype())
}

pub(crate) fn length(fields: &[Field]) -> u32 {
    match fields {
        [one] => one.length(),
        many => many.iter().map(|field| field.length().next_multiple_of(4)).sum(),
    }
}

/// What a set maps its keys to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Nothing,
    Value(Vec<Field>),
    Verdict,
}

/// A named set, map or verdict map to make.
#[derive(Clone, Debug)]
pub struct Set<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: Vec<Field>,
    pub(crate) target: Target,
    pub(crate) dynamic: bool,
    pub(crate) intervals: bool,
}

impl<'a> Set<'a> {
    /// A set of keys.
    pub fn new(name: &'a str, key: &[Field]) -> Set<'a> {
        Set { name, key: key.to_vec(), target: Target::Nothing, dynamic: false, intervals: false }
    }

    /// A map from keys to values.
    pub fn map(name: &'a str, key: &[Field], value: &[Field]) -> Set<'a> {
        Set { target: Target::Value(value.to_vec()), ..Set::new(name, key) }
    }

    /// A map from keys to verdicts.
    pub fn verdicts(name: &'a str, key: &[Field]) -> Set<'a> {
        Set { target: Target::Verdict, ..Set::new(name, key) }
    }

    /// Rules may add elements, and elements may time out.
    pub fn dynamic(self) -> Set<'a> {
        Set { dynamic: true, ..self }
    }

    /// Keys, of several parts, may be ranges: see [`Element::range`].
    pub fn intervals(self) -> Set<'a> {
        Set { intervals: true, ..self }
    }
}

/// Bytes of a key or value, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Vec<u8>);

impl Value {
    /// Nothing yet.
    pub fn new() -> Value {
        Value::default()
    }

    /// Appends an address.
    pub fn address(mut self, address: IpAddr) -> Value {
        match address {
            IpAddr::V4(ip) => self.0.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => self.0.extend_from_slice(&ip.octets()),
        }
        self
    }

    /// Appends a transport protocol.
    pub fn protocol(mut self, protocol: u8) -> Value {
        self.0.extend_from_slice(&[protocol, 0, 0, 0]);
        self
    }

    /// Appends a port.
    pub fn port(mut self, port: u16) -> Value {
        self.0.extend_from_slice(&port.to_be_bytes());
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// Appends a number.
    pub fn number(mut self, number: u32) -> Value {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(bytes: [u8; N]) -> Value {
        Value(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value(bytes)
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It passes this hook's chain.
    Accept,
    /// It is dropped.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Into a chain, and back at its end.
    Jump(String),
    /// Into a chain, for good.
    Goto(String),
}

/// What an element's key leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Nothing: the element of a set.
    None,
    /// The value of a map.
    Value(Value),
    /// The verdict of a verdict map.
    Verdict(Verdict),
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Its key, or the first key of its range.
    pub key: Value,
    /// The last key of its range.
    pub last: Option<Value>,
    /// What the key leads to.
    pub data: Data,
    /// Of a timed element: its whole life, and what is left of it.
    pub expiry: Option<(Duration, Duration)>,
}

impl Element {
    /// An element of a set.
    pub fn key(key: impl Into<Value>) -> Element {
        Element { key: key.into(), last: None, data: Data::None, expiry: None }
    }

    /// An element of a map.
    pub fn value(key: impl Into<Value>, value: impl Into<Value>) -> Element {
        Element { data: Data::Value(value.into()), ..Element::key(key) }
    }

    /// An element of a verdict map.
    pub fn verdict(key: impl Into<Value>, verdict: Verdict) -> Element {
        Element { data: Data::Verdict(verdict), ..Element::key(key) }
    }

    /// All keys from `first` to `last`, part by part, of a set with intervals.
    pub fn range(first: impl Into<Value>, last: impl Into<Value>) -> Element {
        Element { last: Some(last.into()), ..Element::key(first) }
    }
}

const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const ELEM_FLAGS: u16 = 3;
const ELEM_TIMEOUT: u16 = 4;
const ELEM_EXPIRATION: u16 = 5;
const ELEM_KEY_END: u16 = 10;
const FLAG_CATCH_ALL: u32 = 2;

/// Writes the element; without its data and times if `key_only`.
pub(crate) fn write_element(out: &mut Messages, element: &Element, key_only: bool) {
    out.nest(1, |out| {
        write_value(out, ELEM_KEY, element.key.bytes());
        if let Some(last) = &element.last {
            write_value(out, ELEM_KEY_END, last.bytes());
        }
        if key_only {
            return;
        }
        match &element.data {
            Data::None => {}
            Data::Value(value) => write_value(out, ELEM_DATA, value.bytes()),
            Data::Verdict(verdict) => write_verdict(out, ELEM_DATA, verdict),
        }
        if let Some((life, left)) = element.expiry {
            out.u64(ELEM_TIMEOUT, life.as_millis() as u64);
            out.u64(ELEM_EXPIRATION, left.as_millis() as u64);
        }
    });
}

/// Reads one element of a dump.
pub(crate) fn read_element(bytes: &[u8]) -> Option<Element> {
    if find_u32(bytes, ELEM_FLAGS).is_some_and(|flags| flags & FLAG_CATCH_ALL != 0) {
        return None;
    }
    let value = |kind| Some(Value(find(find(bytes, kind)?, 1)?.to_vec()));
    let data = match find(bytes, ELEM_DATA) {
        None => Data::None,
        Some(data) => match find(data, 2) {
            Some(verdict) => Data::Verdict(read_verdict(verdict)?),
            None => Data::Value(value(ELEM_DATA)?),
        },
    };
    let time = |kind| find_u64(bytes, kind).map(Duration::from_millis);
    let expiry = time(ELEM_TIMEOUT).zip(time(ELEM_EXPIRATION));
    Some(Element { key: value(ELEM_KEY)?, last: value(ELEM_KEY_END), data, expiry })
}

pub(crate) fn write_value(out: &mut Messages, kind: u16, value: &[u8]) {
    out.nest(kind, |out| out.attribute(1, value));
}

pub(crate) fn write_verdict(out: &mut Messages, kind: u16, verdict: &Verdict) {
    out.nest(kind, |out| {
        out.nest(2, |out| match verdict {
            Verdict::Drop => out.u32(1, 0),
            Verdict::Accept => out.u32(1, 1),
            Verdict::Return => out.u32(1, -5_i32 as u32),
            Verdict::Jump(chain) => {
                out.u32(1, -3_i32 as u32);
                out.string(2, chain);
            }
            Verdict::Goto(chain) => {
                out.u32(1, -4_i32 as u32);
                out.string(2, chain);
            }
        });
    });
}

pub(crate) fn read_verdict(bytes: &[u8]) -> Option<Verdict> {
    Some(match find_u32(bytes, 1)? as i32 {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -5 => Verdict::Return,
        -3 => Verdict::Jump(find_string(bytes, 2)?),
        -4 => Verdict::Goto(find_string(bytes, 2)?),
        _ => return None,
    })
}
