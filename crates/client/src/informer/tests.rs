use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::fake::FakeServer;
use crate::resources;

/// Whoever waits may ask anything of the informer, also what a change on another thread is about to write.
#[tokio::test]
async fn changes_go_on_while_a_waiter_asks() {
    let server = FakeServer::new(env::Env::system());
    let informer = Informer::start(&server.client(), resources::CONFIG_MAPS, Selection::all());
    informer.synced().await;
    let mut told = None;
    informer
        .until(|informer| {
            let (tx, rx) = mpsc::channel();
            let shared = informer.0.clone();
            std::thread::spawn(move || {
                shared.advance(1_000, false);
                let _ = tx.send(());
            });
            // Else asking for the revision here would wait for the writer, and the writer for us.
            told = Some(rx.recv_timeout(Duration::from_secs(60)).is_ok().then(|| informer.revision()));
            true
        })
        .await;
    assert_eq!(told, Some(Some(1_000)));
}
