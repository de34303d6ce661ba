//! The machine's IPv4 routes, which ranges of addresses must not overlap.

use std::net::Ipv4Addr;

/// One route that leads somewhere in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) link: String,
    destination: u32,
    mask: u32,
}

/// The routes in the text of `/proc/net/route`, without the default one.
pub(crate) fn parse(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |i: usize| u32::from_str_radix(fields.get(i)?, 16).ok().map(u32::from_be);
        Some(Route { link: (*fields.first()?).to_owned(), destination: hex(1)?, mask: hex(7)? })
    };
    text.lines().skip(1).filter_map(route).filter(|route| route.mask != 0).collect()
}

impl Route {
    /// Whether it and `cidr` have an address in common.
    pub(crate) fn overlaps(&self, cidr: &str) -> bool {
        let Some((base, length)) = cidr.split_once('/') else { return false };
        let (Ok(base), Ok(length)) = (base.parse::<Ipv4Addr>(), length.parse::<u32>()) else { return false };
        let ours = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let common = ours & self.mask;
        base.to_bits() & common == self.destination & common
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} of {}", Ipv4Addr::from(self.destination), self.mask.count_ones(), self.link)
    }
}

#[cfg(test)]
pub(crate) const EXAMPLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t0003F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_compared() {
        let routes = parse(EXAMPLE);
        let shown: Vec<String> = routes.iter().map(Route::to_string).collect();
        assert_eq!(shown, ["192.0.2.0/24 of eth0", "10.244.3.0/24 of tun0"]);
        let check = |cidr: &str, expect: &[&str]| {
            let found: Vec<&str> = routes.iter().filter(|r| r.overlaps(cidr)).map(|r| r.link.as_str()).collect();
            assert_eq!(found, expect, "{cidr}");
        };
        check("10.244.0.0/16", &["tun0"]);
        check("10.244.3.128/25", &["tun0"]);
        check("10.0.0.0/8", &["tun0"]);
        check("10.96.0.0/12", &[]);
        check("0.0.0.0/0", &["eth0", "tun0"]);
        check("nonsense", &[]);
    }
}
