//! What a cluster leaves on its machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testkit::machine::Machine;

/// Everything on the machine that a cluster may leave behind.
pub fn traces(machine: &Machine) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    machine
        .namespace()
        .run(|| {
            for file in ["/proc/thread-self/net/dev", "/proc/thread-self/net/route", "/proc/thread-self/net/fib_trie"] {
                let lines: Vec<String> = text(file).lines().map(counters_off).collect();
                traces.extend(lines.into_iter().map(|line| format!("{file}: {line}")));
            }
            for family in [linux::nft::Family::Ip, linux::nft::Family::Ip6] {
                let tables = linux::nft::Socket::open().unwrap().tables(family).unwrap();
                traces.extend(tables.into_iter().map(|table| format!("table {table}")));
            }
            for sysctl in ["ip_forward", "conf/all/route_localnet", "conf/all/rp_filter", "conf/default/rp_filter"] {
                traces.insert(format!("{sysctl} = {}", text(&format!("/proc/sys/net/ipv4/{sysctl}")).trim()));
            }
        })
        .unwrap();
    let named = |path: &Path| path.to_string_lossy().contains(machine.name());
    let mounts = linux::mount::mounts().unwrap();
    traces.extend(mounts.iter().filter(|m| named(&m.path)).map(|m| format!("mount {}", m.path.display())));
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let folders = fs::read_dir(controller.path()).into_iter().flatten().flatten();
        let ours = folders.map(|folder| folder.path()).filter(|path| named(path));
        traces.extend(ours.map(|path| format!("cgroup {}", path.display())));
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(machine.name()) {
            traces.insert(format!("process {}", String::from_utf8_lossy(&command)));
        }
    }
    for folder in ["/run/oxikube", "/var/lib/oxikube"] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        traces.extend(entries.map(|e| e.path()).filter(|path| named(path)).map(|path| path.display().to_string()));
    }
    for entry in walk(machine.folder()) {
        traces.insert(entry);
    }
    traces
}

/// Names of links without what they carried.
fn counters_off(line: &str) -> String {
    match line.split_once(':') {
        Some((link, _)) => link.trim().to_owned(),
        None => line.trim().to_owned(),
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
    }
    found
}
