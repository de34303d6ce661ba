//! Nodes that are only said to be there: Node objects with leases kept alive, and one kubelet for all of them that says of pods what a
//! kubelet would, over the API alone.
//!
//! A pod bound to one of them runs and is ready at once, unless its annotations say otherwise:
//!
//! | annotation | what it asks for |
//! |---|---|
//! | `fake/ready: "false"` | it runs, and never becomes ready |
//! | `fake/ready-after: "2"` | it becomes ready after two seconds |
//! | `fake/exit: "0"` | its containers exit with this code |
//! | `fake/exit-of-index: "1=7,3=1"` | exit codes by the pod's completion index; others as `fake/exit` says |
//! | `fake/after: "2"` | when they exit, in seconds after they ran |
//! | `fake/families: "IPv4,IPv6"` | it has an address of each family; `IPv6`: only that one |
//! | `fake/linger: "3"` | how long its containers take to end once it is deleted |
//!
//! An image whose name contains `unpullable` or `non-existent` leaves its pod Pending with `ErrImagePull`.

mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use apimachinery::{ObjectKey, Value as Any};
use client::{
    Client, Controller, DeleteOptions, Error, Informer, PatchKind, ReconcileContext, ReconcileError, Requeue,
    Selection, TaskGuard, Watch, Workqueue, resources,
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use pod::{Orders, Seen};

/// How often leases are renewed, as kubelets do.
const RENEWAL: Duration = Duration::from_secs(10);
/// Leases renewed at a time.
const RENEWALS: usize = 16;
const LEASES: &str = "kube-node-lease";
/// Pods worked on at a time.
const WORKERS: usize = 32;

/// Nodes and their kubelet; they fall silent when it is dropped.
pub struct FakeNodes {
    client: Client,
    inner: Arc<Inner>,
    _tasks: [TaskGuard; 2],
}

struct Inner {
    pods: Informer,
    alive: Mutex<BTreeMap<String, u32>>,
    next_node: AtomicU32,
    next_address: AtomicU32,
    began: Mutex<BTreeMap<String, Began>>,
    queue: Mutex<Option<Workqueue<ObjectKey>>>,
}

/// What the kubelet remembers of a pod, by its uid.
#[derive(Clone, Copy, Default)]
struct Began {
    running: Option<Instant>,
    ending: Option<Instant>,
    restarts: i64,
}

impl FakeNodes {
    /// No node yet; `client` may write nodes, leases and pods.
    pub fn start(client: &Client) -> FakeNodes {
        // What has no node yet is nobody's here.
        let bound = Selection::all().fields("spec.nodeName!=");
        let pods = Informer::start(&client.trimming(pod::trim), resources::PODS, bound);
        let inner = Arc::new(Inner {
            pods,
            alive: Mutex::default(),
            next_node: AtomicU32::new(1),
            next_address: AtomicU32::new(0),
            began: Mutex::default(),
            queue: Mutex::default(),
        });
        let env = client.env();
        let kubelet = env.spawn(client::run(client.clone(), Arc::new(Kubelet(inner.clone()))));
        let leases = env.spawn(renew(client.clone(), inner.clone()));
        FakeNodes { client: client.clone(), inner, _tasks: [TaskGuard::new(kubelet), TaskGuard::new(leases)] }
    }

    /// Makes the node `name` with these labels, and further members of its object such as `spec.taints`.
    pub async fn add(&self, name: &str, labels: &BTreeMap<String, String>, more: &Value) -> Result<(), Error> {
        let number = self.inner.next_node.fetch_add(1, Ordering::Relaxed);
        let key = ObjectKey::cluster(name);
        let mut node = node(name, number, labels, &self.now());
        merge(&mut node, more);
        // Pods may be bound to it at once.
        self.inner.alive.lock().insert(name.to_owned(), number);
        self.client.create(&resources::NODES, &body(&node)).await?;
        self.renew_one(name).await?;
        // What admission holds against a new node goes when it says that it is ready.
        let status = body(&json!({"status": node["status"]}));
        self.client.patch_status(&resources::NODES, &key, PatchKind::Strategic, &status).await?;
        Ok(())
    }

    /// The node falls silent, as if its power were cut: its lease, just renewed, ends, its pods are left as they are. Nodes that are
    /// stopped together are silent together.
    pub async fn stop(&self, name: &str) -> Result<(), Error> {
        self.inner.alive.lock().remove(name);
        self.renew_one(name).await
    }

    /// The node is back and says so, and looks after its pods again.
    pub async fn resume(&self, name: &str) -> Result<(), Error> {
        self.renew_one(name).await?;
        let now = self.now();
        let status = body(&json!({"status": {"conditions": conditions(&now)}}));
        self.client.patch_status(&resources::NODES, &ObjectKey::cluster(name), PatchKind::Strategic, &status).await?;
        let number = self.inner.next_node.fetch_add(1, Ordering::Relaxed);
        self.inner.alive.lock().insert(name.to_owned(), number);
        if let Some(queue) = self.inner.queue.lock().as_ref() {
            self.inner.pods.list("").iter().for_each(|pod| queue.add(pod.key().clone()));
        }
        Ok(())
    }

    /// The node is gone, its object too.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        self.inner.alive.lock().remove(name);
        self.client.delete(&resources::NODES, &ObjectKey::cluster(name), &DeleteOptions::default()).await.map(drop)
    }

    fn now(&self) -> String {
        now(&self.client)
    }

    async fn renew_one(&self, name: &str) -> Result<(), Error> {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": LEASES},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro(&self.client)}});
        match self.client.create(&resources::LEASES, &body(&lease)).await {
            Err(error) if error.is_already_exists() => renew_lease(&self.client, name).await,
            other => other.map(drop),
        }
    }
}

fn now(client: &Client) -> String {
    format!("{:.0}", client.env().now())
}

fn micro(client: &Client) -> String {
    format!("{:.6}", client.env().now())
}

fn body(value: &Value) -> Any {
    Any::from_serialize(value).unwrap_or_default()
}

async fn renew_lease(client: &Client, name: &str) -> Result<(), Error> {
    let patch = body(&json!({"spec": {"renewTime": micro(client)}}));
    client.patch(&resources::LEASES, &ObjectKey::new(LEASES, name), PatchKind::Merge, &patch).await.map(drop)
}

async fn renew(client: Client, inner: Arc<Inner>) {
    loop {
        client.env().sleep(RENEWAL).await;
        let names: Vec<String> = inner.alive.lock().keys().cloned().collect();
        // Together: on a busy machine one after the other took longer than a node may be silent.
        let renewals = names.into_iter().map(|name| {
            let client = client.clone();
            // A lease that was collected with its node is no loss.
            async move { drop(renew_lease(&client, &name).await) }
        });
        stream::iter(renewals).buffer_unordered(RENEWALS).collect::<Vec<()>>().await;
    }
}

fn conditions(now: &str) -> Value {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    json!([
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ])
}

fn node(name: &str, number: u32, labels: &BTreeMap<String, String>, now: &str) -> Value {
    let mut all = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), name.to_owned()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
    ]);
    all.extend(labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": all},
    "status": {"capacity": room, "allocatable": room, "conditions": conditions(now),
        "addresses": [
            {"type": "InternalIP", "address": format!("192.168.{}.{}", number >> 8 & 255, number & 255)},
            {"type": "Hostname", "address": name},
        ]}})
}

/// Merges the members of `more` into `value`.
fn merge(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (key, more) in more {
                merge(value.entry(key.clone()).or_insert(Value::Null), more);
            }
        }
        (_, Value::Null) => {}
        (value, more) => *value = more.clone(),
    }
}

struct Kubelet(Arc<Inner>);

impl Controller for Kubelet {
    fn name(&self) -> &'static str {
        "fake-kubelet"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.0.pods.clone())]
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn started(&self, queue: &Workqueue<ObjectKey>) {
        *self.0.queue.lock() = Some(queue.clone());
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.0.pods.get(key) else { return Ok(Requeue::No) };
        let pod = object.to_value();
        let node = pod.str_at(&["spec", "nodeName"]);
        let Some(node) = node.and_then(|node| self.0.alive.lock().get(node).copied()) else { return Ok(Requeue::No) };
        let uid = object.uid();
        let (orders, clock) = (Orders::of(&pod), ctx.env().monotonic());
        let mut began = self.0.began.lock().get(uid).copied().unwrap_or_default();
        let ending = object.is_deleting();
        if ending {
            let since = *began.ending.get_or_insert(clock);
            let at_once = pod.i64_at(&["metadata", "deletionGracePeriodSeconds"]) == Some(0);
            let linger = if at_once { Duration::ZERO } else { orders.linger };
            self.remember(uid, began);
            if let Some(left) = (since + linger).checked_duration_since(clock).filter(|left| !left.is_zero()) {
                return Ok(Requeue::After(left));
            }
        }
        let seen = Seen::of(&pod);
        if seen.is_over() && !ending {
            return Ok(Requeue::No);
        }
        let (wanted, again) = orders.wanted(ending, &mut began, clock);
        self.remember(uid, began);
        if seen != wanted && !seen.is_over() {
            let address = self.address(&pod, node);
            let mut patch = Any::object();
            patch.set(&["metadata", "uid"], uid);
            patch.set(&["status"], wanted.status(&pod, &address, &now(ctx.client())));
            match ctx.client().patch_brief(&resources::PODS, key, "status", PatchKind::Strategic, &patch).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        if ending {
            let mut options = DeleteOptions::default().grace(0);
            options.uid = uid.to_owned();
            match ctx.client().delete(&resources::PODS, key, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                _ => drop(self.0.began.lock().remove(uid)),
            }
            return Ok(Requeue::No);
        }
        Ok(again.map_or(Requeue::No, Requeue::After))
    }
}

impl Kubelet {
    fn remember(&self, uid: &str, began: Began) {
        self.0.began.lock().insert(uid.to_owned(), began);
    }

    /// The pod's address: that of its node's network, or what it has already, or the next one.
    fn address(&self, pod: &Any, node: u32) -> String {
        let known = pod.str_at(&["status", "podIP"]).filter(|address| !address.is_empty());
        if pod.bool_at(&["spec", "hostNetwork"]) == Some(true) {
            return format!("192.168.{}.{}", node >> 8 & 255, node & 255);
        }
        known.map(str::to_owned).unwrap_or_else(|| {
            let n = self.0.next_address.fetch_add(1, Ordering::Relaxed) + 1;
            format!("10.{}.{}.{}", 128 + (n >> 16 & 63), n >> 8 & 255, n & 255)
        })
    }
}

impl FakeNodes {
    /// The nodes that are not silent.
    pub fn alive(&self) -> BTreeSet<String> {
        self.inner.alive.lock().keys().cloned().collect()
    }
}
