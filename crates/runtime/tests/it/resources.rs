//! Limits, what happens beyond them, and what is used.

use cri::v1::*;
use linux::cgroup::Hierarchies;

use crate::support::*;

pub async fn limits_are_set_updated_and_measured(mut node: Node) {
    let sandbox = node.sandbox("limits").await;
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        oom_score_adj: 900,
        ..Default::default()
    };
    let script = "cat /proc/self/oom_score_adj; while :; do sleep 0.01; done";
    let id = node.run(&sandbox, limited(shell("main", script), resources)).await;
    node.logged(&id, "900").await;
    let path = node.scope.cgroup("pods").join(&sandbox).join(&id);
    let group = Hierarchies::detect().unwrap().group(&path).unwrap();
    assert_eq!(group.usage().unwrap().memory.limit, Some(64 << 20));
    let update = LinuxContainerResources { memory_limit_in_bytes: 96 << 20, cpu_shares: 1024, ..Default::default() };
    let request =
        UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(update), ..Default::default() };
    node.client.runtime.update_container_resources(request).await.unwrap();
    assert_eq!(group.usage().unwrap().memory.limit, Some(96 << 20));
    // Also the next daemon knows.
    node.restart().await;
    let resources = node.status(&id).await.resources.unwrap().linux.unwrap();
    let got = (resources.memory_limit_in_bytes, resources.cpu_shares, resources.cpu_quota);
    assert_eq!(got, (96 << 20, 1024, 50_000));

    let request = ContainerStatsRequest { container_id: id.clone() };
    let stats = node.client.runtime.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let memory = stats.memory.unwrap();
    assert!(memory.working_set_bytes.unwrap().value > 0 && memory.available_bytes.unwrap().value < 96 << 20);
    assert!(stats.writable_layer.is_some());
    let request = PodSandboxStatsRequest { pod_sandbox_id: sandbox.clone() };
    let stats = node.client.runtime.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
    let linux = stats.linux.unwrap();
    assert_eq!(linux.containers.len(), 1);
    assert!(linux.process.unwrap().process_count.is_some());
    node.stop(&id, 0).await;
    // An ended container has no group any more.
    for _ in 0..DEADLINE.as_millis() / 5 {
        if !group.exists() {
            break;
        }
        node.env.sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(!group.exists());
    node.finish().await;
}

pub async fn too_much_memory_is_told(mut node: Node) {
    let sandbox = node.sandbox("oom").await;
    let small = LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() };
    let id = node.run(&sandbox, limited(command("first", &["tail", "/dev/zero"]), small.clone())).await;
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    // Also when it was not the first process.
    let id = node.run(&sandbox, limited(shell("child", "tail /dev/zero; exit $?"), small)).await;
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    node.finish().await;
}

pub async fn groups_stay_below_the_scope(mut node: Node) {
    let mut config = node.sandbox_config("parent");
    config.linux.as_mut().unwrap().cgroup_parent = "/kubepods/burstable/podx".to_owned();
    let sandbox = node.run_sandbox(config).await.unwrap();
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    let all = Hierarchies::detect().unwrap();
    let group = all.group(node.scope.cgroup("kubepods/burstable/podx").join(&id)).unwrap();
    assert_eq!(group.processes().unwrap().len(), 1);
    let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
    node.client.runtime.remove_pod_sandbox(request).await.unwrap();
    // The client's own group is the client's to remove.
    let parent = all.group(node.scope.cgroup("kubepods")).unwrap();
    assert!(parent.exists() && !group.exists());
    parent.remove().unwrap();
    all.group(node.scope.cgroup("")).unwrap().remove().unwrap();
    node.finish().await;
}
