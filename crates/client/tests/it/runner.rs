use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apimachinery::Value;
use client::fake::Reaction;
use client::{
    Controller, DeleteOptions, Informer, Informers, ReconcileContext, ReconcileError, Requeue, TaskGuard, Watch,
    resources, run,
};

use super::*;

/// Keeps one secret for each config map, named at random: without hold-back it would make several.
struct Maker {
    config_maps: Informer,
    secrets: Informer,
    reconciles: AtomicUsize,
    panics: AtomicUsize,
}

impl Controller for Maker {
    fn name(&self) -> &'static str {
        "maker"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.config_maps.clone()), Watch::only(self.secrets.clone())]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        self.reconciles.fetch_add(1, Ordering::SeqCst);
        if self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            panic!("as asked");
        }
        let mine = self.secrets.list("ns").into_iter().find(|secret| secret.label("of") == Some(&key.name));
        match (self.config_maps.get(key), mine) {
            (Some(_), None) => {
                let json = format!(
                    r#"{{"kind":"Secret","metadata":{{"generateName":"x-","namespace":"ns","labels":{{"of":"{}"}}}}}}"#,
                    key.name
                );
                ctx.client().create(&resources::SECRETS, &Value::parse(json.as_bytes())?).await?;
            }
            (None, Some(secret)) => {
                ctx.client().delete(&resources::SECRETS, secret.key(), &DeleteOptions::default()).await?;
            }
            _ => {}
        }
        Ok(Requeue::No)
    }
}

fn maker(server: &FakeServer) -> (Arc<Maker>, TaskGuard) {
    let client = server.client();
    let informers = Informers::new(client.clone());
    let maker = Arc::new(Maker {
        config_maps: informers.of(&resources::CONFIG_MAPS),
        secrets: informers.of(&resources::SECRETS),
        reconciles: AtomicUsize::new(0),
        panics: AtomicUsize::new(0),
    });
    let task = client.env().spawn(run(client.clone(), maker.clone()));
    (maker, TaskGuard::new(task))
}

/// Changes a config map a few times.
async fn churn(server: &FakeServer, name: &str) {
    for i in 0..5 {
        server.put(&resources::CONFIG_MAPS, &config_map(name, &i.to_string()));
        Env::system().sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_held_back_until_its_writes_are_seen() {
    let server = server();
    let (maker, _task) = maker(&server);
    server.put(&resources::CONFIG_MAPS, &config_map("a", "x"));
    eventually("the secret is made", || server.list(&resources::SECRETS).len() == 1).await;
    let before = maker.reconciles.load(Ordering::SeqCst);
    server.hold_watches(&resources::SECRETS, true);
    server.put(&resources::CONFIG_MAPS, &config_map("b", "x"));
    churn(&server, "b").await;
    assert_eq!(server.list(&resources::SECRETS).len(), 2, "one is made, and no second one unseen");
    assert_eq!(maker.reconciles.load(Ordering::SeqCst), before + 1);
    server.hold_watches(&resources::SECRETS, false);
    churn(&server, "b").await;
    assert_eq!(server.list(&resources::SECRETS).len(), 2);
    assert!(maker.reconciles.load(Ordering::SeqCst) > before + 1, "changes meanwhile are not forgotten");
    server.remove(&resources::CONFIG_MAPS, &key("b"));
    eventually("it is removed", || server.list(&resources::SECRETS).len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_lost_write() {
    let server = server();
    let (_maker, _task) = maker(&server);
    let mut lost = 0;
    server.react(move |request| {
        if request.method == http::Method::POST && request.target.contains("secrets") && lost < 3 {
            lost += 1;
            return Some(Reaction::LoseAnswer);
        }
        None
    });
    for name in ["a", "b", "c"] {
        server.put(&resources::CONFIG_MAPS, &config_map(name, "x"));
        churn(&server, name).await;
    }
    eventually("all are made", || server.list(&resources::SECRETS).len() >= 3).await;
    churn(&server, "a").await;
    assert_eq!(server.list(&resources::SECRETS).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_are_tried_again() {
    let server = server();
    let (maker, _task) = maker(&server);
    maker.panics.store(2, Ordering::SeqCst);
    let mut refused = 0;
    server.react(move |request| {
        if request.method == http::Method::POST && refused < 3 {
            refused += 1;
            return Some(Reaction::Refuse(apimachinery::Status::service_unavailable("not now")));
        }
        None
    });
    server.put(&resources::CONFIG_MAPS, &config_map("a", "x"));
    eventually("the secret is made", || server.list(&resources::SECRETS).len() == 1).await;
    assert!(maker.reconciles.load(Ordering::SeqCst) >= 6);
}
