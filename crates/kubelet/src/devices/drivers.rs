//! The drivers that have registered, and which of them can be reached. Upstream: pkg/kubelet/cm/dra/plugin DRAPluginManager.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cri::drivers::Driver;
use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Default)]
pub(super) struct Drivers {
    /// By name, in the order in which they came: while a driver is replaced there are two, and none when it has gone.
    all: Mutex<BTreeMap<String, Vec<Registered>>>,
    changes: watch::Sender<u64>,
}

struct Registered {
    /// The socket that it registered with.
    socket: PathBuf,
    endpoint: PathBuf,
    driver: Driver,
    connected: bool,
}

impl Drivers {
    /// Changes whenever a driver comes, goes, is connected, or has lost its connection.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The driver of this name that came last, of those that are connected if there are any.
    pub(super) fn get(&self, name: &str) -> Result<Driver, String> {
        let all = self.all.lock();
        let drivers = all.get(name).map(Vec::as_slice).unwrap_or_default();
        let found = drivers.iter().rfind(|known| known.connected).or(drivers.last());
        found.map(|found| found.driver.clone()).ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    /// The drivers that registered at some time and can't be reached.
    pub(super) fn away(&self) -> Vec<String> {
        let all = self.all.lock();
        let away = all.iter().filter(|(_, drivers)| drivers.iter().all(|known| !known.connected));
        away.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn add(&self, name: &str, socket: &Path, endpoint: &Path, driver: Driver) -> Result<(), String> {
        let mut all = self.all.lock();
        let drivers = all.entry(name.to_owned()).or_default();
        if drivers.iter().any(|known| known.endpoint == endpoint) {
            let endpoint = endpoint.display();
            return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {name}"));
        }
        let (socket, endpoint) = (socket.to_owned(), endpoint.to_owned());
        drivers.push(Registered { socket, endpoint, driver, connected: false });
        drop(all);
        self.changed();
        Ok(())
    }

    /// There is a connection to the driver of this name behind the endpoint.
    pub(super) fn connected(&self, name: &str, endpoint: &Path, driver: Driver) {
        self.edit(name, endpoint, |known| {
            known.driver = driver;
            known.connected = true;
        });
    }

    /// The connection has ended.
    pub(super) fn lost(&self, name: &str, endpoint: &Path) {
        self.edit(name, endpoint, |known| known.connected = false);
    }

    fn edit(&self, name: &str, endpoint: &Path, edit: impl FnOnce(&mut Registered)) {
        let mut all = self.all.lock();
        let mut drivers = all.get_mut(name).into_iter().flatten();
        if let Some(known) = drivers.find(|known| known.endpoint == endpoint) {
            edit(known);
        }
        drop(all);
        self.changed();
    }

    /// Whoever registered with the socket is gone.
    pub(super) fn remove(&self, socket: &Path) {
        let mut all = self.all.lock();
        all.values_mut().for_each(|drivers| drivers.retain(|known| known.socket != socket));
        drop(all);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
