//! What drivers were asked to make ready, kept in a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use apimachinery::ObjectKey;
use serde::{Deserialize, Serialize};

const FILE: &str = "dra_manager_state";

/// All claims that pods of this node use.
#[derive(Clone, Debug)]
pub(super) struct State {
    file: PathBuf,
    claims: BTreeMap<ObjectKey, Claim>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Claim {
    namespace: String,
    name: String,
    uid: String,
    /// UIDs.
    pods: BTreeSet<String>,
    /// By driver: what it made ready.
    drivers: BTreeMap<String, Vec<Device>>,
    /// All of them have; asked again by each kubelet.
    #[serde(skip)]
    ready: bool,
}

/// A device that its driver made ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) pool: String,
    pub(super) device: String,
    /// The requests that it is for; empty: all.
    pub(super) requests: Vec<String>,
    pub(super) cdi: Vec<String>,
}

impl State {
    pub(super) fn load(folder: &Path) -> io::Result<State> {
        let file = folder.join(FILE);
        let claims: Vec<Claim> = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let keyed = |claim: Claim| (ObjectKey::new(&*claim.namespace, &*claim.name), claim);
        Ok(State { file, claims: claims.into_iter().map(keyed).collect() })
    }

    pub(super) fn save(&self) -> io::Result<()> {
        let fresh = self.file.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.claims.values().collect::<Vec<_>>())?)?;
        file.sync_data()?;
        fs::rename(fresh, &self.file)
    }

    pub(super) fn pods(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.claims.values().flat_map(|claim| &claim.pods).collect();
        all.into_iter().cloned().collect()
    }

    /// The pod is about to use the claim; whether it is ready already.
    pub(super) fn begin<'a>(
        &mut self,
        key: &ObjectKey,
        uid: &str,
        drivers: impl Iterator<Item = &'a String>,
        pod: &str,
    ) -> Result<bool, String> {
        let claim = self.claims.entry(key.clone()).or_insert_with(|| Claim {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.to_owned(),
            drivers: drivers.map(|driver| (driver.clone(), Vec::new())).collect(),
            ..Claim::default()
        });
        if claim.uid != uid {
            let (name, old) = (&claim.name, &claim.uid);
            return Err(format!(
                "old ResourceClaim with same name {name} and different UID {old} still exists (previous pod force-deleted?!)"
            ));
        }
        claim.pods.insert(pod.to_owned());
        Ok(claim.ready)
    }

    pub(super) fn has(&mut self, key: &ObjectKey, driver: &str, devices: Vec<Device>) {
        if let Some(claim) = self.claims.get_mut(key) {
            claim.drivers.insert(driver.to_owned(), devices);
        }
    }

    /// All drivers of these claims have done their part.
    pub(super) fn finish<'a>(&mut self, keys: impl Iterator<Item = &'a ObjectKey>) {
        for key in keys {
            if let Some(claim) = self.claims.get_mut(key) {
                claim.ready = true;
            }
        }
    }

    pub(super) fn of_pod(&self, pod: &str) -> Vec<ObjectKey> {
        self.claims.iter().filter(|(_, claim)| claim.pods.contains(pod)).map(|(key, _)| key.clone()).collect()
    }

    /// The pod doesn't use the claim any more. If nobody else does it stays until it is forgotten: its UID and its drivers.
    pub(super) fn leave(&mut self, key: &ObjectKey, pod: &str) -> Option<(String, Vec<String>)> {
        let claim = self.claims.get_mut(key)?;
        if claim.pods.len() > 1 {
            claim.pods.remove(pod);
            return None;
        }
        claim.ready = false;
        Some((claim.uid.clone(), claim.drivers.keys().cloned().collect()))
    }

    pub(super) fn forget(&mut self, keys: Vec<&ObjectKey>) {
        for key in keys {
            self.claims.remove(key);
        }
    }

    /// What is to be given to containers for a request (empty: for all of them); `None`: the claim isn't known.
    pub(super) fn cdi_ids(&self, key: &ObjectKey, request: &str) -> Option<impl Iterator<Item = &str>> {
        let claim = self.claims.get(key)?;
        let all = claim.drivers.values().flatten();
        let suits = move |device: &&Device| {
            request.is_empty() || device.requests.is_empty() || device.requests.iter().any(|name| name == request)
        };
        Some(all.filter(suits).flat_map(|device| device.cdi.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_did_is_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::load(folder.path()).unwrap();
        let (key, driver) = (ObjectKey::new("ns", "c"), "d.io".to_owned());
        let begin = |state: &mut State, uid: &str, pod: &str| state.begin(&key, uid, [&driver].into_iter(), pod);
        assert_eq!(begin(&mut state, "u", "p"), Ok(false));
        let device = |name: &str, requests: &[&str]| Device {
            pool: "p".into(),
            device: name.into(),
            requests: requests.iter().map(|name| (*name).to_owned()).collect(),
            cdi: vec![format!("d.io/x={name}")],
        };
        state.has(&key, &driver, vec![device("a", &["r"]), device("b", &["s"]), device("c", &[])]);
        state.finish([&key].into_iter());
        assert_eq!(begin(&mut state, "u", "q"), Ok(true));
        assert!(begin(&mut state, "other", "q").unwrap_err().contains("different UID u still exists"));
        state.save().unwrap();

        let mut state = State::load(folder.path()).unwrap();
        assert_eq!(state.pods(), ["p", "q"]);
        let check = |state: &State, request: &str, expect: &[&str]| {
            assert_eq!(state.cdi_ids(&key, request).unwrap().collect::<Vec<_>>(), expect);
        };
        check(&state, "", &["d.io/x=a", "d.io/x=b", "d.io/x=c"]);
        check(&state, "s", &["d.io/x=b", "d.io/x=c"]);
        assert!(state.cdi_ids(&ObjectKey::new("ns", "other"), "").is_none());
        assert_eq!(begin(&mut state, "u", "p"), Ok(false), "each kubelet asks again");
        assert_eq!(state.leave(&key, "p"), None);
        assert_eq!(state.leave(&key, "q"), Some(("u".into(), vec!["d.io".into()])));
        assert_eq!(state.of_pod("q"), std::slice::from_ref(&key), "until the drivers have done their part");
        state.forget(vec![&key]);
        assert!(state.pods().is_empty());
    }
}
