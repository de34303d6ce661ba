//! Jobs, CronJobs, quotas and limit ranges, with the real kubectl.

mod quotas;

use std::time::Duration;

use testkit::machine::Machine;

use crate::support::{SOON, Step, every, jsonpath, load_images, started};

const IMAGE: &str = "oxikube.local/busybox:1";
/// Back-off makes a failing Job slow.
const LATER: Duration = Duration::from_secs(120);

#[test]
fn work_that_ends_and_limits() {
    let machine = started("jobs");
    load_images(&machine);
    let steps: [Step; 7] = [
        ("a_job_completes", a_job_completes),
        ("an_indexed_job", an_indexed_job),
        ("a_failing_job", a_failing_job),
        ("a_cron_job", a_cron_job),
        ("a_quota", quotas::a_quota),
        ("a_race_for_several_quotas", quotas::a_race_for_several_quotas),
        ("a_limit_range", quotas::a_limit_range),
    ];
    every(&machine, &steps);
}

/// A Job's manifest, with more of its spec.
fn job(name: &str, spec: &str, command: &str) -> String {
    format!(
        r#"{{"apiVersion":"batch/v1","kind":"Job","metadata":{{"name":"{name}"}},"spec":{{{spec}"template":{{"spec":{{"restartPolicy":"Never",
        "terminationGracePeriodSeconds":0,"containers":[{{"name":"c","image":"IMAGE","command":["sh","-c","{command}"]}}]}}}}}}}}"#
    )
    .replace("IMAGE", IMAGE)
}

fn a_job_completes(machine: &Machine) {
    let said = machine.kubectl_args(&["create", "job", "hello", "--image", IMAGE, "--", "sh", "-c", "echo hello"]).ok();
    assert_eq!(said, "job.batch/hello created\n");
    let said = machine.kubectl("wait --for=condition=complete job/hello --timeout=60s").ok();
    assert_eq!(said, "job.batch/hello condition met\n");
    assert_eq!(machine.kubectl("logs job/hello").ok(), "hello\n");
    let row = machine.kubectl("get job hello --no-headers").ok();
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["hello", "Complete", "1/1"]);
    assert_eq!(jsonpath(machine, "job hello", "{.status.succeeded} {.status.failed} {.status.active}"), "1  ");
    assert_eq!(jsonpath(machine, "pods -l job-name=hello", "{.items[*].metadata.finalizers}"), "");
    machine.eventually("it is told", SOON, || {
        let told = machine.kubectl("describe job hello").ok();
        (told.contains("Job completed") && told.contains("SuccessfulCreate")).then_some(())
    });
    // Its pods go with it.
    machine.kubectl("delete job hello").ok();
    machine.eventually("its pod goes", SOON, || {
        machine.kubectl("get pods -l job-name=hello -o name").ok().is_empty().then_some(())
    });
}

fn an_indexed_job(machine: &Machine) {
    let spec = r#""completionMode":"Indexed","completions":4,"parallelism":2,"#;
    let command = "echo index $JOB_COMPLETION_INDEX of $(hostname)";
    machine.kubectl_with("apply -f -", &job("indexed", spec, command)).ok();
    machine.kubectl("wait --for=condition=complete job/indexed --timeout=120s").ok();
    assert_eq!(jsonpath(machine, "job indexed", "{.status.completedIndexes} {.status.succeeded}"), "0-3 4");
    for index in 0..4 {
        let selector = format!("batch.kubernetes.io/job-completion-index={index},job-name=indexed");
        let logs = machine.kubectl(&format!("logs -l {selector}")).ok();
        assert_eq!(logs, format!("index {index} of indexed-{index}\n"));
    }
    machine.kubectl("delete job indexed").ok();
}

fn a_failing_job(machine: &Machine) {
    machine.kubectl_with("apply -f -", &job("failing", r#""backoffLimit":1,"#, "exit 3")).ok();
    machine.kubectl("wait --for=condition=failed job/failing --timeout=120s").ok();
    let conditions = "{range .status.conditions[*]}{.type}={.reason} {end}";
    assert_eq!(
        jsonpath(machine, "job failing", conditions),
        "FailureTarget=BackoffLimitExceeded Failed=BackoffLimitExceeded "
    );
    assert_eq!(jsonpath(machine, "job failing", "{.status.failed}"), "2");
    machine.eventually("it is told", SOON, || {
        let told = machine.kubectl("describe job failing").ok();
        told.contains("Job has reached the specified backoff limit").then_some(())
    });
    machine.kubectl("delete job failing").ok();
    // One that always fails the policy's way ends at once.
    let policy =
        r#""podFailurePolicy":{"rules":[{"action":"FailJob","onExitCodes":{"operator":"In","values":[42]}}]},"#;
    machine.kubectl_with("apply -f -", &job("policy", policy, "exit 42")).ok();
    machine.kubectl("wait --for=condition=failed job/policy --timeout=60s").ok();
    let message = jsonpath(machine, "job policy", "{.status.conditions[0].message}");
    assert!(message.ends_with("failed with exit code 42 matching FailJob rule at index 0"), "{message}");
    machine.kubectl("delete job policy").ok();
}

fn a_cron_job(machine: &Machine) {
    let create = ["create", "cronjob", "nightly", "--schedule=*/1 * * * *", "--image", IMAGE, "--", "echo", "night"];
    assert_eq!(machine.kubectl_args(&create).ok(), "cronjob.batch/nightly created\n");
    machine.kubectl("create job by-hand --from=cronjob/nightly").ok();
    machine.kubectl("wait --for=condition=complete job/by-hand --timeout=60s").ok();
    assert_eq!(machine.kubectl("logs job/by-hand").ok(), "night\n");
    let manual = r"{.metadata.annotations.cronjob\.kubernetes\.io/instantiate}";
    assert_eq!(jsonpath(machine, "job by-hand", manual), "manual");
    let name = machine.eventually("a minute begins", LATER, || {
        let names = machine.kubectl("get jobs -o name").ok();
        names.lines().find_map(|name| name.strip_prefix("job.batch/nightly-").map(str::to_owned))
    });
    machine.kubectl(&format!("wait --for=condition=complete job/nightly-{name} --timeout=60s")).ok();
    machine.eventually("it is noted", SOON, || {
        let times = jsonpath(machine, "cronjob nightly", "{.status.lastScheduleTime} {.status.lastSuccessfulTime}");
        (times.split_whitespace().count() == 2).then_some(())
    });
    let said = machine.kubectl_args(&["create", "cronjob", "bad", "--schedule=61 * * * *", "--image=x"]).failed();
    assert!(said.contains("spec.schedule: Invalid value"), "{said}");
    machine.kubectl("delete cronjob nightly").ok();
    machine.kubectl("delete job by-hand --ignore-not-found").ok();
}
