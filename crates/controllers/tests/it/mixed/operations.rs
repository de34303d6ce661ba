//! What users and administrators do, and what they want in the end.

use super::*;

/// What users make.
pub(super) const OWNERS: [Resource; 4] =
    [resources::DEPLOYMENTS, resources::STATEFUL_SETS, resources::DAEMON_SETS, JOBS];
/// What belongs to it.
pub(super) const OWNED: [Resource; 3] = [resources::REPLICA_SETS, resources::PODS, resources::CONTROLLER_REVISIONS];

const BUDGET: &str = r#"{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"guard","namespace":"ns","generation":1},
    "spec":{"selector":{"matchLabels":{"app":"guarded"}},"minAvailable":3}}"#;

impl Run {
    /// Makes what is missing.
    pub(super) fn ask_for(&self) {
        let guarded = deployment(GUARDED, ROLLING, "v0").replace("web", "guarded");
        let wanted = [
            (resources::DEPLOYMENTS, "web", deployment(3, ROLLING, "v0")),
            (resources::DEPLOYMENTS, "guarded", guarded),
            (resources::STATEFUL_SETS, "db", stateful_set(3, CLAIMS, "v0")),
            (resources::DAEMON_SETS, "agent", daemon_set(REPLACE, "v0")),
            (resources::POD_DISRUPTION_BUDGETS, "guard", BUDGET.to_owned()),
            // It is counted before the first pod: until then nobody is refused, which upstream too finds out later.
            (
                QUOTAS,
                "q",
                format!(
                    r#"{{"apiVersion":"v1","kind":"ResourceQuota","metadata":{{"name":"q","namespace":"ns"}},"spec":{{"hard":{{"pods":"{MOST_PODS}"}}}},
                        "status":{{"hard":{{"pods":"{MOST_PODS}"}},"used":{{"pods":"0"}}}}}}"#
                ),
            ),
        ];
        for (resource, name, json) in wanted {
            if self.server.get(&resource, &key(name)).is_none() {
                // In the end it is the last that is wanted.
                let json = if self.truth.lock().ending { json.replace("\"v0\"", "\"last\"") } else { json };
                self.server.put(&resource, &json);
            }
        }
        for n in 0..6 {
            let name = format!("pv{n}");
            let key = ObjectKey::cluster(&*name);
            if self.server.get(&resources::PERSISTENT_VOLUMES, &key).is_none() {
                self.server.put(
                    &resources::PERSISTENT_VOLUMES,
                    &format!(
                        r#"{{"apiVersion":"v1","kind":"PersistentVolume","metadata":{{"name":"{name}"}},"spec":{{"capacity":{{"storage":"1Gi"}},
                        "accessModes":["ReadWriteOnce"],"persistentVolumeReclaimPolicy":"Retain","hostPath":{{"path":"/x"}}}},"status":{{"phase":"Available"}}}}"#
                    ),
                );
            }
        }
    }

    pub(super) fn ask_for_the_last(&self) {
        for (resource, name) in
            [(resources::DEPLOYMENTS, "web"), (resources::STATEFUL_SETS, "db"), (resources::DAEMON_SETS, "agent")]
        {
            self.set_image_of(&resource, name, "last");
        }
        self.scale(&resources::DEPLOYMENTS, "web", 3);
        self.scale(&resources::STATEFUL_SETS, "db", 3);
    }

    pub(super) async fn operate(&mut self, step: usize) {
        let (web, db) = (resources::DEPLOYMENTS, resources::STATEFUL_SETS);
        let pick = |run: &Run, n: usize| run.chance.random_below(n.max(1) as u64) as usize;
        match pick(self, 16) {
            0 => self.scale(&web, "web", pick(self, 6) as i64),
            1 => self.scale(&db, "db", pick(self, 5) as i64),
            2 => self.set_image_of(&web, "web", &format!("v{step}")),
            3 => self.set_image_of(&db, "db", if pick(self, 4) == 0 { "bad" } else { "better" }),
            4 => self.set_image_of(&resources::DAEMON_SETS, "agent", &format!("v{step}")),
            5 | 6 => {
                // With each policy; some are made again at once.
                let (resource, name) =
                    [(web, "web"), (db, "db"), (resources::DAEMON_SETS, "agent")][pick(self, 3)].clone();
                let policies = [Propagation::Background, Propagation::Foreground, Propagation::Orphan];
                let options = DeleteOptions::default().propagation(policies[pick(self, 3)]);
                drop(self.user.delete(&resource, &key(name), &options).await);
                if pick(self, 2) == 0 {
                    self.ask_for();
                }
            }
            7 | 8 => self.put_job(step),
            9 => {
                let jobs = self.server.list(&JOBS);
                let policies = [Propagation::Background, Propagation::Foreground];
                let options = DeleteOptions::default().propagation(policies[pick(self, 2)]);
                if let Some(job) = jobs.get(pick(self, jobs.len())) {
                    drop(self.user.delete(&JOBS, job.key(), &options).await);
                }
            }
            10 => {
                for _ in 0..3 {
                    self.evict_one().await;
                }
            }
            11 | 12 => {
                let name = NODES[1 + pick(self, NODES.len() - 1)];
                let reach = [Reach::Alive, Reach::Lost, Reach::Lost, Reach::Gone][pick(self, 4)];
                self.reach(name, reach);
                if reach == Reach::Lost {
                    // Long enough to be noticed.
                    let pause = 30 + self.chance.random_below(90);
                    Env::system().sleep(Duration::from_secs(pause)).await;
                }
            }
            13 => {
                let n = pick(self, 2);
                self.restart(n);
                if pick(self, 2) == 0 {
                    self.restart(1 - n);
                }
            }
            14 => {
                let pods = self.server.list(&resources::PODS);
                if let Some(pod) = pods.get(pick(self, pods.len())).filter(|pod| pod.label("app") != Some("guarded")) {
                    drop(self.user.delete(&resources::PODS, pod.key(), &DeleteOptions::default()).await);
                }
            }
            _ => {
                let claim = key(&format!("data-db-{}", 3 + pick(self, 2)));
                drop(self.user.delete(&resources::PERSISTENT_VOLUME_CLAIMS, &claim, &DeleteOptions::default()).await);
            }
        }
    }

    fn put_job(&self, step: usize) {
        let json = job::job(r#""completions":4,"parallelism":2,"backoffLimit":100000,"#)
            .replace(r#""name":"job""#, &format!(r#""name":"job-{step}""#))
            .replace(r#"{"job":"a"}"#, &format!(r#"{{"job":"{step}"}}"#));
        self.server.put(&JOBS, &json);
    }

    pub(super) async fn evict_one(&self) {
        let pods = self.server.list(&resources::PODS);
        let guarded: Vec<_> = pods.iter().filter(|pod| pod.label("app") == Some("guarded")).collect();
        let at = self.chance.random_below(guarded.len().max(1) as u64) as usize;
        if let Some(pod) = guarded.get(at) {
            drop(self.user.evict(pod.key(), &DeleteOptions::default()).await);
        }
    }

    /// An eviction that the budget has room for is let through.
    pub(super) async fn eviction_works(&self) {
        let before = self.truth.lock().evicted;
        for _ in 0..300 {
            self.evict_one().await;
            if self.truth.lock().evicted > before {
                return;
            }
            Env::system().sleep(Duration::from_secs(1)).await;
        }
        panic!("nothing may be evicted: {}", self.tell());
    }

    pub(super) fn reach(&self, name: &str, reach: Reach) {
        let mut truth = self.truth.lock();
        truth.nodes.insert(name.to_owned(), reach);
        let key = ObjectKey::cluster(name);
        if reach == Reach::Gone {
            truth.processes.retain(|_, (_, node)| node != name);
            self.server.remove(&resources::NODES, &key);
        } else if self.server.get(&resources::NODES, &key).is_none() {
            self.server.put(&resources::NODES, &node(name));
        }
    }

    /// What an administrator does when something is stuck, as upstream asks for.
    pub(super) fn mend(&self) {
        for pod in self.server.list(&resources::PODS) {
            if world::image(&pod.to_value()) == "bad" && !pod.is_deleting() {
                let now = format!("{:.0}", self.server.client().env().now());
                self.server
                    .edit(&resources::PODS, pod.key(), |pod| pod.set(&["metadata", "deletionTimestamp"], now.as_str()));
            }
        }
        for volume in self.server.list(&resources::PERSISTENT_VOLUMES) {
            if volume.to_value().str_at(&["status", "phase"]) == Some("Released") {
                self.server.edit(&resources::PERSISTENT_VOLUMES, volume.key(), |volume| {
                    drop(volume.remove(&["spec", "claimRef"]));
                });
            }
        }
    }

    fn edit(&self, resource: &Resource, name: &str, edit: impl FnOnce(&mut Value)) {
        if self.server.get(resource, &key(name)).is_none() {
            return;
        }
        self.server.edit(resource, &key(name), |value| {
            let before = value.get("spec").cloned();
            edit(value);
            if value.get("spec") != before.as_ref() {
                let generation = value.i64_at(&["metadata", "generation"]).unwrap();
                value.set(&["metadata", "generation"], generation + 1);
            }
        });
    }

    fn scale(&self, resource: &Resource, name: &str, replicas: i64) {
        self.edit(resource, name, |value| value.set(&["spec", "replicas"], replicas));
    }

    fn set_image_of(&self, resource: &Resource, name: &str, image: &str) {
        self.edit(resource, name, |value| {
            let containers = format!(r#"[{{"name":"c","image":"{image}"}}]"#);
            value.set(&["spec", "template", "spec", "containers"], Value::parse(containers.as_bytes()).unwrap());
        });
    }

    pub(super) fn is_complete(&self) -> bool {
        let is = |resource: &Resource, name: &str, wanted: i64, counts: &[&str]| {
            let Some(object) = self.server.get(resource, &key(name)) else { return false };
            let value = object.to_value();
            let current = value.i64_at(&["status", "observedGeneration"]) == value.i64_at(&["metadata", "generation"]);
            let count = |name: &&str| value.i64_at(&["status", name]).unwrap_or_default() == wanted;
            current && !object.is_deleting() && counts.iter().all(count)
        };
        let deployed = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
        let daemons = ["desiredNumberScheduled", "numberReady", "updatedNumberScheduled"];
        let healthy = ["currentHealthy", "expectedPods"];
        is(&resources::DEPLOYMENTS, "web", 3, &deployed)
            && is(&resources::DEPLOYMENTS, "guarded", GUARDED, &deployed)
            && is(
                &resources::STATEFUL_SETS,
                "db",
                3,
                &["replicas", "readyReplicas", "updatedReplicas", "currentReplicas"],
            )
            && is(&resources::DAEMON_SETS, "agent", NODES.len() as i64, &daemons)
            && is(&resources::POD_DISRUPTION_BUDGETS, "guard", GUARDED, &healthy)
            && self.server.list(&JOBS).iter().all(|job| !job.is_deleting() && says(job, r#""type":"Complete""#))
            && self.pods_are_right()
    }

    /// As many as asked for, of the last template, each somebody's; and counted.
    fn pods_are_right(&self) -> bool {
        let pods = self.server.list(&resources::PODS);
        let running =
            pods.iter().filter(|pod| !says(pod, r#""phase":"Succeeded""#) && !says(pod, r#""phase":"Failed""#));
        let running: Vec<_> = running.collect();
        let last = |pod: &Object| pod.label("app") == Some("guarded") || world::image(&pod.to_value()) == "last";
        running.len() as i64 == 3 + GUARDED + 3 + NODES.len() as i64
            && running.iter().all(|pod| !pod.is_deleting() && last(pod))
            && pods.iter().all(|pod| pod.controller().is_some())
            && self.used() == running.len().to_string()
    }

    /// Every pod of a Job that is left was counted once, and rightly.
    pub(super) fn check_jobs(&self) {
        let truth = self.truth.lock();
        for job in self.server.list(&JOBS) {
            let pods = truth.job_pods.values().filter(|pod| pod.job == job.uid());
            let (mut all, mut sure, mut most) = (0, 0, 0);
            for pod in pods {
                all += 1;
                sure += i64::from(pod.succeeded && !pod.deleted);
                most += i64::from(pod.succeeded);
            }
            let value = job.to_value();
            let count = |name: &str| value.i64_at(&["status", name]).unwrap_or_default();
            let (succeeded, failed) = (count("succeeded"), count("failed"));
            let right = succeeded + failed == all && (sure..=most).contains(&succeeded) && succeeded >= 4;
            assert!(
                right,
                "{} of {all} pods, {sure} to {most} succeeded: {}",
                job.name(),
                value.get("status").unwrap()
            );
        }
    }

    /// What there is, for whoever must find out what is missing.
    pub(super) fn tell(&self) -> String {
        let status = |object: &Arc<Object>| {
            let value = object.to_value();
            let parts =
                ["metadata", "spec", "status"].map(|part| value.get(part).cloned().unwrap_or_default().to_string());
            format!("\n{} {}: {} {} {}", object.kind(), object.name(), parts[0], parts[1], parts[2])
        };
        let kinds = OWNERS.into_iter().chain(OWNED).chain([
            QUOTAS,
            resources::PERSISTENT_VOLUME_CLAIMS,
            resources::PERSISTENT_VOLUMES,
            resources::NODES,
            resources::POD_DISRUPTION_BUDGETS,
        ]);
        kinds.flat_map(|kind| self.server.list(&kind)).map(|object| status(&object)).collect()
    }
}
