//! Node ports: one bitmap for all Services, under a key that is written with the Service. Its value is upstream's `RangeAllocation`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use apimachinery::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use store::{Action, Compare, Op};

use super::super::{Context, Together};

pub(super) const KEY: &str = "/registry/ranges/servicenodeports";

/// What stands in the way of a port.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error("provided port is already allocated")]
    Taken,
    #[error("provided port is not in the valid range. The range of valid ports is {first}-{last}")]
    OutOfRange { first: u16, last: u16 },
    #[error("range is full")]
    Full,
}

/// The ports as read, and as they become.
pub(super) struct NodePorts {
    range: RangeInclusive<u16>,
    taken: BTreeSet<u16>,
    revision: u64,
    changed: bool,
}

impl NodePorts {
    pub(super) async fn read(store: &dyn store::Store, range: &RangeInclusive<u16>) -> Result<NodePorts, store::Error> {
        let found = store.get(KEY.as_bytes()).await?;
        let revision = found.as_ref().map_or(0, |found| found.mod_revision);
        let taken = found.map(|found| decode(&found.value)).unwrap_or_default();
        Ok(NodePorts { range: range.clone(), taken, revision, changed: false })
    }

    /// Takes the port that a Service asks for.
    pub(super) fn take(&mut self, port: i64) -> Result<(), PortError> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let port = u16::try_from(port).ok().filter(|port| self.range.contains(port));
        let Some(port) = port else { return Err(PortError::OutOfRange { first, last }) };
        if !self.taken.insert(port) {
            return Err(PortError::Taken);
        }
        self.changed = true;
        Ok(())
    }

    /// Takes a random port, from above the static band while there is one.
    pub(super) fn take_any(&mut self, env: &env::Env) -> Result<u16, PortError> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let band = first.saturating_add(static_band(&self.range));
        for (first, last) in [(band, last), (first, band.saturating_sub(1))] {
            let Some(span) = last.checked_sub(first) else { continue };
            let count = u32::from(span) + 1;
            let start = env.random_below(count.into()) as u32;
            let free =
                (0..count).map(|step| first + ((start + step) % count) as u16).find(|port| !self.taken.contains(port));
            if let Some(port) = free {
                self.taken.insert(port);
                self.changed = true;
                return Ok(port);
            }
        }
        Err(PortError::Full)
    }

    pub(super) fn give_back(&mut self, port: i64) {
        self.changed |= u16::try_from(port).is_ok_and(|port| self.taken.remove(&port));
    }

    /// Makes `ports` those that are taken, whatever was.
    pub(super) fn replace(&mut self, ports: BTreeSet<u16>) -> bool {
        self.changed = self.taken != ports;
        self.taken = ports;
        self.changed
    }

    /// Adds the write to those that happen with the Service's.
    pub(super) fn finish(self, together: &mut Together) {
        if self.changed {
            let value = encode(&self.range, &self.taken).into();
            together.compares.push(Compare { key: KEY.into(), mod_revision: self.revision });
            together.ops.push(Op { key: KEY.into(), action: Action::Put { value, ttl: None }, tag: None });
        }
    }
}

/// Reads the ports that are taken without a range to check them by.
pub(super) async fn all(ctx: &Context<'_>) -> Result<NodePorts, store::Error> {
    NodePorts::read(ctx.store, &(0..=u16::MAX)).await
}

/// How many of the first ports are left to those who ask for one by number. Upstream: KEP-3668.
fn static_band(range: &RangeInclusive<u16>) -> u16 {
    const MIN: u16 = 16;
    const MAX: u16 = 128;
    const STEP: u16 = 32;
    match range.end() - range.start() {
        small if small < MIN => 0,
        size => (size / STEP).clamp(MIN, MAX),
    }
}

/// A number whose bit `n` says that the range's `n`th port is taken, big-endian.
fn encode(range: &RangeInclusive<u16>, taken: &BTreeSet<u16>) -> Vec<u8> {
    // Ports outside of the range (it may have been changed) need a number of their own: they make the range wider.
    let first = taken.first().map_or(*range.start(), |first| (*first).min(*range.start()));
    let last = taken.last().map_or(*range.end(), |last| (*last).max(*range.end()));
    let mut bits = vec![0u8; usize::from(last - first) / 8 + 1];
    for port in taken {
        let bit = usize::from(port - first);
        bits[bit / 8] |= 1 << (bit % 8);
    }
    while bits.last() == Some(&0) {
        bits.pop();
    }
    bits.reverse();
    let mut value = Value::object();
    value.set(&["apiVersion"], "v1");
    value.set(&["kind"], "RangeAllocation");
    value.set(&["metadata"], Value::object());
    value.set(&["range"], format!("{first}-{last}"));
    value.set(&["data"], STANDARD.encode(bits));
    value.to_json()
}

/// What cannot be read counts as nothing taken; repairing finds out what is.
fn decode(body: &[u8]) -> BTreeSet<u16> {
    let value = Value::parse(body).unwrap_or_default();
    let range = value.str_at(&["range"]).unwrap_or_default();
    let Some(first) = range.split_once('-').and_then(|(first, _)| first.parse::<u16>().ok()) else {
        return BTreeSet::new();
    };
    let mut bits = STANDARD.decode(value.str_at(&["data"]).unwrap_or_default()).unwrap_or_default();
    bits.reverse();
    let set = |(index, byte): (usize, &u8)| {
        (0..8).filter(|bit| byte & (1 << bit) != 0).map(|bit| index * 8 + bit).collect::<Vec<_>>()
    };
    let offsets = bits.iter().enumerate().flat_map(set);
    offsets.filter_map(|offset| first.checked_add(u16::try_from(offset).ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitmap_goes_round() {
        let range = 30000..=32767;
        let check = |ports: &[u16]| {
            let taken: BTreeSet<u16> = ports.iter().copied().collect();
            assert_eq!(decode(&encode(&range, &taken)), taken);
        };
        check(&[]);
        check(&[30000]);
        check(&[30007, 30008, 32767]);
        check(&[29000, 31000, 33000]);
        assert_eq!(static_band(&range), 86);
        assert_eq!(static_band(&(30000..=30010)), 0);
        let one = String::from_utf8(encode(&range, &[30009].into())).unwrap();
        assert!(one.contains(r#""data":"AgA=""#) && one.contains(r#""range":"30000-32767""#), "{one}");
    }
}
