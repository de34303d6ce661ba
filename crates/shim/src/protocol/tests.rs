//! What release 0.1 writes must stay readable, and what it reads must stay writable.

use super::*;

fn check<T: Serialize + for<'a> Deserialize<'a>>(value: &T, golden: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), golden);
    let again: T = serde_json::from_str(golden).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), golden);
}

#[test]
fn requests_of_format_1() {
    check(&Call { seq: 1, request: Request::Hello { format: 1 } }, r#"{"seq":1,"request":{"hello":{"format":1}}}"#);
    let signal = Signal { container: "c".into(), exec: None, signal: 15, all: false };
    check(
        &Call { seq: 2, request: Request::Signal(signal) },
        r#"{"seq":2,"request":{"signal":{"container":"c","exec":null,"signal":15,"all":false}}}"#,
    );
    check(
        &Call { seq: 3, request: Request::Attach { container: "c".into() } },
        r#"{"seq":3,"request":{"attach":{"container":"c"}}}"#,
    );
    check(&Call { seq: 4, request: Request::Shutdown }, r#"{"seq":4,"request":"shutdown"}"#);
    check(
        &Start { container: "c".into(), ..Start::default() },
        concat!(
            r#"{"container":"c","bundle":"","stateRoot":"","exitFile":"","log":null,"terminal":false,"stdin":false,"cgroup":"","#,
            r#""killRest":false,"execution":{"capabilities":null,"seccomp":null,"noNewPrivileges":false,"#,
            r#""oomScoreAdj":null,"cwd":"","propagation":[]}}"#
        ),
    );
}

#[test]
fn messages_of_format_1() {
    let exit = Exit { code: 137, finished_at: 5, oom_killed: true };
    check(
        &Message::Exited { container: "c".into(), exit: exit.clone() },
        r#"{"exited":{"container":"c","exit":{"code":137,"finishedAt":5,"oomKilled":true}}}"#,
    );
    let container = ContainerState { id: "c".into(), pid: 7, started_at: 1, exit: Some(exit.clone()) };
    check(
        &Message::Answer {
            seq: 9,
            answer: Answer::Hello(Hello { format: 1, pid: 3, pause: None, containers: vec![container] }),
        },
        concat!(
            r#"{"answer":{"seq":9,"answer":{"hello":{"format":1,"pid":3,"pause":null,"containers":[{"id":"c","pid":7,"#,
            r#""startedAt":1,"exit":{"code":137,"finishedAt":5,"oomKilled":true}}]}}}}"#
        ),
    );
    check(&ExitRecord { format: 1, exit }, r#"{"format":1,"code":137,"finishedAt":5,"oomKilled":true}"#);
}

#[test]
fn later_formats_add_fields() {
    let start: Start = serde_json::from_str(r#"{"container":"c","somethingNew":{"a":1}}"#).unwrap();
    assert_eq!(start.container, "c");
    assert!(serde_json::from_str::<Call>(r#"{"seq":1,"request":{"somethingNew":{}}}"#).is_err());
}
