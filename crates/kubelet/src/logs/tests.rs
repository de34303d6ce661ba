use std::fs;
use std::io::Write;

use super::*;

const LOG: &str = "2026-01-01T00:00:01.5Z stdout F one\n\
2026-01-01T00:00:02Z stderr F two\n\
2026-01-01T00:00:03Z stdout P thr\n\
2026-01-01T00:00:03Z stdout F ee\n\
2026-01-01T00:00:04Z stdout F \n";

fn never() -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(std::future::pending())
}

async fn check(options: LogOptions, expect: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    fs::write(&path, LOG).unwrap();
    let log = read(&path, options.clone(), never()).await.unwrap();
    assert_eq!(String::from_utf8(collect(log).await.unwrap()).unwrap(), expect, "{options:?}");
}

#[tokio::test]
async fn the_wanted_part_is_told() {
    let options = LogOptions::default;
    check(options(), "one\ntwo\nthree\n\n").await;
    check(LogOptions { stream: Some("stderr".into()), ..options() }, "two\n").await;
    check(LogOptions { tail_lines: Some(0), ..options() }, "").await;
    check(LogOptions { tail_lines: Some(1), ..options() }, "\n").await;
    check(LogOptions { tail_lines: Some(4), ..options() }, "two\nthree\n\n").await;
    check(LogOptions { tail_lines: Some(99), ..options() }, "one\ntwo\nthree\n\n").await;
    check(LogOptions { limit_bytes: Some(5), ..options() }, "one\nt").await;
    let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
    check(
        LogOptions { since, timestamps: true, tail_lines: Some(4), stream: Some("stderr".into()), ..options() },
        "2026-01-01T00:00:02Z two\n",
    )
    .await;
}

#[tokio::test]
async fn following_ends_with_the_container() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    fs::write(&path, LOG).unwrap();
    let (tx, rx) = tokio::sync::oneshot::channel::<()>();
    let options = LogOptions { follow: true, tail_lines: Some(1), ..LogOptions::default() };
    let mut log = read(&path, options, Box::pin(async { drop(rx.await) })).await.unwrap();
    assert_eq!(log.next().await.unwrap().unwrap(), "\n");
    let append = |path: &Path, text: &str| {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append(&path, "2026-01-01T00:00:05Z stdout F mo");
    append(&path, "re\n");
    assert_eq!(log.next().await.unwrap().unwrap(), "more\n");
    append(&path, "2026-01-01T00:00:06Z stdout F before\n");
    fs::rename(&path, folder.path().join("0.log.1")).unwrap();
    append(&path, "2026-01-01T00:00:07Z stdout F after\n");
    assert_eq!(log.next().await.unwrap().unwrap(), "before\n");
    assert_eq!(log.next().await.unwrap().unwrap(), "after\n");
    tx.send(()).unwrap();
    assert!(log.next().await.is_none());
}

#[tokio::test]
async fn an_absent_log_is_an_error() {
    let missing = Path::new("/nowhere/at/all/0.log");
    assert!(read(missing, LogOptions::default(), never()).await.is_err());
}
