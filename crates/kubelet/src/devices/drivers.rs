//! The drivers that have registered. Upstream: pkg/kubelet/cm/dra/plugin DRAPluginManager.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cri::drivers::Driver;
use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Default)]
pub(super) struct Drivers {
    /// By name, in the order in which they came: while a driver is replaced there are two.
    all: Mutex<BTreeMap<String, Vec<Registered>>>,
    changes: watch::Sender<u64>,
}

struct Registered {
    /// The socket that it registered with.
    socket: PathBuf,
    endpoint: PathBuf,
    driver: Driver,
}

impl Drivers {
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The driver of this name that came last.
    pub(super) fn get(&self, name: &str) -> Result<Driver, String> {
        let all = self.all.lock();
        let found = all.get(name).and_then(|drivers| drivers.last());
        found.map(|found| found.driver.clone()).ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        self.all.lock().contains_key(name)
    }

    pub(super) fn add(&self, name: &str, socket: &Path, endpoint: &Path, driver: Driver) -> Result<(), String> {
        let mut all = self.all.lock();
        let drivers = all.entry(name.to_owned()).or_default();
        if drivers.iter().any(|known| known.endpoint == endpoint) {
            let endpoint = endpoint.display();
            return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {name}"));
        }
        drivers.push(Registered { socket: socket.to_owned(), endpoint: endpoint.to_owned(), driver });
        drop(all);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Whoever registered with the socket is gone; the names of drivers that there are no more.
    pub(super) fn remove(&self, socket: &Path) -> Vec<String> {
        let mut all = self.all.lock();
        for drivers in all.values_mut() {
            drivers.retain(|known| known.socket != socket);
        }
        let gone: Vec<String> =
            all.iter().filter(|(_, drivers)| drivers.is_empty()).map(|(name, _)| name.clone()).collect();
        all.retain(|_, drivers| !drivers.is_empty());
        drop(all);
        if !gone.is_empty() {
            self.changes.send_modify(|count| *count += 1);
        }
        gone
    }
}
