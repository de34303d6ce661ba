//! What a cluster needs of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::control::Connection;
use crate::settings::{ROUTES, Settings, port_is_free};
use crate::{Args, Hooks, routes};

/// One thing that the machine must or should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub name: String,
    pub outcome: Outcome,
}

/// How the machine meets a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The cluster works, less well in the way said.
    Degraded(String),
    /// The cluster can't work; the reason names what is missing.
    Missing(String),
}

impl Requirement {
    pub fn new(name: impl Into<String>, outcome: Outcome) -> Requirement {
        Requirement { name: name.into(), outcome }
    }

    /// Missing, with the error as the reason, where `probe` failed.
    pub fn of<T, E: std::fmt::Display>(name: impl Into<String>, probe: std::result::Result<T, E>) -> Requirement {
        Requirement::new(name, probe.map_or_else(|error| Outcome::Missing(error.to_string()), |_| Outcome::Ok))
    }
}

/// `oxikube check`: every requirement with ok or missing; fails if one is missing.
pub(crate) async fn run(args: &Args, env: &env::Env, hooks: &Hooks) -> Result<ExitCode> {
    let settings = match Settings::find(args)? {
        Some(settings) => settings,
        None => crate::start::new_settings(args, &Default::default(), env).await?,
    };
    // A cluster that runs has its ports itself.
    let runs = root().outcome == Outcome::Ok && Connection::open(&settings.control_socket()).await?.is_some();
    let all = requirements(&settings, hooks, if runs { |_| true } else { port_is_free });
    let width = all.iter().map(|requirement| requirement.name.len()).max().unwrap_or(0);
    for Requirement { name, outcome } in &all {
        match outcome {
            Outcome::Ok => println!("{name:width$}  ok"),
            Outcome::Degraded(why) => println!("{name:width$}  degraded: {why}"),
            Outcome::Missing(why) => println!("{name:width$}  missing: {why}"),
        }
    }
    let missing = all.iter().any(|requirement| matches!(requirement.outcome, Outcome::Missing(_)));
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Fails with the first missing requirement, in one sentence.
pub(crate) fn must_meet(settings: &Settings, hooks: &Hooks) -> Result<()> {
    for Requirement { name, outcome } in requirements(settings, hooks, port_is_free) {
        if let Outcome::Missing(why) = outcome {
            bail!("{name}: {why}");
        }
    }
    Ok(())
}

fn requirements(settings: &Settings, hooks: &Hooks, is_free: fn(u16) -> bool) -> Vec<Requirement> {
    let mut all = vec![root()];
    if all[0].outcome != Outcome::Ok {
        // The probes below would fail for the same reason.
        return all;
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    all.extend(Kernel { root: PathBuf::from("/"), release }.requirements(settings));
    all.extend([
        port("API server port", settings.api_port, is_free),
        port("kubelet port", settings.kubelet_port, is_free),
    ]);
    all.extend((hooks.requirements)(settings));
    all
}

pub(crate) fn root() -> Requirement {
    user(rustix::process::geteuid().is_root())
}

fn user(is_root: bool) -> Requirement {
    let why = "namespaces, mounts and network rules need it; run this as root";
    Requirement::new("root", if is_root { Outcome::Ok } else { Outcome::Missing(why.into()) })
}

fn port(name: &str, port: u16, is_free: fn(u16) -> bool) -> Requirement {
    let outcome = match is_free(port) {
        true => Outcome::Ok,
        false => Outcome::Missing(format!("port {port} is taken by another program")),
    };
    Requirement::new(name, outcome)
}

/// What the kernel says of itself in files below `root`.
struct Kernel {
    root: PathBuf,
    release: String,
}

impl Kernel {
    fn requirements(&self, settings: &Settings) -> Vec<Requirement> {
        vec![
            self.filesystem("overlay"),
            self.filesystem("tmpfs"),
            self.cgroups(),
            self.namespaces(),
            self.seccomp(),
            self.resource_capability(),
            self.range("pod range", &settings.pod_cidr, settings),
            self.range("service range", &settings.service_cidr, settings),
        ]
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path.as_ref().strip_prefix("/").unwrap_or(path.as_ref()))
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    fn filesystem(&self, kind: &str) -> Requirement {
        let known = self.text("/proc/filesystems");
        let listed = known.lines().any(|line| line.split_whitespace().next_back() == Some(kind));
        // A file system built as a module is listed once it is loaded; mounting it loads it.
        let module = || {
            let in_list = |list| self.text(&format!("/lib/modules/{}/{list}", self.release));
            ["modules.dep", "modules.builtin"].iter().any(|list| in_list(list).contains(&format!("/{kind}.ko")))
        };
        let outcome = match listed || module() {
            true => Outcome::Ok,
            false => Outcome::Missing(format!("this kernel has no {kind} file system")),
        };
        Requirement::new(format!("{kind} file system"), outcome)
    }

    fn cgroups(&self) -> Requirement {
        let wanted = ["cpu", "memory", "pids"];
        let v2 = self.text("/sys/fs/cgroup/cgroup.controllers");
        let v1 = self.text("/proc/self/mountinfo");
        let in_v1 = |controller: &str| {
            v1.lines().filter(|line| line.contains(" - cgroup ")).any(|line| {
                line.rsplit(' ').next().is_some_and(|options| options.split(',').any(|option| option == controller))
            })
        };
        let missing: Vec<&str> =
            wanted.into_iter().filter(|c| !v2.split_whitespace().any(|have| have == *c) && !in_v1(c)).collect();
        let outcome = match missing.is_empty() {
            true => Outcome::Ok,
            false => Outcome::Missing(format!("no controller {} is mounted below /sys/fs/cgroup", missing.join(", "))),
        };
        Requirement::new("cgroups", outcome)
    }

    fn namespaces(&self) -> Requirement {
        let missing: Vec<&str> = ["net", "mnt", "pid", "ipc", "uts"]
            .into_iter()
            .filter(|kind| fs::symlink_metadata(self.path("/proc/self/ns").join(kind)).is_err())
            .collect();
        let outcome = match missing.is_empty() {
            true => Outcome::Ok,
            false => Outcome::Missing(format!("this kernel has no {} namespaces", missing.join(", "))),
        };
        Requirement::new("namespaces", outcome)
    }

    fn seccomp(&self) -> Requirement {
        let outcome = match self.path("/proc/sys/kernel/seccomp/actions_avail").exists() {
            true => Outcome::Ok,
            false => {
                Outcome::Degraded("this kernel has no seccomp filters: RuntimeDefault profiles will be refused".into())
            }
        };
        Requirement::new("seccomp", outcome)
    }

    /// Without it neither limits nor negative out-of-memory scores can be set.
    fn resource_capability(&self) -> Requirement {
        const CAP_SYS_RESOURCE: u32 = 24;
        let status = self.text("/proc/self/status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
        let outcome = match set & (1 << CAP_SYS_RESOURCE) {
            0 => Outcome::Degraded("without it, containers get no negative oom_score_adj and no raised limits".into()),
            _ => Outcome::Ok,
        };
        Requirement::new("CAP_SYS_RESOURCE", outcome)
    }

    /// A range is free unless a route of somebody else overlaps it.
    fn range(&self, name: &str, cidr: &str, settings: &Settings) -> Requirement {
        let scope = settings.scope();
        let routes = routes::parse(&self.text(ROUTES));
        let taken = routes.iter().find(|route| !route.link.starts_with(scope.link_prefix()) && route.overlaps(cidr));
        let outcome = match taken {
            None => Outcome::Ok,
            Some(route) => Outcome::Missing(format!("{cidr} overlaps the route {route}")),
        };
        Requirement::new(name, outcome)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Start;
    use crate::settings::NodeAddress;

    const PARTS: [(&str, &str); 10] = [
        ("proc/filesystems", "nodev\ttmpfs\n\text4\nnodev\toverlay\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("proc/self/ns/net", ""),
        ("proc/self/ns/mnt", ""),
        ("proc/self/ns/pid", ""),
        ("proc/self/ns/ipc", ""),
        ("proc/self/ns/uts", ""),
        ("proc/sys/kernel/seccomp/actions_avail", "allow"),
        ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
        ("proc/net/route", ""),
    ];

    fn settings() -> Settings {
        let args = Args::parse_from(["oxikube", "check"]);
        let node = NodeAddress { ip: "192.0.2.1".parse().unwrap(), name: "n".into() };
        Settings::choose(&args, &Start::default(), node, Vec::new()).unwrap()
    }

    /// What is not ok on a machine whose files are those of [`PARTS`], but for one (`None`: missing).
    fn lacks(path: &str, text: Option<&str>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let others = PARTS.iter().filter(|(other, _)| *other != path);
        for (path, text) in others.copied().chain(text.map(|text| (path, text))) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let kernel = Kernel { root: folder.path().into(), release: "6.1".into() };
        let wrong = kernel.requirements(&settings()).into_iter().filter_map(|requirement| match requirement.outcome {
            Outcome::Ok => None,
            Outcome::Missing(why) => Some(format!("{}: {why}", requirement.name)),
            Outcome::Degraded(why) => Some(format!("({}: {why})", requirement.name)),
        });
        wrong.collect()
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let check = |path: &str, text: Option<&str>, expect: &[&str]| {
            assert_eq!(lacks(path, text), expect, "{path}");
        };
        check("nothing", None, &[]);
        let files = "proc/filesystems";
        check(files, Some("nodev\ttmpfs\n"), &["overlay file system: this kernel has no overlay file system"]);
        check(files, Some("overlay\n"), &["tmpfs file system: this kernel has no tmpfs file system"]);
        let groups = "sys/fs/cgroup/cgroup.controllers";
        let without = "cgroups: no controller cpu, pids is mounted below /sys/fs/cgroup";
        check(groups, Some("memory io"), &[without]);
        check(groups, None, &["cgroups: no controller cpu, memory, pids is mounted below /sys/fs/cgroup"]);
        check("proc/self/ns/pid", None, &["namespaces: this kernel has no pid namespaces"]);
        let filters = "(seccomp: this kernel has no seccomp filters: RuntimeDefault profiles will be refused)";
        check("proc/sys/kernel/seccomp/actions_avail", None, &[filters]);
        let limits = "(CAP_SYS_RESOURCE: without it, containers get no negative oom_score_adj and no raised limits)";
        check("proc/self/status", Some("CapEff:\t00000000a80425fb\n"), &[limits]);
        check(
            "proc/net/route",
            Some(routes::EXAMPLE),
            &["pod range: 10.244.0.0/16 overlaps the route 10.244.3.0/24 of tun0"],
        );
    }

    #[test]
    fn modules_and_v1_hierarchies_count() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Kernel { root: folder.path().into(), release: "6.1".into() };
        for (path, text) in [
            ("lib/modules/6.1/modules.dep", "kernel/fs/overlayfs/overlay.ko.xz:\n"),
            ("lib/modules/6.1/modules.builtin", "kernel/fs/tmpfs.ko\n"),
            (
                "proc/self/mountinfo",
                "30 23 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                 31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 32 23 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
            ),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for requirement in [kernel.filesystem("overlay"), kernel.filesystem("tmpfs"), kernel.cgroups()] {
            assert_eq!(requirement.outcome, Outcome::Ok, "{}", requirement.name);
        }
    }

    #[test]
    fn routes_of_the_cluster_itself_are_no_obstacle() {
        let settings = settings();
        let own = settings.scope().link("v1");
        assert_eq!(lacks("proc/net/route", Some(&routes::EXAMPLE.replace("tun0", &own))), Vec::<String>::new());
    }

    #[test]
    fn users_and_ports_are_named() {
        let said = |requirement: Requirement| match requirement.outcome {
            Outcome::Missing(why) => format!("{}: {why}", requirement.name),
            other => format!("{other:?}"),
        };
        let expect = "root: namespaces, mounts and network rules need it; run this as root";
        assert_eq!((said(user(false)), said(user(true))), (expect.to_owned(), "Ok".to_owned()));
        assert_eq!(
            said(port("kubelet port", 10250, |_| false)),
            "kubelet port: port 10250 is taken by another program"
        );
        assert_eq!(said(port("kubelet port", 10250, |_| true)), "Ok");
    }
}
