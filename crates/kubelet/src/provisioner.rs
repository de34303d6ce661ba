//! The local provisioner: makes folders of this node into volumes for claims, and removes them when they are released.
//!
//! A claim whose class names [`PROVISIONER`] gets the folder `volumes/pvc-<uid of the claim>` of the data folder, a PersistentVolume
//! for it that no other node can use, and a link `claims/<namespace>/<claim>` by which a person finds it. As the name is made of
//! the claim's uid, each step can be done again after a crash. It has an identity of its own, for a kubelet may not make volumes.
//!
//! It knows nothing of pods and nothing of mounts.

mod create;
mod folders;
mod remove;

use std::path::PathBuf;
use std::sync::Arc;

use client::{Client, EventRecorder, Informers, Resource, resources};

use folders::Folders;

/// What StorageClasses name as their provisioner.
pub const PROVISIONER: &str = "oxikube.io/local";

const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Holds a volume's object until its folder is gone. Upstream: the external provisioner's, with HonorPVReclaimPolicy.
const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
const HOSTNAME: &str = "kubernetes.io/hostname";
const STORAGE_CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");

/// Where volumes are made, and for whom.
#[derive(Clone)]
pub struct Config {
    /// Speaks as an account that may make volumes.
    pub client: Client,
    pub node_name: String,
    /// The volumes' folder.
    pub volumes: PathBuf,
    /// The folder of the links to them.
    pub claims: PathBuf,
}

/// Follows claims and volumes until dropped.
pub async fn run(config: Config) {
    let informers = Informers::new(config.client.clone());
    let shared = Arc::new(Shared {
        recorder: EventRecorder::start(config.client.clone(), PROVISIONER, &config.node_name),
        folders: Folders::new(config.volumes, config.claims),
        claims: informers.of(&resources::PERSISTENT_VOLUME_CLAIMS),
        volumes: informers.of(&resources::PERSISTENT_VOLUMES),
        classes: informers.of(&STORAGE_CLASSES),
        node: config.node_name,
    });
    shared.claims.synced().await;
    shared.volumes.synced().await;
    shared.sweep().await;
    let create = Arc::new(create::Create(shared.clone()));
    let remove = Arc::new(remove::Remove(shared));
    tokio::join!(client::run(config.client.clone(), create), client::run(config.client, remove));
}

/// What both controllers use.
struct Shared {
    recorder: EventRecorder,
    folders: Folders,
    claims: client::Informer,
    volumes: client::Informer,
    classes: client::Informer,
    node: String,
}

impl Shared {
    /// Removes what a crash left: half-removed folders, and empty ones that nobody was ever given.
    async fn sweep(&self) {
        let folders = self.folders.clone();
        let claims: Vec<String> = self.claims.list("").iter().map(|claim| name_of(claim.uid())).collect();
        let volumes: Vec<String> = self.volumes.list("").iter().map(|volume| volume.name().to_owned()).collect();
        let known = move |name: &str| claims.iter().chain(&volumes).any(|known| known == name);
        let swept = tokio::task::spawn_blocking(move || folders.sweep(&known)).await.map_err(std::io::Error::other);
        if let Err(error) = swept.and_then(|swept| swept) {
            tracing::warn!(%error, "the volumes' folder can't be swept");
        }
    }
}

/// The name of the volume, and of its folder, for the claim with this uid.
fn name_of(claim_uid: &str) -> String {
    format!("pvc-{claim_uid}")
}
