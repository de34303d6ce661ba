//! What the machine is and has.

use std::fs;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{NodeFeatures, NodeRuntimeHandler};
use rules::Resources;

/// What does not change while the kubelet runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) cpus: i64,
    /// Bytes.
    pub(crate) memory: i64,
    pub(crate) swap: i64,
    /// Bytes of the filesystem that volumes and logs lie on.
    pub(crate) storage: i64,
    /// Names such as `hugepages-2Mi`, and bytes.
    pub(crate) hugepages: Vec<(String, i64)>,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) architecture: String,
    /// `oxikube://0.1.0`; empty until the runtime answered.
    pub(crate) runtime: String,
    /// What the runtime can make pods with, and what it can do with all of them.
    pub(crate) handlers: Vec<NodeRuntimeHandler>,
    pub(crate) features: Option<NodeFeatures>,
}

impl Machine {
    /// Examines this machine; `root` is the kubelet's folder.
    pub(crate) fn examine(root: &Path) -> io::Result<Machine> {
        let first_line = |paths: &[&str]| {
            let texts = paths.iter().filter_map(|path| fs::read_to_string(path).ok());
            texts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty()).unwrap_or_default()
        };
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let names = rustix::system::uname();
        let disk = rustix::fs::statvfs(root)?;
        Ok(Machine {
            cpus: i64::try_from(std::thread::available_parallelism()?.get()).unwrap_or(1),
            memory: meminfo_bytes(&meminfo, "MemTotal"),
            swap: meminfo_bytes(&meminfo, "SwapTotal"),
            storage: i64::try_from(disk.f_blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX),
            hugepages: hugepages(),
            machine_id: first_line(&["/etc/machine-id", "/var/lib/dbus/machine-id"]),
            system_uuid: first_line(&["/sys/class/dmi/id/product_uuid", "/etc/machine-id"]),
            boot_id: first_line(&["/proc/sys/kernel/random/boot_id"]),
            kernel: names.release().to_string_lossy().into_owned(),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64".to_owned(),
                "aarch64" => "arm64".to_owned(),
                other => other.to_owned(),
            },
            runtime: String::new(),
            handlers: Vec::new(),
            features: None,
        })
    }

    /// What pods can have: all but what the node keeps for itself. Upstream: node_container_manager_linux.go.
    pub(crate) fn allocatable(&self, max_pods: i64, kept_memory: u64, kept_disk_percent: u64) -> Resources {
        let huge: i64 = self.hugepages.iter().map(|(_, bytes)| bytes).sum();
        let kept_memory = i64::try_from(kept_memory).unwrap_or(i64::MAX);
        let kept_disk = self.storage / 100 * i64::try_from(kept_disk_percent).unwrap_or(0);
        let mut others = self.hugepages.iter().cloned().collect::<std::collections::BTreeMap<_, _>>();
        others.insert("pods".to_owned(), max_pods);
        Resources {
            milli_cpu: self.cpus * 1000,
            memory: (self.memory - huge - kept_memory).max(0),
            ephemeral_storage: self.storage - kept_disk,
            others,
        }
    }
}

/// One line of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo_bytes(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn hugepages() -> Vec<(String, i64)> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let kilobytes: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            let size = match kilobytes {
                kilobytes if kilobytes % (1 << 20) == 0 => format!("{}Gi", kilobytes >> 20),
                kilobytes if kilobytes % (1 << 10) == 0 => format!("{}Mi", kilobytes >> 10),
                kilobytes => format!("{kilobytes}Ki"),
            };
            Some((format!("hugepages-{size}"), count * kilobytes * 1024))
        })
        .collect();
    found.sort();
    found
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_examined() {
        let machine = Machine::examine(Path::new("/")).unwrap();
        assert!(machine.cpus > 0 && machine.memory > 1 << 20 && machine.storage > 0);
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty());
        let allocatable = machine.allocatable(110, 100 << 20, 10);
        assert!(allocatable.memory < machine.memory && allocatable.ephemeral_storage < machine.storage);
        assert_eq!(allocatable.get("pods"), 110);
    }

    #[test]
    fn texts_are_read() {
        assert_eq!(meminfo_bytes("MemTotal:  12 kB\nMemFree: 1 kB\n", "MemTotal"), 12 << 10);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }
}
