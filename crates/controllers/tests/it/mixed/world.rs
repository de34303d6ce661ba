//! Nodes: a scheduler and kubelets that know which process runs where, whatever the objects say.

use super::*;

pub(super) fn image(pod: &Value) -> String {
    let image = pod.items_at(&["spec", "containers"]).first().and_then(|container| container.str_at(&["image"]));
    image.unwrap_or_default().to_owned()
}

/// Nodes that can be reached say so.
pub(super) fn heartbeats(server: &FakeServer, truth: &Arc<Mutex<Truth>>) -> TaskGuard {
    let (server, truth) = (server.clone(), truth.clone());
    let env = server.client().env().clone();
    TaskGuard::new(env.clone().spawn(async move {
        loop {
            for name in NODES {
                if truth.lock().nodes.get(name) == Some(&Reach::Alive) {
                    node::report(&server, name);
                }
            }
            env.sleep(Duration::from_secs(10)).await;
        }
    }))
}

struct Kubelets {
    server: FakeServer,
    truth: Arc<Mutex<Truth>>,
    chance: Env,
}

pub(super) fn kubelets(server: &FakeServer, truth: &Arc<Mutex<Truth>>, seed: u64) -> TaskGuard {
    let chance = Env::seeded(seed + 9000, "2026-01-01T00:00:00Z".parse().unwrap());
    let kubelets = Kubelets { server: server.clone(), truth: truth.clone(), chance };
    let client = server.client().with_user_agent("kubelet/1");
    let env = client.env().clone();
    TaskGuard::new(env.clone().spawn(async move {
        loop {
            let pause = if kubelets.truth.lock().idle { 5000 } else { 50 + kubelets.chance.random_below(300) };
            env.sleep(Duration::from_millis(pause)).await;
            for (key, uid) in kubelets.look() {
                drop(client.delete(&resources::PODS, &key, &DeleteOptions::uid(uid).grace(0)).await);
            }
        }
    }))
}

impl Kubelets {
    /// One look at every pod; hands back those that ended and are to go.
    fn look(&self) -> Vec<(ObjectKey, String)> {
        let pods = self.server.list(&resources::PODS);
        let truth = &mut *self.truth.lock();
        rules::look(&self.server, truth);
        let alive = |truth: &Truth, node: &str| truth.nodes.get(node) == Some(&Reach::Alive);
        // What has no pod any more is ended where that can be heard.
        let nodes = truth.nodes.clone();
        truth.processes.retain(|uid, (_, node)| {
            pods.iter().any(|pod| pod.uid() == uid) || nodes.get(node.as_str()) != Some(&Reach::Alive)
        });
        let mut ended = Vec::new();
        for pod in pods {
            let value = pod.to_value();
            let Some(node) = value.str_at(&["spec", "nodeName"]) else {
                if !pod.is_deleting() && self.one_in(2) {
                    self.schedule(&pod, &value, truth);
                }
                continue;
            };
            if !alive(truth, node) {
                continue;
            }
            let phase = value.str_at(&["status", "phase"]).unwrap_or_default();
            let has_ended = matches!(phase, "Succeeded" | "Failed");
            let calm = truth.ending || pod.label("app") == Some("guarded");
            if pod.is_deleting() {
                if self.one_in(3) {
                    if !has_ended {
                        self.end(&pod, false, truth);
                    }
                    truth.processes.remove(pod.uid());
                    ended.push((pod.key().clone(), pod.uid().to_owned()));
                }
            } else if phase.is_empty() {
                if self.one_in(2) {
                    self.run(&pod, node, image(&value) != "bad", truth);
                }
            } else if !has_ended && pod.label("job-name").is_some() | says(&pod, r#""kind":"Job""#) {
                if self.one_in(6) {
                    self.end(&pod, !self.one_in(5), truth);
                }
            } else if says(&pod, READY) {
                if !calm && self.one_in(300) {
                    if self.one_in(2) {
                        self.end(&pod, false, truth)
                    } else {
                        set_ready(&self.server, pod.key(), false)
                    }
                }
            } else if !has_ended && image(&value) != "bad" && (calm || self.one_in(4)) {
                set_ready(&self.server, pod.key(), true);
            }
        }
        ended
    }

    fn one_in(&self, n: u64) -> bool {
        self.chance.random_below(n) == 0
    }

    fn schedule(&self, pod: &Object, value: &Value, truth: &Truth) {
        let claims = value.items_at(&["spec", "volumes"]).iter();
        let mut claims = claims.filter_map(|volume| volume.str_at(&["persistentVolumeClaim", "claimName"]));
        let bound = |name: &str| {
            let claim = self.server.get(&resources::PERSISTENT_VOLUME_CLAIMS, &key(name));
            claim.is_some_and(|claim| !claim.is_deleting() && says(&claim, r#""phase":"Bound""#))
        };
        if !claims.all(bound) {
            return;
        }
        let node = if pod.controller().is_some_and(|owner| owner.kind == "DaemonSet") {
            super::super::daemon_set::target(value)
        } else if pod.label("app") == Some("guarded") {
            NODES[0].to_owned()
        } else {
            let fits = |name: &&&str| {
                let node = self.server.get(&resources::NODES, &ObjectKey::cluster(**name));
                truth.nodes.get(**name) == Some(&Reach::Alive)
                    && node.is_some_and(|node| !says(&node, r#""taints":[{"#))
            };
            let nodes: Vec<_> = NODES.iter().filter(fits).collect();
            let Some(node) = nodes.get(self.chance.random_below(nodes.len().max(1) as u64) as usize) else { return };
            (**node).to_owned()
        };
        self.server.edit(&resources::PODS, pod.key(), |pod| pod.set(&["spec", "nodeName"], &node));
    }

    fn run(&self, pod: &Object, node: &str, ready: bool, truth: &mut Truth) {
        if pod.name().starts_with("db-")
            && let Some((_, (_, other))) = truth.processes.iter().find(|(_, (name, _))| name == pod.name())
        {
            let told = format!("{} runs on {other} and begins to on {node}", pod.name());
            truth.broken.push(told);
        }
        truth.processes.insert(pod.uid().to_owned(), (pod.name().to_owned(), node.to_owned()));
        let now = format!("{:.0}", self.server.client().env().now());
        self.server.edit(&resources::PODS, pod.key(), |pod| {
            pod.set(&["status", "phase"], "Running");
            pod.set(&["status", "podIP"], "10.0.0.1");
            pod.set(&["status", "startTime"], &now);
            let ready = if ready { "True" } else { "False" };
            let condition = format!(r#"[{{"type":"Ready","status":"{ready}","lastTransitionTime":"{now}"}}]"#);
            pod.set(&["status", "conditions"], Value::parse(condition.as_bytes()).unwrap());
        });
    }

    fn end(&self, pod: &Object, succeeded: bool, truth: &mut Truth) {
        truth.processes.remove(pod.uid());
        if let Some(known) = truth.job_pods.get_mut(pod.uid()) {
            known.succeeded = succeeded;
        }
        set_ready(&self.server, pod.key(), false);
        self.server.edit(&resources::PODS, pod.key(), |pod| {
            pod.set(&["status", "phase"], if succeeded { "Succeeded" } else { "Failed" });
        });
    }
}
