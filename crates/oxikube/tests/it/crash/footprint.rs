//! How much a cluster has on its machine.

use std::path::Path;

use testkit::machine::Machine;

/// Counts of everything that a pod has. The same pods have the same, whatever died meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    links: usize,
    mounts: usize,
    control_groups: usize,
    shims: usize,
    sandboxes: usize,
    containers: usize,
    roots: usize,
    pod_folders: usize,
    pod_logs: usize,
    unfinished: usize,
}

impl Footprint {
    pub fn of(machine: &Machine) -> Footprint {
        let data = machine.data_dir();
        let entries = |path: &str| std::fs::read_dir(data.join(path)).map_or(0, Iterator::count);
        let links = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default().lines().count();
        let named = |path: &Path| path.to_string_lossy().contains(machine.name());
        let mounts = linux::mount::mounts().unwrap();
        let controllers = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let groups = controllers.map(|entry| entry.path().join(format!("oxikube-{}", machine.name())));
        Footprint {
            links: machine.namespace().run(links).unwrap(),
            mounts: mounts.iter().filter(|mount| named(&mount.path) || mount.path.starts_with(&data)).count(),
            control_groups: groups.map(|path| folders(&path)).sum(),
            shims: processes(machine, "shim"),
            sandboxes: entries("sandboxes"),
            containers: entries("containers"),
            roots: entries("images/rootfs"),
            pod_folders: entries("kubelet/pods"),
            pod_logs: entries("logs/pods"),
            unfinished: entries("images/ingest") + entries("images/trash"),
        }
    }
}

fn folders(path: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + below.map(|entry| folders(&entry.path())).sum::<usize>()
}

/// How many processes have both the machine's name and `word` in their command line.
pub fn processes(machine: &Machine, word: &str) -> usize {
    let commands = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = commands.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let of = |command: &Vec<u8>| {
        let command = String::from_utf8_lossy(command);
        command.contains(machine.name()) && command.contains(word)
    };
    commands.filter(of).count()
}
