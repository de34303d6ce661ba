//! The files every container of a sandbox finds in `/etc`, and its shared memory.

use std::fs;
use std::path::Path;

use linux::mount::{self, TmpfsFlags};

use cri::v1::{DnsConfig, NamespaceMode};

use crate::error::{Context, Error};
use crate::state::Sandbox;

/// The size of `/dev/shm` (upstream: containerd's `defaultShmSize`).
const SHM: &str = "mode=1777,size=67108864";

/// Makes them in `folder`.
pub(super) fn make(sandbox: &Sandbox, folder: &Path) -> Result<(), Error> {
    let failed = || "make the sandbox's files".to_owned();
    fs::create_dir_all(folder).context(failed)?;
    let hostname = match sandbox.config.hostname.as_str() {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        hostname => hostname.to_owned(),
    };
    fs::write(folder.join("hostname"), format!("{hostname}\n")).context(failed)?;
    fs::write(folder.join("hosts"), fs::read("/etc/hosts").unwrap_or_default()).context(failed)?;
    let resolv = match &sandbox.config.dns_config {
        Some(dns) if *dns != DnsConfig::default() => resolv_conf(dns).into_bytes(),
        _ => fs::read("/etc/resolv.conf").unwrap_or_default(),
    };
    fs::write(folder.join("resolv.conf"), resolv).context(failed)?;
    if sandbox.options().ipc() != NamespaceMode::Node {
        let shm = folder.join("shm");
        fs::create_dir_all(&shm).context(failed)?;
        mount::tmpfs(&shm, TmpfsFlags::ReadWrite, SHM).context(|| "mount the sandbox's shared memory".to_owned())?;
    }
    Ok(())
}

/// Upstream: containerd's `parseDNSOptions`.
fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_files_hold_what_is_given() {
        let check = |servers: &[&str], searches: &[&str], options: &[&str], expect: &str| {
            let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
            let dns = DnsConfig { servers: list(servers), searches: list(searches), options: list(options) };
            assert_eq!(resolv_conf(&dns), expect);
        };
        check(
            &["10.96.0.10", "fd00::1"],
            &["a.svc", "svc"],
            &["ndots:5"],
            "search a.svc svc\nnameserver 10.96.0.10\nnameserver fd00::1\noptions ndots:5\n",
        );
        check(&["10.96.0.10"], &[], &[], "nameserver 10.96.0.10\n");
    }
}
