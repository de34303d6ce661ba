//! Kernel settings that belong to a sandbox's namespaces.

use std::fs;
use std::io;
use std::path::PathBuf;

use linux::namespace::Kind;

use cri::v1::PodSandboxConfig;

use crate::error::Error;

/// Set unless the client says otherwise, so that unprivileged containers may use low ports and ping (upstream: containerd's
/// `enable_unprivileged_ports` and `enable_unprivileged_icmp`).
const DEFAULTS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The files to write within the new namespaces, and what.
pub(super) fn settings(config: &PodSandboxConfig, kinds: &[Kind]) -> Result<Vec<(PathBuf, String)>, Error> {
    let given = config.linux.as_ref().map(|linux| linux.sysctls.clone()).unwrap_or_default();
    let mut settings = Vec::new();
    if kinds.contains(&Kind::Net) {
        for (name, value) in DEFAULTS.iter().filter(|(name, _)| !given.contains_key(*name)) {
            settings.push((path(name), (*value).to_owned()));
        }
    }
    let mut given: Vec<_> = given.into_iter().collect();
    given.sort();
    for (name, value) in given {
        match namespace_of(&name) {
            Some(kind) if kinds.contains(&kind) => settings.push((path(&name), value)),
            Some(_) => return Err(Error::Invalid(format!("sysctl {name:?} is not allowed in the host's namespace"))),
            None => return Err(Error::Invalid(format!("sysctl {name:?} is not in a separate kernel namespace"))),
        }
    }
    Ok(settings)
}

/// The namespace that has its own value of the setting. Upstream: runc's validator.
fn namespace_of(name: &str) -> Option<Kind> {
    let name = name.replace('/', ".");
    let ipc = ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"];
    let more = ["kernel.shmmni", "kernel.shm_rmid_forced"];
    if ipc.contains(&name.as_str()) || more.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        Some(Kind::Ipc)
    } else if name.starts_with("net.") {
        Some(Kind::Net)
    } else if name == "kernel.domainname" {
        Some(Kind::Uts)
    } else {
        None
    }
}

/// Dots separate, unless the name is written with slashes: then dots are part of names.
fn path(name: &str) -> PathBuf {
    let first = name.find(['.', '/']).map(|at| &name[at..=at]);
    let relative = if first == Some("/") { name.to_owned() } else { swap(name) };
    PathBuf::from("/proc/sys").join(relative)
}

fn swap(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            letter => letter,
        })
        .collect()
}

/// Writes the settings; called inside the namespaces.
pub(super) fn apply(settings: &[(PathBuf, String)]) -> io::Result<()> {
    for (path, value) in settings {
        fs::write(path, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::LinuxPodSandboxConfig;

    #[test]
    fn only_settings_of_own_namespaces_are_made() {
        let check = |name: &str, kinds: &[Kind], expect: Option<&str>| {
            let sysctls = [(name.to_owned(), "1".to_owned())].into();
            let linux = LinuxPodSandboxConfig { sysctls, ..Default::default() };
            let config = PodSandboxConfig { linux: Some(linux), ..Default::default() };
            let got = settings(&config, kinds).ok().map(|all| all.last().unwrap().0.clone());
            assert_eq!(got.as_deref(), expect.map(std::path::Path::new), "{name}");
        };
        let all = [Kind::Net, Kind::Ipc, Kind::Uts];
        check("net.ipv4.ip_forward", &all, Some("/proc/sys/net/ipv4/ip_forward"));
        check("net/ipv4/conf/eth0.1/rp_filter", &all, Some("/proc/sys/net/ipv4/conf/eth0.1/rp_filter"));
        check("net.ipv4.ip_forward", &[Kind::Ipc], None);
        check("kernel.shmmax", &all, Some("/proc/sys/kernel/shmmax"));
        check("kernel.shmmax", &[Kind::Net], None);
        check("vm.swappiness", &all, None);
    }
}
