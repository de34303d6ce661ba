//! Probes of a pod's containers: one task for each. Upstream: pkg/kubelet/prober.

mod check;
mod grpc;
pub(crate) mod http;
mod task;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::{ObjectReference, TaskGuard};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, Probe};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::context::Context;
use crate::runtime::PodState;
use crate::spec::{self, field_path, init_containers, spec};
use crate::status::Readiness;

pub(crate) use check::{resolve_port, tcp};

/// What a probe decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }

    /// What holds before the first result.
    fn initially(self) -> Outcome {
        match self {
            Kind::Startup => Outcome::Unknown,
            Kind::Readiness => Outcome::Failure,
            Kind::Liveness => Outcome::Success,
        }
    }
}

/// A probe's verdict, thresholds counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unknown,
    Success,
    Failure,
}

/// The verdicts by instance of a container.
type Verdicts = Arc<Mutex<BTreeMap<(String, Kind), Outcome>>>;

/// What probes see of their pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    /// By name: the instance that runs.
    running: BTreeMap<String, Instance>,
    ip: Option<IpAddr>,
    deleting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Instance {
    id: String,
    since: Timestamp,
    /// Its startup probe has succeeded, or it has none.
    started: bool,
}

/// The probes of one pod.
pub(crate) struct Probes {
    ctx: Arc<Context>,
    /// Told when a verdict changed.
    poke: Arc<Notify>,
    verdicts: Verdicts,
    view: watch::Sender<View>,
    tasks: Mutex<BTreeMap<(String, Kind), TaskGuard>>,
}

impl Probes {
    pub(crate) fn new(ctx: Arc<Context>, poke: Arc<Notify>) -> Probes {
        Probes {
            ctx,
            poke,
            verdicts: Verdicts::default(),
            view: watch::Sender::new(View::default()),
            tasks: Mutex::default(),
        }
    }

    /// Takes notice of what runs, and starts the probes that the pod has.
    pub(crate) fn attend(&self, pod: &Pod, state: &PodState, ended: bool) {
        if ended {
            return;
        }
        let mut tasks = self.tasks.lock();
        for container in probed(pod) {
            for (kind, probe) in probes(container) {
                tasks.entry((container.name.clone(), kind)).or_insert_with(|| {
                    self.adopt(pod, container, kind);
                    self.start(pod, container, kind, probe)
                });
            }
        }
        drop(tasks);
        let instance = |c: &crate::runtime::Container| {
            let since = Timestamp::from_nanosecond(i128::from(c.status.started_at)).unwrap_or_default();
            let started = self.started(c.name(), c.id());
            (c.name().to_owned(), Instance { id: c.id().to_owned(), since, started })
        };
        let view = View {
            running: state.running().map(instance).collect(),
            ip: if spec::host_network(pod) {
                self.ctx.config.node_ips.first().copied()
            } else {
                state.ips().first().copied()
            },
            deleting: pod.metadata.deletion_timestamp.is_some(),
        };
        self.verdicts.lock().retain(|(id, _), _| state.containers.iter().any(|container| container.id() == id));
        self.view.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
    }

    /// What the API server was told of a container that still runs holds until its probes say otherwise: a kubelet that starts
    /// again makes nobody unready.
    fn adopt(&self, pod: &Pod, container: &Container, kind: Kind) {
        let Some(known) = rules::container_status(pod, &container.name) else { return };
        let Some((_, id)) = known.container_id.as_deref().and_then(|id| id.split_once("://")) else { return };
        let holds = match kind {
            Kind::Startup => known.started == Some(true),
            Kind::Readiness => known.ready,
            Kind::Liveness => false,
        };
        if holds {
            self.verdicts.lock().entry((id.to_owned(), kind)).or_insert(Outcome::Success);
        }
    }

    fn start(&self, pod: &Pod, container: &Container, kind: Kind, probe: &Probe) -> TaskGuard {
        let about = ObjectReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: spec::namespace(pod).to_owned(),
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            resource_version: String::new(),
            field_path: field_path(pod, &container.name),
        };
        let task = task::Task {
            ctx: self.ctx.clone(),
            poke: self.poke.clone(),
            verdicts: self.verdicts.clone(),
            view: self.view.subscribe(),
            container: container.clone(),
            kind,
            probe: probe.clone(),
            about,
        };
        TaskGuard::new(self.ctx.env.spawn(task.run()))
    }

    /// A status was made: what has started in it may be probed.
    pub(crate) fn tell(&self, status: &PodStatus) {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let started: BTreeMap<&str, bool> = all.map(|one| (one.name.as_str(), one.started == Some(true))).collect();
        self.view.send_if_modified(|view| {
            let mut changed = false;
            for (name, instance) in &mut view.running {
                let now = started.get(name.as_str()).copied().unwrap_or(instance.started);
                changed |= instance.started != now;
                instance.started = now;
            }
            changed
        });
    }

    pub(crate) fn verdict(&self, id: &str, kind: Kind) -> Option<Outcome> {
        self.verdicts.lock().get(&(id.to_owned(), kind)).copied()
    }

    fn has(&self, name: &str, kind: Kind) -> bool {
        self.tasks.lock().contains_key(&(name.to_owned(), kind))
    }

    /// Nothing runs any more.
    pub(crate) fn end(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        drop(tasks);
    }
}

impl Readiness for Probes {
    fn started(&self, name: &str, id: &str) -> bool {
        !self.has(name, Kind::Startup) || self.verdict(id, Kind::Startup) == Some(Outcome::Success)
    }

    fn ready(&self, name: &str, id: &str) -> bool {
        !self.has(name, Kind::Readiness) || self.verdict(id, Kind::Readiness) == Some(Outcome::Success)
    }
}

/// Containers and sidecars.
fn probed(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = init_containers(pod).iter().filter(|container| rules::is_sidecar(container));
    spec(pod).containers.iter().chain(sidecars)
}

fn probes(container: &Container) -> impl Iterator<Item = (Kind, &Probe)> {
    let all = [
        (Kind::Startup, &container.startup_probe),
        (Kind::Readiness, &container.readiness_probe),
        (Kind::Liveness, &container.liveness_probe),
    ];
    all.into_iter().filter_map(|(kind, probe)| probe.as_ref().map(|probe| (kind, probe)))
}
