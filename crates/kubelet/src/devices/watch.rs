//! Drivers come and go with their sockets in the folder `plugins_registry`. Upstream: pkg/kubelet/pluginmanager.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Backoff, TaskGuard};
use cri::drivers::registration::{InfoRequest, RegistrationStatus};
use cri::drivers::{Driver, Service, registering};
use rustix::fs::inotify;
use rustix::fs::inotify::{CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::withdraw;
use crate::context::Context;
use crate::error::rpc_text;

const FOLDER: &str = "plugins_registry";
const KIND: &str = "DRAPlugin";

/// How long a driver may take to say who it is.
const ANSWER: Duration = Duration::from_secs(5);
/// The pauses between attempts to connect (those of gRPC).
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(120)];

/// A driver that has registered.
struct Found {
    name: String,
    endpoint: PathBuf,
    service: Service,
}

/// Registers drivers as long as the kubelet runs.
pub(crate) async fn run(ctx: Arc<Context>) {
    let folder = ctx.config.root.join(FOLDER);
    let queue = match fs::create_dir_all(&folder).and_then(|()| watch(&folder)) {
        Ok(queue) => queue,
        Err(error) => return tracing::error!(folder = %folder.display(), %error, "drivers can't be watched for"),
    };
    let _withdrawing = TaskGuard::new(ctx.env.spawn(withdraw::run(ctx.clone())));
    // What is done for each socket; dropping it ends that.
    let mut tasks: BTreeMap<PathBuf, TaskGuard> = BTreeMap::new();
    loop {
        for socket in sockets(&folder) {
            tasks.entry(socket.clone()).or_insert_with(|| register(&ctx, socket));
        }
        let Ok(changes) = changes(&queue).await else { return };
        let changed = match changes.lost {
            true => tasks.keys().cloned().collect(),
            false => changes.names.iter().map(|name| folder.join(name)).collect::<Vec<_>>(),
        };
        for socket in changed {
            tasks.remove(&socket);
            ctx.devices.drivers.remove(&socket);
        }
    }
}

fn watch(folder: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::MOVED_FROM;
    inotify::add_watch(&queue, folder, flags)?;
    linux::descriptor::readable(queue)
}

/// The sockets that there are.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let suits = |entry: &fs::DirEntry| {
        !entry.file_name().as_bytes().starts_with(b".") && entry.file_type().is_ok_and(|kind| kind.is_socket())
    };
    entries.filter(suits).map(|entry| entry.path()).collect()
}

#[derive(Default)]
struct Changes {
    /// Files that came, went, or were replaced.
    names: Vec<PathBuf>,
    /// There were more than can be told.
    lost: bool,
}

/// Waits for files to come or go.
async fn changes(queue: &AsyncFd<OwnedFd>) -> io::Result<Changes> {
    loop {
        let mut ready = queue.readable().await?;
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(ready.get_inner(), &mut buffer);
        let mut changes = Changes::default();
        match events.next() {
            Ok(event) => changes.add(&event),
            Err(rustix::io::Errno::AGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        while !events.is_buffer_empty() {
            changes.add(&events.next()?);
        }
        return Ok(changes);
    }
}

impl Changes {
    fn add(&mut self, event: &inotify::Event<'_>) {
        self.lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
        self.names.extend(event.file_name().map(|name| PathBuf::from(OsStr::from_bytes(name.to_bytes()))));
    }
}

/// Tries until the driver behind the socket is known, and stays connected to it, until the task ends.
fn register(ctx: &Arc<Context>, socket: PathBuf) -> TaskGuard {
    let owned = ctx.clone();
    TaskGuard::new(ctx.env.spawn(async move {
        let ctx = owned;
        // A driver listens a moment after its socket is there.
        let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(122));
        let found = loop {
            match try_register(&ctx, &socket).await {
                Ok(found) => break found,
                Err(why) => tracing::debug!(socket = %socket.display(), why, "a driver isn't registered yet"),
            }
            ctx.env.sleep(pause.next(&ctx.env)).await;
        };
        stay_connected(&ctx, &found).await;
    }))
}

/// Keeps a connection, so that it is known whether the driver can be reached. Upstream: monitoredPlugin.
async fn stay_connected(ctx: &Context, found: &Found) {
    let Found { name, endpoint, service } = found;
    let [shortest, longest] = PAUSES;
    let mut pause = Backoff::new(shortest, longest);
    loop {
        match Driver::connect(endpoint, *service).await {
            Ok((driver, ended)) => {
                let began = ctx.env.monotonic();
                ctx.devices.drivers.connected(name, endpoint, driver);
                ended.await;
                ctx.devices.drivers.lost(name, endpoint);
                tracing::info!(driver = name, "the connection to a driver of devices has ended");
                if ctx.env.monotonic() - began > shortest {
                    pause.reset();
                }
            }
            Err(error) => {
                tracing::debug!(driver = name, error = &error as &dyn std::error::Error, "a driver can't be reached");
            }
        }
        ctx.env.sleep(pause.next(&ctx.env)).await;
    }
}

async fn try_register(ctx: &Context, socket: &Path) -> Result<Found, String> {
    let mut client = registering(socket);
    let failed = |status: tonic::Status| rpc_text(&status);
    let late = || "it doesn't answer".to_owned();
    let info = ctx.env.timeout(ANSWER, client.get_info(InfoRequest {})).await.ok_or_else(late)?;
    let info = info.map_err(failed)?.into_inner();
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) };
    let known = accept(ctx, &info.r#type, &info.name, socket, &endpoint, &info.supported_versions);
    let status = RegistrationStatus {
        plugin_registered: known.is_ok(),
        error: known.as_ref().err().cloned().unwrap_or_default(),
    };
    let told = ctx.env.timeout(ANSWER, client.notify_registration_status(status)).await.ok_or_else(late)?;
    match known {
        Ok(service) => {
            tracing::info!(driver = info.name, "a driver of devices has registered");
            // What it did not hear, its own life tells: it is registered.
            drop(told);
            Ok(Found { name: info.name, endpoint, service })
        }
        Err(why) => Err(why),
    }
}

fn accept(
    ctx: &Context,
    kind: &str,
    name: &str,
    socket: &Path,
    endpoint: &Path,
    services: &[String],
) -> Result<Service, String> {
    if kind != KIND {
        let socket = socket.display();
        return Err(format!(
            "RegisterPlugin error -- no handler registered for plugin type: {kind} at socket {socket}"
        ));
    }
    let refused = |why: String| {
        let endpoint = endpoint.display();
        let about = format!("invalid supported gRPC versions of DRA driver plugin {name} at endpoint {endpoint}");
        format!("RegisterPlugin error -- plugin validation failed with err: {about}: {why}")
    };
    if services.is_empty() {
        return Err(refused("empty list of supported gRPC services (aka supported versions)".to_owned()));
    }
    let Some(service) = services.iter().find_map(|service| Service::named(service)) else {
        let ours = r#"["v1.DRAPlugin" "v1beta1.DRAPlugin"]"#;
        let theirs: Vec<String> = services.iter().map(|service| format!("{service:?}")).collect();
        let theirs = theirs.join(" ");
        let why =
            format!("none of services supported by the plugin ([{theirs}]) are supported by the kubelet ({ours})");
        return Err(refused(why));
    };
    let added = ctx.devices.drivers.add(name, socket, endpoint, Driver::at(endpoint, service));
    added.map(|()| service).map_err(|why| format!("RegisterPlugin error -- plugin registration failed with err: {why}"))
}
