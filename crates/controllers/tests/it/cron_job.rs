use super::job::{CRON_JOBS, JOBS};
use super::*;

/// A CronJob named `cron` whose spec has these members besides the template.
fn cron_job(spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"batch/v1","kind":"CronJob","metadata":{{"name":"cron","namespace":"ns","generation":1}},"spec":{{{spec},
        "successfulJobsHistoryLimit":2,"failedJobsHistoryLimit":1,
        "jobTemplate":{{"metadata":{{"labels":{{"x":"y"}},"annotations":{{"k":"v"}}}},"spec":{{"suspend":true,"selector":{{"matchLabels":{{"job":"a"}}}},
        "template":{{"metadata":{{"labels":{{"job":"a"}}}},"spec":{{"containers":[]}}}}}}}}}}}}"#
    )
}

impl Cluster {
    fn put_cron_job(&self, spec: &str) {
        self.put(&CRON_JOBS, &cron_job(spec));
    }

    fn job_names(&self) -> Vec<String> {
        self.server.list(&JOBS).iter().map(|job| job.name().to_owned()).collect()
    }

    fn cron_status(&self) -> Value {
        self.value(&CRON_JOBS, "cron").get("status").cloned().unwrap_or_default()
    }

    fn active(&self) -> Vec<String> {
        let status = self.cron_status();
        let name = |active: &Value| active.str_at(&["name"]).unwrap_or_default().to_owned();
        status.items_at(&["active"]).iter().map(name).collect()
    }

    fn end_job(&self, name: &str, end: &str) {
        let now = format!("{:.0}", self.server.client().env().now());
        self.server.edit(&JOBS, &key(name), |job| {
            let conditions = format!(r#"[{{"type":"{end}","status":"True","lastTransitionTime":"{now}"}}]"#);
            job.set(&["status", "conditions"], Value::parse(conditions.as_bytes()).unwrap());
            job.set(&["status", "startTime"], now.as_str());
            job.set(&["status", "completionTime"], now.as_str());
        });
    }
}

/// The minute that the clock of tests begins with.
const START: u64 = 29_453_760;

fn names(minutes: &[u64]) -> Vec<String> {
    minutes.iter().map(|minute| format!("cron-{}", START + minute)).collect()
}

#[tokio::test(start_paused = true)]
async fn jobs_are_made_on_time() {
    let cluster = Cluster::start();
    cluster.put_cron_job(r#""schedule":"*/2 * * * *","timeZone":"Asia/Kolkata""#);
    sleep(119).await;
    assert_eq!(cluster.job_names(), names(&[]));
    sleep(2).await;
    assert_eq!(cluster.job_names(), names(&[2]));
    let job = cluster.server.list(&JOBS)[0].clone();
    assert_eq!((job.label("x"), job.controller().map(|owner| owner.name.as_str())), (Some("y"), Some("cron")));
    let at = ["metadata", "annotations", "batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(job.to_value().str_at(&at), Some("2026-01-01T05:32:00+05:30"));
    assert_eq!(cluster.active(), names(&[2]));
    assert_eq!(cluster.cron_status().str_at(&["lastScheduleTime"]), Some("2026-01-01T00:02:00Z"));
    cluster.end_job(job.name(), "Complete");
    eventually("it is noted", || cluster.active().is_empty()).await;
    assert_eq!(cluster.cron_status().str_at(&["lastSuccessfulTime"]), Some("2026-01-01T00:02:01Z"));
    sleep(1).await;
    let end = format!("Saw completed job: {}, condition: Complete", job.name());
    assert_eq!(cluster.events("SawCompletedJob"), [end]);
    // The oldest go.
    for minute in [4, 6, 8, 10] {
        sleep(120).await;
        let name = names(&[minute]).remove(0);
        eventually("it starts", || cluster.job_names().contains(&name)).await;
        cluster.end_job(&name, if minute < 8 { "Failed" } else { "Complete" });
    }
    sleep(10).await;
    assert_eq!(cluster.job_names(), names(&[6, 8, 10].map(|m| m)), "two that succeeded, one that failed");
}

/// The time of a start is told in the CronJob's own zone, which may not be its schedule's.
#[tokio::test(start_paused = true)]
async fn a_schedule_may_name_its_zone() {
    let cluster = Cluster::start();
    cluster.put_cron_job(r#""schedule":"TZ=Asia/Kolkata 32 5 * * *""#);
    sleep(121).await;
    assert_eq!(cluster.job_names(), names(&[2]));
    let at = ["metadata", "annotations", "batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(cluster.server.list(&JOBS)[0].to_value().str_at(&at), Some("2026-01-01T00:02:00Z"));
    assert_eq!(cluster.events("UnsupportedSchedule").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn several_at_once_or_not() {
    for (policy, after_two, after_three) in
        [("Allow", &[1, 2][..], &[1, 2, 3][..]), ("Forbid", &[1], &[1]), ("Replace", &[2], &[3])]
    {
        let cluster = Cluster::start();
        cluster.put_cron_job(&format!(r#""schedule":"* * * * *","concurrencyPolicy":"{policy}""#));
        sleep(121).await;
        assert_eq!(cluster.job_names(), names(after_two), "{policy}");
        sleep(60).await;
        assert_eq!((cluster.job_names(), cluster.active()), (names(after_three), names(after_three)), "{policy}");
        // One that was held up starts as soon as it may.
        if policy == "Forbid" {
            assert!(cluster.events("JobAlreadyActive").len() == 1);
            cluster.end_job(&names(&[1])[0], "Complete");
            eventually("the last one starts", || cluster.job_names() == names(&[1, 3])).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn missed_starts_are_made_up_for_unless_too_late() {
    let check = async |spec: &str, minutes: &[u64], event: &str| {
        let cluster = Cluster::start();
        // The clock begins when it is first looked at.
        cluster.server.client().env().now();
        sleep(150 * 60 + 30).await;
        let mut value = Value::parse(cron_job(&format!(r#""schedule":"* * * * *"{spec}"#)).as_bytes()).unwrap();
        value.set(&["metadata", "creationTimestamp"], "2026-01-01T00:00:00Z");
        cluster.server.put_value(&CRON_JOBS, value);
        sleep(5).await;
        assert_eq!(cluster.job_names(), names(minutes), "{spec}");
        assert_eq!(cluster.events("TooManyMissedTimes").len(), usize::from(event == "TooManyMissedTimes"), "{spec}");
    };
    check("", &[150], "TooManyMissedTimes").await;
    check(r#","startingDeadlineSeconds":200"#, &[150], "").await;
    check(r#","startingDeadlineSeconds":20"#, &[], "").await;
    check(r#","suspend":true"#, &[], "").await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_schedule_makes_up_for_nothing() {
    let cluster = Cluster::start();
    cluster.put_cron_job(r#""schedule":"0 12 * * *""#);
    sleep(3600).await;
    cluster.server.edit(&CRON_JOBS, &key("cron"), |cron| cron.set(&["spec", "schedule"], "*/50 * * * *"));
    sleep(49 * 60).await;
    assert_eq!(cluster.job_names(), names(&[]));
    sleep(60 + 1).await;
    assert_eq!(cluster.job_names(), names(&[110]));
}

#[tokio::test(start_paused = true)]
async fn unexpected_and_missing_jobs_are_told() {
    let cluster = Cluster::start();
    cluster.put_cron_job(r#""schedule":"* * * * *""#);
    sleep(61).await;
    cluster.server.remove(&JOBS, &key(&names(&[1])[0]));
    sleep(1).await;
    assert_eq!(cluster.active(), names(&[]));
    let missing = format!("Active job went missing: {}", names(&[1])[0]);
    eventually("it is told", || cluster.events("MissingJob") == [missing.clone()]).await;
    let mut job = cluster.server.get(&CRON_JOBS, &key("cron")).unwrap().to_value();
    let uid = job.str_at(&["metadata", "uid"]).unwrap().to_owned();
    job = Value::parse(
        format!(
            r#"{{"apiVersion":"batch/v1","kind":"Job","metadata":{{"name":"mine","namespace":"ns","ownerReferences":[{{"apiVersion":"batch/v1",
            "kind":"CronJob","name":"cron","uid":"{uid}","controller":true}}]}},"spec":{{"suspend":true,"selector":{{"matchLabels":{{"job":"a"}}}}}}}}"#
        )
        .as_bytes(),
    )
    .unwrap();
    cluster.server.put_value(&JOBS, job);
    let told = || cluster.events("UnexpectedJob") == ["Saw a job that the controller did not create or forgot: mine"];
    eventually("it is told", told).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_interrupted_before_its_status_is_not_made_twice() {
    let cluster = Cluster::start();
    let mut failures = 5;
    cluster.server.react(move |request| {
        if !request.target.ends_with("/cronjobs/cron/status") || failures == 0 {
            return None;
        }
        failures -= 1;
        Some(client::fake::Reaction::Lose)
    });
    cluster.put_cron_job(r#""schedule":"* * * * *""#);
    sleep(70).await;
    assert_eq!((cluster.job_names(), cluster.active()), (names(&[1]), names(&[1])));
    assert_eq!(cluster.cron_status().str_at(&["lastScheduleTime"]), Some("2026-01-01T00:01:00Z"));
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_never_fires_is_looked_at_once() {
    let cluster = Cluster::start();
    cluster.put_cron_job(r#""schedule":"59 23 31 2 *""#);
    sleep(600).await;
    let why = "invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second";
    assert_eq!(cluster.events("InvalidSchedule"), [why]);
    assert_eq!(cluster.server.writes().len(), 1, "{:?}", cluster.server.writes());
}
