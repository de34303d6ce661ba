use std::io::Cursor;

use tokio::io::{DuplexStream, duplex};

use super::*;

type Client = WebSocketStream<DuplexStream>;

async fn connected(protocol: &'static str) -> (Client, Channels<DuplexStream>) {
    let (ours, theirs) = duplex(1 << 16);
    let client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    (client, Channels::new(theirs, protocol).await)
}

fn status(document: &str) -> Status {
    Status { document: document.into(), message: "in words".into() }
}

/// Everything the client gets on the channel.
async fn collect(client: &mut Client) -> Vec<(u8, Vec<u8>)> {
    let mut all: Vec<(u8, Vec<u8>)> = Vec::new();
    while let Some(Ok(received)) = client.next().await {
        if let Message::Binary(data) = received {
            match all.iter_mut().find(|(channel, _)| *channel == data[0]) {
                Some((_, bytes)) => bytes.extend_from_slice(&data[1..]),
                None => all.push((data[0], data[1..].to_vec())),
            }
        }
    }
    all
}

#[tokio::test]
async fn output_and_status_arrive_in_order() {
    for (protocol, told) in [(V1, "in words"), (V4, "status"), (V5, "status")] {
        let (mut client, channels) = connected(protocol).await;
        let session = Session {
            stdout: Some(Box::new(Cursor::new(vec![b'o'; 100_000]))),
            stderr: Some(Box::new(Cursor::new(b"err".to_vec()))),
            ..Session::default()
        };
        let serve = channels.run(session, async { status("status") });
        let (end, got) = tokio::join!(serve, collect(&mut client));
        assert_eq!(end, End::Completed);
        assert_eq!(got[0], (STDOUT, vec![b'o'; 100_000]));
        assert_eq!(got[1], (STDERR, b"err".to_vec()));
        assert_eq!(got.last().unwrap(), &(STATUS, told.into()));
    }
}

#[tokio::test]
async fn the_first_protocol_tells_of_no_success() {
    let (mut client, channels) = connected(V1).await;
    let session = Session { stdout: Some(Box::new(Cursor::new(b"out".to_vec()))), ..Session::default() };
    let success = Status { document: b"document".to_vec(), message: String::new() };
    let (end, got) = tokio::join!(channels.run(session, async { success }), collect(&mut client));
    assert_eq!((end, got), (End::Completed, vec![(STDOUT, b"out".to_vec())]));
}

#[tokio::test]
async fn input_and_sizes_reach_the_command() {
    let (mut client, channels) = connected(V5).await;
    let (input, mut command) = duplex(64);
    let (sizes, mut resized) = mpsc::unbounded_channel();
    // Ends when its input does.
    let (finished, finish) = tokio::sync::oneshot::channel::<Vec<u8>>();
    let session = Session { stdin: Some(Box::new(input)), resize: Some(sizes), ..Session::default() };
    let talk = async {
        let resize = [&[RESIZE][..], br#"{"Width":101,"Height":33}"#].concat();
        for data in [resize, vec![STDIN, b'h', b'i'], vec![CLOSE, STDIN]] {
            client.send(Message::Binary(data.into())).await.unwrap();
        }
        collect(&mut client).await
    };
    let command = async {
        let mut text = Vec::new();
        command.read_to_end(&mut text).await.unwrap();
        finished.send(text).unwrap();
    };
    let serve = channels.run(session, async { status(&String::from_utf8(finish.await.unwrap()).unwrap()) });
    let (end, (), got) = tokio::join!(serve, command, talk);
    assert_eq!(end, End::Completed);
    assert_eq!(got, [(STATUS, b"hi".to_vec())]);
    assert_eq!(resized.recv().await, Some(Size { width: 101, height: 33 }));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_session() {
    let (client, channels) = connected(V4).await;
    let (_held, output) = duplex(64);
    let session = Session { stdout: Some(Box::new(output)), ..Session::default() };
    drop(client);
    assert_eq!(channels.run(session, std::future::pending()).await, End::Disconnected);
}

#[test]
fn requests_are_upgraded_to_what_both_speak() {
    let check = |protocols: &str, connection: &str, expect: Result<&str, UpgradeError>| {
        let mut request = Request::builder()
            .header("connection", connection)
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocols)
            .body(())
            .unwrap();
        let got = upgrade(&mut request, &[V5, V4, V1]);
        if let Ok(upgrade) = &got {
            assert_eq!(upgrade.response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        }
        assert_eq!(got.map(|upgrade| upgrade.protocol), expect);
    };
    check("v5.channel.k8s.io", "Upgrade", Ok(V5));
    check("v9.other, v4.channel.k8s.io", "keep-alive, upgrade", Ok(V4));
    check("v4.channel.k8s.io, v5.channel.k8s.io", "Upgrade", Ok(V4));
    check("channel.k8s.io", "Upgrade", Ok(V1));
    check("v9.other", "Upgrade", Err(UpgradeError::Protocol));
    check("v5.channel.k8s.io", "close", Err(UpgradeError::NotAsked));
}

#[test]
fn sizes_are_read() {
    let check = |text: &str, expect: Option<(u16, u16)>| {
        assert_eq!(size(text.as_bytes()).map(|size| (size.width, size.height)), expect, "{text}");
    };
    check(r#"{"Width":80,"Height":24}"#, Some((80, 24)));
    check(r#"{ "Height": 24, "Width" : 80 }"#, Some((80, 24)));
    check(r#"{"Width":80}"#, None);
    check("nonsense", None);
}
