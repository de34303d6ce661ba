//! Upstream's API server and scheduler, and the objects of one scenario after the other in them.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apimachinery::{ObjectKey, Value as Any};
use client::{Client, DeleteOptions, Kubeconfig, PatchKind, Resource, Selection, Tls, resources};
use env::Env;
use pki::{CertificateSpec, ClusterPki};
use serde_json::{Value, json};
use testkit::placements::Scenario;

use super::claims::{self, RESOURCE_CLAIMS};
use super::log::Scores;
use crate::parity::servers::{self, Running, UPSTREAM};

const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);
/// How long the scheduler gets to see what was made: its watches have no common clock.
const SETTLE: Duration = Duration::from_millis(250);

const CSI_NODES: Resource = Resource::cluster("storage.k8s.io", "v1", "csinodes");
const STORAGE_CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");
const RESOURCE_SLICES: Resource = Resource::cluster("resource.k8s.io", "v1", "resourceslices");
const DEVICE_CLASSES: Resource = Resource::cluster("resource.k8s.io", "v1", "deviceclasses");

/// The kinds of scenarios, in the order in which they are removed.
static KINDS: [(&str, Resource); 12] = [
    ("Pod", resources::PODS),
    ("ResourceClaim", RESOURCE_CLAIMS),
    ("ResourceSlice", RESOURCE_SLICES),
    ("DeviceClass", DEVICE_CLASSES),
    ("PodDisruptionBudget", resources::POD_DISRUPTION_BUDGETS),
    ("Service", resources::SERVICES),
    ("PersistentVolumeClaim", resources::PERSISTENT_VOLUME_CLAIMS),
    ("PersistentVolume", resources::PERSISTENT_VOLUMES),
    ("StorageClass", STORAGE_CLASSES),
    ("CSINode", CSI_NODES),
    ("Node", resources::NODES),
    ("Namespace", resources::NAMESPACES),
];

/// The programs, ready; dropping it ends them.
pub struct World {
    env: Env,
    client: Client,
    log: PathBuf,
    /// How much of the log was read.
    read: u64,
    _running: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn start(logs: &Path) -> Result<World> {
        fs::create_dir_all(logs).with_context(|| format!("creating {}", logs.display()))?;
        let folder = tempfile::tempdir()?;
        let env = Env::system();
        let pki = ClusterPki::load_or_create(&folder.path().join("pki"), &env)?;
        let [port, etcd_port, peer_port, own_port] = servers::free_ports()?;
        let etcd = format!("http://{UPSTREAM}:{etcd_port}");
        let mut running = vec![servers::spawn("etcd", servers::etcd_command(folder.path(), &etcd, peer_port), logs)?];
        let mut api = servers::upstream_command(folder.path(), &pki, &etcd, port)?;
        // Scenarios are complete: nobody is to add anything to them, or to keep them from going.
        api.arg("--disable-admission-plugins=ServiceAccount,Priority,TaintNodesByCondition,DefaultTolerationSeconds,StorageObjectInUseProtection,DefaultStorageClass,LimitRanger,ResourceQuota,PodSecurity,RuntimeClass");
        running.push(servers::spawn("kube-apiserver", api, logs)?);
        let kubeconfig = kubeconfig(folder.path(), &pki, port)?;
        let config = Kubeconfig::load(std::slice::from_ref(&kubeconfig))?.access(None)?;
        let client = Client::new(env.clone(), Arc::new(Tls::new(env.clone(), &config)?), "scheduler-diff");
        let deadline = env.monotonic() + PATIENCE;
        while client.get(&resources::NAMESPACES, &ObjectKey::cluster("default")).await.is_err() {
            if env.monotonic() > deadline {
                bail!("upstream's server did not become ready; its log is in {}", logs.display());
            }
            env.sleep(PAUSE * 10).await;
        }
        let mut configuration = testkit::placements::configuration();
        configuration["clientConnection"] =
            json!({"kubeconfig": kubeconfig.display().to_string(), "qps": 1000, "burst": 1000});
        let configured = folder.path().join("scheduler.json");
        fs::write(&configured, configuration.to_string())?;
        let mut scheduler = Command::new(testkit::peers::path("kube-scheduler"));
        scheduler.arg("--config").arg(&configured).arg("-v=10");
        scheduler.args([format!("--bind-address={UPSTREAM}"), format!("--secure-port={own_port}")]);
        scheduler.arg("--authentication-skip-lookup=true");
        running.push(servers::spawn("kube-scheduler", scheduler, logs)?);
        let log = logs.join("kube-scheduler.log");
        while !fs::read_to_string(&log)?.contains("Caches populated") {
            if env.monotonic() > deadline {
                bail!("upstream's scheduler did not become ready; its log is {}", log.display());
            }
            env.sleep(PAUSE * 10).await;
        }
        Ok(World { env, client, log, read: 0, _running: running, _folder: folder })
    }

    /// Makes the objects, status and all.
    pub async fn make(&mut self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.create(object).await?;
        }
        self.env.sleep(SETTLE).await;
        Ok(())
    }

    async fn create(&self, object: &Value) -> Result<()> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let (_, resource) = KINDS.iter().find(|(name, _)| *name == kind).context("a kind of scenarios")?;
        let made = self.client.create(resource, &Any::from_serialize(object)?).await;
        match made {
            Err(error) if error.is_already_exists() && kind == "Namespace" => return Ok(()),
            made => drop(made.with_context(|| format!("creating {object}"))?),
        }
        if object.get("status").is_some() && kind != "Node" {
            let meta = &object["metadata"];
            let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
            let patch = Any::from_serialize(&json!({"status": object["status"]}))?;
            let key = ObjectKey::new(text("namespace"), text("name"));
            self.client.patch_status(resource, &key, PatchKind::Merge, &patch).await?;
        }
        Ok(())
    }

    /// Creates a pod and says what the scheduler does with it; true: what it does isn't over, so no other pod may follow.
    pub async fn place(&mut self, scenario: &Scenario, at: usize) -> Result<(Value, bool)> {
        let pod = &scenario.pods[at];
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey::new(text("namespace"), text("name"));
        let (mut decision, over) = self.decide(scenario, at, &key).await?;
        if pod["spec"].get("resourceClaims").is_some() {
            if decision.get("node").is_some() {
                decision["allocations"] = claims::allocations(&self.client, scenario, at, &key).await?;
            } else {
                // Claims that others get later shall not bring it back.
                self.client.delete(&resources::PODS, &key, &DeleteOptions::default().grace(0)).await?;
            }
        }
        Ok((decision, over))
    }

    async fn decide(&mut self, scenario: &Scenario, at: usize, key: &ObjectKey) -> Result<(Value, bool)> {
        let (before, ending) = self.pods().await?;
        let pod = &scenario.pods[at];
        if pod.get("status").is_some() {
            claims::make_for(&self.client, scenario, at).await?;
            // Claims come by a watch of their own; the pod's status, which names them, lets it be tried.
            self.env.sleep(SETTLE).await;
            claims::tell(&self.client, pod).await?;
        } else {
            self.create(pod).await?;
        }
        let deadline = self.env.monotonic() + PATIENCE;
        let mut settling = 0;
        loop {
            let object = self.client.get(&resources::PODS, key).await?.to_value();
            let node = object.str_at(&["spec", "nodeName"]).unwrap_or_default().to_owned();
            let nominated = object.str_at(&["status", "nominatedNodeName"]).unwrap_or_default().to_owned();
            let conditions = object.items_at(&["status", "conditions"]);
            let message = conditions.iter().find(|c| c.str_at(&["type"]) == Some("PodScheduled"));
            let message = message.filter(|c| c.str_at(&["status"]) == Some("False"));
            let message = message.and_then(|c| c.str_at(&["message"])).unwrap_or_default().to_owned();
            if !node.is_empty() {
                // It may have been tried again before anybody could look.
                if let Some(message) = claims::taken_back(&std::fs::read_to_string(&self.log)?, &key.to_string()) {
                    return Ok((json!({"message": message}), true));
                }
                let (after, _) = self.pods().await?;
                let gone: Vec<&String> = before.iter().filter(|pod| !after.contains(pod)).collect();
                if !gone.is_empty() {
                    return Ok((json!({"node": node, "victims": gone}), false));
                }
                self.env.sleep(PAUSE).await;
                return Ok((self.scored(key, &node)?, false));
            }
            // A node that it was promised while nobody has to go: it waits for its volumes.
            if !nominated.is_empty() && message.is_empty() {
                settling += 1;
                if settling > 10 {
                    return Ok((self.scored(key, &nominated)?, true));
                }
            }
            if !message.is_empty() && nominated.is_empty() {
                // A claim that was taken back goes to whom the scheduler tries next.
                let over = message.contains(claims::TAKEN_BACK);
                return Ok((json!({"message": message}), over));
            }
            // Pods that take their time to go make room for it.
            if !nominated.is_empty() && !message.is_empty() && self.pods().await?.1 != ending {
                self.env.sleep(SETTLE).await;
                let (_, victims) = self.pods().await?;
                let victims: Vec<&String> = victims.iter().filter(|pod| !ending.contains(pod)).collect();
                if !victims.is_empty() {
                    return Ok((json!({"nominated": nominated, "victims": victims}), false));
                }
            }
            if self.env.monotonic() > deadline {
                bail!("upstream's scheduler leaves {key} alone; its log is {}", self.log.display());
            }
            self.env.sleep(PAUSE).await;
        }
    }

    fn scored(&mut self, pod: &ObjectKey, node: &str) -> Result<Value> {
        let mut file = fs::File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut log = Vec::new();
        self.read += file.read_to_end(&mut log)? as u64;
        let scores = Scores::read(&String::from_utf8_lossy(&log), &pod.to_string());
        Ok(json!({"node": node, "totals": scores.totals, "scores": scores.to_value()}))
    }

    /// All pods, and those of them that are ending.
    async fn pods(&self) -> Result<(Vec<String>, Vec<String>)> {
        let list = self.client.list(&resources::PODS, &Selection::all(), &Default::default()).await?;
        let ending = list.items.iter().filter(|pod| pod.is_deleting()).map(|pod| pod.key().to_string()).collect();
        Ok((list.items.iter().map(|pod| pod.key().to_string()).collect(), ending))
    }

    /// Removes everything.
    pub async fn clear(&mut self) -> Result<()> {
        for (kind, resource) in KINDS.iter().filter(|(kind, _)| *kind != "Namespace") {
            let list = self.client.list(resource, &Selection::all(), &Default::default()).await?;
            for object in &list.items {
                if *kind == "Service" && object.name() == "kubernetes" {
                    continue;
                }
                if *kind == "ResourceClaim" {
                    claims::let_go(&self.client, object.key()).await?;
                }
                let options = DeleteOptions::default().grace(0);
                match self.client.delete(resource, object.key(), &options).await {
                    Err(error) if !error.is_not_found() => bail!("deleting {kind} {}: {error}", object.key()),
                    _ => {}
                }
            }
        }
        self.env.sleep(SETTLE).await;
        Ok(())
    }
}

/// An administrator's.
fn kubeconfig(folder: &Path, pki: &ClusterPki, port: u16) -> Result<PathBuf> {
    let leaf = pki.ca().issue(&CertificateSpec::client("scheduler-diff", "system:masters"))?;
    fs::write(folder.join("admin.crt"), leaf.certificate_pem())?;
    fs::write(folder.join("admin.key"), leaf.key_pem())?;
    let file = |name: &str| folder.join(name).display().to_string();
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("https://{UPSTREAM}:{port}"), "certificate-authority": file("pki/ca.crt")}}],
        "users": [{"name": "it", "user": {"client-certificate": file("admin.crt"), "client-key": file("admin.key")}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]});
    let path = folder.join("kubeconfig");
    fs::write(&path, config.to_string())?;
    Ok(path)
}
