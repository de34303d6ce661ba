use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;

/// Rejections by plugin `X` are helped by events about pods that are called like it; pods called `gated…` are held back while `held`.
#[derive(Default)]
struct Names {
    held: Mutex<bool>,
}

impl Judge for Names {
    fn rank(&self, pod: &PodInfo) -> i64 {
        i64::from(pod.priority)
    }

    fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        (pod.uid.starts_with("gated") && *self.held.lock()).then_some("Gate")
    }

    fn helps(&self, plugin: &'static str, _: &PodInfo, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::Pod(change) => change.old.as_ref().is_some_and(|pod| pod.uid == plugin),
            ClusterEvent::Own(_) => plugin == "Own",
            _ => false,
        }
    }
}

fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
    Arc::new(PodInfo { uid: uid.into(), priority, ..PodInfo::default() })
}

fn about(plugin: &str) -> ClusterEvent {
    ClusterEvent::Pod(Change::removed(pod(plugin, 0)))
}

fn queue() -> (Queue, Arc<Names>) {
    let names = Arc::new(Names::default());
    let backoff = (Duration::from_secs(1), Duration::from_secs(10));
    (Queue::new(Env::seeded(1, Timestamp::UNIX_EPOCH), names.clone(), backoff), names)
}

async fn next_within(queue: &Queue, limit: Duration) -> Option<String> {
    tokio::time::timeout(limit, queue.next()).await.ok().map(|pod| pod.uid.clone())
}

const SOON: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn higher_priority_comes_first() {
    let (queue, names) = queue();
    *names.held.lock() = true;
    for (uid, priority) in [("a", 0), ("b", 10), ("c", 10), ("d", -1), ("gated", 100)] {
        queue.put(pod(uid, priority));
    }
    let mut order = Vec::new();
    while let Some(uid) = next_within(&queue, SOON).await {
        order.push(uid);
    }
    assert_eq!(order, ["b", "c", "a", "d"]);
    *names.held.lock() = false;
    queue.wake(&about("Other"));
    assert_eq!(next_within(&queue, SOON).await, None);
    queue.wake(&about("Gate"));
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("gated"));
}

#[tokio::test(start_paused = true)]
async fn only_helpful_events_wake() {
    let (queue, _) = queue();
    queue.put(pod("a", 0));
    queue.next().await;
    queue.failed("a", vec!["Fit"]);
    queue.wake(&about("Other"));
    assert_eq!(next_within(&queue, Duration::from_secs(20)).await, None);
    queue.wake(&about("Fit"));
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("a"));
    queue.failed("a", vec!["Fit"]);
    assert_eq!(next_within(&queue, Duration::from_secs(299)).await, None);
    assert_eq!(next_within(&queue, Duration::from_secs(2)).await.as_deref(), Some("a"));
}

/// And are counted anew after each of these.
#[tokio::test(start_paused = true)]
async fn errors_are_counted_apart_from_rejections() {
    let (queue, _) = queue();
    queue.put(pod("a", 0));
    for error in [None, None, Some(1), Some(2), None, Some(1)] {
        assert!(next_within(&queue, SOON).await.is_some());
        let Some(pause) = error else {
            // As nobody else is ready, help ends the pause.
            queue.failed("a", vec!["Fit"]);
            queue.wake(&about("Fit"));
            continue;
        };
        queue.retry("a");
        assert_eq!(next_within(&queue, Duration::from_millis(pause * 1000 - 10)).await, None);
        tokio::time::advance(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_spaced_out() {
    let (queue, _) = queue();
    queue.put(pod("a", 0));
    for pause in [1, 2, 4, 8, 10, 10] {
        assert!(next_within(&queue, SOON).await.is_some());
        queue.retry("a");
        assert_eq!(next_within(&queue, Duration::from_millis(pause * 1000 - 10)).await, None);
        tokio::time::advance(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_rests_is_tried_when_nobody_else_is_ready() {
    let (queue, _) = queue();
    queue.put(pod("a", 0));
    queue.next().await;
    queue.failed("a", vec!["Fit"]);
    queue.wake(&about("Fit"));
    queue.put(pod("b", -5));
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("b"));
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn an_event_during_the_attempt_is_not_lost() {
    let (queue, _) = queue();
    queue.put(pod("a", 0));
    queue.next().await;
    queue.wake(&about("Other"));
    queue.wake(&about("Fit"));
    queue.failed("a", vec!["Fit"]);
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("a"));
    // What came before it does not count.
    queue.failed("a", vec!["Fit"]);
    assert_eq!(next_within(&queue, Duration::from_secs(30)).await, None);
    assert!(queue.state.lock().events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pods_own_change_helps_it_alone() {
    let (queue, _) = queue();
    for uid in ["a", "b"] {
        queue.put(pod(uid, 0));
        queue.next().await;
    }
    queue.put(pod("a", 3));
    queue.failed("a", vec!["Own"]);
    queue.failed("b", vec!["Own"]);
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("a"));
    assert_eq!(next_within(&queue, SOON).await, None);
    queue.put(pod("b", 3));
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn removed_pods_do_not_come() {
    let (queue, _) = queue();
    queue.put(pod("a", 0));
    queue.put(pod("b", 0));
    queue.remove("a");
    assert_eq!(next_within(&queue, SOON).await.as_deref(), Some("b"));
    queue.remove("b");
    queue.failed("b", vec![]);
    assert!(queue.state.lock().pods.is_empty());
}

/// What the queue must do, said as simply as possible.
#[derive(Default)]
struct Model {
    /// State by pod.
    pods: BTreeMap<String, Known>,
}

#[derive(Clone, Debug, PartialEq)]
enum Known {
    Ready,
    Active {
        helped: bool,
        by: &'static str,
    },
    Backoff,
    /// Once rested, it is tried at once when it is helped.
    Waiting {
        by: &'static str,
        rested: bool,
    },
}

#[tokio::test(start_paused = true)]
async fn random_operations_agree_with_the_model() {
    const PLUGINS: [&str; 2] = ["Fit", "Ports"];
    for seed in 0..300 {
        let env = Env::seeded(seed, Timestamp::UNIX_EPOCH);
        let (queue, _) = queue();
        let mut model = Model::default();
        for _ in 0..80 {
            let uid = format!("p{}", env.random_below(5));
            let plugin = PLUGINS[env.random_below(2) as usize];
            match env.random_below(7) {
                0 => {
                    queue.put(pod(&uid, env.random_below(3) as i32));
                    model.pods.entry(uid).or_insert(Known::Ready);
                }
                1 => {
                    queue.remove(&uid);
                    model.pods.remove(&uid);
                }
                2 | 3 => {
                    let got = queue.pop().ok().map(|pod| pod.uid.clone());
                    let ready = model.pods.iter().any(|(_, known)| *known == Known::Ready);
                    let resting = model.pods.iter().any(|(_, known)| *known == Known::Backoff);
                    match &got {
                        Some(uid) => {
                            let expect = if ready { Known::Ready } else { Known::Backoff };
                            assert_eq!(model.pods[uid], expect, "seed {seed}");
                            model.pods.insert(uid.clone(), Known::Active { helped: false, by: plugin });
                        }
                        None => assert!(!ready && !resting, "seed {seed}"),
                    }
                }
                4 => {
                    let known = model.pods.get(&uid).cloned();
                    if let Some(Known::Active { helped, by }) = known {
                        queue.failed(&uid, vec![by]);
                        let next = if helped { Known::Backoff } else { Known::Waiting { by, rested: false } };
                        model.pods.insert(uid, next);
                    }
                }
                5 => {
                    queue.wake(&about(plugin));
                    for known in model.pods.values_mut() {
                        match known {
                            Known::Waiting { by, rested } if *by == plugin => {
                                *known = if *rested { Known::Ready } else { Known::Backoff };
                            }
                            Known::Active { helped, by } if *by == plugin => *helped = true,
                            _ => {}
                        }
                    }
                }
                _ => {
                    // Whoever rests is rested after this.
                    tokio::time::advance(Duration::from_secs(11)).await;
                    if let Ok(pod) = queue.pop() {
                        let known = &model.pods[&pod.uid];
                        assert!(matches!(known, Known::Ready | Known::Backoff), "seed {seed}: {known:?}");
                        model.pods.insert(pod.uid.clone(), Known::Active { helped: false, by: plugin });
                    }
                    for known in model.pods.values_mut() {
                        match known {
                            Known::Backoff => *known = Known::Ready,
                            Known::Waiting { rested, .. } => *rested = true,
                            _ => {}
                        }
                    }
                }
            }
        }
        let state = queue.state.lock();
        assert_eq!(state.pods.len(), model.pods.len(), "seed {seed}");
        let active = model.pods.values().filter(|known| matches!(known, Known::Active { .. })).count();
        assert_eq!(state.active.len(), active, "seed {seed}");
        assert!(active > 0 || state.events.is_empty(), "seed {seed}");
    }
}
