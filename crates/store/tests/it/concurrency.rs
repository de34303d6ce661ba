//! Many writers at once.

use std::sync::Arc;

use env::Env;
use futures_util::FutureExt;
use futures_util::future::join_all;
use store::{Config, Embedded, Error, RangeQuery, Store, Txn, WatchQuery};

/// Adds 1 to a counter by compare and swap until it works.
async fn add_one(store: &Embedded, key: &str) -> u64 {
    loop {
        let current = store.get(key.as_bytes()).await.unwrap();
        let (count, revision) = current.map_or((0, 0), |current| {
            (std::str::from_utf8(&current.value).unwrap().parse::<u64>().unwrap(), current.mod_revision)
        });
        match store.commit(Txn::update(key.to_owned(), (count + 1).to_string(), revision)).await {
            Ok(committed) => return committed.revision,
            Err(Error::Conflict(conflict)) => assert_ne!(conflict.current.unwrap().mod_revision, revision),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_increment_counts_once() {
    const WRITERS: usize = 24;
    const EACH: usize = 25;
    const KEYS: [&str; 3] = ["/r/a/1", "/r/a/2", "/r/b/1"];
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let store = Embedded::open(Config::new(dir.path(), env.clone())).unwrap();
    let mut watch = store.watch(WatchQuery::prefix("").after(1)).await.unwrap();

    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        env.spawn(async move {
            for n in 0..EACH {
                let revision = add_one(&store, KEYS[(writer + n) % KEYS.len()]).await;
                assert!(store.revision() >= revision, "acknowledged before it was made known");
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }

    let last = 1 + (WRITERS * EACH) as u64;
    assert_eq!(store.revision(), last);
    let counters = store.range(RangeQuery::prefix("")).await.unwrap().items;
    let sum: u64 = counters.iter().map(|item| std::str::from_utf8(&item.value).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, (WRITERS * EACH) as u64);
    assert!(counters.iter().all(|item| item.version.to_string().as_bytes() == item.value));

    let mut seen = Vec::new();
    while seen.len() < WRITERS * EACH {
        seen.extend(watch.next().await.unwrap().events.iter().map(|event| event.revision));
    }
    assert!(seen.into_iter().eq(2..=last), "each revision once and in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_before_the_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(Config::new(dir.path(), Env::system())).unwrap();
    let mut watch = store.watch(WatchQuery::prefix("/r/a/")).await.unwrap();
    for n in 0..200_u64 {
        let committed = store.commit(Txn::new().put("/r/a/1", n.to_string())).await.unwrap();
        let batch = watch.next().now_or_never().expect("the event is there").unwrap();
        assert_eq!((batch.events.len(), batch.events[0].revision), (1, committed.revision));
    }
}

/// Readers at the current revision, a compactor and writers at once: a list never misses a key, nor a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_are_whole_while_history_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let store: Arc<dyn Store> = Embedded::open(Config::new(dir.path(), env.clone())).unwrap();
    for n in 0..300 {
        store.commit(Txn::create(format!("/r/a/{n:03}"), vec![b'x'; 300])).await.unwrap();
    }
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        env.spawn(async move {
            for n in 0..60 {
                let key = format!("/r/a/{:03}", (writer * 37 + n * 11) % 300);
                store.commit(Txn::new().put(key, vec![b'y'; 300])).await.unwrap();
                if n % 10 == writer % 10 {
                    match store.compact(store.revision()).await {
                        Ok(()) | Err(Error::Compacted { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        })
    });
    let writers = join_all(writers);
    let lists = async {
        for _ in 0..60 {
            let list = store.range(RangeQuery::prefix("/r/a/")).await.unwrap();
            assert_eq!(list.items.len(), 300);
            assert!(list.items.iter().all(|item| item.value.len() == 300 && item.mod_revision <= list.revision));
            tokio::task::yield_now().await;
        }
    };
    let (writers, ()) = futures_util::join!(writers, lists);
    for writer in writers {
        writer.unwrap();
    }
    assert_eq!(store.revision(), 301 + 480);
}
