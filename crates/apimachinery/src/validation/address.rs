//! IP addresses and CIDR blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Problems;

/// An IP address in canonical form.
pub fn ip(text: &str) -> Problems {
    if text.parse::<Ipv6Addr>().is_ok_and(|addr| addr.to_ipv4_mapped().is_some()) {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    match text.parse::<IpAddr>() {
        Ok(addr) if addr.to_string() == text => Problems::new(),
        Ok(addr) => vec![format!("must be in canonical form ({:?})", addr.to_string())],
        Err(_) if sloppy_ip(text).is_some() => vec!["must not have leading 0s".to_owned()],
        Err(_) => vec![NOT_IP.to_owned()],
    }
}

/// An IP address as older fields take it: leading zeros and any spelling allowed.
pub fn ip_legacy(text: &str) -> Problems {
    if sloppy_ip(text).is_some() { Problems::new() } else { vec![NOT_IP.to_owned()] }
}

/// A CIDR block in canonical form.
pub fn cidr(text: &str) -> Problems {
    let Some((address, length)) = sloppy_cidr(text) else {
        return vec![NOT_CIDR.to_owned()];
    };
    let (written, digits) = text.split_once('/').unwrap_or((text, ""));
    if written.parse::<IpAddr>().is_err() || digits != length.to_string() {
        return vec!["must not have leading 0s in IP or prefix length".to_owned()];
    }
    if written.parse::<Ipv6Addr>().is_ok_and(|addr| addr.to_ipv4_mapped().is_some()) {
        return vec!["must not have an IPv4-mapped IPv6 address".to_owned()];
    }
    if masked(address, length) != address {
        return vec!["must not have bits set beyond the prefix length".to_owned()];
    }
    let canonical = format!("{address}/{length}");
    if canonical == text { Problems::new() } else { vec![format!("must be in canonical form ({canonical:?})")] }
}

/// A CIDR block as older fields take it.
pub fn cidr_legacy(text: &str) -> Problems {
    if sloppy_cidr(text).is_some() { Problems::new() } else { vec![NOT_CIDR.to_owned()] }
}

const NOT_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

fn sloppy_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = sloppy_ip(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, problem) in [
            ("10.0.0.1", ""),
            ("::1", ""),
            ("2001:db8::ffff", ""),
            ("", "must be a valid"),
            ("10.0.0", "must be a valid"),
            ("10.0.0.256", "must be a valid"),
            ("010.0.0.1", "leading 0s"),
            ("::ffff:1.2.3.4", "IPv4-mapped"),
            ("2001:DB8::1", "canonical form (\"2001:db8::1\")"),
        ] {
            let problems = ip(text);
            assert_eq!(problems.is_empty(), problem.is_empty(), "{text} {problems:?}");
            assert!(problems.iter().all(|found| found.contains(problem)), "{text} {problems:?}");
        }
        assert!(ip_legacy("010.0.0.1").is_empty());
    }

    #[test]
    fn blocks() {
        for (text, problem) in [
            ("10.0.0.0/8", ""),
            ("0.0.0.0/0", ""),
            ("::/0", ""),
            ("fd00::/64", ""),
            ("10.0.0.1/8", "bits set"),
            ("10.0.0.0/33", "valid CIDR"),
            ("10.0.0.0", "valid CIDR"),
            ("10.0.0.0/08", "leading 0s"),
            ("FD00::/64", "canonical"),
        ] {
            let problems = cidr(text);
            assert_eq!(problems.is_empty(), problem.is_empty(), "{text} {problems:?}");
            assert!(problems.iter().all(|found| found.contains(problem)), "{text} {problems:?}");
        }
        assert!(cidr_legacy("10.0.0.1/8").is_empty());
    }
}
