//! Commands in containers that run.

use cri::v1::*;
use tonic::Code;

use crate::support::*;

pub async fn commands_answer_with_output_and_code(mut node: Node) {
    let sandbox = node.sandbox("exec").await;
    let mut config = command("main", &["sleep", "1000"]);
    config.envs = vec![KeyValue { key: "COLOUR".into(), value: "blue".into() }];
    config.working_dir = "/tmp".to_owned();
    let id = node.run(&sandbox, config).await;
    let answer = node.exec(&id, &["sh", "-c", "echo $COLOUR $PWD; echo err >&2; exit 5"], 10).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        (text(&answer.stdout), text(&answer.stderr), answer.exit_code),
        ("blue /tmp\n".into(), "err\n".into(), 5)
    );
    let killed = node.exec(&id, &["sh", "-c", "kill -9 $$"], 10).await.unwrap();
    assert_eq!(killed.exit_code, 137);
    // The command's processes are the container's.
    let answer = node
        .exec(&id, &["sh", "-c", "cat /proc/1/comm; cat /proc/self/cgroup /proc/1/cgroup | sort -u | wc -l"], 10)
        .await;
    let answer = answer.unwrap();
    let (out, err) = (text(&answer.stdout), text(&answer.stderr));
    assert!(out.starts_with("sleep\n"), "{out} {err} {}", answer.exit_code);
    // What it leaves in the background does not hold the answer up.
    let answer = node.exec(&id, &["sh", "-c", "sleep 100 & echo done"], 10).await.unwrap();
    assert_eq!(text(&answer.stdout), "done\n");
    let big = node.exec(&id, &["sh", "-c", "head -c 20000000 /dev/zero"], 20).await.unwrap();
    assert_eq!(big.stdout.len(), 16 * 1024 * 1024);
    node.finish().await;
}

pub async fn commands_that_fail_say_why(mut node: Node) {
    let sandbox = node.sandbox("fail").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    let error = node.exec(&id, &["nosuch"], 10).await.unwrap_err();
    assert!(error.message().contains("exec: \"nosuch\": executable file not found in $PATH"), "{}", error.message());
    let error = node.exec(&id, &["sleep", "1000"], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{}", error.message());
    // It was killed, not left: only the container's own is there, or will be in a moment.
    let alone = "until [ $(ps | grep -c '[s]leep 1000') = 1 ]; do sleep 0.01; done";
    assert_eq!(node.exec(&id, &["sh", "-c", alone], 60).await.unwrap().exit_code, 0);
    assert_eq!(node.exec("nosuch", &["true"], 10).await.unwrap_err().code(), Code::NotFound);
    let ended = node.run(&sandbox, shell("ended", "true")).await;
    node.ended(&ended).await;
    assert!(node.exec(&ended, &["true"], 10).await.unwrap_err().message().contains("CONTAINER_EXITED"));
    // Nothing piles up where libcontainer keeps its state.
    let state: Vec<_> =
        std::fs::read_dir(node.scope.run("state").join(&id)).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!state.iter().any(|name| name.to_string_lossy().starts_with("tenant")), "{state:?}");
    node.finish().await;
}

pub async fn many_commands_at_once(mut node: Node) {
    let sandbox = node.sandbox("many").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    let mut tasks = Vec::new();
    for number in 0..24 {
        let (mut client, id) = (node.client.clone(), id.clone());
        tasks.push(node.env.spawn(async move {
            let cmd = vec!["sh".to_owned(), "-c".to_owned(), format!("echo {number}; exit {number}")];
            let request = ExecSyncRequest { container_id: id, cmd, timeout: 30 };
            let answer = client.runtime.exec_sync(request).await.unwrap().into_inner();
            (answer.exit_code, String::from_utf8(answer.stdout).unwrap())
        }));
    }
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), (number as i32, format!("{number}\n")));
    }
    node.finish().await;
}
