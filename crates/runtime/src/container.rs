//! Containers: made, started, stopped, removed.

pub(crate) mod exec;
mod update;
pub(crate) mod volumes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use linux::mount::{self, Propagation};
use shim::protocol::{Request, Signal, Start};

use cri::v1::{ContainerConfig, ContainerEventType, LinuxContainerResources, NamespaceMode};

use crate::cdi;
use crate::error::{Context, Error, blocking};
use crate::events;
use crate::image::Access;
use crate::record::{self, ContainerRecord, Phase, UserRecord};
use crate::seccomp;
use crate::spec::{self, Ingredients, PidNamespace, Prepared, SandboxParts, users};
use crate::state::{Container, Daemon, Sandbox};

/// The exit code and reason of a container whose program could not be started (upstream: containerd's `errorStartExitCode`).
const START_ERROR_CODE: i32 = 128;
const START_ERROR: &str = "StartError";

/// How long a killed container may take to end before the caller is told.
const KILL_WAIT: Duration = Duration::from_secs(120);

/// What the shim is asked when the container starts; kept beside OCI's configuration.
const START: &str = "start.json";

/// Makes a container in a sandbox and returns its id.
pub(crate) async fn create(daemon: &Arc<Daemon>, sandbox: &str, config: ContainerConfig) -> Result<String, Error> {
    let sandbox = daemon.sandbox(sandbox)?;
    if !sandbox.is_ready() {
        return Err(Error::State(format!("sandbox container {:?} is not running", sandbox.id)));
    }
    if config.metadata.is_none() {
        return Err(Error::Invalid("container config must include metadata".to_owned()));
    }
    let folders = daemon.cdi.clone();
    let config = blocking(move || cdi::inject(&folders, config)).await?;
    let name = config.image.clone().unwrap_or_default().image;
    let image = daemon.images.status(&name).ok_or_else(|| crate::image::ImageError::NoSuchImage(name.clone()))?;
    let id = daemon.new_id();
    let record = ContainerRecord {
        sandbox: sandbox.id.clone(),
        created_at: daemon.now(),
        image_id: image.id.to_string(),
        image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.to_string()),
        stop_signal: spec::stop_signal(&config, &image.config),
        making: true,
        ..ContainerRecord::default()
    };
    let container = Arc::new(Container::new(id.clone(), sandbox, config, record));
    let _turn = container.lock.lock().await;
    daemon.add_container(container.clone())?;
    if let Err(error) = make(daemon, &container, &image).await {
        if let Err(cleanup) = unmake(daemon, &container).await {
            tracing::warn!(container = %id, error = cleanup.report(), "a half-made container is left");
        }
        daemon.forget_container(&id);
        return Err(error);
    }
    events::announce(daemon, &id, &container.sandbox, ContainerEventType::ContainerCreatedEvent);
    Ok(id)
}

async fn make(daemon: &Arc<Daemon>, container: &Arc<Container>, image: &crate::image::Image) -> Result<(), Error> {
    let (on_thread, of) = (daemon.clone(), container.clone());
    blocking(move || {
        let record = of.record();
        record::create(&on_thread.container_data(&of.id), &of.config, &record)
            .context(|| "record the container".to_owned())
    })
    .await?;
    daemon.env.failpoint("runtime-container-recorded")?;
    let rootfs = daemon.images.prepare(&container.id, &image.id.to_string(), Access::ReadWrite).await?;
    daemon.env.failpoint("runtime-container-rootfs")?;
    let images = volumes::prepare(daemon, container).await?;
    let (on_thread, of, image) = (daemon.clone(), container.clone(), image.clone());
    let (rootfs, user) = blocking(move || {
        // Or what is mounted in a container with shared mounts would appear on the machine, below this folder.
        mount::set_propagation(&rootfs, Propagation::Private, false)
            .context(|| "keep the root mount private".to_owned())?;
        let user = resolve_user(&of, &image, &rootfs)?;
        write_bundle(&on_thread, &of, &image, &Roots { rootfs: &rootfs, images: &images }, &user)?;
        Ok((rootfs, user))
    })
    .await?;
    container.state.lock().rootfs = rootfs;
    daemon.env.failpoint("runtime-container-bundle")?;
    container.change(daemon, |record| {
        record.user = user;
        record.making = false;
    })
}

fn resolve_user(container: &Container, image: &crate::image::Image, rootfs: &Path) -> Result<UserRecord, Error> {
    let linux = container.config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let strict = security.supplemental_groups_policy() == cri::v1::SupplementalGroupsPolicy::Strict;
    if security.run_as_group.is_some() && security.run_as_user.is_none() && security.run_as_username.is_empty() {
        return Err(Error::Invalid("user group is specified without user".to_owned()));
    }
    let wanted = users::Wanted {
        uid: security.run_as_user.map(|uid| uid.value),
        name: &security.run_as_username,
        gid: security.run_as_group.map(|gid| gid.value),
        image: image.config.user(),
        groups: &security.supplemental_groups,
        strict,
    };
    users::resolve(rootfs, &wanted)
}

fn pid_namespace(daemon: &Daemon, container: &Container) -> Result<PidNamespace, Error> {
    let of_container = container.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = of_container.and_then(|security| security.namespace_options.clone());
    let options = options.unwrap_or_else(|| container.sandbox.options());
    match options.pid() {
        NamespaceMode::Container => Ok(PidNamespace::New),
        NamespaceMode::Node => Ok(PidNamespace::Host),
        NamespaceMode::Pod => match container.sandbox.state.lock().pause {
            Some(pid) => Ok(PidNamespace::Of(pid)),
            None => Err(Error::State(format!("sandbox {:?} has no shared pid namespace", container.sandbox.id))),
        },
        NamespaceMode::Target => {
            let target = daemon.container(&options.target_id)?;
            if target.sandbox.id != container.sandbox.id {
                return Err(Error::Invalid(format!("container {:?} is in another sandbox", target.id)));
            }
            let state = target.state.lock();
            match state.record.phase {
                Phase::Running => Ok(PidNamespace::Of(state.pid)),
                _ => Err(Error::State(format!("target container {:?} is not running", target.id))),
            }
        }
    }
}

/// Where images' files are mounted for a container.
struct Roots<'a> {
    rootfs: &'a Path,
    /// Those that are volumes.
    images: &'a BTreeMap<usize, PathBuf>,
}

/// Writes OCI's configuration and what the shim is to be asked.
fn write_bundle(
    daemon: &Daemon,
    container: &Container,
    image: &crate::image::Image,
    roots: &Roots<'_>,
    user: &UserRecord,
) -> Result<(), Error> {
    let sandbox = &container.sandbox;
    let (folder, cgroup) = (daemon.sandbox_run(&sandbox.id), sandbox.state.lock().record.cgroup.clone());
    let options = sandbox.options();
    let pid_namespace = pid_namespace(daemon, container)?;
    let parts = SandboxParts {
        hostname: &sandbox.config.hostname,
        namespaces: folder.join("ns"),
        folder: &folder,
        options: &options,
        pid_namespace,
        cgroup: &cgroup,
    };
    let prepared = spec::prepare(&Ingredients {
        id: &container.id,
        config: &container.config,
        image: &image.config,
        rootfs: roots.rootfs,
        images: roots.images,
        user,
        hierarchies: &daemon.hierarchies,
        sandbox: parts,
    })?;
    let bundle = daemon.container_run(&container.id);
    let failed = || "write the container's configuration".to_owned();
    fs::create_dir_all(&bundle).context(failed)?;
    let start = start_request(daemon, container, &bundle, prepared, pid_namespace)?;
    fs::write(bundle.join(START), serde_json::to_vec(&start).context(failed)?).context(failed)
}

fn start_request(
    daemon: &Daemon,
    container: &Container,
    bundle: &Path,
    mut prepared: Prepared,
    pid_namespace: PidNamespace,
) -> Result<Start, Error> {
    let failed = || "write the container's configuration".to_owned();
    let program = daemon.handlers.program(&container.sandbox.state.lock().record.handler)?;
    if program.is_some() {
        spec::program::complete(&mut prepared, &container.config)?;
        prepared.seccomp = None;
    }
    let mut execution = prepared.execution;
    if let Some(source) = &prepared.seccomp {
        let path = bundle.join("seccomp.bpf");
        shim::filters::save(&seccomp::filters(source, prepared.capabilities)?, &path).context(failed)?;
        execution.seccomp = Some(path);
    }
    fs::write(bundle.join("config.json"), serde_json::to_vec(&prepared.oci).context(failed)?).context(failed)?;
    Ok(Start {
        container: container.id.clone(),
        bundle: bundle.to_owned(),
        state_root: daemon.state_root(),
        exit_file: daemon.container_data(&container.id).join("exit.json"),
        log: container.log_path(),
        terminal: container.config.tty,
        stdin: container.config.stdin,
        cgroup: prepared.cgroup,
        kill_rest: pid_namespace != PidNamespace::New,
        execution,
        program,
    })
}

/// Starts a container that was made.
pub(crate) async fn start(daemon: &Arc<Daemon>, id: &str) -> Result<(), Error> {
    let container = daemon.container(id)?;
    let _turn = container.lock.lock().await;
    match container.record().phase {
        Phase::Created => {}
        phase => return Err(Error::State(format!("container {:?} is in {} state", container.id, phase_name(phase)))),
    }
    if !container.sandbox.is_ready() {
        return Err(Error::State(format!("sandbox container {:?} is not running", container.sandbox.id)));
    }
    let started = launch(daemon, &container).await;
    if let Err(error) = &started {
        let message = error.report();
        let now = daemon.now();
        let path = group_path(&container);
        let on_thread = daemon.clone();
        let removed = blocking(move || {
            let group = on_thread.group(&path)?;
            let _ = group.kill();
            group.remove().context(|| "remove the control group".to_owned())
        });
        if let Err(error) = removed.await {
            tracing::warn!(container = %container.id, error = error.report(), "the control group of a failed container is left");
        }
        container.change(daemon, |record| {
            record.phase = Phase::Exited;
            record.started_at = 0;
            record.finished_at = now;
            record.exit_code = START_ERROR_CODE;
            record.reason = START_ERROR.to_owned();
            record.message = message;
        })?;
        return started;
    }
    events::started(daemon, &container);
    Ok(())
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Created => "CONTAINER_CREATED",
        Phase::Running => "CONTAINER_RUNNING",
        Phase::Exited => "CONTAINER_EXITED",
    }
}

fn group_path(container: &Container) -> PathBuf {
    container.sandbox.state.lock().record.cgroup.join(&container.id)
}

async fn launch(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<(), Error> {
    let shim = container.sandbox.shim()?;
    let (on_thread, of) = (daemon.clone(), container.clone());
    let request = blocking(move || {
        let failed = || "control group of the container".to_owned();
        let resources = of.state.lock().resources.clone();
        let group = on_thread.group(&group_path(&of))?;
        group.create().context(failed)?;
        group.apply(&spec::limits(&resources)).context(failed)?;
        fs::create_dir_all(on_thread.state_root()).context(failed)?;
        let mut start = load_start(&on_thread, &of.id)?;
        // Another runtime's program takes them from its configuration.
        if start.program.is_none() {
            let rules = spec::device_rules(&of.config, is_privileged(&of.config))?;
            group.allow_devices(&rules).context(failed)?;
        }
        start.execution.oom_score_adj = Some(i32::try_from(resources.oom_score_adj).unwrap_or(0));
        Ok(start)
    })
    .await?;
    daemon.env.failpoint("runtime-container-group")?;
    let context = format!("failed to start container {:?}", container.id);
    // Recorded before anything runs: should this daemon die meanwhile, the next one asks the shim what became of it.
    let now = daemon.now();
    container.change(daemon, |record| {
        record.phase = Phase::Running;
        record.started_at = now;
    })?;
    let (started, _) = shim.launch(&context, Request::Start(Box::new(request)), &[]).await?;
    for warning in &started.warnings {
        tracing::debug!(container = %container.id, warning, "a container was started with less than it asked for");
    }
    {
        let mut state = container.state.lock();
        state.pid = started.pid;
        // The next daemon asks the shim, which knows it as well.
        state.record.started_at = started.started_at;
    }
    daemon.env.failpoint("runtime-container-started")?;
    Ok(())
}

pub(crate) fn is_privileged(config: &ContainerConfig) -> bool {
    config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()).is_some_and(|security| security.privileged)
}

/// What the shim was, or will be, asked for the container.
pub(crate) fn load_start(daemon: &Daemon, id: &str) -> Result<Start, Error> {
    let failed = || "read the container's configuration".to_owned();
    let text = fs::read(daemon.container_run(id).join(START)).context(failed)?;
    serde_json::from_slice(&text).context(failed)
}

/// Asks the container to end and kills it after `grace`; returns when it has ended. Does nothing when it does not run. Several
/// may stop the same one at the same time, with less and less patience.
pub(crate) async fn stop(daemon: &Arc<Daemon>, container: &Arc<Container>, grace: Duration) -> Result<(), Error> {
    // A start under way has to be over, or the shim would not know yet what to stop.
    drop(container.lock.lock().await);
    stop_started(daemon, container, grace).await
}

async fn stop_started(daemon: &Arc<Daemon>, container: &Arc<Container>, grace: Duration) -> Result<(), Error> {
    let mut phase = container.phase.subscribe();
    let signal = container.record().stop_signal;
    if container.record().phase != Phase::Running {
        return Ok(());
    }
    let send = async |signal, all| {
        let signal = Signal { container: container.id.clone(), exec: None, signal, all };
        match container.sandbox.shim() {
            Ok(shim) => shim.ask("failed to stop container", Request::Signal(signal)).await,
            Err(error) => Err(error),
        }
    };
    if !grace.is_zero() {
        send(signal, false).await?;
        if daemon.env.timeout(grace, phase.wait_for(|phase| *phase != Phase::Running)).await.is_some() {
            return Ok(());
        }
    }
    match send(libc::SIGKILL, true).await {
        // It ended a moment ago, and its shim with it.
        Err(Error::ShimGone) if container.record().phase != Phase::Running => return Ok(()),
        sent => sent?,
    }
    match daemon.env.timeout(KILL_WAIT, phase.wait_for(|phase| *phase != Phase::Running)).await {
        Some(_) => Ok(()),
        None => {
            Err(Error::Timeout(format!("an error occurs during waiting for container {:?} to be killed", container.id)))
        }
    }
}

/// Removes a container, stopping it first if it runs.
pub(crate) async fn remove(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<(), Error> {
    let _turn = container.lock.lock().await;
    stop_started(daemon, container, Duration::ZERO).await?;
    if let Ok(shim) = container.sandbox.shim() {
        let _ = shim.ask("forget", Request::Forget { container: container.id.clone() }).await;
    }
    unmake(daemon, container).await?;
    daemon.forget_container(&container.id);
    events::announce(daemon, &container.id, &container.sandbox, ContainerEventType::ContainerDeletedEvent);
    Ok(())
}

/// Takes away whatever there is of a container that does not run. The record goes last, so that what is left is found again.
pub(crate) async fn unmake(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<(), Error> {
    let (on_thread, of) = (daemon.clone(), container.clone());
    blocking(move || {
        let group = on_thread.group(&group_path(&of))?;
        let _ = group.kill();
        group.remove().context(|| "remove the container's control group".to_owned())?;
        forget_program(&on_thread, &of.id);
        record::remove(&on_thread.state_root().join(&of.id)).context(|| "remove the container's state".to_owned())?;
        record::remove(&on_thread.container_run(&of.id)).context(|| "remove the container's bundle".to_owned())
    })
    .await?;
    daemon.env.failpoint("runtime-container-removing")?;
    daemon.images.remove_rootfs(&container.id).await?;
    volumes::remove(daemon, &container.id).await?;
    let folder = daemon.container_data(&container.id);
    blocking(move || record::remove(&folder).context(|| "remove the container's record".to_owned())).await
}

/// Another runtime's program may keep more than files of a container that no shim could tell it to forget.
fn forget_program(daemon: &Daemon, id: &str) {
    if !daemon.state_root().join(id).exists() {
        return;
    }
    if let Ok(Start { program: Some(program), .. }) = load_start(daemon, id) {
        let mut command = std::process::Command::new(program);
        command.arg("--root").arg(daemon.state_root()).args(["delete", "--force", id]);
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !done.is_ok_and(|status| status.success()) {
            tracing::warn!(container = %id, "the OCI runtime did not delete the container");
        }
    }
}

/// Changes what a container may use; only what is given.
pub(crate) async fn update(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    resources: LinuxContainerResources,
) -> Result<(), Error> {
    let _turn = container.lock.lock().await;
    let phase = container.record().phase;
    if phase == Phase::Exited {
        return Err(Error::State(format!("container {:?} is in {} state", container.id, phase_name(phase))));
    }
    if phase == Phase::Running {
        let (on_thread, path, limits) = (daemon.clone(), group_path(container), spec::limits(&resources));
        let (id, wanted) = (container.id.clone(), resources.clone());
        let apply = move || match load_start(&on_thread, &id) {
            // It keeps limits in its own state, and may have put the processes where this daemon can't reach.
            Ok(Start { program: Some(program), .. }) => {
                update::by_program(&program, &on_thread.state_root(), &id, &wanted)
            }
            _ => on_thread.group(&path)?.apply(&limits).context(|| "failed to update resources".to_owned()),
        };
        blocking(apply).await?;
    }
    let resources = merged(&container.state.lock().resources, &resources);
    record::save_resources(&daemon.container_data(&container.id), &resources)
        .context(|| format!("record the resources of container {}", container.id))?;
    container.state.lock().resources = resources;
    Ok(())
}

/// The old resources with every value that the new ones give. Upstream: containerd's `copyResources`.
fn merged(old: &LinuxContainerResources, new: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |old: i64, new: i64| if new != 0 { new } else { old };
    let text = |old: &String, new: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    LinuxContainerResources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        memory_limit_in_bytes: number(old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        oom_score_adj: number(old.oom_score_adj, new.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() {
            old.hugepage_limits.clone()
        } else {
            new.hugepage_limits.clone()
        },
        unified,
        memory_swap_limit_in_bytes: number(old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
    }
}

/// Lets the container's log go on in a new file.
pub(crate) async fn reopen_log(container: &Arc<Container>) -> Result<(), Error> {
    if container.record().phase != Phase::Running {
        return Err(Error::State(format!("container {:?} is not running", container.id)));
    }
    let shim = container.sandbox.shim()?;
    shim.ask("failed to reopen the container's log", Request::ReopenLog { container: container.id.clone() }).await
}

/// The sandbox a container may be run in.
pub(crate) fn running(daemon: &Daemon, id: &str) -> Result<(Arc<Container>, Arc<Sandbox>), Error> {
    let container = daemon.container(id)?;
    match container.record().phase {
        Phase::Running => Ok((container.clone(), container.sandbox.clone())),
        phase => Err(Error::State(format!("container {:?} is in {} state", container.id, phase_name(phase)))),
    }
}
