use super::*;

pub const JOBS: Resource = Resource::namespaced("batch", "v1", "jobs");
pub const CRON_JOBS: Resource = Resource::namespaced("batch", "v1", "cronjobs");
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// A Job named `job` whose spec has these members besides selector and template.
pub fn job(spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"batch/v1","kind":"Job","metadata":{{"name":"job","namespace":"ns","generation":1}},"spec":{{{spec}
        "selector":{{"matchLabels":{{"job":"a"}}}},"template":{{"metadata":{{"labels":{{"job":"a"}}}},"spec":{{"restartPolicy":"Never",
        "containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
    )
}

impl Cluster {
    fn put_job(&self, spec: &str) {
        self.put(&JOBS, &job(spec));
    }

    pub fn job_status(&self) -> Value {
        self.value(&JOBS, "job").get("status").cloned().unwrap_or_default()
    }

    fn count(&self, field: &str) -> i64 {
        self.job_status().i64_at(&[field]).unwrap_or_default()
    }

    fn text(&self, field: &str) -> String {
        self.job_status().str_at(&[field]).unwrap_or_default().to_owned()
    }

    /// Type and reason of the true conditions, in order.
    fn conditions(&self) -> Vec<(String, String)> {
        let status = self.job_status();
        let held = status.items_at(&["conditions"]).iter().filter(|c| c.str_at(&["status"]) == Some("True"));
        let text = |condition: &Value, key: &str| condition.str_at(&[key]).unwrap_or_default().to_owned();
        held.map(|condition| (text(condition, "type"), text(condition, "reason"))).collect()
    }

    fn message(&self) -> String {
        let status = self.job_status();
        status.items_at(&["conditions"]).last().and_then(|c| c.str_at(&["message"])).unwrap_or_default().to_owned()
    }

    /// The pods that have not ended.
    fn running(&self) -> Vec<Arc<Object>> {
        let runs = |pod: &Arc<Object>| {
            let phase = pod.to_value().str_at(&["status", "phase"]).unwrap_or_default().to_owned();
            !pod.is_deleting() && phase != "Succeeded" && phase != "Failed"
        };
        self.server.list(&resources::PODS).into_iter().filter(runs).collect()
    }

    async fn runs(&self, n: usize) -> Vec<Arc<Object>> {
        eventually(&format!("{n} pods"), || self.running().len() == n).await;
        self.running()
    }

    fn end(&self, pod: &Object, code: i64) {
        let now = format!("{:.0}", self.server.client().env().now());
        self.server.edit(&resources::PODS, pod.key(), |pod| {
            pod.set(&["status", "phase"], if code == 0 { "Succeeded" } else { "Failed" });
            let ended = format!(r#"[{{"name":"c","image":"","imageID":"","ready":false,"restartCount":0,"state":{{"terminated":{{"exitCode":{code},"finishedAt":"{now}"}}}}}}]"#);
            pod.set(&["status", "containerStatuses"], Value::parse(ended.as_bytes()).unwrap());
        });
    }

    async fn ends(&self, r#type: &str) {
        let held = || self.conditions().iter().any(|(held, _)| held == r#type);
        let wait = async {
            while !held() {
                Env::system().sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(7200), wait).await;
        assert!(ended.is_ok(), "never {type}: {:?}", self.job_status());
        let tracked = |pod: &Arc<Object>| pod.has_finalizers();
        assert_eq!(
            self.server.list(&resources::PODS).iter().filter(|pod| tracked(pod)).count(),
            0,
            "no finalizer is left"
        );
    }
}

fn index(pod: &Object) -> String {
    pod.label("batch.kubernetes.io/job-completion-index").unwrap_or_default().to_owned()
}

fn pairs(expect: &[(&str, &str)]) -> Vec<(String, String)> {
    expect.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_pods_until_enough_succeeded() {
    let cluster = Cluster::start();
    cluster.put_job(r#""completions":3,"parallelism":2,"#);
    let pods = cluster.runs(2).await;
    assert!(
        pods.iter().all(|pod| pod.name().starts_with("job-") && pod.has_finalizers() && pod.controller().is_some())
    );
    eventually("they are counted", || cluster.count("active") == 2).await;
    assert_eq!(cluster.job_status().i64_at(&["ready"]), Some(0));
    assert!(cluster.job_status().str_at(&["startTime"]).is_some());
    // A pod that fails is replaced, after a pause.
    cluster.end(&pods[0], 1);
    cluster.end(&pods[1], 0);
    eventually("they are counted", || cluster.count("succeeded") == 1 && cluster.count("failed") == 1).await;
    for pod in cluster.runs(2).await {
        cluster.end(&pod, 0);
    }
    cluster.ends("Complete").await;
    assert_eq!(
        cluster.conditions(),
        pairs(&[("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")])
    );
    assert_eq!((cluster.count("succeeded"), cluster.count("failed"), cluster.count("active")), (3, 1, 0));
    assert!(cluster.job_status().str_at(&["completionTime"]).is_some());
    assert_eq!(cluster.job_status().at(&["uncountedTerminatedPods"]), Some(&Value::object()));
    eventually("it is told", || cluster.events("Completed") == ["Job completed"]).await;
    assert_eq!(cluster.events("SuccessfulCreate").len(), 4);
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_always_fails_gives_up() {
    let cluster = Cluster::start();
    cluster.put_job(r#""completions":1,"parallelism":1,"backoffLimit":3,"#);
    let env = Env::system();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let pod = cluster.runs(1).await.remove(0);
        let ended = env.monotonic();
        cluster.end(&pod, 1);
        let wait = async {
            while cluster.running().is_empty() && cluster.conditions().is_empty() {
                env.sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1000), wait).await.unwrap();
        pauses.push((env.monotonic() - ended).as_secs());
    }
    assert_eq!(pauses[..3].iter().map(|pause| pause / 10 * 10).collect::<Vec<_>>(), [10, 20, 40], "{pauses:?}");
    cluster.ends("Failed").await;
    assert_eq!(
        cluster.conditions(),
        pairs(&[("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")])
    );
    assert_eq!(cluster.message(), "Job has reached the specified backoff limit");
    assert_eq!(cluster.count("failed"), 4);
    eventually("it is told", || !cluster.events("BackoffLimitExceeded").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn indexes_are_handed_out() {
    let cluster = Cluster::start();
    cluster.put_job(r#""completionMode":"Indexed","completions":4,"parallelism":4,"#);
    let pods = cluster.runs(4).await;
    let pod = pods.iter().find(|pod| index(pod) == "2").unwrap();
    let value = pod.to_value();
    assert!(pod.name().starts_with("job-2-"));
    assert_eq!(value.str_at(&["spec", "hostname"]), Some("job-2"));
    assert_eq!(value.str_at(&["metadata", "annotations", "batch.kubernetes.io/job-completion-index"]), Some("2"));
    let variable = &value.items_at(&["spec", "containers"])[0].items_at(&["env"])[0];
    assert_eq!(variable.str_at(&["name"]), Some("JOB_COMPLETION_INDEX"));
    for pod in pods.iter().filter(|pod| index(pod) != "1") {
        cluster.end(pod, 0);
    }
    eventually("they are counted", || cluster.text("completedIndexes") == "0,2,3").await;
    assert_eq!(cluster.count("succeeded"), 3);
    // It shrinks, and one that succeeded no longer counts.
    cluster.server.edit(&JOBS, &key("job"), |job| {
        job.set(&["spec", "completions"], 3);
        job.set(&["spec", "parallelism"], 3);
        job.set(&["metadata", "generation"], 2);
    });
    eventually("the last one is out", || cluster.text("completedIndexes") == "0,2").await;
    cluster.end(pods.iter().find(|pod| index(pod) == "1").unwrap(), 0);
    cluster.ends("Complete").await;
    assert_eq!((cluster.text("completedIndexes").as_str(), cluster.count("succeeded")), ("0-2", 3));
}

#[tokio::test(start_paused = true)]
async fn each_index_may_fail_so_often() {
    let cluster = Cluster::start();
    cluster.put_job(
        r#""completionMode":"Indexed","completions":2,"parallelism":2,"backoffLimit":2147483647,"backoffLimitPerIndex":1,"#,
    );
    let mut failures = Vec::new();
    for _ in 0..2 {
        eventually("index 1 runs", || cluster.running().iter().any(|pod| index(pod) == "1")).await;
        let pod = cluster.running().into_iter().find(|pod| index(pod) == "1").unwrap();
        let count = ["metadata", "annotations", "batch.kubernetes.io/job-index-failure-count"];
        failures.push(pod.to_value().str_at(&count).unwrap_or_default().to_owned());
        cluster.end(&pod, 1);
    }
    assert_eq!(failures, ["0", "1"]);
    eventually("it has failed", || cluster.text("failedIndexes") == "1").await;
    let other = cluster.runs(1).await.remove(0);
    cluster.end(&other, 0);
    cluster.ends("Failed").await;
    assert_eq!(cluster.conditions(), pairs(&[("FailureTarget", "FailedIndexes"), ("Failed", "FailedIndexes")]));
    assert_eq!(cluster.message(), "Job has failed indexes");
    assert_eq!((cluster.text("completedIndexes").as_str(), cluster.text("failedIndexes").as_str()), ("0", "1"));
    assert_eq!((cluster.count("failed"), cluster.count("succeeded")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_policy_decides() {
    let cluster = Cluster::start();
    cluster.put_job(
        r#""completions":2,"parallelism":1,"backoffLimit":0,"podFailurePolicy":{"rules":[
            {"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget","status":"True"}]},
            {"action":"Ignore","onExitCodes":{"operator":"In","values":[7]}},
            {"action":"FailJob","onExitCodes":{"containerName":"c","operator":"NotIn","values":[0,1]}}]},"#,
    );
    let pod = cluster.runs(1).await.remove(0);
    cluster.end(&pod, 7);
    let pod = cluster.runs(1).await.remove(0);
    cluster.server.edit(&resources::PODS, pod.key(), |pod| {
        let condition = r#"[{"type":"DisruptionTarget","status":"True"}]"#;
        pod.set(&["status", "conditions"], Value::parse(condition.as_bytes()).unwrap());
    });
    cluster.end(&pod, 42);
    let pod = cluster.runs(1).await.remove(0);
    assert_eq!(cluster.count("failed"), 0);
    cluster.end(&pod, 42);
    cluster.ends("Failed").await;
    assert_eq!(cluster.conditions(), pairs(&[("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")]));
    let why =
        format!("Container c for pod ns/{} failed with exit code 42 matching FailJob rule at index 2", pod.name());
    assert_eq!(cluster.message(), why);
    eventually("it is told", || cluster.events("PodFailurePolicy") == [why.clone()]).await;
}

#[tokio::test(start_paused = true)]
async fn a_success_policy_ends_the_rest() {
    let cluster = Cluster::start();
    cluster.put_job(
        r#""completionMode":"Indexed","completions":4,"parallelism":4,"successPolicy":{"rules":[{"succeededIndexes":"1-3","succeededCount":2}]},"#,
    );
    for pod in cluster.runs(4).await.iter().filter(|pod| matches!(&*index(pod), "0" | "1" | "3")) {
        cluster.end(pod, 0);
    }
    cluster.ends("Complete").await;
    assert_eq!(cluster.conditions(), pairs(&[("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")]));
    assert_eq!(cluster.message(), "Matched rules at index 0");
    assert_eq!(cluster.text("completedIndexes"), "0,1,3");
    assert!(cluster.running().is_empty());
    assert_eq!(cluster.count("failed"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_suspended_and_resumed() {
    let cluster = Cluster::start();
    cluster.put_job(r#""suspend":true,"activeDeadlineSeconds":60,"#);
    eventually("it is suspended", || !cluster.conditions().is_empty()).await;
    assert_eq!(cluster.conditions(), pairs(&[("Suspended", "JobSuspended")]));
    assert_eq!((cluster.running().len(), cluster.text("startTime")), (0, String::new()));
    sleep(100).await;
    let suspend = |suspend: bool| {
        cluster.server.edit(&JOBS, &key("job"), |job| {
            job.set(&["spec", "suspend"], suspend);
            let generation = job.i64_at(&["metadata", "generation"]).unwrap_or_default();
            job.set(&["metadata", "generation"], generation + 1);
        });
    };
    suspend(false);
    cluster.runs(1).await;
    eventually("it is told", || cluster.events("Resumed") == ["Job resumed"]).await;
    let first = cluster.text("startTime");
    sleep(10).await;
    suspend(true);
    cluster.runs(0).await;
    eventually("nothing is active", || cluster.count("active") == 0).await;
    assert_eq!(cluster.count("failed"), 0, "nothing went wrong");
    sleep(10).await;
    suspend(false);
    let pod = cluster.runs(1).await.remove(0);
    eventually("it begins anew", || cluster.text("startTime") > first).await;
    // Now the deadline runs anew; one that had passed during the pause would have been told at once, as upstream tells it.
    sleep(40).await;
    assert_eq!(cluster.conditions(), []);
    cluster.ends("Failed").await;
    assert_eq!(cluster.conditions(), pairs(&[("FailureTarget", "DeadlineExceeded"), ("Failed", "DeadlineExceeded")]));
    assert_eq!(cluster.message(), "Job was active longer than specified deadline");
    assert!(cluster.server.get(&resources::PODS, pod.key()).is_none());
}

#[tokio::test(start_paused = true)]
async fn parallelism_changes() {
    let cluster = Cluster::start();
    cluster.put_job(r#""completions":10,"parallelism":2,"#);
    cluster.runs(2).await;
    for (generation, parallelism) in [(2, 5), (3, 1), (4, 0)] {
        cluster.server.edit(&JOBS, &key("job"), |job| {
            job.set(&["spec", "parallelism"], parallelism);
            job.set(&["metadata", "generation"], generation);
        });
        cluster.runs(parallelism as usize).await;
    }
    eventually("all is told", || cluster.count("active") == 0).await;
    assert_eq!((cluster.count("failed"), cluster.events("SuccessfulDelete").len()), (0, 5));
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_replaced_at_once_or_when_it_has_ended() {
    for (policy, waits) in [("TerminatingOrFailed", false), ("Failed", true)] {
        let cluster = Cluster::start();
        let _alive = cluster.put_node("n1");
        cluster.put_job(&format!(r#""podReplacementPolicy":"{policy}","#));
        let pod = cluster.runs(1).await.remove(0);
        cluster.server.edit(&resources::PODS, pod.key(), |pod| {
            pod.set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
            pod.set(&["spec", "nodeName"], "n1");
        });
        sleep(60).await;
        assert_eq!(cluster.running().is_empty(), waits, "{policy}");
        assert_eq!(cluster.count("failed"), i64::from(!waits), "{policy}");
        if waits {
            assert_eq!(cluster.count("terminating"), 1);
            cluster.server.edit(&resources::PODS, pod.key(), |pod| pod.set(&["status", "phase"], "Failed"));
            cluster.runs(1).await;
            assert_eq!(cluster.count("failed"), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_goes_when_its_time_is_up() {
    let cluster = Cluster::start();
    cluster.put_job(r#""ttlSecondsAfterFinished":100,"#);
    let pod = cluster.runs(1).await.remove(0);
    cluster.end(&pod, 0);
    cluster.ends("Complete").await;
    sleep(95).await;
    assert!(cluster.server.get(&JOBS, &key("job")).is_some());
    // The garbage collector, which runs here too, takes the pod first.
    eventually("it is gone", || cluster.server.get(&JOBS, &key("job")).is_none()).await;
    assert!(cluster.server.get(&resources::PODS, pod.key()).is_none());
}

#[tokio::test(start_paused = true)]
async fn pods_without_a_job_lose_the_finalizer() {
    let cluster = Cluster::start();
    cluster.put_job(r#""parallelism":2,"completions":2,"#);
    let pods = cluster.runs(2).await;
    cluster.server.remove(&JOBS, &key("job"));
    let tracked = || cluster.server.list(&resources::PODS).iter().any(|pod| pod.has_finalizers());
    eventually("the finalizers go", || !tracked()).await;
    // One that somebody made an orphan of.
    cluster.put(
        &resources::PODS,
        &format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p","namespace":"ns","finalizers":["x/y","{FINALIZER}"]}},"spec":{{"containers":[]}}}}"#
        ),
    );
    let left = || cluster.value(&resources::PODS, "p").items_at(&["metadata", "finalizers"]).to_vec();
    eventually("its finalizer goes", || left().len() == 1).await;
    drop(pods);
}

#[tokio::test(start_paused = true)]
async fn pods_are_adopted_and_released_with_their_finalizer() {
    let cluster = Cluster::start();
    cluster.put(
        &resources::PODS,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"mine","namespace":"ns","labels":{"job":"a"}},"spec":{"containers":[]}}"#,
    );
    cluster.put_job(r#""parallelism":2,"completions":2,"#);
    eventually("one is adopted, one made", || cluster.owned(&resources::PODS, "job").len() == 2).await;
    assert!(cluster.server.get(&resources::PODS, &key("mine")).unwrap().has_finalizers());
    cluster.server.edit(&resources::PODS, &key("mine"), |pod| pod.set(&["metadata", "labels", "job"], "b"));
    eventually("it is released", || !cluster.server.get(&resources::PODS, &key("mine")).unwrap().has_finalizers())
        .await;
    eventually("and replaced", || cluster.owned(&resources::PODS, "job").len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_manage_is_left_alone() {
    let cluster = Cluster::start();
    cluster.put_job(r#""managedBy":"example.com/mine","#);
    sleep(60).await;
    assert!(cluster.running().is_empty() && cluster.job_status().is_null());
}

#[tokio::test(start_paused = true)]
async fn refused_pods_are_asked_for_ever_more_rarely() {
    let cluster = Cluster::start();
    cluster.server.react(|request| {
        let makes = request.method == http::Method::POST && request.target.contains("/pods");
        let pods = apimachinery::GroupResource::new("", "pods");
        makes.then(|| client::fake::Reaction::Refuse(apimachinery::Status::forbidden(&pods, "x", "exceeded quota")))
    });
    cluster.put_job("");
    sleep(600).await;
    let told = cluster.server.writes().len();
    assert!(told < 60, "{told} writes in ten minutes");
    assert_eq!(cluster.events("FailedCreate"), ["Error creating: pods \"x\" is forbidden: exceeded quota"]);
}
