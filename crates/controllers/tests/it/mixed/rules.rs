//! What the API server decides (evictions, quotas), what must never happen, and what goes wrong on the way.

use std::collections::BTreeSet;

use apimachinery::Status;
use client::Request;
use client::fake::Reaction;

use super::*;

pub(super) fn lease() -> ObjectKey {
    ObjectKey::new("kube-system", "kube-controller-manager")
}

fn agent(request: &Request) -> &str {
    let agent = request.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    agent.split('/').next().unwrap_or_default()
}

/// Keeps the server's rules, and notes what must not happen.
pub(super) fn keep(server: &FakeServer, truth: &Arc<Mutex<Truth>>) {
    let (world, truth) = (server.clone(), truth.clone());
    let mut seen = 0;
    let told = std::env::var_os("OXIKUBE_SEED").is_some();
    server.react(move |request| {
        if told && !request.target.contains("/leases/") {
            // A run alone tells its history; the test's harness shows it if it fails.
            let (now, body) = (world.client().env().now(), String::from_utf8_lossy(&request.body));
            println!("{now:.3} {} {} {} {body:.300}", agent(request), request.method, request.target);
        }
        if request.method == http::Method::GET {
            return None;
        }
        if world.revision() != seen {
            seen = world.revision();
            look(&world, &mut truth.lock());
        }
        let path = request.target.split('?').next().unwrap_or_default();
        let by = agent(request);
        if DAEMONS.contains(&by) && !path.contains("/leases") {
            let holder = world.get(&resources::LEASES, &lease()).map(|lease| lease.to_value()).unwrap_or_default();
            if holder.str_at(&["spec", "holderIdentity"]) != Some(by) {
                truth.lock().broken.push(format!("{by} writes {path} while another leads"));
            }
        }
        match request.method {
            http::Method::POST if path.ends_with("/pods") => charge(&world, &truth, request),
            http::Method::POST if path.ends_with("/eviction") => {
                let name = path.rsplit('/').nth(1).unwrap_or_default();
                ask_budget(&world, &truth, name)
            }
            http::Method::DELETE if path.contains("/persistentvolumeclaims") && DAEMONS.contains(&by) => {
                truth.lock().broken.push(format!("{by} deletes {path}"));
                None
            }
            _ => None,
        }
    });
}

/// Notes what there is.
pub(super) fn look(world: &FakeServer, truth: &mut Truth) {
    for pod in world.list(&resources::PODS) {
        let Some(owner) = pod.controller().filter(|owner| owner.kind == "Job") else { continue };
        let job = owner.uid.clone();
        let known = truth.job_pods.entry(pod.uid().to_owned()).or_insert_with(|| JobPod { job, ..JobPod::default() });
        known.deleted |= pod.is_deleting();
    }
    let mut held = BTreeSet::new();
    for claim in world.list(&resources::PERSISTENT_VOLUME_CLAIMS) {
        let value = claim.to_value();
        let Some(volume) = value.str_at(&["spec", "volumeName"]).filter(|name| !name.is_empty()) else { continue };
        let first = truth.volumes.entry(claim.uid().to_owned()).or_insert_with(|| volume.to_owned());
        if first != volume {
            let told = format!("{} had {first} and has {volume}", claim.name());
            truth.broken.push(told);
        }
        if value.str_at(&["status", "phase"]) == Some("Bound") && !held.insert(volume.to_owned()) {
            truth.broken.push(format!("{volume} is bound twice"));
        }
    }
}

/// The quota's admission: refused, or charged in the same moment.
fn charge(world: &FakeServer, truth: &Arc<Mutex<Truth>>, request: &Request) -> Option<Reaction> {
    let resource = ::rules::quota::Resource::new("", "pods");
    let now = world.client().env().now();
    let body = Value::parse(&request.body).unwrap();
    let object = world.get(&QUOTAS, &key("q"))?;
    let quotas = [::rules::quota::Quota::read(&object.to_value())];
    let asked = ::rules::quota::Request { resource, new: &body, old: None, enforced: true, now };
    let name = body.str_at(&["metadata", "name"]).unwrap_or_default();
    if !name.is_empty() && world.get(&resources::PODS, &key(name)).is_some() {
        return None; // refused for its name, and not charged
    }
    match ::rules::quota::check(&quotas, &asked) {
        Err(why) => {
            let refused = Status::forbidden(&resources::PODS.group_resource(), name, &why);
            return Some(Reaction::Refuse(refused));
        }
        Ok(charges) => {
            for (_, used) in charges {
                let used = used.to_value();
                world.edit(&QUOTAS, &key("q"), |quota| quota.set(&["status", "used"], used));
            }
        }
    }
    let pods = world.list(&resources::PODS);
    let one = resource.usage(&body, now).get("pods");
    let counted = pods.iter().filter(|pod| resource.usage(&pod.to_value(), now).get("pods") == one).count() as i64;
    if counted + 1 > MOST_PODS {
        let names: Vec<&str> = pods.iter().map(|pod| pod.name()).collect();
        let told = format!("{now}: pod {} of {MOST_PODS} is let through besides {names:?}: {object:?}", counted + 1);
        truth.lock().broken.push(told);
    }
    None
}

fn ask_budget(world: &FakeServer, truth: &Arc<Mutex<Truth>>, name: &str) -> Option<Reaction> {
    let pod = world.get(&resources::PODS, &key(name))?;
    let is_ready = says(&pod, READY);
    let going = pod.is_deleting() || !says(&pod, r#""phase":"Running""#);
    if going || pod.label("app") != Some("guarded") {
        return None;
    }
    let budget = world.get(&resources::POD_DISRUPTION_BUDGETS, &key("guard"))?.to_value();
    let count = |name: &str| budget.i64_at(&["status", name]).unwrap_or_default();
    let allowed = count("disruptionsAllowed");
    if count("observedGeneration") < budget.i64_at(&["metadata", "generation"]).unwrap_or_default() || allowed <= 0 {
        return Some(Reaction::Refuse(Status::too_many_requests("Cannot evict pod", 0)));
    }
    let now = format!("{:.0}", world.client().env().now());
    world.edit(&resources::POD_DISRUPTION_BUDGETS, &key("guard"), |budget| {
        budget.set(&["status", "disruptionsAllowed"], allowed - 1);
        budget.set(&["status", "disruptedPods", name], now.as_str());
    });
    let pods = world.list(&resources::PODS);
    let well = pods.iter().filter(|pod| pod.label("app") == Some("guarded") && !pod.is_deleting() && says(pod, READY));
    let left = well.count() as i64 - i64::from(is_ready);
    let mut truth = truth.lock();
    truth.evicted += 1;
    if left < GUARDED_LEAST {
        truth.broken.push(format!("{name} is evicted and {left} are left: {budget}"));
    }
    None
}

/// Disturbs what daemons ask and see.
pub(super) fn mischief(server: &FakeServer, truth: &Arc<Mutex<Truth>>, seed: u64) -> TaskGuard {
    let chance = Env::seeded(seed + 100, "2026-01-01T00:00:00Z".parse().unwrap());
    server.react({
        let (chance, truth) = (chance.clone(), truth.clone());
        move |request| {
            if truth.lock().calm || !DAEMONS.contains(&agent(request)) {
                return None;
            }
            let writes = request.method != http::Method::GET;
            let refuse = |code, reason| Some(Reaction::Refuse(Status::new(code, reason, "unlucky")));
            match chance.random_below(100) {
                0..5 => Some(Reaction::Lose),
                5..10 if writes => Some(Reaction::LoseAnswer),
                10..13 => refuse(500, apimachinery::Reason::InternalError),
                13..15 => refuse(503, apimachinery::Reason::ServiceUnavailable),
                15..18 if matches!(request.method, http::Method::PUT | http::Method::PATCH) => {
                    refuse(409, apimachinery::Reason::Conflict)
                }
                _ => None,
            }
        }
    });
    let (server, truth) = (server.clone(), truth.clone());
    let env = server.client().env().clone();
    TaskGuard::new(env.clone().spawn(async move {
        let late = [resources::PODS, resources::REPLICA_SETS, JOBS, resources::PERSISTENT_VOLUME_CLAIMS, QUOTAS];
        loop {
            env.sleep(Duration::from_millis(chance.random_below(2000))).await;
            if truth.lock().calm {
                continue;
            }
            match chance.random_below(6) {
                0 => server.compact(),
                1 => server.end_watches(),
                pick => {
                    let late = if pick == 2 { &late[chance.random_below(5) as usize] } else { &late[0] };
                    server.hold_watches(late, true);
                    env.sleep(Duration::from_millis(chance.random_below(400))).await;
                    server.hold_watches(late, false);
                }
            }
        }
    }))
}
