//! Makes the allocations agree with the Services: at the server's start, and whenever somebody may have edited either by hand.
//! Each fix is one transaction that compares what it was concluded from, so it can run beside anything.
//! Upstream: registry/core/service/ipallocator/controller, portallocator/controller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use apimachinery::Value;
use env::Env;
use store::{Action, Compare, Error, Op, RangeQuery, Store, Txn};
use tracing::{info, warn};

use super::super::Together;
use super::addresses::{self, PREFIX};
use super::allocate::{allocated, taken_ports};
use super::node_ports::NodePorts;

const SERVICES: &str = "/registry/services/specs/";
const ATTEMPTS: usize = 16;

/// What was fixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// Addresses of Services that nothing held.
    pub taken: usize,
    /// Addresses that no Service had.
    pub freed: usize,
    /// The bitmap of node ports was wrong.
    pub ports: bool,
}

/// Goes through all Services once.
pub(crate) async fn repair(env: &Env, store: &dyn Store, ports: &RangeInclusive<u16>) -> Result<Repaired, Error> {
    let mut repaired = addresses(env, store).await?;
    for _ in 0..ATTEMPTS {
        match node_ports(store, ports).await {
            Err(Error::Conflict(_)) => {}
            Ok(changed) => {
                repaired.ports = changed;
                break;
            }
            Err(other) => return Err(other),
        }
    }
    if repaired != Repaired::default() {
        info!(?repaired, "service addresses and node ports were repaired");
    }
    Ok(repaired)
}

/// A Service as stored: its key, its revision, its body.
struct Stored {
    key: bytes::Bytes,
    revision: u64,
    value: Value,
}

async fn services(store: &dyn Store) -> Result<BTreeMap<(String, String), Stored>, Error> {
    let items = store.range(RangeQuery::prefix(SERVICES)).await?.items;
    let read = |item: store::KeyValue| {
        let value = Value::parse(&item.value).ok()?;
        let text = |key: &str| value.str_at(&["metadata", key]).unwrap_or_default().to_owned();
        let name = (text("namespace"), text("name"));
        Some((name, Stored { key: item.key, revision: item.mod_revision, value }))
    };
    Ok(items.into_iter().filter_map(read).collect())
}

async fn addresses(env: &Env, store: &dyn Store) -> Result<Repaired, Error> {
    let mut repaired = Repaired::default();
    let held = store.range(RangeQuery::prefix(PREFIX)).await?.items;
    let services = services(store).await?;
    let mut holders: BTreeMap<String, (String, String)> = BTreeMap::new();
    for item in held {
        let name = String::from_utf8_lossy(&item.key[PREFIX.len()..]).into_owned();
        let Some(holder) = addresses::holder(&item.value) else { continue };
        let service = services.get(&holder);
        if service.is_some_and(|service| allocated(Some(&service.value)).contains(&name)) {
            holders.insert(name, holder);
            continue;
        }
        if !addresses::is_managed(&item.value) {
            continue;
        }
        let key = format!("{SERVICES}{}/{}", holder.0, holder.1);
        let unchanged = Compare { key: key.into(), mod_revision: service.map_or(0, |service| service.revision) };
        let same = Compare { key: item.key.clone(), mod_revision: item.mod_revision };
        let op = Op { key: item.key, action: Action::Delete, tag: None };
        repaired.freed += commit(store, Txn { compares: vec![same, unchanged], ops: vec![op] }).await?;
    }
    for ((namespace, name), service) in &services {
        for address in allocated(Some(&service.value)) {
            match holders.get(&address) {
                Some(holder) if (&holder.0, &holder.1) == (namespace, name) => continue,
                Some(holder) => {
                    warn!(%address, %namespace, %name, other = ?holder, "two Services have the same address");
                    continue;
                }
                None => {}
            }
            let Ok(parsed) = address.parse::<IpAddr>() else { continue };
            let Some(op) = addresses::put(env, &parsed, (namespace, name)) else { continue };
            let compares = vec![
                Compare { key: op.key.clone(), mod_revision: 0 },
                Compare { key: service.key.clone(), mod_revision: service.revision },
            ];
            repaired.taken += commit(store, Txn { compares, ops: vec![op] }).await?;
            holders.insert(address, (namespace.clone(), name.clone()));
        }
    }
    Ok(repaired)
}

/// 1 when it happened, 0 when somebody was faster and there is nothing left to repair.
async fn commit(store: &dyn Store, txn: Txn) -> Result<usize, Error> {
    match store.commit(txn).await {
        Ok(_) => Ok(1),
        Err(Error::Conflict(_)) => Ok(0),
        Err(other) => Err(other),
    }
}

/// The bitmap is read before the Services: who writes a Service with other ports writes the bitmap too.
async fn node_ports(store: &dyn Store, range: &RangeInclusive<u16>) -> Result<bool, Error> {
    let mut ports = NodePorts::read(store, range).await?;
    let services = services(store).await?;
    let taken = services.values().flat_map(|service| taken_ports(Some(&service.value)));
    let taken: BTreeSet<u16> = taken.filter_map(|port| u16::try_from(port).ok()).collect();
    if !ports.replace(taken) {
        return Ok(false);
    }
    let mut together = Together::default();
    ports.finish(&mut together);
    store.commit(Txn { compares: together.compares, ops: together.ops }).await?;
    Ok(true)
}
