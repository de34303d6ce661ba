//! From created to removed.

use cri::v1::*;
use tonic::Code;

use crate::support::*;

pub async fn a_container_lives_and_ends(mut node: Node) {
    let sandbox = node.sandbox("life").await;
    let script = "echo out; echo err >&2; hostname; printf 'no newline'; exit 7";
    let id = node.create(&sandbox, shell("main", script)).await.unwrap();
    let status = node.status(&id).await;
    assert_eq!((status.state(), status.started_at), (ContainerState::ContainerCreated, 0));
    assert!(status.created_at > 0);
    node.start_container(&id).await.unwrap();
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.created_at < status.started_at && status.started_at < status.finished_at);
    assert_eq!(status.image.unwrap().image, "docker.io/library/busybox:latest");
    let lines = node.log(&id).await;
    let of = |stream: &str| -> Vec<(&str, &str)> {
        let lines = lines.iter().filter(|line| line.stream == stream);
        lines.map(|line| (line.tag.as_str(), line.text.as_str())).collect()
    };
    assert_eq!(of("stdout"), [("F", "out"), ("F", "life"), ("P", "no newline")]);
    assert_eq!(of("stderr"), [("F", "err")]);
    assert!(lines.iter().all(|line| line.time.len() == "2026-01-01T00:00:00.000000000Z".len()));
    node.finish().await;
}

pub async fn ends_are_told_apart(mut node: Node) {
    let sandbox = node.sandbox("ends").await;
    for (name, script, code, reason) in [
        ("zero", "exit 0", 0, "Completed"),
        ("three", "exit 3", 3, "Error"),
        ("killed", "kill -9 $$; sleep 100 & kill -KILL $!; wait $!", 137, "Error"),
    ] {
        let (_, got) = node.output(&sandbox, shell(name, script)).await;
        assert_eq!(got, code, "{name}");
        let id = node.client.runtime.list_containers(ListContainersRequest::default()).await.unwrap().into_inner();
        let id = id.containers.into_iter().find(|one| one.metadata.as_ref().unwrap().name == name).unwrap().id;
        assert_eq!(node.status(&id).await.reason, reason, "{name}");
    }
    node.finish().await;
}

pub async fn stopping_asks_first_and_then_kills(mut node: Node) {
    let sandbox = node.sandbox("stop").await;
    let trap = "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let id = node.run(&sandbox, shell("polite", trap)).await;
    node.logged(&id, "ready").await;
    node.stop(&id, 20).await;
    let status = node.status(&id).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 9));
    node.logged(&id, "asked").await;

    // The first process of a pid namespace ignores what it has no handler for.
    let id = node.run(&sandbox, command("deaf", &["sleep", "1000"])).await;
    node.stop(&id, 1).await;
    assert_eq!(node.status(&id).await.exit_code, 137);

    let mut other = shell("usr1", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done");
    other.stop_signal = Signal::Sigusr1.into();
    let id = node.run(&sandbox, other).await;
    node.logged(&id, "ready").await;
    node.stop(&id, 20).await;
    assert_eq!(node.status(&id).await.exit_code, 5);
    // Again, and of something that is gone.
    node.stop(&id, 20).await;
    node.stop("nosuch", 20).await;
    node.finish().await;
}

pub async fn a_program_that_cannot_be_executed_is_reported(mut node: Node) {
    let sandbox = node.sandbox("failed").await;
    for (name, program, message) in [
        ("missing", "nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("absolute", "/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("plain", "/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("folder", "/etc", node.runtime.folder_is_no_program()),
    ] {
        let id = node.create(&sandbox, command(name, &[program])).await.unwrap();
        let error = node.start_container(&id).await.unwrap_err();
        assert!(error.message().contains(message), "{}", error.message());
        let status = node.status(&id).await;
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 128));
        assert_eq!(status.reason, "StartError");
        assert!(status.message.contains(message) && status.finished_at > 0);
    }
    let mut config = command("cwd", &["pwd"]);
    config.working_dir = "/made/for/it".to_owned();
    let (text, code) = node.output(&sandbox, config).await;
    assert_eq!((text.as_str(), code), ("/made/for/it\n", 0));
    node.finish().await;
}

pub async fn requests_that_make_no_sense_are_refused(mut node: Node) {
    let sandbox = node.sandbox("refuse").await;
    let mut image = shell("image", "true");
    image.image = Some(ImageSpec { image: "nosuch:1".to_owned(), ..Default::default() });
    assert_eq!(node.create(&sandbox, image).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(node.create("nosuch", shell("a", "true")).await.unwrap_err().code(), Code::NotFound);
    let id = node.create(&sandbox, shell("twice", "true")).await.unwrap();
    let error = node.create(&sandbox, shell("twice", "true")).await.unwrap_err();
    assert!(error.message().contains(&format!("is reserved for {id:?}")), "{}", error.message());
    node.start_container(&id).await.unwrap();
    assert!(node.start_container(&id).await.unwrap_err().message().contains("state"));
    let status = ContainerStatusRequest { container_id: "nosuch".to_owned(), verbose: false };
    assert_eq!(node.client.runtime.container_status(status).await.unwrap_err().code(), Code::NotFound);
    let config = node.sandbox_config("refuse");
    assert!(node.run_sandbox(config).await.unwrap_err().message().contains("reserved"));
    node.finish().await;
}

pub async fn events_tell_a_containers_life(mut node: Node) {
    let mut events = node.client.runtime.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let sandbox = node.sandbox("events").await;
    let id = node.run(&sandbox, shell("main", "exit 3")).await;
    node.ended(&id).await;
    let request = RemoveContainerRequest { container_id: id.clone() };
    node.client.runtime.remove_container(request).await.unwrap();
    use ContainerEventType::*;
    let expected = [
        (&sandbox, ContainerCreatedEvent),
        (&sandbox, ContainerStartedEvent),
        (&id, ContainerCreatedEvent),
        (&id, ContainerStartedEvent),
        (&id, ContainerStoppedEvent),
        (&id, ContainerDeletedEvent),
    ];
    for (of, kind) in expected {
        let event = tokio::time::timeout(DEADLINE, events.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((&event.container_id, event.container_event_type()), (of, kind));
        assert_eq!(event.pod_sandbox_status.unwrap().id, sandbox);
        if kind == ContainerStoppedEvent {
            assert_eq!(event.containers_statuses[0].exit_code, 3);
        }
    }
    node.finish().await;
}

pub async fn logs_go_on_in_a_new_file(mut node: Node) {
    let sandbox = node.sandbox("logs").await;
    let id = node.run(&sandbox, shell("main", "i=0; while :; do echo line$i; i=$((i+1)); sleep 0.01; done")).await;
    node.logged(&id, "line1").await;
    let path = node.status(&id).await.log_path;
    std::fs::rename(&path, format!("{path}.1")).unwrap();
    node.client.runtime.reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
    let lines = node.logged(&id, "line").await;
    let old = std::fs::read_to_string(format!("{path}.1")).unwrap();
    // Nothing is lost in between.
    let last: u32 = old.lines().last().unwrap().rsplit("line").next().unwrap().parse().unwrap();
    assert_eq!(lines[0].text, format!("line{}", last + 1));
    node.finish().await;
}

pub async fn lists_are_filtered(mut node: Node) {
    let (a, b) = (node.sandbox("a").await, node.sandbox("b").await);
    let in_a = node.run(&a, command("main", &["sleep", "1000"])).await;
    let in_b = node.create(&b, shell("main", "true")).await.unwrap();
    let mut ids = async |filter: ContainerFilter| -> Vec<String> {
        let request = ListContainersRequest { filter: Some(filter) };
        let list = node.client.runtime.list_containers(request).await.unwrap().into_inner().containers;
        list.into_iter().map(|one| one.id).collect()
    };
    assert_eq!(
        ids(ContainerFilter { pod_sandbox_id: a.clone(), ..Default::default() }).await,
        std::slice::from_ref(&in_a)
    );
    let created = ContainerStateValue { state: ContainerState::ContainerCreated.into() };
    assert_eq!(ids(ContainerFilter { state: Some(created), ..Default::default() }).await, std::slice::from_ref(&in_b));
    assert_eq!(ids(ContainerFilter { id: in_a[..13].to_owned(), ..Default::default() }).await, [in_a]);
    let selector = [("pod".to_owned(), "b".to_owned())].into();
    let filter = PodSandboxFilter { label_selector: selector, ..Default::default() };
    let request = ListPodSandboxRequest { filter: Some(filter) };
    let list = node.client.runtime.list_pod_sandbox(request).await.unwrap().into_inner().items;
    assert_eq!(list.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [b.as_str()]);
    node.finish().await;
}

pub async fn many_pods_at_once(node: Node) {
    let mut pods = Vec::new();
    for number in 0..10 {
        let (mut client, config) = (node.client.clone(), node.sandbox_config(&format!("pod{number}")));
        let (env, handler) = (node.env.clone(), node.runtime.handler());
        pods.push(node.env.spawn(async move {
            let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
            let sandbox = client.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
            // Some end at once, some fail, some go on; all in the same shim at the same time.
            let kinds = [shell("ends", "exit 3"), command("fails", &["nosuch"]), command("runs", &["sleep", "1000"])];
            let mut starts = Vec::new();
            for config in kinds {
                let (mut client, sandbox) = (client.clone(), sandbox.clone());
                starts.push(env.spawn(async move {
                    let request =
                        CreateContainerRequest { pod_sandbox_id: sandbox, config: Some(config), sandbox_config: None };
                    let id = client.runtime.create_container(request).await.unwrap().into_inner().container_id;
                    let request = StartContainerRequest { container_id: id.clone() };
                    (id, client.runtime.start_container(request).await.is_ok())
                }));
            }
            let mut ids = Vec::new();
            for (start, expect) in starts.into_iter().zip([true, false, true]) {
                let (id, started) = start.await.unwrap();
                assert_eq!(started, expect);
                ids.push(id);
            }
            ids
        }));
    }
    let mut node = node;
    for pod in pods {
        let ids = pod.await.unwrap();
        assert_eq!(node.ended(&ids[0]).await.exit_code, 3);
        assert_eq!(node.status(&ids[1]).await.reason, "StartError");
        assert_eq!(node.status(&ids[2]).await.state(), ContainerState::ContainerRunning);
    }
    node.finish().await;
}
