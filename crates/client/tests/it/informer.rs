use std::sync::Arc;
use std::time::Duration;

use client::fake::Reaction;
use client::{Event, Informers, Selection, resources, wait_until};
use parking_lot::Mutex;

use super::*;

fn record(informer: &client::Informer) -> (Arc<Mutex<Vec<String>>>, client::Subscription) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let subscription = informer.on_event({
        let told = told.clone();
        move |event| {
            let sign = match event {
                Event::Added(_) => '+',
                Event::Modified { .. } => '~',
                Event::Deleted(_) => '-',
            };
            told.lock().push(format!("{sign}{}", event.object().name()));
        }
    });
    (told, subscription)
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_in_order() {
    let server = server();
    server.put(&resources::CONFIG_MAPS, &config_map("a", "1"));
    let informers = Informers::new(server.client());
    let informer = informers.of(&resources::CONFIG_MAPS);
    informer.synced().await;
    let (told, subscription) = record(&informer);
    server.put(&resources::CONFIG_MAPS, &config_map("b", "1"));
    server.edit(&resources::CONFIG_MAPS, &key("a"), |value| value.set(&["data", "d"], "2"));
    server.remove(&resources::CONFIG_MAPS, &key("a"));
    informer.wait_for(server.revision()).await;
    assert_eq!(*told.lock(), ["+a", "+b", "~a", "-a"]);
    drop(subscription);
    server.remove(&resources::CONFIG_MAPS, &key("b"));
    informer.wait_for(server.revision()).await;
    assert_eq!(told.lock().len(), 4);
    assert!(informer.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_watch_follows_its_list_at_once() {
    let server = server();
    let informer = Informers::new(server.client()).of(&resources::CONFIG_MAPS);
    informer.synced().await;
    let before = server.client().env().monotonic();
    server.put(&resources::CONFIG_MAPS, &config_map("a", "1"));
    informer.wait_for(server.revision()).await;
    assert!(server.client().env().monotonic() - before < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_lost_history_is_made_up_by_a_list() {
    let server = server();
    for name in ["a", "b", "c"] {
        server.put(&resources::CONFIG_MAPS, &config_map(name, "1"));
    }
    let informer = Informers::new(server.client()).of(&resources::CONFIG_MAPS);
    informer.synced().await;
    let (told, _subscription) = record(&informer);
    server.hold_watches(&resources::CONFIG_MAPS, true);
    server.remove(&resources::CONFIG_MAPS, &key("b"));
    server.edit(&resources::CONFIG_MAPS, &key("c"), |value| value.set(&["data", "d"], "2"));
    server.compact();
    server.put(&resources::CONFIG_MAPS, &config_map("d", "1"));
    server.hold_watches(&resources::CONFIG_MAPS, false);
    informer.wait_for(server.revision()).await;
    assert_eq!(*told.lock(), ["+a", "+b", "+c", "-b", "~c", "+d"]);
    let lists = server.requests().iter().filter(|seen| !seen.target.contains("watch=")).count();
    assert_eq!(lists, 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let server = server();
    let informer = Informers::new(server.client()).of(&resources::CONFIG_MAPS);
    informer.synced().await;
    let failures = Arc::new(Mutex::new(5));
    server.react({
        let failures = failures.clone();
        move |_| {
            let mut left = failures.lock();
            *left = u32::checked_sub(*left, 1)?;
            Some(Reaction::Lose)
        }
    });
    server.end_watches();
    server.put(&resources::CONFIG_MAPS, &config_map("a", "1"));
    informer.wait_for(server.revision()).await;
    assert_eq!(informer.len(), 1);
    assert_eq!(*failures.lock(), 0);
    let lists = server.requests().iter().filter(|seen| !seen.target.contains("watch=")).count();
    assert_eq!(lists, 1, "no second list is needed");
}

#[tokio::test(start_paused = true)]
async fn selections_and_indices() {
    let server = server();
    server.put(&resources::CONFIG_MAPS, &config_map("a", "1"));
    server.put(&resources::CONFIG_MAPS, &config_map("b", "2"));
    let informers = Informers::new(server.client());
    let ones = informers.selected(&resources::CONFIG_MAPS, Selection::all().labels("d=1"));
    let all = informers.selected(&resources::CONFIG_MAPS, Selection::all().namespace("ns"));
    all.index("label", |object| object.label("d").map(str::to_owned).into_iter().collect());
    informers.synced().await;
    assert_eq!(ones.len(), 1);
    assert_eq!(all.by_index("label", "2")[0].name(), "b");
    server.edit(&resources::CONFIG_MAPS, &key("a"), |value| value.set(&["metadata", "labels", "d"], "2"));
    ones.until(|informer| informer.is_empty()).await;
    all.wait_for(server.revision()).await;
    assert_eq!(all.by_index("label", "2").len(), 2);
    assert_eq!((all.list("ns").len(), all.list("other").len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_object_is_as_wanted() {
    let server = server();
    let client = server.client();
    let env = client.env().clone();
    let wait = env.spawn({
        let client = client.clone();
        async move {
            wait_until(&client, &resources::CONFIG_MAPS, &key("a"), Duration::from_secs(60), |object| {
                object.is_some_and(|object| object.label("d") == Some("2"))
            })
            .await
        }
    });
    env.sleep(Duration::from_secs(1)).await;
    server.put(&resources::CONFIG_MAPS, &config_map("a", "1"));
    server.end_watches();
    env.sleep(Duration::from_secs(1)).await;
    server.put(&resources::CONFIG_MAPS, &config_map("a", "2"));
    assert_eq!(wait.await.unwrap().unwrap().unwrap().name(), "a");
    let never = wait_until(&client, &resources::CONFIG_MAPS, &key("a"), Duration::from_secs(60), |o| o.is_none()).await;
    assert!(matches!(never, Err(client::Error::Timeout(what)) if what == "configmaps ns/a"));
}
