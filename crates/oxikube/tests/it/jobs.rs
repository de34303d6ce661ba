//! Jobs, CronJobs, quotas and limit ranges, with the real kubectl.

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
    let steps: [Step; 6] = [
        ("a_job_completes", a_job_completes),
        ("an_indexed_job", an_indexed_job),
        ("a_failing_job", a_failing_job),
        ("a_cron_job", a_cron_job),
        ("a_quota", a_quota),
        ("a_limit_range", a_limit_range),
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

fn a_quota(machine: &Machine) {
    machine.kubectl("create namespace limited").ok();
    machine.kubectl("-n limited create quota q --hard=pods=2,requests.cpu=1,count/configmaps=3").ok();
    let used = || jsonpath(machine, "-n limited quota q", "{.status.used.pods}/{.status.used.requests\\.cpu}");
    machine.eventually("it is counted", SOON, || (used() == "0/0").then_some(()));
    let pod = |name: &str, cpu: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"limited"}},"spec":{{"terminationGracePeriodSeconds":0,
            "containers":[{{"name":"c","image":"{IMAGE}","command":["sleep","1000"]{cpu}}}]}}}}"#
        )
    };
    let asks = |cpu: &str| format!(r#","resources":{{"requests":{{"cpu":"{cpu}"}}}}"#);
    let said = machine.kubectl_with("create -f -", &pod("silent", "")).failed();
    let why = r#"pods "silent" is forbidden: failed quota: q: must specify requests.cpu for: c"#;
    assert!(said.contains(why), "{said}");
    machine.kubectl_with("create -f -", &pod("one", &asks("600m"))).ok();
    assert_eq!(used(), "1/600m");
    let said = machine.kubectl_with("create -f -", &pod("two", &asks("500m"))).failed();
    let why = r#"pods "two" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"#;
    assert!(said.contains(why), "{said}");
    machine.kubectl("-n limited delete pod one").ok();
    machine.eventually("it is given back", SOON, || (used() == "0/0").then_some(()));
    // Twenty at once: two fit.
    let names: Vec<String> = (0..20).map(|n| format!("race{n}")).collect();
    let made: usize = std::thread::scope(|scope| {
        let makes = |name: &String| {
            let body = pod(name, &asks("10m"));
            scope.spawn(move || usize::from(machine.kubectl_with("create -f -", &body).code == Some(0)))
        };
        let all: Vec<_> = names.iter().map(makes).collect();
        all.into_iter().map(|made| made.join().unwrap()).sum()
    });
    assert_eq!((made, used()), (2, "2/20m".to_owned()));
    machine.kubectl("delete namespace limited --wait=false").ok();
}

fn a_limit_range(machine: &Machine) {
    machine.kubectl("create namespace ranged").ok();
    let range = r#"{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"r","namespace":"ranged"},"spec":{"limits":[{"type":"Container",
        "default":{"cpu":"200m","memory":"64Mi"},"defaultRequest":{"cpu":"100m"},"max":{"cpu":"500m"}}]}}"#;
    machine.kubectl_with("apply -f -", range).ok();
    let pod = |name: &str, cpu: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ranged"}},"spec":{{"containers":[{{"name":"c","image":"{IMAGE}",
            "resources":{{{cpu}}}}}]}}}}"#
        )
    };
    machine.kubectl_with("create -f -", &pod("plain", "")).ok();
    let resources = jsonpath(machine, "-n ranged pod plain", "{.spec.containers[0].resources}");
    assert_eq!(resources, r#"{"limits":{"cpu":"200m","memory":"64Mi"},"requests":{"cpu":"100m","memory":"64Mi"}}"#);
    let note = jsonpath(machine, "-n ranged pod plain", r"{.metadata.annotations.kubernetes\.io/limit-ranger}");
    assert_eq!(note, "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c");
    let said = machine.kubectl_with("create -f -", &pod("large", r#""limits":{"cpu":"2"}"#)).failed();
    let why = r#"pods "large" is forbidden: maximum cpu usage per Container is 500m, but limit is 2"#;
    assert!(said.contains(why), "{said}");
    machine.kubectl("delete namespace ranged --wait=false").ok();
}
