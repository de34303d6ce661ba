//! `oxikube start`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::args::{Start, node_name};
use crate::check::{self, Outcome};
use crate::control::{Answer, Ask, ask_soon};
use crate::progress::{Display, Progress};
use crate::settings::NodeAddress;
use crate::turn::Turn;
use crate::{Args, Hooks, Settings, kubeconfig, process, stop};

/// The address of a node on a machine without any other: the daemon puts it on a dummy link of its own.
pub const LONELY_NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 1);

pub(crate) async fn run(args: &Args, start: &Start, env: &env::Env, hooks: &Hooks) -> Result<ExitCode> {
    if let Outcome::Missing(why) = check::root().outcome {
        bail!("root: {why}");
    }
    (hooks.controllers)(&start.controllers)?;
    let scheduler_config = start.scheduler_config.as_deref().map(|path| scheduler_config(path, hooks)).transpose()?;
    let mut turn = match Settings::find(args)? {
        Some(settings) => Some(Turn::take(&settings, env).await?),
        None => None,
    };
    // Whoever had the turn may have changed it, or taken it away.
    let existing = Settings::find(args)?;
    if let Some(settings) = &existing
        && let Some(Answer::Status(status)) = ask_soon(&settings.control_socket(), Ask::Status, env).await?
    {
        // The command that started it may have died before it wrote this.
        kubeconfig::ensure(settings, env)?;
        println!("cluster {} runs already (pid {})", settings.name, status.daemon.pid.unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let first = existing.is_none();
    let mut settings = match existing {
        Some(settings) => resume(settings, args, start, env).await?,
        None => new_settings(args, start, env).await?,
    };
    if let Some(text) = scheduler_config {
        settings.scheduler_config = Some(text).filter(|text| !text.trim().is_empty());
    }
    kubeconfig::check(&settings)?;
    process::gone(&settings, env).await?;
    check::must_meet(&settings, hooks)?;

    let turn = match turn.take() {
        Some(turn) => turn,
        None => Turn::take(&settings, env).await?,
    };
    if first && Settings::find(args)?.is_some() {
        // Somebody was faster.
        drop(turn);
        return Box::pin(run(args, start, env, hooks)).await;
    }
    let display = Display::new();
    let started = match launch(&settings, &turn, &display, env) {
        Ok(child) => {
            env.crashpoint("start.ready");
            kubeconfig::write(&settings, env).map(|()| child)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = started {
        roll_back(&settings, first, env, hooks).await.context("rolling back the failed start")?;
        return Err(error);
    }
    println!(
        "cluster {} is ready: {} (kubeconfig context {})",
        settings.name,
        settings.server(),
        kubeconfig::context(&settings)
    );
    Ok(ExitCode::SUCCESS)
}

/// The content of the file, which the scheduler must be able to use.
fn scheduler_config(path: &Path, hooks: &Hooks) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    (hooks.scheduler_config)(&text).with_context(|| format!("{} can't be used", path.display()))?;
    Ok(text)
}

/// Settings for a cluster that isn't there yet.
pub(crate) async fn new_settings(args: &Args, start: &Start, env: &env::Env) -> Result<Settings> {
    let ip = match start.node_ip {
        Some(ip) => usable(ip, is_here)?,
        None => node_ip(env).await?,
    };
    let name = match &start.node_name {
        Some(name) => name.clone(),
        None => host_name(&rustix::system::uname().nodename().to_string_lossy())?,
    };
    Settings::choose(args, start, NodeAddress { ip, name }, kubeconfig::paths(args)?)
}

/// An existing cluster keeps its settings, but for what the machine or the command changed.
async fn resume(mut settings: Settings, args: &Args, start: &Start, env: &env::Env) -> Result<Settings> {
    settings.node_ip = match start.node_ip {
        Some(ip) if ip == settings.node_ip && ip == LONELY_NODE_IP => ip,
        Some(ip) => usable(ip, is_here)?,
        None if settings.node_ip == LONELY_NODE_IP || is_here(settings.node_ip) => settings.node_ip,
        None => node_ip(env).await?,
    };
    if let Some(name) = start.node_name.as_ref().filter(|name| **name != settings.node_name) {
        bail!("the node of cluster {} is called {}, and can't become {name}", settings.name, settings.node_name);
    }
    if start.certificate_lifetime.is_some() {
        settings.certificate_lifetime = start.certificate_lifetime;
    }
    if !start.runtime_handlers.is_empty() {
        settings.runtime_handlers = start.runtime_handlers.iter().cloned().collect();
    }
    if !start.controllers.is_empty() {
        settings.controllers = start.controllers.clone();
    }
    settings.feature_gates.extend(start.feature_gates.iter().cloned());
    if args.kubeconfig.is_some() {
        settings.kubeconfig = kubeconfig::paths(args)?;
    }
    Ok(settings)
}

/// Starts the daemon and shows its progress until it is ready.
fn launch(settings: &Settings, turn: &Turn, display: &Display, env: &env::Env) -> Result<Child> {
    settings.record(env)?;
    env.crashpoint("start.recorded");
    let mut child = spawn(settings, turn)?;
    env.crashpoint("start.launched");
    let lines = BufReader::new(child.stdout.take().context("the daemon's standard output is a pipe")?).lines();
    for line in lines {
        let line = line.context("reading the daemon's progress")?;
        let event: Progress = serde_json::from_str(&line).with_context(|| format!("the daemon wrote {line:?}"))?;
        display.show(&event);
        match event {
            Progress::Ready => return Ok(child),
            Progress::Failed { message } => {
                let _ = child.wait();
                bail!("{message}");
            }
            _ => {}
        }
    }
    let status = child.wait().context("waiting for the daemon")?;
    Err(anyhow!("the daemon ended ({status}); its log is {}", settings.log_file().display()))
}

fn spawn(settings: &Settings, turn: &Turn) -> Result<Child> {
    let log = open_log(settings)?;
    Command::new("/proc/self/exe")
        .arg("daemon")
        .arg(settings.run_dir.join("cluster.json"))
        .current_dir("/")
        .stdin(turn.share()?)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("starting the daemon")
}

fn open_log(settings: &Settings) -> Result<File> {
    let path = settings.log_file();
    let folder = path.parent().expect("the log lies in a folder");
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("opening {}", path.display()))
}

/// Ends what the failed start began; a first start leaves nothing at all.
async fn roll_back(settings: &Settings, first: bool, env: &env::Env, hooks: &Hooks) -> Result<()> {
    stop::end_daemon(settings, env).await?;
    (hooks.cleanup)(settings.clone()).await?;
    crate::delete::remove_folder(&settings.run_dir)?;
    if first {
        // Of a cluster before this one, of the same name, volumes may have been kept.
        crate::delete::remove_data(&settings.data_dir, true)?;
    }
    Ok(())
}

/// The source address of the default route, else an address of the machine that no cluster made, else [`LONELY_NODE_IP`]. Sends nothing.
async fn node_ip(env: &env::Env) -> Result<IpAddr> {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // TEST-NET-1: nobody's address, reached by the default route.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    if let Some(ip) = probe().ok().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) {
        return Ok(ip);
    }
    let (netlink, driver) = linux::netlink::Netlink::open().context("looking for the machine's addresses")?;
    let driver = env.spawn(driver);
    let links = netlink.links().await.context("looking for the machine's addresses")?;
    let addresses = netlink.addresses().await.context("looking for the machine's addresses")?;
    driver.abort();
    let own = |link: u32| links.iter().any(|l| l.index == link && !linux::Scope::is_link_of_any(&l.name));
    let mut found =
        addresses.iter().filter(|address| address.global && address.net.addr().is_ipv4() && own(address.link));
    Ok(found.next().map_or(LONELY_NODE_IP.into(), |address| address.net.addr()))
}

/// Whether the machine still has the address.
fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// An address that was asked for, if a node can have it.
fn usable(ip: IpAddr, is_here: fn(IpAddr) -> bool) -> Result<IpAddr> {
    if ip.is_ipv6() {
        bail!("the node can't have the address {ip}: pods and Services have IPv4 addresses, and so must it");
    }
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        bail!("the node can't have the address {ip}: pods must be able to reach it");
    }
    if !is_here(ip) {
        bail!("the node can't have the address {ip}: no link of this machine has it");
    }
    Ok(ip)
}

/// The node's name on a machine that is called `name`.
fn host_name(name: &str) -> Result<String> {
    if name.is_empty() || name == "(none)" {
        bail!("this machine has no host name; give the node one with --node-name");
    }
    node_name(&name.to_lowercase()).map_err(|_| {
        anyhow!("this machine's host name {name:?} can't be a node's name; give the node one with --node-name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Display>(result: Result<T>) -> String {
        result.map_or_else(|error| error.to_string(), |value| value.to_string())
    }

    #[test]
    fn addresses_are_checked() {
        let check = |ip: &str, here: fn(IpAddr) -> bool, expect: &str| {
            assert_eq!(said(usable(ip.parse().unwrap(), here)), expect, "{ip}");
        };
        check("192.0.2.1", |_| true, "192.0.2.1");
        check("192.0.2.1", |_| false, "the node can't have the address 192.0.2.1: no link of this machine has it");
        check("127.0.0.1", |_| true, "the node can't have the address 127.0.0.1: pods must be able to reach it");
        check("0.0.0.0", |_| true, "the node can't have the address 0.0.0.0: pods must be able to reach it");
        let version =
            "the node can't have the address 2001:db8::1: pods and Services have IPv4 addresses, and so must it";
        check("2001:db8::1", |_| true, version);
    }

    #[test]
    fn host_names_become_node_names() {
        let check = |name: &str, expect: &str| assert_eq!(said(host_name(name)), expect, "{name:?}");
        check("Example", "example");
        check("a.example.com", "a.example.com");
        check("(none)", "this machine has no host name; give the node one with --node-name");
        check(
            "my_host",
            "this machine's host name \"my_host\" can't be a node's name; give the node one with --node-name",
        );
    }

    #[tokio::test]
    async fn a_machine_without_addresses_gets_the_lonely_one() {
        let namespace = linux::netns::NetNs::unpinned().unwrap();
        let ip = namespace.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(node_ip(&env::Env::system()))
        });
        assert_eq!(ip.unwrap().unwrap(), LONELY_NODE_IP);
    }
}
