use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::Object;
use client::fake::FakeServer;
use client::{Body, Client, Request, Response, Transport, TransportError, resources};
use env::Env;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;

use super::*;

/// Keeps names and values.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeMap<String, String>>>);

impl Reader for Names {
    fn take(&self, object: &Object) {
        let value = object.to_value();
        assert_ne!(object.name(), "poison");
        self.0.lock().insert(object.name().to_owned(), value.str_at(&["data", "v"]).unwrap().to_owned());
    }

    fn gone(&self, object: &Object) {
        self.0.lock().remove(object.name());
    }

    fn sweep(&self, there: &There) {
        self.0.lock().retain(|name, _| there.has(&ObjectKey::new("ns", name)));
    }
}

/// Answers lists in pages, as the fake server doesn't; counts them.
#[derive(Clone)]
struct Paged(FakeServer, Arc<Mutex<usize>>);

impl Transport for Paged {
    fn shares_objects(&self) -> bool {
        true
    }

    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let server = self.clone();
        async move {
            let query = request.target.clone();
            let number = |name: &str| {
                let (_, rest) = query.split_once(&format!("{name}="))?;
                rest.split('&').next()?.parse::<usize>().ok()
            };
            let mut answer = server.0.send(request).await?;
            if let Body::List(list) = &mut answer.body {
                *server.1.lock() += 1;
                let from = number("continue").unwrap_or_default();
                let until = from + number("limit").expect("long lists come in pages");
                if until < list.items.len() {
                    list.continue_token = until.to_string();
                }
                list.items = list.items.drain(..).skip(from).take(until - from).collect();
            }
            Ok(answer)
        }
        .boxed()
    }
}

fn put(server: &FakeServer, name: &str, value: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns", "uid": name},
        "data": {"v": value}});
    server.put(&resources::CONFIG_MAPS, &object.to_string());
}

async fn eventually(env: &Env, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        env.sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen within ten seconds");
}

#[tokio::test(start_paused = true)]
async fn what_came_changed_and_went_is_told_whatever_was_missed() {
    let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
    let server = FakeServer::new(env.clone());
    ["a", "b", "poison", "c"].iter().for_each(|name| put(&server, name, "1"));
    let names = Names::default();
    let _guard = follow(&server.client(), &resources::CONFIG_MAPS, names.clone()).await;
    let known = || names.0.lock().iter().map(|(name, value)| format!("{name}{value}")).collect::<String>();
    assert_eq!(known(), "a1b1c1");
    put(&server, "b", "2");
    server.remove(&resources::CONFIG_MAPS, &ObjectKey::new("ns", "a"));
    put(&server, "d", "1");
    eventually(&env, || known() == "b2c1d1").await;
    // The history is lost together with what was deleted in it.
    server.hold_watches(&resources::CONFIG_MAPS, true);
    server.remove(&resources::CONFIG_MAPS, &ObjectKey::new("ns", "c"));
    put(&server, "d", "3");
    server.compact();
    server.hold_watches(&resources::CONFIG_MAPS, false);
    eventually(&env, || known() == "b2d3").await;
    put(&server, "e", "1");
    eventually(&env, || known() == "b2d3e1").await;
}

#[tokio::test(start_paused = true)]
async fn long_lists_come_in_pages() {
    let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
    let server = FakeServer::new(env.clone());
    let count = PAGE as usize * 2 + 1;
    (0..count).for_each(|i| put(&server, &format!("c{i}"), "1"));
    let paged = Paged(server.clone(), Arc::default());
    let client = Client::new(env.clone(), Arc::new(paged.clone()), "test");
    let names = Names::default();
    let _guard = follow(&client, &resources::CONFIG_MAPS, names.clone()).await;
    assert_eq!((names.0.lock().len(), *paged.1.lock()), (count, 3));
    put(&server, "more", "1");
    eventually(&env, || names.0.lock().contains_key("more")).await;
}
