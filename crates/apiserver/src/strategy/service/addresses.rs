//! Service addresses: ranges of them, and the `IPAddress` objects by which each is taken once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Status, Value};
use store::{Action, Compare, Op};

use super::super::field::text;
use super::super::{Context, Together};

const GROUP: &str = "networking.k8s.io";
const RESOURCE: &str = "ipaddresses";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGER_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "ipallocator.k8s.io";
pub(super) const PREFIX: &str = "/registry/ipaddresses/";
/// How many random addresses are looked at before the range is walked from one of them.
const GUESSES: usize = 32;
/// How far the range is walked.
const WALK: u128 = 1 << 16;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    base: IpAddr,
    length: u8,
}

/// What stands in the way of an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    #[error("provided IP is already allocated")]
    Taken,
    #[error("the provided network does not match the current range")]
    OutOfRange,
    #[error("range is full")]
    Full,
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Cidr, ()> {
        let (base, length) = text.split_once('/').ok_or(())?;
        let (base, length): (IpAddr, u8) = (base.parse().map_err(drop)?, length.parse().map_err(drop)?);
        if length > if base.is_ipv4() { 32 } else { 128 } {
            return Err(());
        }
        let cidr = Cidr { base, length };
        Ok(Cidr { base: cidr.at(0), length })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

impl Cidr {
    pub(super) fn family(&self) -> &'static str {
        family(&self.base)
    }

    fn host_bits(&self) -> u32 {
        if self.base.is_ipv4() { 32 - u32::from(self.length) } else { 128 - u32::from(self.length) }
    }

    /// The addresses that may be given out: neither the range's own nor, of IPv4, the broadcast address.
    fn size(&self) -> u128 {
        let all = 1u128.checked_shl(self.host_bits()).unwrap_or(u128::MAX);
        if self.base.is_ipv4() { all.saturating_sub(2) } else { all.saturating_sub(1) }
    }

    /// The address at a distance from the range's own.
    fn at(&self, offset: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(self.host_bits()).unwrap_or(0);
                Ipv4Addr::from_bits((v4.to_bits() & mask) | offset as u32).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(self.host_bits()).unwrap_or(0);
                Ipv6Addr::from_bits((v6.to_bits() & mask) | offset).into()
            }
        }
    }

    fn contains(&self, address: &IpAddr) -> bool {
        let offset = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => u128::from(address.to_bits()).checked_sub(base.to_bits().into()),
            (IpAddr::V6(base), IpAddr::V6(address)) => address.to_bits().checked_sub(base.to_bits()),
            _ => None,
        };
        offset.is_some_and(|offset| offset >= 1 && offset <= self.size())
    }

    /// How many of the first addresses are left to those who ask for one by name. Upstream: KEP-3070.
    fn static_band(&self) -> u128 {
        const MIN: u128 = 16;
        const MAX: u128 = 256;
        const STEP: u128 = 16;
        match self.size() {
            small if small <= MIN => 0,
            size => (size / STEP).clamp(MIN, MAX),
        }
    }
}

pub(super) fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Takes the address that a Service asks for.
pub(super) async fn take(
    ctx: &Context<'_>,
    ranges: &[Cidr],
    wanted: &str,
    service: (&str, &str),
    together: &mut Together,
) -> Result<(), AddressError> {
    let address: IpAddr = wanted.parse().map_err(|_| AddressError::OutOfRange)?;
    if !ranges.iter().any(|range| range.contains(&address)) {
        return Err(AddressError::OutOfRange);
    }
    // What is only tried takes nothing, and so finds nothing taken.
    if ctx.dry_run {
        return Ok(());
    }
    let key = format!("{PREFIX}{address}");
    let revision = match ctx.store.get(key.as_bytes()).await? {
        None => 0,
        // Left by this very Service's earlier life, which no repair has cleaned up yet.
        Some(found) if holder(&found.value).as_ref() == Some(&owned(service)) => found.mod_revision,
        Some(_) => return Err(AddressError::Taken),
    };
    write(ctx, &address, service, revision, together);
    Ok(())
}

/// Takes a random free address, from above the static band while there is one.
pub(super) async fn take_any(
    ctx: &Context<'_>,
    ranges: &[Cidr],
    service: (&str, &str),
    together: &mut Together,
) -> Result<String, AddressError> {
    for range in ranges {
        let (band, size) = (range.static_band(), range.size());
        for (first, last) in [(band + 1, size), (1, band)] {
            if let Some(address) = free(ctx, range, first, last).await? {
                write(ctx, &address, service, 0, together);
                return Ok(address.to_string());
            }
        }
    }
    Err(AddressError::Full)
}

/// A free address among those at the distances `first..=last`.
async fn free(ctx: &Context<'_>, range: &Cidr, first: u128, last: u128) -> Result<Option<IpAddr>, AddressError> {
    let Some(count) = last.checked_sub(first).map(|span| span.saturating_add(1)) else { return Ok(None) };
    let bound = u64::try_from(count).unwrap_or(u64::MAX);
    let known = |address: &IpAddr| {
        let key = ObjectKey { namespace: String::new(), name: address.to_string() };
        ctx.objects.get(GROUP, RESOURCE, &key).is_some()
    };
    for _ in 0..GUESSES {
        let address = range.at(first + u128::from(ctx.env.random_below(bound)));
        if !known(&address) && ctx.store.get(format!("{PREFIX}{address}").as_bytes()).await?.is_none() {
            return Ok(Some(address));
        }
    }
    let start = u128::from(ctx.env.random_below(bound));
    for step in 0..count.min(WALK) {
        let address = range.at(first + (start + step) % count);
        if !known(&address) && ctx.store.get(format!("{PREFIX}{address}").as_bytes()).await?.is_none() {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// Gives an address back, unless it is somebody else's.
pub(super) async fn give_back(
    ctx: &Context<'_>,
    address: &str,
    service: (&str, &str),
    together: &mut Together,
) -> Result<(), Status> {
    let Ok(address) = address.parse::<IpAddr>() else { return Ok(()) };
    let key = format!("{PREFIX}{address}");
    let found = ctx.store.get(key.as_bytes()).await.map_err(crate::registry::store_failure)?;
    if let Some(found) = found.filter(|found| holder(&found.value).as_ref() == Some(&owned(service))) {
        together.compares.push(Compare { key: key.clone().into(), mod_revision: found.mod_revision });
        together.ops.push(Op { key: key.into(), action: Action::Delete, tag: None });
    }
    Ok(())
}

fn write(ctx: &Context<'_>, address: &IpAddr, service: (&str, &str), revision: u64, together: &mut Together) {
    let Some(op) = put(ctx.env, address, service) else { return };
    together.compares.push(Compare { key: op.key.clone(), mod_revision: revision });
    together.ops.push(op);
}

/// The write of the object that takes an address.
pub(super) fn put(env: &env::Env, address: &IpAddr, service: (&str, &str)) -> Option<Op> {
    let kind = api::kind(GROUP, "v1", "IPAddress")?;
    let mut value = Value::object();
    value.set(&["apiVersion"], kind.api_version());
    value.set(&["kind"], "IPAddress");
    value.set(&["metadata", "name"], address.to_string());
    value.set(&["metadata", "uid"], env.uuid());
    value.set(&["metadata", "creationTimestamp"], crate::registry::timestamp(env.now()));
    value.set(&["metadata", "labels", FAMILY_LABEL], family(address));
    value.set(&["metadata", "labels", MANAGER_LABEL], MANAGER);
    let parent = [("group", ""), ("resource", "services"), ("namespace", service.0), ("name", service.1)];
    for (key, text) in parent.into_iter().filter(|(_, text)| !text.is_empty()) {
        value.set(&["spec", "parentRef", key], text);
    }
    let value = kind.ty().canonical(value).ok()?.value;
    let object = Object::with_fields(&value, 0, kind.field_values(&value)).ok()?;
    let action = Action::Put { value: object.body().clone(), ttl: None };
    Some(Op { key: format!("{PREFIX}{address}").into(), action, tag: Some(Arc::new(object)) })
}

/// Namespace and name of the Service that holds an address.
pub(super) fn holder(body: &[u8]) -> Option<(String, String)> {
    let value = Value::parse(body).ok()?;
    let parent = value.at(&["spec", "parentRef"])?;
    (text(parent, "resource") == "services").then(|| owned((text(parent, "namespace"), text(parent, "name"))))
}

/// Whether the allocator made the object, and not a user.
pub(super) fn is_managed(body: &[u8]) -> bool {
    let value = Value::parse(body).unwrap_or_default();
    value.str_at(&["metadata", "labels", MANAGER_LABEL]) == Some(MANAGER)
}

fn owned(service: (&str, &str)) -> (String, String) {
    (service.0.to_owned(), service.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |cidr: &str, size: u128, band: u128, first: &str| {
            let cidr: Cidr = cidr.parse().unwrap();
            assert_eq!((cidr.size(), cidr.static_band(), cidr.at(1).to_string()), (size, band, first.to_owned()));
        };
        check("10.96.0.0/12", (1 << 20) - 2, 256, "10.96.0.1");
        check("10.97.3.4/24", 254, 16, "10.97.3.1");
        check("10.0.0.0/28", 14, 0, "10.0.0.1");
        check("fd00::/112", 65535, 256, "fd00::1");
        let cidr: Cidr = "10.0.0.0/28".parse().unwrap();
        for (address, inside) in
            [("10.0.0.0", false), ("10.0.0.1", true), ("10.0.0.14", true), ("10.0.0.15", false), ("::1", false)]
        {
            assert_eq!(cidr.contains(&address.parse().unwrap()), inside, "{address}");
        }
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
    }
}
