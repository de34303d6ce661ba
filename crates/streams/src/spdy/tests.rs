use env::Env;
use http::{HeaderValue, Request, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn pair() -> (Env, Connection, Connection) {
    let env = Env::system();
    let (ours, theirs) = duplex(4096);
    let (client, server) = (Connection::client(&env, ours), Connection::server(&env, theirs));
    (env, client, server)
}

#[tokio::test]
async fn streams_carry_both_ways_and_end() {
    let (env, client, server) = pair();
    let echo = env.spawn(async move {
        while let Some(offer) = server.accept().await {
            if offer.header("StreamType") == "bad" {
                continue;
            }
            let Stream { mut reader, mut writer } = offer.accept().unwrap();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        }
    });
    assert!(client.open(&[("streamType", "bad")]).await.is_err());
    for size in [0, 5, 300_000] {
        let Stream { mut reader, mut writer } = client.open(&[("streamType", "data")]).await.unwrap();
        let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let expect = sent.clone();
        let mut got = Vec::new();
        let send = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(send, reader.read_to_end(&mut got));
        read.unwrap();
        assert!(got == expect);
    }
    client.close().await;
    echo.await.unwrap();
}

#[tokio::test]
async fn what_is_written_before_the_end_arrives() {
    let (env, client, server) = pair();
    let serve = env.spawn(async move {
        let Stream { mut writer, reader } = server.accept().await.unwrap().accept().unwrap();
        writer.write_all(&[7; 100_000]).await.unwrap();
        drop((writer, reader));
        server.close().await;
    });
    let Stream { mut reader, writer } = client.open(&[]).await.unwrap();
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), 100_000);
    assert!(client.accept().await.is_none());
    drop((reader, writer, client));
    serve.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_holds_its_writer_up() {
    let (_, client, server) = pair();
    let (ours, theirs) = tokio::join!(client.open(&[]), async { server.accept().await.unwrap().accept().unwrap() });
    let Stream { mut writer, reader: _reader } = ours.unwrap();
    let mut written = 0;
    // The clock is moved on only when nobody can do anything any more.
    while let Ok(size) = tokio::time::timeout(std::time::Duration::from_secs(1), writer.write(&[1; CHUNK])).await {
        written += size.unwrap();
    }
    assert!((QUEUED..QUEUED + 2 * UNSENT + 8 * CHUNK).contains(&written), "{written}");
    drop(writer);
    let Stream { mut reader, writer: _writer } = theirs;
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), written);
}

#[tokio::test]
async fn a_connection_that_breaks_off_ends_its_streams() {
    let (_, client, server) = pair();
    let (stream, other) = tokio::join!(client.open(&[]), async { server.accept().await.unwrap().accept().unwrap() });
    drop(client);
    let Stream { mut reader, mut writer } = other;
    assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(server.accept().await.is_none());
    assert!(stream.unwrap().writer.write_all(b"x").await.is_err());
    while writer.write_all(&[0; 1000]).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn protocols_are_negotiated() {
    let check = |headers: &[(&str, &'static str)], expect: Result<&str, StatusCode>| {
        let mut request = Request::new(());
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let got = upgrade(&mut request, &["v4", "v3"]).map(|upgrade| {
            assert_eq!(upgrade.response.headers()[&PROTOCOL_VERSION], upgrade.protocol);
            assert_eq!(upgrade.response.headers()[header::UPGRADE], NAME);
            upgrade.protocol
        });
        assert_eq!(got.map_err(|refusal| refusal.response().status()), expect, "{headers:?}");
    };
    let (connection, spdy) = (("connection", "Upgrade"), ("upgrade", "SPDY/3.1"));
    check(&[connection, spdy, ("x-stream-protocol-version", "v5, v3,v4")], Ok("v3"));
    check(&[connection, spdy, ("x-stream-protocol-version", "v5"), ("x-stream-protocol-version", "v4")], Ok("v4"));
    check(&[connection, spdy, ("x-stream-protocol-version", "v5")], Err(StatusCode::FORBIDDEN));
    check(&[connection, spdy], Err(StatusCode::BAD_REQUEST));
    check(&[connection, ("x-stream-protocol-version", "v4")], Err(StatusCode::BAD_REQUEST));
}
