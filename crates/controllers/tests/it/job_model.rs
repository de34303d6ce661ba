//! Jobs under everything that may go wrong, by seeded chance: pods that end as they like, lost requests and answers, conflicts,
//! watches that lag and end, controllers that are stopped anywhere and started anew. No pod is ever counted twice or forgotten.

use std::collections::BTreeMap;

use client::fake::Reaction;
use parking_lot::Mutex;

use super::job::{JOBS, job};
use super::*;

const CONTROLLERS: &[&str] = &["job-controller", "pod-garbage-collector-controller", "garbage-collector-controller"];

#[derive(Default)]
struct Ends {
    /// By uid: whether it succeeded, and its index.
    pods: BTreeMap<String, (bool, String)>,
}

#[test]
fn counts_are_exact_whatever_happens() {
    model::hold("job_model::counts_are_exact_whatever_happens", model);
}

#[test]
fn a_seed_is_a_history() {
    model::repeats(model);
}

/// Every other Job is indexed.
fn model(seed: u64) -> model::Run {
    Box::pin(run_job(seed, seed.is_multiple_of(2)))
}

async fn run_job(seed: u64, indexed: bool) -> FakeServer {
    let start = "2026-01-01T00:00:00Z".parse().unwrap();
    let server = FakeServer::new(Env::seeded(seed, start));
    for (resource, kind) in SERVED {
        server.serve(&resource, kind);
    }
    let chance = Env::seeded(seed + 1000, start);
    let ends = Arc::new(Mutex::new(Ends::default()));
    let _kubelet = kubelet(&server, &chance, ends.clone());
    let _mischief = mischief(&server, &chance);
    let mut config = Config::new(server.client(), b"CA".to_vec());
    config.controllers = CONTROLLERS.iter().map(|&name| name.to_owned()).collect();
    let controllers = || super::run(&config);
    let mut running = controllers();
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    server.put(
        &JOBS,
        &job(&format!(r#""completionMode":"{mode}","completions":8,"parallelism":3,"backoffLimit":100000,"#)),
    );
    let status = || server.get(&JOBS, &key("job")).unwrap().to_value().get("status").cloned().unwrap_or_default();
    let is_complete = || {
        let held = |c: &Value| c.str_at(&["type"]) == Some("Complete") && c.str_at(&["status"]) == Some("True");
        status().items_at(&["conditions"]).iter().any(held)
    };
    for round in 0.. {
        Env::system().sleep(Duration::from_millis(chance.random_below(20_000))).await;
        // A crash, wherever they are.
        drop(running);
        check(&status(), &ends.lock(), indexed, false);
        running = controllers();
        if is_complete() {
            break;
        }
        assert!(round < 2000, "never complete: {}", status());
    }
    check(&status(), &ends.lock(), indexed, true);
    Env::system().sleep(Duration::from_secs(60)).await;
    let tracked = server.list(&resources::PODS).into_iter().filter(|pod| pod.has_finalizers()).count();
    assert_eq!(tracked, 0, "finalizers are left");
    drop(running);
    server
}

/// What is counted is no more than what happened, and in the end exactly that.
fn check(status: &Value, ends: &Ends, indexed: bool, exactly: bool) {
    let n = |field: &str| status.i64_at(&[field]).unwrap_or_default();
    let ended = |succeeded: bool| ends.pods.values().filter(|(s, _)| *s == succeeded).count() as i64;
    let indexes: std::collections::BTreeSet<&str> =
        ends.pods.values().filter(|(succeeded, _)| *succeeded).map(|(_, index)| index.as_str()).collect();
    let succeeded = if indexed { indexes.len() as i64 } else { ended(true) };
    assert!(n("succeeded") <= succeeded && n("failed") <= ended(false), "{status}");
    if exactly {
        assert_eq!((n("succeeded"), n("failed")), (succeeded, ended(false)), "{status}");
        assert!(n("succeeded") >= 8 && n("active") == 0, "{status}");
    }
}

/// Ends each pod after a while, well or badly.
fn kubelet(server: &FakeServer, chance: &Env, ends: Arc<Mutex<Ends>>) -> TaskGuard {
    let (server, chance, env) = (server.clone(), chance.clone(), server.client().env().clone());
    TaskGuard::new(env.clone().spawn(async move {
        loop {
            env.sleep(Duration::from_millis(200 + chance.random_below(3000))).await;
            let pods: Vec<_> = server.list(&resources::PODS);
            let runs = |pod: &&Arc<Object>| !pod.is_deleting() && pod.to_value().str_at(&["status", "phase"]).is_none();
            let Some(pod) = pods.iter().find(runs) else { continue };
            let succeeded = chance.random_below(3) > 0;
            let index = pod.label("batch.kubernetes.io/job-completion-index").unwrap_or_default().to_owned();
            // Noted first: nobody counts what did not happen.
            ends.lock().pods.insert(pod.uid().to_owned(), (succeeded, index));
            server.edit(&resources::PODS, pod.key(), |pod| {
                pod.set(&["status", "phase"], if succeeded { "Succeeded" } else { "Failed" });
                let ready = r#"[{"type":"Ready","status":"False","lastTransitionTime":"2026-01-01T00:00:00Z"}]"#;
                pod.set(&["status", "conditions"], Value::parse(ready.as_bytes()).unwrap());
            });
        }
    }))
}

fn mischief(server: &FakeServer, chance: &Env) -> TaskGuard {
    server.react({
        let (chance, server) = (chance.clone(), server.clone());
        move |request| {
            let writes = request.method != http::Method::GET;
            match chance.random_below(100) {
                0..8 => Some(Reaction::Lose),
                8..16 if writes => Some(Reaction::LoseAnswer),
                16..20 => Some(Reaction::Refuse(apimachinery::Status::new(
                    500,
                    apimachinery::Reason::InternalError,
                    "unlucky",
                ))),
                // Somebody else writes in between.
                20..26 if writes && request.target.contains("/jobs/job") => {
                    server.get(&JOBS, &key("job"))?;
                    let n = chance.random_below(1000) as i64;
                    server.edit(&JOBS, &key("job"), |job| job.set(&["metadata", "annotations", "n"], n.to_string()));
                    None
                }
                _ => None,
            }
        }
    });
    let (server, chance, env) = (server.clone(), chance.clone(), server.client().env().clone());
    TaskGuard::new(env.clone().spawn(async move {
        loop {
            env.sleep(Duration::from_millis(chance.random_below(500))).await;
            match chance.random_below(5) {
                0 => server.compact(),
                1 => server.end_watches(),
                pick => {
                    let late = if pick == 2 { &JOBS } else { &resources::PODS };
                    server.hold_watches(late, true);
                    env.sleep(Duration::from_millis(chance.random_below(400))).await;
                    server.hold_watches(late, false);
                }
            }
        }
    }))
}
