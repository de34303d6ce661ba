//! What the containers of a pod share.

use std::collections::HashMap;

use cri::v1::*;

use crate::support::*;

fn with_options(node: &Node, name: &str, options: NamespaceOption) -> PodSandboxConfig {
    let mut config = node.sandbox_config(name);
    let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    config
}

/// A container whose security context says the same about namespaces as its sandbox.
fn container(name: &str, script: &str, options: &NamespaceOption) -> ContainerConfig {
    secured(shell(name, script), |security| security.namespace_options = Some(options.clone()))
}

pub async fn containers_share_network_ipc_and_names(mut node: Node) {
    let mut config = node.sandbox_config("shared");
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    });
    let linux = config.linux.as_mut().unwrap();
    linux.sysctls = HashMap::from([
        ("net.ipv4.ip_local_port_range".into(), "20000 21000".into()),
        ("kernel.shmmax".into(), "65536".into()),
    ]);
    let sandbox = node.run_sandbox(config).await.unwrap();
    let script = "for n in net ipc uts mnt pid; do readlink /proc/self/ns/$n; done; cat /etc/resolv.conf; hostname;
        cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_unprivileged_port_start; echo $$";
    let (first, _) = node.output(&sandbox, shell("first", &format!("{script}; echo x > /dev/shm/file"))).await;
    let (second, _) = node.output(&sandbox, shell("second", &format!("{script}; cat /dev/shm/file"))).await;
    let (first, second): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    assert_eq!(first[..3], second[..3]);
    for (index, name) in [(3, "mnt"), (4, "pid")] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(first[index] != ours.to_str().unwrap() && second[index] != ours.to_str().unwrap());
    }
    let rest = [
        "search svc.cluster.local",
        "nameserver 10.96.0.10",
        "options ndots:5",
        "shared",
        "20000\t21000",
        "65536",
        "0",
        "1",
    ];
    assert_eq!(first[5..], rest);
    assert_eq!(second.last(), Some(&"x"));
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(first[0], ours.to_str().unwrap());
    let status = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: true };
    let status = node.client.runtime.pod_sandbox_status(status).await.unwrap().into_inner();
    assert_eq!(status.containers_statuses.len(), 2);
    assert_eq!(status.status.unwrap().network.unwrap().ip, "127.0.0.1");
    node.finish().await;
}

pub async fn the_hosts_namespaces_can_be_used(mut node: Node) {
    let host = NamespaceMode::Node.into();
    let options = NamespaceOption { network: host, pid: host, ipc: host, ..Default::default() };
    let config = with_options(&node, "host", options.clone());
    let sandbox = node.run_sandbox(config).await.unwrap();
    let script = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; sleep 1000 & echo end";
    let (text, code) = node.output(&sandbox, container("main", script, &options)).await;
    let of = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap().to_owned();
    let expect: Vec<String> = ["net", "ipc", "uts", "pid"].iter().map(|name| of(name)).collect();
    assert_eq!((text.lines().take(4).map(str::to_owned).collect::<Vec<_>>(), code), (expect, 0));
    // What it left behind was killed with it.
    let group = linux::cgroup::Hierarchies::detect().unwrap().group(node.scope.cgroup("pods")).unwrap();
    for _ in 0..1000 {
        if group.processes().unwrap().is_empty() {
            break;
        }
        node.env.sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(group.processes().unwrap().is_empty());
    node.finish().await;
}

pub async fn processes_are_shared_when_wanted(mut node: Node) {
    let options = NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() };
    let config = with_options(&node, "pids", options.clone());
    let sandbox = node.run_sandbox(config).await.unwrap();
    let first = node.run(&sandbox, container("first", "sleep 7777", &options)).await;
    let script =
        "echo me $$; ps; cat /proc/1/comm; ls /proc/1/root 2>&1; cat /proc/1/status | grep -E 'Cap(Eff|Bnd)|^Uid'";
    let (text, code) = node.output(&sandbox, container("second", script, &options)).await;
    assert!(text.contains("sleep 7777") && text.contains("pause") && !text.contains("me 1\n"), "{text} {code}");
    // The first process gives nothing of the machine away.
    assert!(text.contains("Permission denied") && text.contains("CapEff:\t0000000000000000"), "{text}");
    // Ending one container ends what it left, and only that.
    let third = node.run(&sandbox, container("third", "sleep 8888 & exit 0", &options)).await;
    node.ended(&third).await;
    let answer = node
        .exec(&first, &["sh", "-c", "while ps | grep -q '[s]leep 8888'; do sleep 0.01; done; ps"], 20)
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&answer.stdout).contains("sleep 7777"));
    // A container may join another one's processes.
    let alone = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
    let target = node.run(&sandbox, container("target", "sleep 5555; true", &alone)).await;
    let joined = NamespaceOption { pid: NamespaceMode::Target.into(), target_id: target.clone(), ..Default::default() };
    let (text, _) = node.output(&sandbox, container("debug", "ps", &joined)).await;
    assert!(text.contains("sleep 5555") && !text.contains("sleep 7777"), "{text}");
    node.finish().await;
}

pub async fn stopping_and_removing_can_be_repeated(mut node: Node) {
    let sandbox = node.sandbox("stop").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    for _ in 0..2 {
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        node.client.runtime.stop_pod_sandbox(request).await.unwrap();
        assert_eq!(node.status(&id).await.exit_code, 137);
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
        let status = node.client.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    }
    assert!(node.create(&sandbox, shell("late", "true")).await.unwrap_err().message().contains("not running"));
    for _ in 0..2 {
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        node.client.runtime.remove_pod_sandbox(request).await.unwrap();
        let request = RemoveContainerRequest { container_id: id.clone() };
        node.client.runtime.remove_container(request).await.unwrap();
    }
    // Also by several at once.
    let sandbox = node.sandbox("raced").await;
    let removals = (0..4).map(|_| {
        let mut runtime = node.client.runtime.clone();
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        async move { runtime.remove_pod_sandbox(request).await }
    });
    for removed in futures_util::future::join_all(removals).await {
        removed.unwrap();
    }
    node.finish().await;
}

pub async fn a_sandbox_whose_shim_dies_is_not_ready(mut node: Node) {
    let sandbox = node.sandbox("shimless").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: true };
    let info = node.client.runtime.pod_sandbox_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    linux::process::signal(info["shimPid"].as_i64().unwrap() as i32, 9).unwrap();
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
    for _ in 0..1000 {
        let status =
            node.client.runtime.pod_sandbox_status(request.clone()).await.unwrap().into_inner().status.unwrap();
        if status.state() == PodSandboxState::SandboxNotready {
            break;
        }
        node.env.sleep(std::time::Duration::from_millis(5)).await;
    }
    node.finish().await;
}
