//! What each method promises, one sentence a test.

use std::sync::Arc;
use std::time::Duration;

use env::Env;
use store::{Config, Embedded, Error, EventKind, OpenError, RangeQuery, Store, Txn, WatchQuery};

fn memory() -> Arc<Embedded> {
    Embedded::in_memory(&Env::system()).unwrap()
}

fn folder(dir: &tempfile::TempDir) -> Arc<Embedded> {
    Embedded::open(Config::new(dir.path().join("store"), Env::system())).unwrap()
}

fn keys(range: &store::Range) -> Vec<&str> {
    range.items.iter().map(|item| std::str::from_utf8(&item.key).unwrap()).collect()
}

#[tokio::test]
async fn revisions_count_transactions() {
    let store = memory();
    assert_eq!(store.revision(), 1);
    let first = store.commit(Txn::create("/r/a/1", "x").put("/r/b/1", "y")).await.unwrap();
    assert_eq!((first.revision, first.changed), (2, 2));
    let second = store.commit(Txn::update("/r/a/1", "z", 2)).await.unwrap();
    assert_eq!(second.revision, 3);
    let found = store.get(b"/r/a/1").await.unwrap().unwrap();
    assert_eq!((found.create_revision, found.mod_revision, found.version, &found.value[..]), (2, 3, 2, &b"z"[..]));
    assert_eq!(store.get_at(b"/r/a/1", 2).await.unwrap().unwrap().value, "x");
    assert_eq!(store.get_at(b"/r/a/1", 1).await.unwrap(), None);
    assert!(matches!(store.get_at(b"/r/a/1", 9).await, Err(Error::Future { requested: 9, current: 3 })));
    // Deleting what isn't there changes nothing.
    let none = store.commit(Txn::new().delete("/r/c/1")).await.unwrap();
    assert_eq!((none.revision, none.changed), (3, 0));
    assert_eq!(*store.progress().borrow(), 3);
    assert_eq!(store.read_barrier().await.unwrap(), 3);
}

#[tokio::test]
async fn a_conflict_says_which_compare_and_what_is_there() {
    let store = memory();
    store.commit(Txn::create("/r/a/1", "x")).await.unwrap();
    let txn = Txn::new().expect("/r/b/1", 0).expect("/r/a/1", 0).put("/r/b/1", "y");
    let Err(Error::Conflict(conflict)) = store.commit(txn).await else { panic!("no conflict") };
    assert_eq!((conflict.compare, &conflict.key[..], conflict.expected), (1, &b"/r/a/1"[..], 0));
    assert_eq!(conflict.current.as_ref().unwrap().value, "x");
    assert_eq!(conflict.to_string(), "\"/r/a/1\" is at revision 2 and not 0");
    assert_eq!(store.get(b"/r/b/1").await.unwrap(), None);
    let Err(Error::Conflict(conflict)) = store.commit(Txn::remove("/r/c/1", 7)).await else { panic!("no conflict") };
    assert_eq!(conflict.current, None);
}

#[tokio::test]
async fn pages_of_a_range_are_of_one_revision() {
    let store = memory();
    for n in 0..5 {
        store.commit(Txn::create(format!("/r/a/{n}"), "x")).await.unwrap();
    }
    let query = RangeQuery { count: true, ..RangeQuery::prefix("/r/a/").limit(2) };
    let page = store.range(query.clone()).await.unwrap();
    assert_eq!((keys(&page), page.more, page.count, page.revision), (vec!["/r/a/0", "/r/a/1"], true, 5, 6));
    store.commit(Txn::new().delete("/r/a/3")).await.unwrap();
    let page = store.range(query.clone().starting_at("/r/a/1\0").at(page.revision)).await.unwrap();
    assert_eq!((keys(&page), page.more, page.count, page.revision), (vec!["/r/a/2", "/r/a/3"], true, 3, 6));
    let rest = store.range(query.starting_at("/r/a/3\0").at(6)).await.unwrap();
    assert_eq!((keys(&rest), rest.more), (vec!["/r/a/4"], false));
    let now = store.range(RangeQuery { keys_only: true, ..RangeQuery::prefix("/r/a/") }).await.unwrap();
    assert_eq!((now.items.len(), now.items[0].value.len(), now.revision), (4, 0, 7));
    let empty = store.range(RangeQuery { start: "z".into(), end: "a".into(), ..RangeQuery::default() }).await.unwrap();
    assert!(empty.items.is_empty());
}

#[tokio::test]
async fn a_watch_goes_from_history_to_live() {
    let store = memory();
    store.commit(Txn::create("/r/a/1", "x")).await.unwrap();
    store.commit(Txn::create("/r/b/1", "other")).await.unwrap();
    let mut watch = store.watch(WatchQuery::prefix("/r/a/").after(1).with_prev_values()).await.unwrap();
    store.commit(Txn::new().delete("/r/a/1").tag(Arc::new(7_u32))).await.unwrap();

    let history = watch.next().await.unwrap();
    assert_eq!(history.through, 3);
    let [created] = &history.events[..] else { panic!("{history:?}") };
    assert_eq!((created.kind, created.revision, &created.value[..]), (EventKind::Put, 2, &b"x"[..]));
    assert!(created.prev.is_none() && created.tag.is_none());

    let live = watch.next().await.unwrap();
    assert_eq!(live.through, 4);
    let [deleted] = &live.events[..] else { panic!("{live:?}") };
    assert_eq!((deleted.kind, deleted.revision, deleted.create_revision), (EventKind::Delete, 4, 2));
    let prev = deleted.prev.as_ref().unwrap();
    assert_eq!((prev.revision, prev.value.as_deref()), (2, Some(&b"x"[..])));
    assert_eq!(deleted.tag.as_ref().unwrap().downcast_ref::<u32>(), Some(&7));
}

#[tokio::test]
async fn compaction_gives_up_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(&dir);
    for (n, value) in ["x", "y", "z"].into_iter().enumerate() {
        store.commit(Txn::new().put("/r/a/1", value).put("/r/b/1", format!("{n}"))).await.unwrap();
    }
    store.commit(Txn::new().delete("/r/b/1")).await.unwrap();
    store.compact(3).await.unwrap();
    assert_eq!(store.compacted(), 3);
    assert!(matches!(store.get_at(b"/r/a/1", 2).await, Err(Error::Compacted { requested: 2, compacted: 3 })));
    assert_eq!(store.get_at(b"/r/a/1", 3).await.unwrap().unwrap().value, "y");
    assert!(matches!(store.watch(WatchQuery::prefix("").after(2)).await, Err(Error::Compacted { .. })));
    let mut watch = store.watch(WatchQuery::prefix("").after(3).with_prev_values()).await.unwrap();
    let events = watch.next().await.unwrap().events;
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [4, 4, 5]);
    assert_eq!(events[0].prev.as_ref().unwrap().value.as_deref(), Some(&b"y"[..]));
    assert!(matches!(store.compact(2).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(9).await, Err(Error::Future { .. })));
    // The deletion at the newest revision is gone, but the revision stays.
    store.compact(5).await.unwrap();
    drop((watch, store));
    let store = folder(&dir);
    assert_eq!((store.revision(), store.compacted()), (5, 5));
    assert_eq!(store.range(RangeQuery::prefix("")).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_second_opener_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(&dir);
    let again = Embedded::open(Config::new(dir.path().join("store"), Env::system()));
    assert!(matches!(again, Err(OpenError::InUse { .. })));
    store.commit(Txn::create("/r/a/1", "x")).await.unwrap();
    drop(store);
    assert_eq!(folder(&dir).get(b"/r/a/1").await.unwrap().unwrap().value, "x");
}

#[tokio::test]
async fn closing_does_not_wait_for_the_last_holder() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(&dir);
    let holder = store.clone();
    let _watch = store.watch(WatchQuery::prefix("")).await.unwrap();
    store.commit(Txn::create("/r/a/1", "x")).await.unwrap();
    store.close();
    store.close();
    assert!(matches!(holder.commit(Txn::create("/r/a/2", "x")).await, Err(Error::Closed)));
    // Another may have it now, and finds it whole.
    let again = folder(&dir);
    assert_eq!(again.get(b"/r/a/1").await.unwrap().unwrap().value, "x");
    drop((store, holder));
    again.commit(Txn::create("/r/a/2", "x")).await.unwrap();
}

#[tokio::test]
async fn a_restored_backup_raises_the_revision() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let store = folder(&dir);
    store.commit(Txn::create("/r/a/1", "x")).await.unwrap();
    store.commit(Txn::update("/r/a/1", "y", 2)).await.unwrap();
    assert_eq!(store.backup(&backup).await.unwrap(), 3);
    store.commit(Txn::update("/r/a/1", "z", 3)).await.unwrap();
    assert!(store.backup(&backup).await.is_err());

    let restored = dir.path().join("restored");
    assert_eq!(store::restore(&backup, &restored).unwrap(), 3 + store::RESTORE_REVISION_BUMP);
    assert!(matches!(store::restore(&backup, &restored), Err(OpenError::Exists { .. })));
    let other = Embedded::open(Config::new(&restored, Env::system())).unwrap();
    let found = other.get(b"/r/a/1").await.unwrap().unwrap();
    assert_eq!((&found.value[..], found.mod_revision), (&b"y"[..], 3));
    assert!(matches!(other.watch(WatchQuery::prefix("").after(4)).await, Err(Error::Compacted { .. })));
    let next = other.commit(Txn::update("/r/a/1", "w", 3)).await.unwrap();
    assert_eq!(next.revision, 4 + store::RESTORE_REVISION_BUMP);
}

#[tokio::test(start_paused = true)]
async fn keys_expire() {
    let env = Env::seeded(1, jiff::Timestamp::from_second(1_000).unwrap());
    let store = Embedded::in_memory(&env).unwrap();
    let ttl = |key: &str, seconds| Txn::new().put(key.to_owned(), "x").ttl(Duration::from_secs(seconds));
    store.commit(ttl("/r/a/1", 10)).await.unwrap();
    store.commit(ttl("/r/a/2", 10)).await.unwrap();
    store.commit(Txn::new().put("/r/a/2", "stays")).await.unwrap();
    assert_eq!(store.get(b"/r/a/1").await.unwrap().unwrap().expires.unwrap().as_second(), 1_010);
    assert_eq!(store.expire().await.unwrap(), 0);
    env.sleep(Duration::from_secs(10)).await;
    assert_eq!(store.expire().await.unwrap(), 1);
    let left = store.range(RangeQuery::prefix("")).await.unwrap();
    assert_eq!(keys(&left), ["/r/a/2"]);
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off() {
    let config = Config { watch_buffer_bytes: 10_000, ..Config::in_memory(Env::system()) };
    let store = Embedded::open(config).unwrap();
    let mut watch = store.watch(WatchQuery::prefix("/r/a/")).await.unwrap();
    let mut other = store.watch(WatchQuery::prefix("/r/b/").with_progress()).await.unwrap();
    for _ in 0..5 {
        store.commit(Txn::new().put("/r/a/1", vec![0; 4_000])).await.unwrap();
    }
    assert!(matches!(watch.next().await, Err(Error::Lagged { limit: 10_000 })));
    assert!(matches!(watch.next().await, Err(Error::Lagged { .. })));
    let progress = other.next().await.unwrap();
    assert_eq!((progress.events.len(), progress.through), (0, 6));
    drop(store);
    assert!(matches!(other.next().await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(folder(&dir));
    let file = redb::Database::open(dir.path().join("store/store.redb")).unwrap();
    let txn = file.begin_write().unwrap();
    txn.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 2).unwrap();
    txn.commit().unwrap();
    drop(file);
    let error = Embedded::open(Config::new(dir.path().join("store"), Env::system())).err().unwrap();
    assert_eq!(error.to_string(), "the store has format 2, and this release reads up to 1");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    std::fs::write(dir.path().join("store/store.redb"), "no database".repeat(1000)).unwrap();
    let error = Embedded::open(Config::new(dir.path().join("store"), Env::system())).err().unwrap();
    assert!(matches!(error, OpenError::Engine(_)), "{error:?}");
    let error = store::restore(&dir.path().join("store/store.redb"), &dir.path().join("other")).unwrap_err();
    assert!(matches!(error, OpenError::Engine(_)), "{error:?}");
    // Nothing is left in the way of the next try.
    assert!(!dir.path().join("other/store.redb").exists() && !dir.path().join("other/store.redb.part").exists());
}

#[tokio::test]
async fn space_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(&dir);
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&dir.path().join("store/store.redb").metadata().unwrap());
    for n in 0..100 {
        store.commit(Txn::new().put("/r/a/1", vec![n; 100_000]).put(format!("/r/b/{n}"), "x")).await.unwrap();
    }
    let before = blocks();
    store.compact(store.revision()).await.unwrap();
    store.defragment().await.unwrap();
    assert!(blocks() < before / 4, "{} of {before} blocks are left", blocks());
    assert_eq!(store.get(b"/r/a/1").await.unwrap().unwrap().value, vec![99; 100_000]);
    assert_eq!(store.range(RangeQuery::prefix("/r/b/")).await.unwrap().items.len(), 100);
    store.commit(Txn::new().put("/r/a/1", "y")).await.unwrap();
}

#[tokio::test]
async fn space_is_given_back_only_where_there_is_much() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(&dir);
    let size = || std::os::unix::fs::MetadataExt::blocks(&dir.path().join("store/store.redb").metadata().unwrap());
    let fill = async |count: usize| {
        for _ in 0..count {
            store.commit(Txn::new().put("/r/a/1", vec![7; 1 << 20])).await.unwrap();
        }
    };
    assert!(!store.reclaim().await.unwrap());
    fill(80).await;
    assert!(!store.reclaim().await.unwrap(), "everything is history that can be asked for");
    let before = size();
    store.compact(store.revision()).await.unwrap();
    // Whether it waits for the compaction is the engine's affair; in the end it is done, once.
    let mut given = false;
    for _ in 0..1000 {
        given = store.reclaim().await.unwrap();
        if given {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(given && size() < before / 4, "{} of {before} are left", size());
    assert!(!store.reclaim().await.unwrap());
    assert_eq!(store.get(b"/r/a/1").await.unwrap().unwrap().value.len(), 1 << 20);
}

/// What a crash left undone of a compaction is done when the store is opened again.
#[tokio::test]
async fn an_interrupted_compaction_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let config = Config { inline: true, ..Config::new(dir.path(), env.clone()) };
    let store = Embedded::open(config.clone()).unwrap();
    for n in 0..50 {
        store.commit(Txn::new().put("/r/a/1", n.to_string())).await.unwrap();
    }
    // The first commit decides, the second would remove.
    let mut progress = store.watch(WatchQuery::prefix("")).await.unwrap();
    env.arm("store.compact.piece", Some(env::FailAction::Error));
    store.compact(40).await.unwrap();
    drop(store);
    assert!(progress.next().await.is_err());
    env.arm("store.compact.piece", None);

    let records = || {
        let file = redb::Database::open(dir.path().join("store.redb")).unwrap();
        let txn = redb::ReadableDatabase::begin_read(&file).unwrap();
        let log = txn.open_table(redb::TableDefinition::<u64, &[u8]>::new("log")).unwrap();
        redb::ReadableTableMetadata::len(&log).unwrap()
    };
    assert_eq!(records(), 50);
    let store = Embedded::open(config).unwrap();
    assert_eq!((store.compacted(), store.revision()), (40, 51));
    assert_eq!(store.get_at(b"/r/a/1", 40).await.unwrap().unwrap().value, "38");
    store.defragment().await.unwrap();
    drop(store);
    assert_eq!(records(), 12);
}
