//! The files that the kubelet itself gives containers: `/etc/hosts` and the termination message.

use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::{host_network, spec, uid};
use crate::config::Config;
use crate::volumes::pod_folder;

/// Writes the pod's hosts file and returns where it is.
pub(crate) fn write_hosts(config: &Config, pod: &Pod, ips: &[IpAddr]) -> io::Result<PathBuf> {
    let path = pod_folder(&config.root, uid(pod)).join("etc-hosts");
    let aliases = spec(pod).host_aliases.as_deref().unwrap_or_default();
    let text = if host_network(pod) {
        let of_node = fs::read_to_string("/etc/hosts")?;
        format!("# Kubernetes-managed hosts file (host network).\n{of_node}{}", alias_lines(aliases))
    } else {
        let (host, domain) = super::sandbox::hostname(config, pod);
        hosts(ips, &host, &domain, aliases)
    };
    fs::write(&path, text)?;
    fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    Ok(path)
}

fn hosts(ips: &[IpAddr], host: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    for ip in ips {
        if domain.is_empty() || host.ends_with(domain) {
            text.push_str(&format!("{ip}\t{host}\n"));
        } else {
            text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
        }
    }
    text + &alias_lines(aliases)
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases.iter().map(|alias| {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        format!("{}\t{names}\n", alias.ip)
    });
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

/// Makes a fresh, empty file for the container's last words, which any user may write to.
pub(crate) fn make_message_file(config: &Config, pod: &Pod, container: &str, unique: &str) -> io::Result<PathBuf> {
    let folder = pod_folder(&config.root, uid(pod)).join("containers").join(container);
    fs::create_dir_all(&folder)?;
    let path = folder.join(unique);
    fs::write(&path, "")?;
    fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    Ok(path)
}

/// The folders of a pod, and of its logs.
pub(crate) fn make_folders(config: &Config, pod: &Pod) -> io::Result<()> {
    let folder = pod_folder(&config.root, uid(pod));
    for path in [folder.join("volumes"), folder.join("containers")] {
        fs::create_dir_all(path)?;
    }
    fs::create_dir_all(config.pod_logs(super::namespace(pod), super::name(pod), uid(pod)))
}

/// The greatest number among a container's log files, from which its restarts are told when nothing else is left of them.
pub(crate) fn last_logged_attempt(logs: &Path) -> Option<i32> {
    let entries = fs::read_dir(logs).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.split_once(".log")?.0.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_the_pod() {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let text = hosts(&[ip], "web", "sub.ns.svc.cluster.local", &[]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost "));
        assert!(text.ends_with("10.0.0.1\tweb.sub.ns.svc.cluster.local\tweb\n"));
        let alias = HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) };
        let text = hosts(&[ip], "web", "", &[alias]);
        assert!(text.ends_with("10.0.0.1\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }

    #[test]
    fn attempts_are_read_from_logs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(last_logged_attempt(folder.path()), None);
        for name in ["0.log", "3.log", "2.log.20260101-000000.gz", "x.log"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(last_logged_attempt(folder.path()), Some(3));
    }
}
