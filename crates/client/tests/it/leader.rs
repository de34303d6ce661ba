use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::fake::Reaction;
use client::{LeaderElection, TaskGuard, resources};

use super::*;

/// A candidate that counts itself while it leads.
fn candidate(server: &FakeServer, name: &str, leading: &Arc<AtomicUsize>) -> TaskGuard {
    struct Term(Arc<AtomicUsize>);
    impl Drop for Term {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (client, name, leading) = (server.client().with_user_agent(name), name.to_owned(), leading.clone());
    let env = client.env().clone();
    TaskGuard::new(env.spawn(async move {
        let election = LeaderElection::new(ObjectKey::new("kube-system", "controllers"), name);
        election
            .run(&client, || {
                let before = leading.fetch_add(1, Ordering::SeqCst);
                assert_eq!(before, 0, "two leaders");
                let term = Term(leading.clone());
                async move {
                    std::future::pending::<()>().await;
                    drop(term);
                }
            })
            .await;
    }))
}

fn holder(server: &FakeServer) -> String {
    let lease = server.get(&resources::LEASES, &ObjectKey::new("kube-system", "controllers"));
    lease.and_then(|lease| Some(lease.to_value().str_at(&["spec", "holderIdentity"])?.to_owned())).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn there_is_one_leader_and_then_the_next() {
    let server = server();
    let leading = Arc::new(AtomicUsize::new(0));
    let first = candidate(&server, "a", &leading);
    eventually("the first leads", || holder(&server) == "a").await;
    let _second = candidate(&server, "b", &leading);
    Env::system().sleep(Duration::from_secs(60)).await;
    assert_eq!((holder(&server).as_str(), leading.load(Ordering::SeqCst)), ("a", 1));
    drop(first);
    eventually("the second leads", || holder(&server) == "b" && leading.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_term_ends_before_the_lease_can_be_taken() {
    let server = server();
    let leading = Arc::new(AtomicUsize::new(0));
    let _first = candidate(&server, "a", &leading);
    eventually("the first leads", || leading.load(Ordering::SeqCst) == 1).await;
    server.react(|request| {
        let agent = request.headers.get("user-agent").and_then(|agent| agent.to_str().ok());
        (agent == Some("a")).then_some(Reaction::Lose)
    });
    let _second = candidate(&server, "b", &leading);
    eventually("the first has given up", || leading.load(Ordering::SeqCst) == 0).await;
    assert_eq!(holder(&server), "a", "while the lease was its own");
    eventually("the second leads", || leading.load(Ordering::SeqCst) == 1).await;
    assert_eq!(holder(&server), "b");
}
