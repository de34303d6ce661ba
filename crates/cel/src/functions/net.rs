//! IP addresses and CIDR blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::opaque::Opaque;
use crate::error::failed;
use crate::eval::Outcome;
use crate::value::Value;

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Option<Outcome<'a>> {
    let truth = |b: bool| Ok(Value::Bool(b));
    Some(match (name, args) {
        ("ip", [Value::String(text)]) => {
            parse_ip(text).map(|address| Value::Opaque(Opaque::Ip(address))).or_else(failed)
        }
        ("isIP", [Value::String(text)]) => truth(parse_ip(text).is_ok()),
        ("isIP", [Value::String(text), Value::Int(version)]) => {
            truth(parse_ip(text).is_ok_and(|address| *version == if address.is_ipv4() { 4 } else { 6 }))
        }
        ("ip.isCanonical", [Value::String(text)]) => match parse_ip(text) {
            Ok(address) => truth(address.to_string() == **text),
            Err(why) => failed(why),
        },
        ("cidr", [Value::String(text)]) => {
            parse_cidr(text).map(|(address, length)| Value::Opaque(Opaque::Cidr(address, length))).or_else(failed)
        }
        ("isCIDR", [Value::String(text)]) => truth(parse_cidr(text).is_ok()),
        (_, [Value::Opaque(Opaque::Ip(address))]) => of_ip(name, *address)?,
        (_, [Value::Opaque(Opaque::Cidr(address, length)), rest @ ..]) => of_cidr(name, *address, *length, rest)?,
        _ => return None,
    })
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let why = mistake(text);
        return Err(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): {why}"
        ));
    };
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err("IPv4-mapped IPv6 address is not allowed".to_owned()),
        address => Ok(address),
    }
}

/// What Go's `netip` says of a text that is no address.
fn mistake(text: &str) -> &'static str {
    let octets: Vec<&str> = text.split('.').collect();
    if text.contains(':') || octets.len() == 1 || !octets.iter().all(|octet| octet.bytes().all(|b| b.is_ascii_digit()))
    {
        return "unable to parse IP";
    }
    for octet in &octets {
        if octet.len() > 1 && octet.starts_with('0') {
            return "IPv4 field has octet with leading zero";
        }
        if octet.parse::<u8>().is_err() && !octet.is_empty() {
            return "IPv4 field has value >255";
        }
    }
    if octets.len() > 4 { "IPv4 address too long" } else { "IPv4 address too short" }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    // Upstream says it twice.
    let said = "network address parse error during conversion from string: ";
    let wrong = |why: String| format!("{said}{said}netip.ParsePrefix({text:?}): {why}");
    let (address, length) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'".to_owned()))?;
    let parsed: IpAddr = address.parse().map_err(|_| wrong(format!("ParseAddr({address:?}): {}", mistake(address))))?;
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    if !digits || length.len() > 1 && length.starts_with('0') {
        return Err(wrong(format!("bad bits after slash: {length:?}")));
    }
    let most = if parsed.is_ipv4() { 32 } else { 128 };
    let length = length.parse().ok().filter(|length: &u8| *length <= most);
    let length = length.ok_or_else(|| wrong("prefix length out of range".to_owned()))?;
    match parsed {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err("IPv4-mapped IPv6 address is not allowed".to_owned()),
        address => Ok((address, length)),
    }
}

fn of_ip<'a>(name: &str, address: IpAddr) -> Option<Outcome<'a>> {
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    Some(Ok(match name {
        "family" => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(address.is_unspecified()),
        "isLoopback" => Value::Bool(address.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(link_local_multicast),
        "isLinkLocalUnicast" => Value::Bool(link_local),
        "isGlobalUnicast" => Value::Bool(
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local || broadcast),
        ),
        _ => return None,
    }))
}

fn of_cidr<'a>(name: &str, address: IpAddr, length: u8, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    let inside =
        |other: IpAddr| other.is_ipv4() == address.is_ipv4() && masked(other, length) == masked(address, length);
    Some(Ok(match (name, rest) {
        ("ip", []) => Value::Opaque(Opaque::Ip(address)),
        ("masked", []) => Value::Opaque(Opaque::Cidr(masked(address, length), length)),
        ("prefixLength", []) => Value::Int(length.into()),
        ("containsIP", [Value::Opaque(Opaque::Ip(other))]) => Value::Bool(inside(*other)),
        ("containsIP", [Value::String(text)]) => match parse_ip(text) {
            Ok(other) => Value::Bool(inside(other)),
            Err(why) => return Some(failed(why)),
        },
        ("containsCIDR", [Value::Opaque(Opaque::Cidr(other, longer))]) => {
            Value::Bool(length <= *longer && inside(*other))
        }
        ("containsCIDR", [Value::String(text)]) => match parse_cidr(text) {
            Ok((other, longer)) => Value::Bool(length <= longer && inside(other)),
            Err(why) => return Some(failed(why)),
        },
        _ => return None,
    }))
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into(),
    }
}
