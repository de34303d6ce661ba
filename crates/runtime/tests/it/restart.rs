//! The daemon dies: containers go on, and the next daemon knows all about them.

use cri::v1::*;
use env::FailAction;

use crate::support::*;

pub async fn a_new_daemon_adopts_what_runs(mut node: Node) {
    let sandbox = node.sandbox("adopt").await;
    let script = "i=0; while :; do echo tick$i; i=$((i+1)); sleep 0.01; done";
    let id = node.run(&sandbox, shell("ticks", script)).await;
    let ending =
        node.run(&sandbox, shell("ending", "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo gone; exit 6")).await;
    let ended = node.run(&sandbox, shell("ended", "exit 4")).await;
    node.ended(&ended).await;
    let created = node.create(&sandbox, shell("created", "echo later")).await.unwrap();
    node.logged(&id, "tick1").await;
    let before = node.status(&id).await;
    // It ends while nobody but its shim looks.
    node.exec(&ending, &["touch", "/tmp/go"], 10).await.unwrap();
    let log = node.status(&ending).await.log_path;
    node.crash().await;
    for _ in 0..1000 {
        if std::fs::read_to_string(&log).unwrap_or_default().contains("gone") {
            break;
        }
        node.env.sleep(std::time::Duration::from_millis(5)).await;
    }
    let lines = node_lines(&before.log_path);
    node.serve().await;
    let after = node.status(&id).await;
    assert_eq!(
        (after.state(), after.started_at, after.created_at),
        (before.state(), before.started_at, before.created_at)
    );
    assert_eq!(node.ended(&ending).await.exit_code, 6);
    assert_eq!(node.status(&ended).await.exit_code, 4);
    // Its log went on, nothing is missing, and it still obeys.
    node.logged(&id, &format!("tick{}", lines + 5)).await;
    let log = node.log(&id).await;
    assert!(log.iter().enumerate().all(|(number, line)| line.text == format!("tick{number}")));
    let answer = node.exec(&id, &["echo", "hello"], 10).await.unwrap();
    assert_eq!(answer.stdout, b"hello\n");
    node.start_container(&created).await.unwrap();
    node.logged(&created, "later").await;
    node.stop(&id, 0).await;
    assert_eq!(node.status(&id).await.exit_code, 137);
    node.restart().await;
    node.finish().await;
}

fn node_lines(path: &str) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

pub async fn shared_pids_survive_too(mut node: Node) {
    let options = NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() };
    let mut config = node.sandbox_config("pids");
    let security = LinuxSandboxSecurityContext { namespace_options: Some(options.clone()), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let sandbox = node.run_sandbox(config).await.unwrap();
    let with = |name: &str, script: &str| {
        secured(shell(name, script), |security| security.namespace_options = Some(options.clone()))
    };
    node.run(&sandbox, with("first", "sleep 7777")).await;
    node.restart().await;
    let (text, _) = node.output(&sandbox, with("second", "ps")).await;
    assert!(text.contains("sleep 7777"), "{text}");
    node.finish().await;
}

pub async fn after_a_reboot_nothing_runs(mut node: Node) {
    let sandbox = node.sandbox("reboot").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    let ended = node.run(&sandbox, shell("ended", "exit 4")).await;
    node.ended(&ended).await;
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: true };
    let info = node.client.runtime.pod_sandbox_status(request.clone()).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    node.crash().await;
    // A reboot takes every process, every mount and the run folder.
    linux::process::signal(info["shimPid"].as_i64().unwrap() as i32, 9).unwrap();
    let group = linux::cgroup::Hierarchies::detect().unwrap().group(node.scope.cgroup("")).unwrap();
    group.kill().unwrap();
    linux::mount::unmount_below(&node.scope.run("")).unwrap();
    linux::mount::unmount_below(&node.scope.data("")).unwrap();
    group.remove().unwrap();
    std::fs::remove_dir_all(node.scope.run("")).unwrap();
    node.serve().await;
    let status = node.status(&id).await;
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (ContainerState::ContainerExited, 255, "Unknown")
    );
    assert_eq!(node.status(&ended).await.exit_code, 4);
    let status = node.client.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    node.finish().await;
}

/// Whatever step fails or is cut off, nothing stays, and the next try works.
pub async fn half_made_things_are_cleared_away(mut node: Node) {
    for step in ["start", "namespaces", "files", "network", "shim"] {
        let name = format!("runtime-sandbox-{step}");
        node.env.arm(&name, Some(FailAction::Error));
        let config = node.sandbox_config("half");
        assert!(node.run_sandbox(config).await.unwrap_err().message().contains(&name));
        node.env.arm(&name, None);
    }
    let sandbox = node.sandbox("half").await;
    for step in ["recorded", "rootfs", "bundle"] {
        let name = format!("runtime-container-{step}");
        node.env.arm(&name, Some(FailAction::Error));
        assert!(node.create(&sandbox, shell("half", "true")).await.unwrap_err().message().contains(&name));
        node.env.arm(&name, None);
    }
    let id = node.create(&sandbox, shell("half", "sleep 1000")).await.unwrap();
    node.env.arm("runtime-container-group", Some(FailAction::Error));
    assert!(node.start_container(&id).await.is_err());
    node.env.arm("runtime-container-group", None);
    assert_eq!(node.status(&id).await.reason, "StartError");
    // What could not be taken away is taken away at the next start.
    node.env.arm("runtime-sandbox-files", Some(FailAction::Error));
    node.env.arm("runtime-sandbox-stopping", Some(FailAction::Error));
    let config = node.sandbox_config("left");
    assert!(node.run_sandbox(config).await.is_err());
    node.env.arm("runtime-sandbox-files", None);
    node.env.arm("runtime-sandbox-stopping", None);
    let list = std::fs::read_dir(node.scope.data("sandboxes")).unwrap().count();
    assert_eq!(list, 2);
    node.restart().await;
    let list = std::fs::read_dir(node.scope.data("sandboxes")).unwrap().count();
    assert_eq!(list, 1);
    assert_eq!(std::fs::read_dir(node.scope.run("sandboxes")).unwrap().count(), 1);
    node.finish().await;
}
