//! Devices that pods claim: their drivers make them ready before a pod's sandbox is made and take them back when its containers have ended.
//! Upstream: pkg/kubelet/cm/dra.
//!
//! What drivers were asked for is kept in a file before they are asked, so that a kubelet that died asks them to take it back.

mod drivers;
mod state;
mod watch;
mod withdraw;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use apimachinery::ObjectKey;
use client::{Client, Resource};
use cri::drivers::{Driver, dra};
use cri::v1::CdiDevice;
use env::Env;
use k8s_openapi::api::core::v1::{Container, Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::error::rpc_text;
use crate::spec;
use drivers::Drivers;
use state::{Device, State};

pub(crate) use watch::run;

const RESOURCE_CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");

/// How long a driver may take (upstream: `defaultClientCallTimeout`).
const CALL: Duration = Duration::from_secs(45);

type Turn = tokio::sync::Mutex<()>;

pub(crate) struct Devices {
    env: Env,
    client: Client,
    drivers: Drivers,
    state: Mutex<State>,
    /// Held while the state is written, so that what is newer is written later.
    saving: tokio::sync::Mutex<()>,
    /// A claim that pods share is made ready, or taken back, for one of them at a time.
    turns: Mutex<HashMap<ObjectKey, Weak<Turn>>>,
}

/// A claim of a pod, which that pod may use.
struct Wanted {
    key: ObjectKey,
    uid: String,
    /// The drivers of its devices.
    drivers: BTreeMap<String, Driver>,
}

impl Devices {
    /// What an earlier kubelet kept in the folder is known again.
    pub(crate) fn open(folder: &Path, env: Env, client: Client) -> io::Result<Devices> {
        Ok(Devices {
            drivers: Drivers::default(),
            env,
            client,
            state: Mutex::new(State::load(folder)?),
            saving: tokio::sync::Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// Changes whenever a driver comes or goes, or its connection does.
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.drivers.changes()
    }

    /// The pods that have devices.
    pub(crate) fn pods(&self) -> Vec<String> {
        self.state.lock().pods()
    }

    /// Has all devices of the pod's claims made ready. Upstream: PrepareResources.
    pub(crate) async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let mut wanted = Vec::new();
        for entry in spec::spec(pod).resource_claims.iter().flatten() {
            // Without a name it was found needless.
            if let Some((name, own)) = claim_name(pod, entry)? {
                wanted.push(self.want(pod, &name, own).await?);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_by(|a, b| a.key.cmp(&b.key));
        wanted.dedup_by(|a, b| a.key == b.key);
        let _turns = self.turns(wanted.iter().map(|claim| &claim.key)).await;
        let mut batches: BTreeMap<&str, (&Driver, Vec<dra::Claim>)> = BTreeMap::new();
        {
            let mut state = self.state.lock();
            for claim in &wanted {
                if state.begin(&claim.key, &claim.uid, claim.drivers.keys(), spec::uid(pod))? {
                    continue;
                }
                for (name, driver) in &claim.drivers {
                    let (_, claims) = batches.entry(name).or_insert_with(|| (driver, Vec::new()));
                    claims.push(message(&claim.key, &claim.uid));
                }
            }
        }
        self.save().await?;
        for (name, (driver, claims)) in &batches {
            let answer = self.within(driver.prepare(claims.clone())).await;
            let answer = answer.map_err(|why| format!("NodePrepareResources: {why}"))?;
            self.take_in(name, claims, answer)?;
        }
        self.state.lock().finish(wanted.iter().map(|claim| &claim.key));
        self.save().await
    }

    /// Looks a claim up, and the drivers that it needs.
    async fn want(&self, pod: &Pod, name: &str, own: bool) -> Result<Wanted, String> {
        let key = ObjectKey::new(spec::namespace(pod), name);
        let found = self.client.get(&RESOURCE_CLAIMS, &key).await;
        let found = found.map_err(|error| format!("fetch ResourceClaim {name}: {error}"))?;
        let claim: ResourceClaim = found.view().map_err(|error| format!("fetch ResourceClaim {name}: {error}"))?;
        let owners = claim.metadata.owner_references.iter().flatten();
        if own && !owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == spec::uid(pod)) {
            let pod = ObjectKey::new(spec::namespace(pod), spec::name(pod));
            return Err(format!("ResourceClaim {key} was not created for pod {pod} (pod is not owner)"));
        }
        let uid = found.uid().to_owned();
        let status = claim.status.unwrap_or_default();
        if !status.reserved_for.iter().flatten().any(|user| user.uid == spec::uid(pod)) {
            let (pod, pod_uid) = (spec::name(pod), spec::uid(pod));
            return Err(format!("pod {pod} ({pod_uid}) is not allowed to use ResourceClaim {name} ({uid})"));
        }
        let allocation = status.allocation.ok_or_else(|| format!("ResourceClaim {name}: not allocated"))?;
        let mut drivers = BTreeMap::new();
        for result in allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten()) {
            if !drivers.contains_key(&result.driver) {
                drivers.insert(result.driver.clone(), self.drivers.get(&result.driver)?);
            }
        }
        Ok(Wanted { key, uid, drivers })
    }

    /// Keeps what a driver made ready.
    fn take_in(
        &self,
        driver: &str,
        asked: &[dra::Claim],
        answer: dra::NodePrepareResourcesResponse,
    ) -> Result<(), String> {
        let left = asked.len().saturating_sub(answer.claims.len());
        for (uid, result) in answer.claims {
            let unknown = || format!("NodePrepareResources returned result for unknown claim UID {uid}");
            let claim = asked.iter().find(|claim| claim.uid == uid).ok_or_else(unknown)?;
            if !result.error.is_empty() {
                return Err(format!("NodePrepareResources failed for ResourceClaim {}: {}", claim.name, result.error));
            }
            let devices = result.devices.into_iter().map(|device| Device {
                pool: device.pool_name,
                device: device.device_name,
                requests: device.request_names,
                cdi: device.cdi_device_ids,
            });
            self.state.lock().has(&ObjectKey::new(&claim.namespace, &claim.name), driver, devices.collect());
        }
        match left {
            0 => Ok(()),
            left => Err(format!("NodePrepareResources skipped {left} ResourceClaims")),
        }
    }

    /// Has the devices taken back that no other pod uses. Upstream: UnprepareResources.
    pub(crate) async fn unprepare(&self, pod: &str) -> Result<(), String> {
        let keys = self.state.lock().of_pod(pod);
        if keys.is_empty() {
            return Ok(());
        }
        let _turns = self.turns(keys.iter()).await;
        let (mut last, mut batches): (Vec<&ObjectKey>, BTreeMap<String, Vec<dra::Claim>>) = Default::default();
        {
            let mut state = self.state.lock();
            for key in &keys {
                let Some((uid, drivers)) = state.leave(key, pod) else { continue };
                last.push(key);
                for driver in drivers {
                    batches.entry(driver).or_default().push(message(key, &uid));
                }
            }
        }
        for (name, claims) in batches {
            let driver = self.drivers.get(&name)?;
            let answer = self.within(driver.unprepare(claims.clone())).await;
            let answer = answer.map_err(|why| format!("NodeUnprepareResources: {why}"))?;
            for claim in &claims {
                let (uid, name) = (&claim.uid, &claim.name);
                match answer.claims.get(uid) {
                    None => return Err(format!("NodeUnprepareResources skipped ResourceClaim {name}")),
                    Some(result) if !result.error.is_empty() => {
                        return Err(format!(
                            "NodeUnprepareResources failed for ResourceClaim {name}: {}",
                            result.error
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        self.state.lock().forget(last);
        self.save().await
    }

    /// The devices that the container gets of its pod's claims. Upstream: GetResources.
    pub(crate) fn of_container(&self, pod: &Pod, container: &Container) -> Result<Vec<CdiDevice>, String> {
        let uses = container.resources.as_ref().and_then(|resources| resources.claims.as_deref()).unwrap_or_default();
        let mut devices = Vec::new();
        for entry in spec::spec(pod).resource_claims.iter().flatten() {
            let Some((name, _)) = claim_name(pod, entry)? else { continue };
            let key = ObjectKey::new(spec::namespace(pod), &*name);
            for used in uses.iter().filter(|used| used.name == entry.name) {
                let state = self.state.lock();
                let request = used.request.as_deref().unwrap_or_default();
                let ids = state.cdi_ids(&key, request);
                let ids =
                    ids.ok_or_else(|| format!("internal error: unable to get claim info for ResourceClaim {name}"))?;
                devices.extend(ids.map(|name| CdiDevice { name: name.to_owned() }));
            }
        }
        Ok(devices)
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, String> {
        let late = || tonic::Status::deadline_exceeded("context deadline exceeded");
        let answer = self.env.timeout(CALL, call).await.unwrap_or_else(|| Err(late()));
        answer.map_err(|status| rpc_text(&status))
    }

    /// Waits until nobody else is busy with these claims, which are sorted.
    async fn turns(&self, keys: impl Iterator<Item = &ObjectKey>) -> Vec<OwnedMutexGuard<()>> {
        let mut all = Vec::new();
        for key in keys {
            let turn = {
                let mut turns = self.turns.lock();
                let known = turns.get(key).and_then(Weak::upgrade);
                known.unwrap_or_else(|| {
                    turns.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::new(Turn::default());
                    turns.insert(key.clone(), Arc::downgrade(&turn));
                    turn
                })
            };
            all.push(turn.lock_owned().await);
        }
        all
    }

    async fn save(&self) -> Result<(), String> {
        let _turn = self.saving.lock().await;
        let state = self.state.lock().clone();
        let saved = tokio::task::spawn_blocking(move || state.save()).await.map_err(io::Error::other);
        saved.and_then(|saved| saved).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }
}

/// The claim that an entry of the pod means, and whether it was made for the pod; `None`: it was found needless.
fn claim_name(pod: &Pod, entry: &PodResourceClaim) -> Result<Option<(String, bool)>, String> {
    if let Some(name) = &entry.resource_claim_name {
        return Ok(Some((name.clone(), false)));
    }
    let made = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default();
    match made.iter().find(|status| status.name == entry.name) {
        Some(status) => Ok(status.resource_claim_name.clone().map(|name| (name, true))),
        None => {
            let pod = ObjectKey::new(spec::namespace(pod), spec::name(pod));
            Err(format!("pod \"{pod}\": ResourceClaim not created yet"))
        }
    }
}

fn message(key: &ObjectKey, uid: &str) -> dra::Claim {
    dra::Claim { namespace: key.namespace.clone(), uid: uid.to_owned(), name: key.name.clone() }
}
