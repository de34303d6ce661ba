//! `oxikube status`.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::control::{Addresses, Answer, Ask, ClusterStatus, Folders, ask_soon};
use crate::{Args, Settings};

/// Prints what runs; fails where no daemon does.
pub(crate) async fn run(args: &Args, output: Option<&str>, env: &env::Env) -> Result<ExitCode> {
    let settings = Settings::must_find(args)?;
    let status = match ask_soon(&settings.control_socket(), Ask::Status, env).await? {
        Some(Answer::Status(status)) => *status,
        _ => offline(&settings),
    };
    match output {
        None => print!("{}", text(&status)),
        Some("json") => println!("{}", serde_json::to_string_pretty(&status)?),
        Some(other) => bail!("unknown output format {other:?}; known is json"),
    }
    Ok(if status.daemon.pid.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The status that can be told without a daemon.
fn offline(settings: &Settings) -> ClusterStatus {
    let mut status = described(settings);
    status.node.name.clone_from(&settings.node_name);
    status
}

/// The parts of a status that the settings say.
pub fn described(settings: &Settings) -> ClusterStatus {
    ClusterStatus {
        name: settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: Addresses {
            server: settings.server(),
            node: settings.node_ip.to_string(),
            dns: settings.dns_ip().to_string(),
            pods: settings.pod_cidr.clone(),
            services: settings.service_cidr.clone(),
        },
        folders: Folders {
            data: settings.data_dir.clone(),
            run: settings.run_dir.clone(),
            log: settings.log_file(),
            kubeconfig: settings.kubeconfig.clone(),
        },
        ..ClusterStatus::default()
    }
}

fn text(status: &ClusterStatus) -> String {
    let daemon = match status.daemon.pid {
        Some(pid) => format!("pid {pid}"),
        None => "not running".to_owned(),
    };
    let ready = if status.node.ready { "Ready" } else { "NotReady" };
    let mut lines = vec![("daemon", daemon)];
    if let Some(since) = &status.daemon.since {
        lines.push(("since", since.clone()));
        lines.push(("memory", format!("{:.1} MiB", status.daemon.memory_bytes as f64 / (1 << 20) as f64)));
        lines.push(("node", format!("{} {ready}", status.node.name)));
        lines.push(("pods", format!("{} ({} containers)", status.node.pods, status.node.containers)));
    }
    lines.extend([
        ("cluster", format!("{} (oxikube {})", status.name, status.version)),
        ("server", status.addresses.server.clone()),
        ("node address", status.addresses.node.clone()),
        ("cluster DNS", status.addresses.dns.clone()),
        ("pod range", status.addresses.pods.clone()),
        ("service range", status.addresses.services.clone()),
        ("data", status.folders.data.display().to_string()),
        ("run", status.folders.run.display().to_string()),
        ("log", status.folders.log.display().to_string()),
        (
            "kubeconfig",
            status.folders.kubeconfig.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        ),
    ]);
    lines.into_iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_pid_comes_first() {
        let mut status = ClusterStatus { name: "c".into(), ..ClusterStatus::default() };
        assert!(text(&status).starts_with("daemon: not running\n"));
        status.daemon.pid = Some(12);
        assert!(text(&status).starts_with("daemon: pid 12\n"));
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["daemon"]["pid"], 12);
    }
}
