//! Exec, attach and port-forward over their WebSockets.

use cri::v1::*;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::*;

struct Stream(WebSocketStream<TcpStream>);

/// What came on each channel until the end.
#[derive(Default)]
struct Got {
    stdout: String,
    stderr: String,
    status: serde_json::Value,
}

impl Stream {
    async fn open(url: &str, protocol: &str) -> Result<Stream, Error> {
        let url = url.replacen("http://", "ws://", 1);
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap().to_owned();
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        Ok(Stream(socket))
    }

    async fn send(&mut self, channel: u8, data: &[u8]) {
        let message = [&[channel][..], data].concat();
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match tokio::time::timeout(DEADLINE, self.0.next()).await.expect("nothing came")? {
                Ok(Message::Binary(data)) => return Some((data[0], data[1..].to_vec())),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads stdout until it holds `text`.
    async fn until(&mut self, text: &str) -> String {
        let (mut all, mut other) = (String::new(), String::new());
        while !all.contains(text) {
            match self.next().await {
                Some((1, data)) => all += &String::from_utf8_lossy(&data),
                Some((_, data)) => other += &String::from_utf8_lossy(&data),
                None => panic!("ended before {text:?}: {all:?} {other:?}"),
            }
        }
        all
    }

    async fn rest(&mut self) -> Got {
        let mut got = Got::default();
        while let Some((channel, data)) = self.next().await {
            match channel {
                1 => got.stdout += &String::from_utf8_lossy(&data),
                2 => got.stderr += &String::from_utf8_lossy(&data),
                3 if !data.is_empty() => got.status = serde_json::from_slice(&data).unwrap(),
                _ => {}
            }
        }
        got
    }
}

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

async fn exec(node: &mut Node, id: &str, command: &[&str], tty: bool, stdin: bool, protocol: &str) -> Stream {
    let cmd = command.iter().map(|part| (*part).to_owned()).collect();
    let request = ExecRequest { container_id: id.to_owned(), cmd, tty, stdin, stdout: true, stderr: !tty };
    let url = node.client.runtime.exec(request).await.unwrap().into_inner().url;
    Stream::open(&url, protocol).await.unwrap()
}

pub async fn commands_speak_over_websockets(mut node: Node) {
    let sandbox = node.sandbox("exec").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    for protocol in [V4, V5] {
        let got = exec(&mut node, &id, &["sh", "-c", "echo out; echo err >&2; exit 7"], false, false, protocol)
            .await
            .rest()
            .await;
        assert_eq!((got.stdout.as_str(), got.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(got.status["reason"], "NonZeroExitCode");
        let cause = serde_json::json!({"reason": "ExitCode", "message": "7"});
        assert_eq!(got.status["details"]["causes"][0], cause);
        let got = exec(&mut node, &id, &["true"], false, false, protocol).await.rest().await;
        assert_eq!(got.status["status"], "Success");
    }
    // Input ends when the client says so.
    let mut stream = exec(&mut node, &id, &["sh", "-c", "cat; echo end"], false, true, V5).await;
    stream.send(0, b"hello\n").await;
    stream.until("hello\n").await;
    stream.send(255, &[0]).await;
    assert_eq!(stream.rest().await.stdout, "end\n");
    let got = exec(&mut node, &id, &["head", "-c", "3000000", "/dev/zero"], false, false, V5).await.rest().await;
    assert_eq!(got.stdout.len(), 3_000_000);
    let got = exec(&mut node, &id, &["nosuch"], false, false, V5).await.rest().await;
    assert_eq!(got.status["reason"], "InternalError");
    let message = got.status["message"].as_str().unwrap();
    assert!(message.contains("exec: \"nosuch\": executable file not found in $PATH"), "{message}");
    node.finish().await;
}

pub async fn terminals_have_sizes_and_end(mut node: Node) {
    let sandbox = node.sandbox("tty").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    let script = "tty; read a; stty size; echo got $a; exit 3";
    let mut stream = exec(&mut node, &id, &["sh", "-c", script], true, true, V5).await;
    stream.until("/dev/pts/").await;
    stream.send(4, br#"{"Width":101,"Height":33}"#).await;
    stream.send(0, b"line\n").await;
    let got = stream.rest().await;
    assert!(got.stdout.contains("33 101") && got.stdout.contains("got line"), "{:?}", got.stdout);
    assert_eq!(got.status["details"]["causes"][0]["message"], "3");
    // A client that goes away takes its command with it.
    let stream = exec(&mut node, &id, &["sleep", "4444"], true, true, V5).await;
    drop(stream);
    for _ in 0..1000 {
        let answer = node.exec(&id, &["sh", "-c", "ps | grep -c '[s]leep 4444'"], 10).await.unwrap();
        if answer.stdout == b"0\n" {
            return node.finish().await;
        }
        node.env.sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the command still runs");
}

async fn attach(node: &mut Node, id: &str, stdin: bool, tty: bool) -> Stream {
    let request = AttachRequest { container_id: id.to_owned(), stdin, tty, stdout: true, stderr: !tty };
    let url = node.client.runtime.attach(request).await.unwrap().into_inner().url;
    let mut stream = Stream::open(&url, V5).await.unwrap();
    // From this message on the container's output is copied.
    assert_eq!(stream.next().await, Some((1, Vec::new())));
    stream
}

pub async fn containers_are_attached_to(mut node: Node) {
    let sandbox = node.sandbox("attach").await;
    let mut config =
        shell("input", "while read line; do echo got $line; [ $line = end ] && exit 2; done; echo closed; exit 4");
    config.stdin = true;
    let id = node.run(&sandbox, config.clone()).await;
    // Two at a time; one leaves, the input stays open.
    let (mut first, mut second) =
        (attach(&mut node, &id, true, false).await, attach(&mut node, &id, false, false).await);
    first.send(0, b"one\n").await;
    first.until("got one\n").await;
    second.until("got one\n").await;
    drop(first);
    let mut third = attach(&mut node, &id, true, false).await;
    third.send(0, b"end\n").await;
    assert!(third.rest().await.stdout.contains("got end\n"));
    assert!(second.rest().await.stdout.contains("got end\n"));
    assert_eq!(node.ended(&id).await.exit_code, 2);
    let log: Vec<String> = node.log(&id).await.into_iter().map(|line| line.text).collect();
    assert_eq!(log, ["got one", "got end"]);
    // Unless it is meant for the first one only.
    config.metadata.as_mut().unwrap().name = "once".to_owned();
    config.stdin_once = true;
    let id = node.run(&sandbox, config).await;
    let mut only = attach(&mut node, &id, true, false).await;
    only.send(0, b"one\n").await;
    only.until("got one\n").await;
    only.send(255, &[0]).await;
    assert!(only.rest().await.stdout.contains("closed"));
    assert_eq!(node.ended(&id).await.exit_code, 4);
    node.finish().await;
}

pub async fn containers_with_a_terminal(mut node: Node) {
    let sandbox = node.sandbox("terminal").await;
    let mut config = shell("main", "echo $TERM; read a; stty size; echo got $a; exit 5");
    config.stdin = true;
    config.tty = true;
    let id = node.run(&sandbox, config).await;
    node.logged(&id, "xterm").await;
    node.restart().await;
    let mut stream = attach(&mut node, &id, true, true).await;
    stream.send(4, br#"{"Width":90,"Height":20}"#).await;
    stream.send(0, b"line\n").await;
    let got = stream.rest().await;
    assert!(got.stdout.contains("20 90") && got.stdout.contains("got line"), "{:?}", got.stdout);
    assert_eq!(node.ended(&id).await.exit_code, 5);
    assert!(node.log(&id).await.iter().all(|line| line.stream == "stdout"));
    node.finish().await;
}

pub async fn ports_are_forwarded(mut node: Node) {
    let sandbox = node.sandbox("ports").await;
    let id = node
        .run(&sandbox, shell("main", "nc -l -p 8080 -e sh -c 'read a; echo you said $a' & nc_pid=$!; echo up; wait"))
        .await;
    node.logged(&id, "up").await;
    let listening = ["sh", "-c", "while ! grep -q ':1F90 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.01; done"];
    node.exec(&id, &listening, 20).await.unwrap();
    let request = PortForwardRequest { pod_sandbox_id: sandbox.clone(), port: vec![8080, 81] };
    let url = node.client.runtime.port_forward(request).await.unwrap().into_inner().url;
    let mut stream = Stream::open(&url, V4).await.unwrap();
    stream.send(0, b"hello\n").await;
    let (mut data, mut error) = (Vec::new(), Vec::new());
    while !String::from_utf8_lossy(&data).contains("you said hello\n") || error.len() < 4 {
        match stream.next().await.unwrap() {
            (0, more) => data.extend(more),
            (3, more) => error.extend(more),
            _ => {}
        }
    }
    assert_eq!((&data[..2], &error[..2]), (&8080u16.to_le_bytes()[..], &81u16.to_le_bytes()[..]));
    assert!(String::from_utf8_lossy(&error[2..]).contains("refused"), "{error:?}");
    node.finish().await;
}

pub async fn a_token_is_good_once(mut node: Node) {
    let sandbox = node.sandbox("token").await;
    let id = node.run(&sandbox, command("main", &["sleep", "1000"])).await;
    let request = ExecRequest { container_id: id, cmd: vec!["true".into()], stdout: true, ..Default::default() };
    let url = node.client.runtime.exec(request).await.unwrap().into_inner().url;
    Stream::open(&url, V5).await.unwrap().rest().await;
    for url in [url.clone(), url[..url.len() - 1].to_owned(), url.replace("/exec/", "/attach/")] {
        match Stream::open(&url, V5).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 404),
            _ => panic!("{url} was served"),
        }
    }
    node.finish().await;
}
