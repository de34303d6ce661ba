//! A node for one test: folders, images, a runtime and its client; nothing of it is left at the end.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cri::Client;
use cri::v1::*;
use env::Env;
use linux::Scope;
use runtime::image::ImageStore;
use runtime::network::{NetworkFuture, NetworkStatus, PodNetwork, SandboxNetwork};
use runtime::{Config, Handle, Runtime};
use tempfile::TempDir;
use testkit::image::{Image, Layer, Packing, docker_save};

/// What every wait of a test is bounded by.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Node {
    pub env: Env,
    pub scope: Scope,
    /// What makes containers.
    pub runtime: crate::runtimes::Runtime,
    pub client: Client,
    images: ImageStore,
    /// A runtime of its own: dropping it drops every task of the daemon, also those that serve a connection.
    serving: Option<(tokio::runtime::Runtime, Handle)>,
    folder: Option<TempDir>,
}

/// The pod network of a test: loopback only.
struct Loopback;

impl PodNetwork for Loopback {
    fn setup<'a>(&'a self, sandbox: &'a SandboxNetwork) -> NetworkFuture<'a, Vec<IpAddr>> {
        Box::pin(async move {
            linux::namespace::enter(&sandbox.netns, || {
                Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status().map(|_| ())
            })
            .unwrap();
            Ok(vec!["127.0.0.1".parse().unwrap()])
        })
    }

    fn teardown<'a>(&'a self, _: &'a str) -> NetworkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn addresses(&self, _: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    fn status(&self) -> NetworkStatus {
        NetworkStatus::Ready
    }

    fn ready(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn set_pod_cidr<'a>(&'a self, _: &'a str) -> NetworkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Node {
    /// A node with the image `busybox`.
    pub async fn start(runtime: crate::runtimes::Runtime) -> Node {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = TempDir::with_prefix("oxikube-runtime-").unwrap();
        let name = format!("rt{}-{number}", std::process::id());
        let scope = Scope::new(&name, folder.path().join("run"), folder.path().join("data"));
        let env = Env::system();
        let images = ImageStore::open(runtime::image::Config::new(env.clone(), &scope)).await.unwrap();
        images.load(std::io::Cursor::new(docker_save(&[("busybox:latest", &image())]))).await.unwrap();
        let client = Client::connect(scope.run("cri.sock").to_str().unwrap()).unwrap();
        let mut node = Node { env, scope, runtime, client, images, serving: None, folder: Some(folder) };
        node.serve().await;
        node
    }

    /// Builds the runtime and lets it serve.
    pub async fn serve(&mut self) {
        let mut config = Config::new(self.env.clone(), self.scope.clone(), self.images.clone(), Arc::new(Loopback));
        config.shim_command = Some(vec![env!("CARGO_BIN_EXE_oxikube-shim").into()]);
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let runtime = threads.spawn(Runtime::build(config)).await.unwrap().unwrap();
        let handle = runtime.handle();
        threads.spawn(async move { runtime.run(std::future::pending()).await.unwrap() });
        self.serving = Some((threads, handle));
    }

    /// The daemon dies, as far as a task can.
    pub async fn crash(&mut self) {
        if let Some((threads, handle)) = self.serving.take() {
            drop(handle);
            tokio::task::spawn_blocking(move || threads.shutdown_timeout(DEADLINE)).await.unwrap();
        }
    }

    /// The daemon dies and a new one takes over.
    pub async fn restart(&mut self) {
        self.crash().await;
        self.serve().await;
    }

    /// Removes everything, and fails if something is left.
    pub async fn finish(mut self) {
        let (threads, handle) = self.serving.as_ref().expect("the node serves at the end");
        let handle = handle.clone();
        threads.spawn(async move { handle.remove_all().await.unwrap() }).await.unwrap();
        self.crash().await;
        let folder = self.folder.take().unwrap();
        let left = self.leftovers(folder.path());
        assert!(left.is_empty(), "left behind: {left:#?}");
        // Shims answer before they end.
        for _ in 0..DEADLINE.as_millis() / 5 {
            if processes(folder.path()).is_empty() {
                return;
            }
            self.env.sleep(Duration::from_millis(5)).await;
        }
        panic!("left running: {:?}", processes(folder.path()));
    }

    fn leftovers(&self, folder: &Path) -> Vec<String> {
        let mut left = Vec::new();
        for mount in linux::mount::mounts().unwrap() {
            if mount.path.starts_with(folder) {
                left.push(format!("mount {}", mount.path.display()));
            }
        }
        let group = linux::cgroup::Hierarchies::detect().unwrap().group(self.scope.cgroup("")).unwrap();
        if group.exists() {
            left.push(format!("control group {}", group.path().display()));
        }
        for name in ["sandboxes", "containers", "state"] {
            for entry in fs::read_dir(self.scope.run(name)).into_iter().flatten() {
                left.push(format!("{}", entry.unwrap().path().display()));
            }
        }
        for name in ["sandboxes", "containers"] {
            for entry in fs::read_dir(self.scope.data(name)).into_iter().flatten() {
                left.push(format!("{}", entry.unwrap().path().display()));
            }
        }
        let tasks: Vec<_> =
            self.images.rootfs().into_iter().map(|info| format!("root file system {}", info.id)).collect();
        left.extend(tasks);
        left
    }

    /// A sandbox whose containers have pid namespaces of their own.
    pub async fn sandbox(&mut self, name: &str) -> String {
        let config = self.sandbox_config(name);
        self.run_sandbox(config).await.unwrap()
    }

    pub fn sandbox_config(&self, name: &str) -> PodSandboxConfig {
        let options = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.scope.data("logs").join(name).to_string_lossy().into_owned(),
            linux: Some(LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
            labels: HashMap::from([("pod".to_owned(), name.to_owned())]),
            ..Default::default()
        }
    }

    pub async fn run_sandbox(&mut self, config: PodSandboxConfig) -> Result<String, tonic::Status> {
        let handler = self.runtime.handler();
        self.run_sandbox_with(config, handler).await
    }

    pub async fn run_sandbox_with(&mut self, config: PodSandboxConfig, handler: &str) -> Result<String, tonic::Status> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(self.client.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub async fn create(&mut self, sandbox: &str, config: ContainerConfig) -> Result<String, tonic::Status> {
        let request =
            CreateContainerRequest { pod_sandbox_id: sandbox.to_owned(), config: Some(config), sandbox_config: None };
        Ok(self.client.runtime.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), tonic::Status> {
        self.client.runtime.start_container(StartContainerRequest { container_id: id.to_owned() }).await.map(|_| ())
    }

    /// Creates and starts a container.
    pub async fn run(&mut self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.unwrap();
        self.start_container(&id).await.unwrap();
        id
    }

    pub async fn stop(&mut self, id: &str, timeout: i64) {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        self.client.runtime.stop_container(request).await.unwrap();
    }

    pub async fn status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.client.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// The status once the container has ended.
    pub async fn ended(&mut self, id: &str) -> ContainerStatus {
        let wanted = ContainerState::ContainerExited;
        for _ in 0..DEADLINE.as_millis() / 5 {
            let status = self.status(id).await;
            if status.state() == wanted {
                return status;
            }
            self.env.sleep(Duration::from_millis(5)).await;
        }
        panic!("{id} is still {:?}", self.status(id).await);
    }

    /// Waits until the log holds `text`.
    pub async fn logged(&mut self, id: &str, text: &str) -> Vec<LogLine> {
        for _ in 0..DEADLINE.as_millis() / 5 {
            let lines = self.log(id).await;
            if lines.iter().any(|line| line.text.contains(text)) {
                return lines;
            }
            self.env.sleep(Duration::from_millis(5)).await;
        }
        panic!("{text:?} never came: {:?}", self.log(id).await);
    }

    /// The container's log so far.
    pub async fn log(&mut self, id: &str) -> Vec<LogLine> {
        let path = self.status(id).await.log_path;
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.lines().map(LogLine::parse).collect()
    }

    /// What a container that runs `script` to its end wrote, and its exit code.
    pub async fn output(&mut self, sandbox: &str, config: ContainerConfig) -> (String, i32) {
        let id = self.run(sandbox, config).await;
        let status = self.ended(&id).await;
        let text = self.log(&id).await.iter().map(|line| format!("{}\n", line.text)).collect();
        (text, status.exit_code)
    }

    pub async fn exec(&mut self, id: &str, command: &[&str], timeout: i64) -> Result<ExecSyncResponse, tonic::Status> {
        let cmd = command.iter().map(|part| (*part).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        Ok(self.client.runtime.exec_sync(request).await?.into_inner())
    }

    /// The process of the sandbox's shim.
    pub async fn shim_pid(&mut self, sandbox: &str) -> i64 {
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: true };
        let info = self.client.runtime.pod_sandbox_status(request).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        info["shimPid"].as_i64().unwrap()
    }

    /// The mounts in the node's folder.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let folder = self.folder.as_ref().unwrap().path();
        let all = linux::mount::mounts().unwrap().into_iter().map(|mount| mount.path);
        all.filter(|path| path.starts_with(folder)).collect()
    }

    /// A folder of the test's own on this machine.
    pub fn host_folder(&self, name: &str) -> PathBuf {
        let path = self.folder.as_ref().unwrap().path().join("host").join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Node {
    /// After a failed test: as much as can be done without waiting.
    fn drop(&mut self) {
        if let Some((threads, _)) = self.serving.take() {
            threads.shutdown_background();
        }
        let Some(folder) = self.folder.take() else { return };
        for entry in fs::read_dir(self.scope.run("sandboxes")).into_iter().flatten().flatten() {
            if let Ok(socket) = shim::wire::connect(&entry.path().join("shim.sock")) {
                let _ = shim::wire::send(&socket, br#"{"seq":1,"request":"shutdown"}"#, &[]);
            }
        }
        if let Ok(group) = linux::cgroup::Hierarchies::detect().and_then(|all| all.group(self.scope.cgroup(""))) {
            let _ = group.kill();
            let _ = group.remove();
        }
        let _ = linux::mount::unmount_below(folder.path());
    }
}

/// The processes that write to files below `folder`: shims, by their standard error.
fn processes(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    all.filter(|process| fs::read_link(process.join("fd/2")).is_ok_and(|file| file.starts_with(folder))).collect()
}

/// A line of a container's log.
#[derive(Debug, PartialEq, Eq)]
pub struct LogLine {
    pub time: String,
    pub stream: String,
    pub tag: String,
    pub text: String,
}

impl LogLine {
    fn parse(line: &str) -> LogLine {
        let mut fields = line.splitn(4, ' ').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        LogLine { time: next(), stream: next(), tag: next(), text: next() }
    }
}

fn image() -> Image {
    let accounts = Layer::new()
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nweb:x:1001:\nextra:x:2000:web\n");
    Image::busybox(Packing::Plain).unwrap().layer(accounts, Packing::Plain)
}

/// A container that runs `script` in a shell.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    command(name, &["sh", "-c", script])
}

pub fn command(name: &str, args: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox:latest".to_owned(), ..Default::default() }),
        command: args.iter().map(|arg| (*arg).to_owned()).collect(),
        log_path: format!("{name}/0.log"),
        ..Default::default()
    }
}

/// The same container with another security context. Its namespaces follow the sandbox.
pub fn secured(
    mut config: ContainerConfig,
    change: impl FnOnce(&mut LinuxContainerSecurityContext),
) -> ContainerConfig {
    let linux = config.linux.get_or_insert_default();
    let options = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
    let default = LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
    change(linux.security_context.get_or_insert(default));
    config
}

/// The same container with other resources.
pub fn limited(mut config: ContainerConfig, resources: LinuxContainerResources) -> ContainerConfig {
    config.linux.get_or_insert_default().resources = Some(resources);
    config
}
