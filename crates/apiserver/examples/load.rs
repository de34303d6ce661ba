//! What each kind of request costs an API server in CPU time:
//! `cargo run --release -p apiserver --example load -- [requests of each kind] [watchers of pods] [KUBECONFIG PID]`.
//!
//! The server is the one with that process id, whoever made it, or one in this process with threads of its own, named `api`; its
//! store is in memory, or in the folder that `STORE` names. It is asked over TLS, as a component in another process would. Counted
//! is what its threads used, by the kernel's clock of each (`/proc/self/task/*/schedstat`): other load on the machine changes it by
//! what it does to the processor's caches. A profile of the server alone: `perf record -g` and then `perf report --comm api`.

use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::{ObjectKey, Value};
use apiserver::{Config, Settings};
use client::{
    Client, DeleteOptions, Kubeconfig, ListOptions, PatchKind, Selection, Tls, TlsConfig, WatchOptions, resources,
};
use env::Env;
use futures_util::{StreamExt, TryStreamExt, stream};
use pki::{CertificateSpec, ClusterPki};
use serde_json::json;

/// Requests under way at a time.
const AT_ONCE: usize = 8;
const NAMESPACE: &str = "default";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let count = args.next().map_or(Ok(1000), |text| text.parse())?;
    let watchers = args.next().map_or(Ok(2), |text| text.parse())?;
    if let (Some(kubeconfig), Some(pid)) = (args.next(), args.next()) {
        return elsewhere(&kubeconfig, &pid, count, watchers);
    }
    let folder = tempfile::tempdir()?;
    let env = Env::system();
    let pki = Arc::new(ClusterPki::load_or_create(folder.path(), &env)?);
    let serving = tokio::runtime::Builder::new_multi_thread().thread_name("api").enable_all().build()?;
    let asking = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = store::Embedded::open(match std::env::var_os("STORE") {
        Some(folder) => store::Config::new(folder, env.clone()),
        None => store::Config::in_memory(env.clone()),
    })?;
    let config = Config {
        env: env.clone(),
        store,
        pki: pki.clone(),
        bind: vec!["127.0.0.1:0".parse()?],
        names: Vec::new(),
        settings: Settings::new("192.0.2.1".parse()?),
    };
    let server = serving.block_on(apiserver::build(config))?;
    let address = server.addresses()[0];
    let mut ready = server.ready();
    serving.spawn(server.run(std::future::pending()));
    asking.block_on(async {
        ready.wait_for(|ready| *ready).await?;
        let admin = pki.certificate("admin", &CertificateSpec::client("kubernetes-admin", "system:masters"))?;
        let tls = TlsConfig {
            server: format!("https://{address}"),
            ca: pki.ca().certificate_pem().into(),
            identity: Some((admin.certificate_pem().into(), admin.key_pem().into())),
            ..TlsConfig::default()
        };
        let client = Client::new(env.clone(), Arc::new(Tls::new(env, &tls)?), "load");
        Load { client, count, tasks: "/proc/self/task".into(), threads: Some(&["api", "store-writer"]) }
            .run(watchers)
            .await
    })
}

fn elsewhere(kubeconfig: &str, pid: &str, count: usize, watchers: usize) -> Result<(), Failure> {
    let env = Env::system();
    let access = Kubeconfig::load(&[kubeconfig.into()])?.access(None)?;
    let client = Client::new(env.clone(), Arc::new(Tls::new(env, &access)?), "load");
    let load = Load { client, count, tasks: format!("/proc/{pid}/task").into(), threads: None };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(load.run(watchers))
}

struct Load {
    client: Client,
    count: usize,
    /// The kernel's folder of the server's threads.
    tasks: PathBuf,
    /// The names of those that are the server's, if not all are.
    threads: Option<&'static [&'static str]>,
}

impl Load {
    async fn run(&self, watchers: usize) -> Result<(), Failure> {
        let client = &self.client;
        client.create(&resources::SERVICE_ACCOUNTS, &value(&json!({"metadata": meta("default")}))).await?;
        for number in 0..watchers {
            let watcher = client.with_user_agent(&format!("watcher-{number}"));
            let mut events = watcher.watch(&resources::PODS, &Selection::all(), &WatchOptions::default()).await?;
            client.env().spawn(async move { while events.next().await.is_some() {} });
        }
        println!("{:<32}{:>12}{:>14}", "request", "CPU each", "each second");
        self.measure("create a ConfigMap of 2 kB", |n| async move {
            let map = json!({"metadata": meta(&format!("map-{n}")), "data": {"text": "x".repeat(2000)}});
            client.create(&resources::CONFIG_MAPS, &value(&map)).await.map(drop)
        })
        .await?;
        self.measure("create an event", |n| async move {
            client.create(&resources::EVENTS, &value(&event(n))).await.map(drop)
        })
        .await?;
        self.measure("patch an event", |n| async move {
            let patch = json!({"count": 2, "lastTimestamp": "2026-01-01T00:00:10Z"});
            let key = ObjectKey::new(NAMESPACE, format!("pod-{n}.18a"));
            client.patch(&resources::EVENTS, &key, PatchKind::Strategic, &value(&patch)).await.map(drop)
        })
        .await?;
        self.leases().await?;
        self.measure("create a pod of 7 kB", |n| async move {
            client.create(&resources::PODS, &value(&large_pod(n))).await.map(drop)
        })
        .await?;
        self.measure(
            "get a pod of 7 kB",
            |n| async move { client.get(&resources::PODS, &large_key(n)).await.map(drop) },
        )
        .await?;
        self.measure("list of 500 of these pods", |n| async move {
            if n % 100 != 0 {
                return Ok(());
            }
            client.list(&resources::PODS, &Selection::all(), &ListOptions::limit(500)).await.map(drop)
        })
        .await?;
        self.measure("delete a pod of 7 kB", |n| async move {
            let options = DeleteOptions::default().grace(0);
            client.delete(&resources::PODS, &large_key(n), &options).await.map(drop)
        })
        .await?;
        self.life().await
    }

    async fn leases(&self) -> Result<(), Failure> {
        let client = &self.client;
        self.measure("create a lease", |n| async move {
            client.create(&resources::LEASES, &value(&lease(n))).await.map(drop)
        })
        .await?;
        self.measure("renew a lease", |n| async move {
            let key = ObjectKey::new(NAMESPACE, format!("lease-{n}"));
            let patch = json!({"spec": {"renewTime": "2026-01-01T00:00:10.000000Z"}});
            client.patch(&resources::LEASES, &key, PatchKind::Merge, &value(&patch)).await.map(drop)
        })
        .await
    }

    /// What a pod of a Deployment goes through.
    async fn life(&self) -> Result<(), Failure> {
        let client = &self.client;
        let key = |n: usize| ObjectKey::new(NAMESPACE, format!("web-{n}"));
        self.measure("a pod's life: create", |n| async move {
            client.create(&resources::PODS, &value(&small_pod(n))).await.map(drop)
        })
        .await?;
        self.measure("a pod's life: bind", |n| async move { client.bind(&key(n), "", "n1").await }).await?;
        self.measure("a pod's life: status", |n| async move {
            let patch = value(&status(&["Initialized", "PodScheduled"], false));
            client.patch_status(&resources::PODS, &key(n), PatchKind::Strategic, &patch).await.map(drop)
        })
        .await?;
        self.measure("a pod's life: ready", |n| async move {
            let patch = value(&status(&["Initialized", "PodScheduled", "ContainersReady", "Ready"], true));
            client.patch_status(&resources::PODS, &key(n), PatchKind::Strategic, &patch).await.map(drop)
        })
        .await?;
        self.measure("a pod's life: deletion begins", |n| async move {
            client.delete(&resources::PODS, &key(n), &DeleteOptions::default()).await.map(drop)
        })
        .await?;
        self.measure("a pod's life: delete", |n| async move {
            client.delete(&resources::PODS, &key(n), &DeleteOptions::default().grace(0)).await.map(drop)
        })
        .await
    }

    async fn measure<F>(&self, what: &str, request: impl Fn(usize) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), client::Error>>,
    {
        let (began, used) = (self.client.env().monotonic(), self.cpu()?);
        stream::iter((0..self.count).map(Ok)).try_for_each_concurrent(AT_ONCE, request).await?;
        let requests = if what.starts_with("list") { self.count.div_ceil(100) } else { self.count } as f64;
        let (used, seconds) = ((self.cpu()? - used) as f64 / 1000.0, began.elapsed().as_secs_f64());
        println!("{what:<32}{:>9.1} µs{:>14.0}", used / requests, requests / seconds);
        Ok(())
    }

    /// Nanoseconds that the server's threads have used.
    fn cpu(&self) -> Result<u64, Failure> {
        let mut sum = 0;
        for task in std::fs::read_dir(&self.tasks)? {
            let path = task?.path();
            let name = std::fs::read_to_string(path.join("comm"))?;
            if self.threads.is_none_or(|threads| threads.contains(&name.trim())) {
                let stat = std::fs::read_to_string(path.join("schedstat"))?;
                sum += stat.split(' ').next().unwrap_or_default().parse::<u64>()?;
            }
        }
        Ok(sum)
    }
}

fn value(json: &serde_json::Value) -> Value {
    Value::from(json.clone())
}

fn meta(name: &str) -> serde_json::Value {
    json!({"name": name, "namespace": NAMESPACE})
}

fn large_key(n: usize) -> ObjectKey {
    ObjectKey::new(NAMESPACE, format!("large-{n}"))
}

fn large_pod(n: usize) -> serde_json::Value {
    let mut pod: serde_json::Value =
        serde_json::from_str(include_str!("../../api/benches/pod.json")).unwrap_or_default();
    let labels = pod["metadata"]["labels"].clone();
    pod["metadata"] = meta(&large_key(n).name);
    pod["metadata"]["labels"] = labels;
    pod["spec"]["serviceAccountName"] = "default".into();
    pod["spec"]["serviceAccount"] = "default".into();
    // Whatever priority it had was another cluster's.
    for key in ["priority", "priorityClassName", "nodeName"] {
        pod["spec"].as_object_mut().map(|spec| spec.remove(key));
    }
    pod
}

fn small_pod(n: usize) -> serde_json::Value {
    let mut metadata = meta(&format!("web-{n}"));
    metadata["labels"] = json!({"app": "web", "pod-template-hash": "6d4cf56db6"});
    metadata["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6", "uid": "f1a7b6f4-9a5b-4d7c-8d8f-5e2a8b9f1c22",
        "controller": true, "blockOwnerDeletion": true,
    }]);
    json!({"metadata": metadata, "spec": {"containers": [{
        "name": "web", "image": "registry.k8s.io/pause:3.10", "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }]}})
}

fn status(true_ones: &[&str], ready: bool) -> serde_json::Value {
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &&str| json!({"type": kind, "status": "True", "lastTransitionTime": at});
    json!({"status": {
        "phase": if ready { "Running" } else { "Pending" },
        "conditions": true_ones.iter().map(condition).collect::<Vec<_>>(),
        "hostIP": "192.0.2.1", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "startTime": at,
        "containerStatuses": [{
            "name": "web", "image": "registry.k8s.io/pause:3.10", "imageID": "", "ready": ready, "restartCount": 0, "started": ready,
            "state": if ready { json!({"running": {"startedAt": at}}) } else { json!({"waiting": {"reason": "ContainerCreating"}}) },
        }],
    }})
}

fn event(n: usize) -> serde_json::Value {
    json!({
        "metadata": meta(&format!("pod-{n}.18a")), "type": "Normal", "reason": "Scheduled", "count": 1,
        "message": format!("Successfully assigned default/pod-{n} to n1"),
        "involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": format!("pod-{n}"), "apiVersion": "v1"},
        "source": {"component": "scheduler"}, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    })
}

fn lease(n: usize) -> serde_json::Value {
    json!({"metadata": meta(&format!("lease-{n}")), "spec": {
        "holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z",
    }})
}
