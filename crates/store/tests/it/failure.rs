//! Disks that fail: a write that didn't happen changes nothing, reads go on, and writing works again when the disk does.

use std::path::Path;
use std::sync::Arc;

use env::{Env, FailAction};
use futures_util::FutureExt;
use store::{Config, Embedded, Error, RangeQuery, Store, Txn, WatchQuery};

use crate::crash::{again, given_dir};

async fn open(dir: &Path, env: &Env) -> Arc<Embedded> {
    let store = Embedded::open(Config { cache_bytes: 1 << 20, ..Config::new(dir, env.clone()) }).unwrap();
    if store.revision() == 1 {
        for n in 0..40 {
            store.commit(Txn::create(format!("/r/a/{n:02}"), vec![n; 30_000])).await.unwrap();
        }
    }
    store
}

/// All keys can be read with their values.
async fn check_readable(store: &Embedded, revision: u64) {
    let list = store.range(RangeQuery::prefix("/r/a/")).await.unwrap();
    assert_eq!((list.revision, list.items.len()), (revision, 40));
    for item in &list.items {
        assert!(item.value.len() == 30_000 || item.mod_revision > 41, "{item:?}");
    }
}

/// Writes that grow the file.
fn large(n: u64) -> Txn {
    Txn::new().put("/r/a/07", vec![n as u8; 3_000_000])
}

/// A write that fits into free pages: the file is synced once, at the end.
fn small() -> Txn {
    Txn::new().put("/r/a/08", "small")
}

async fn check(failpoint: &str, no_space: bool) {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let store = open(dir.path(), &env).await;
    let mut watch = store.watch(WatchQuery::prefix("")).await.unwrap();

    env.arm(failpoint, Some(FailAction::Error));
    for n in 0..3 {
        let error = store.commit(large(n)).await.unwrap_err();
        match no_space {
            true => assert!(matches!(error, Error::NoSpace), "{error:?}"),
            false => assert!(matches!(error, Error::Engine(_)), "{error:?}"),
        }
        check_readable(&store, 41).await;
    }
    assert!(matches!(store.compact(20).await, Err(Error::Engine(_) | Error::NoSpace)) || store.compacted() == 20);
    assert!(watch.next().now_or_never().is_none(), "an event of a write that failed");
    assert_eq!(store.revision(), 41);

    env.arm(failpoint, None);
    assert_eq!(store.commit(large(9)).await.unwrap().revision, 42);
    assert_eq!(watch.next().await.unwrap().events[0].revision, 42);
    drop((watch, store));
    let store = open(dir.path(), &env).await;
    check_readable(&store, 42).await;
}

#[tokio::test]
async fn refused_before_anything_began() {
    check("store.commit.begin", false).await;
}

#[tokio::test]
async fn no_page_can_be_written() {
    check("store.disk.write", false).await;
}

#[tokio::test]
async fn the_file_can_not_grow() {
    check("store.disk.grow", true).await;
}

/// The write is in the kernel's memory, and the disk then takes it: it happened, and everybody is told.
#[tokio::test]
async fn a_sync_that_fails_once() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let store = open(dir.path(), &env).await;
    let mut watch = store.watch(WatchQuery::prefix("")).await.unwrap();
    for revision in 42..46 {
        env.arm("store.disk.sync", Some(FailAction::ErrorOnce));
        assert_eq!(store.commit(small()).await.unwrap().revision, revision);
        assert_eq!(watch.next().await.unwrap().through, revision);
        check_readable(&store, revision).await;
    }
}

#[tokio::test]
async fn a_read_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let store = open(dir.path(), &env).await;
    // More than the cache holds.
    env.arm("store.disk.read", Some(FailAction::ErrorOnce));
    check_readable(&store, 41).await;
    env.arm("store.disk.read", Some(FailAction::Error));
    assert!(matches!(store.range(RangeQuery::prefix("")).await, Err(Error::Engine(_))));
    env.arm("store.disk.read", None);
    check_readable(&store, 41).await;
    assert_eq!(store.commit(large(1)).await.unwrap().revision, 42);
}

/// Syncing fails for good after the write reached the kernel: nobody can say whether it happened, so the process ends.
#[test]
fn a_sync_that_keeps_failing_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let output = again("failure::process_that_can_not_sync", dir.path()).output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(6), "{output:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(dir.path(), &Env::system()).await;
        assert!((41..=42).contains(&store.revision()));
        check_readable(&store, store.revision()).await;
    });
}

#[test]
#[ignore = "started by the test above"]
fn process_that_can_not_sync() {
    let Some(dir) = given_dir() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let env = Env::system();
        let store = open(&dir, &env).await;
        env.arm("store.disk.sync", Some(FailAction::Error));
        let result = store.commit(small()).await;
        panic!("went on: {result:?}");
    });
}

/// A tag that panics where the writer lets go of it.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("by design");
    }
}

#[test]
fn a_panic_of_the_writer_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let output = again("failure::process_whose_writer_panics", dir.path()).output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(6), "{output:?}");
}

#[test]
#[ignore = "started by the test above"]
fn process_whose_writer_panics() {
    let Some(dir) = given_dir() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(&dir, &Env::system()).await;
        let result = store.commit(small().tag(Arc::new(Bomb))).await;
        panic!("went on: {result:?}");
    });
}

/// A real file system without space: a small tmpfs in a mount namespace of a process of its own.
#[test]
fn a_full_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let output = again("failure::process_on_a_full_file_system", dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("@ filled and emptied"), "{output:?}");
}

#[test]
#[ignore = "started by the test above"]
fn process_on_a_full_file_system() {
    let Some(dir) = given_dir() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The runtime's thread is this one, and so are the namespaces. The store's writer inherits them.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    use nix::mount::MsFlags;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    nix::mount::mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=24m")).unwrap();
    runtime.block_on(fill_and_empty(&dir));
}

async fn fill_and_empty(dir: &Path) {
    let env = Env::system();
    let store = open(&dir.join("store"), &env).await;
    let mut written = store.revision();
    let mut full = 0;
    for n in 0..400_u64 {
        match store.commit(Txn::new().put(format!("/r/b/{n:03}"), vec![n as u8; 100_000])).await {
            Ok(committed) => written = committed.revision,
            Err(Error::NoSpace) => {
                full += 1;
                check_readable(&store, written).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(full > 100, "the file system was never full");
    assert_eq!(store.revision(), written);

    nix::mount::mount(None::<&str>, dir, None::<&str>, nix::mount::MsFlags::MS_REMOUNT, Some("size=256m")).unwrap();
    assert_eq!(store.commit(large(1)).await.unwrap().revision, written + 1);
    drop(store);
    let store = open(&dir.join("store"), &env).await;
    check_readable(&store, written + 1).await;
    println!("@ filled and emptied");
}
