//! Kinds that make pods.

use super::{Kind, at};

const TEMPLATE: &str = "{metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: 'i:1'}]}}";

fn with(rest: &str) -> String {
    format!("spec: {{selector: {{matchLabels: {{a: b}}}}, template: {TEMPLATE}{rest}}}")
}

#[test]
fn deployments() {
    let kind = Kind::of("apps", "v1", "Deployment");
    kind.check_created(
        &with(""),
        &[
            ("spec.replicas", "1"),
            ("spec.revisionHistoryLimit", "10"),
            ("spec.progressDeadlineSeconds", "600"),
            ("spec.strategy", r#"{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"},"type":"RollingUpdate"}"#),
            ("spec.template.spec.restartPolicy", "\"Always\""),
            ("spec.template.spec.enableServiceLinks", "absent"),
        ],
    );
    kind.check_created(
        &with(", replicas: 0, strategy: {type: Recreate}"),
        &[("spec.replicas", "0"), ("spec.strategy", r#"{"type":"Recreate"}"#)],
    );
    let check = |yaml: &str, expect: &[&str]| kind.check_invalid(yaml, expect);
    check(&with(""), &[]);
    check(
        "spec: {replicas: -1, selector: {}, template: {spec: {restartPolicy: Never, containers: []}}}",
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            "spec.template.spec.containers: Required value",
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ],
    );
    check(
        "spec: {selector: {matchLabels: {x: y}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}",
        &["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"],
    );
    check(
        &with(
            ", progressDeadlineSeconds: 5, minReadySeconds: 5, strategy: {rollingUpdate: {maxUnavailable: 0%, maxSurge: 0}}",
        ),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        ],
    );
    check(
        &with(", strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}"),
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check(
        &with(", strategy: {type: X}"),
        &[
            "spec.strategy: Unsupported value: {\"Type\":\"X\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
        ],
    );
    kind.check_update(
        &with(""),
        "spec: {selector: {matchLabels: {x: y}}, template: {metadata: {labels: {x: y}}, spec: {containers: [{name: c, image: i}]}}}",
        "",
        &["spec.selector: Invalid value: {\"matchLabels\":{\"x\":\"y\"}}: field is immutable"],
    );
    kind.check_update(
        &with(""),
        "{status: {replicas: 1, readyReplicas: 2}}",
        "status",
        &["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
    );
}

#[test]
fn replica_sets() {
    let kind = Kind::of("apps", "v1", "ReplicaSet");
    kind.check_created(&with(""), &[("spec.replicas", "1"), ("spec.template.spec.dnsPolicy", "\"ClusterFirst\"")]);
    kind.check_invalid(
        "spec: {template: {spec: {containers: [{name: c, image: i}], activeDeadlineSeconds: 5}}}",
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
        ],
    );
    kind.check_update(
        &with(""),
        "spec: {selector: {matchLabels: {x: y}}, template: {metadata: {labels: {x: y}}, spec: {containers: [{name: c, image: i}]}}}",
        "",
        &["spec.selector: Invalid value: {\"matchLabels\":{\"x\":\"y\"}}: field is immutable"],
    );
    let value = kind.check_update(&with(""), "{metadata: {labels: {n: m}}, status: {replicas: 2}}", "status", &[]);
    assert_eq!(at(&value, "spec.replicas").unwrap().as_i64(), Some(1));
}

#[test]
fn stateful_sets() {
    let kind = Kind::of("apps", "v1", "StatefulSet");
    let claims = ", serviceName: s, volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]";
    kind.check_created(
        &with(claims),
        &[
            ("spec.podManagementPolicy", "\"OrderedReady\""),
            ("spec.updateStrategy", r#"{"rollingUpdate":{"partition":0},"type":"RollingUpdate"}"#),
            ("spec.persistentVolumeClaimRetentionPolicy", r#"{"whenDeleted":"Retain","whenScaled":"Retain"}"#),
            ("spec.revisionHistoryLimit", "10"),
            ("spec.volumeClaimTemplates.0.spec.volumeMode", "\"Filesystem\""),
            ("spec.volumeClaimTemplates.0.kind", "\"PersistentVolumeClaim\""),
            ("spec.volumeClaimTemplates.0.status", r#"{"phase":"Pending"}"#),
        ],
    );
    let mounted = "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i, volumeMounts: [{name: data, mountPath: /d}]}]}}";
    kind.check_invalid(&format!("{mounted}{claims}}}"), &[]);
    kind.check_invalid(
        &with(", podManagementPolicy: X, updateStrategy: {type: Y}, persistentVolumeClaimRetentionPolicy: {whenDeleted: Z}"),
        &[
            "spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'",
            "spec.updateStrategy: Invalid value: {\"type\":\"Y\"}: must be 'RollingUpdate' or 'OnDelete'",
            "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Z\": supported values: \"Retain\", \"Delete\"",
        ],
    );
    kind.check_update(&with(", serviceName: s"), &with(", serviceName: s, replicas: 3"), "", &[]);
    kind.check_update(
        &with(", serviceName: s"),
        &with(", serviceName: t"),
        "",
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
}

#[test]
fn daemon_sets() {
    let kind = Kind::of("apps", "v1", "DaemonSet");
    kind.check_created(
        &with(""),
        &[
            ("spec.updateStrategy", r#"{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1},"type":"RollingUpdate"}"#),
            ("spec.revisionHistoryLimit", "10"),
            ("metadata.annotations", r#"{"deprecated.daemonset.template.generation":"1"}"#),
        ],
    );
    kind.check_invalid(
        &with(", updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}"),
        &["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"],
    );
    let new = kind.check_update(
        &with(""),
        "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: 'i:2'}]}}}",
        "",
        &[],
    );
    let count = new.str_at(&["metadata", "annotations", "deprecated.daemonset.template.generation"]);
    assert_eq!(count, Some("2"));
}

#[test]
fn jobs() {
    let kind = Kind::of("batch", "v1", "Job");
    let job = |rest: &str| {
        format!(
            "{{metadata: {{uid: u1}}, spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}{rest}}}}}"
        )
    };
    kind.check_created(
        &job(""),
        &[
            ("spec.completions", "1"),
            ("spec.parallelism", "1"),
            ("spec.backoffLimit", "6"),
            ("spec.completionMode", "\"NonIndexed\""),
            ("spec.suspend", "false"),
            ("spec.podReplacementPolicy", "\"TerminatingOrFailed\""),
            ("spec.selector", r#"{"matchLabels":{"batch.kubernetes.io/controller-uid":"u1"}}"#),
            (
                "spec.template.metadata.labels",
                r#"{"batch.kubernetes.io/controller-uid":"u1","batch.kubernetes.io/job-name":"a","controller-uid":"u1","job-name":"a"}"#,
            ),
        ],
    );
    kind.check_created(&job(", parallelism: 3"), &[("spec.completions", "absent"), ("spec.parallelism", "3")]);
    kind.check_invalid(
        "{metadata: {uid: u1}, spec: {backoffLimit: -1, completionMode: X, template: {spec: {containers: [{name: c, image: i}]}}}}",
        &[
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
            "spec.completionMode: Unsupported value: \"X\": supported values: \"NonIndexed\", \"Indexed\"",
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ],
    );
}

#[test]
fn jobs_refused() {
    let kind = Kind::of("batch", "v1", "Job");
    let template = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}";
    let check = |spec: &str, problems: &[&str]| {
        kind.check_invalid(&format!("{{metadata: {{uid: u1}}, spec: {{{spec}, {template}}}}}"), problems);
    };
    check(
        "completionMode: Indexed, completions: 3, maxFailedIndexes: 4, managedBy: mine, successPolicy: {rules: [{succeededIndexes: 2-1}]}",
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.managedBy: Invalid value: \"mine\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"2-1\": error parsing succeededIndexes: non-increasing \
             order, previous: 2, current: 1",
        ],
    );
    check(
        "podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {containerName: x, operator: In, values: [0, 5, 4]}}]}",
        &[
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container or \
             initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,5,4]: must be ordered",
        ],
    );
}

/// What becomes of a Job whose status is changed.
#[test]
fn job_statuses() {
    let kind = Kind::of("batch", "v1", "Job");
    let job = |status: &str| {
        format!(
            "{{metadata: {{uid: u1}}, spec: {{completions: 2, template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}, status: {status}}}"
        )
    };
    let check =
        |old: &str, new: &str, problems: &[&str]| drop(kind.check_update(&job(old), &job(new), "status", problems));
    let began = "startTime: '2026-01-01T00:00:00Z'";
    let met = "{type: SuccessCriteriaMet, status: 'True'}";
    let complete = "{type: Complete, status: 'True'}";
    let end = "completionTime: '2026-01-01T00:01:00Z'";
    check("{}", &format!("{{{began}, active: 2, ready: 1}}"), &[]);
    check(&format!("{{{began}}}"), &format!("{{{began}, conditions: [{met}, {complete}], {end}}}"), &[]);
    check(
        &format!("{{{began}, failed: 2}}"),
        &format!(
            "{{{began}, conditions: [{complete}], active: 1, failed: 1, uncountedTerminatedPods: {{failed: [a]}}}}"
        ),
        &[
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.uncountedTerminatedPods: Invalid value: {\"failed\":[\"a\"]}: must be empty for finished job",
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
        ],
    );
    check(
        &format!("{{{began}, conditions: [{met}, {complete}], {end}}}"),
        "{completedIndexes: '1', ready: 3}",
        &[
            "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed completion mode",
            "status.ready: Invalid value: 3: cannot set more ready pods than active",
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.startTime: Required value: startTime cannot be removed for unsuspended job",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ],
    );
}

#[test]
fn cron_jobs() {
    let kind = Kind::of("batch", "v1", "CronJob");
    let cron = |schedule: &str| {
        format!(
            "spec: {{schedule: {schedule:?}, jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}}}}}"
        )
    };
    kind.check_created(
        &cron("*/5 * * * *"),
        &[
            ("spec.concurrencyPolicy", "\"Allow\""),
            ("spec.suspend", "false"),
            ("spec.successfulJobsHistoryLimit", "3"),
            ("spec.failedJobsHistoryLimit", "1"),
            ("spec.jobTemplate.spec.template.spec.dnsPolicy", "\"ClusterFirst\""),
        ],
    );
    for good in ["* * * * *", "0 0 1 1 *", "*/15 8-17 * jan,feb mon-fri", "@hourly", "@every 1h", "0/5 * ? * *"] {
        kind.check_invalid(&cron(good), &[]);
    }
    let check = |schedule: &str, why: &str| {
        kind.check_invalid(&cron(schedule), &[&format!("spec.schedule: Invalid value: {schedule:?}: {why}")]);
    };
    check("* * *", "expected exactly 5 fields, found 3: [* * *]");
    check("61 * * * *", "end of range (61) above maximum (59): 61");
    check("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
    check("@now", "unrecognized descriptor: @now");
    check("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1");
}

#[test]
fn replication_controllers() {
    let kind = Kind::of("", "v1", "ReplicationController");
    kind.check_created(
        &format!("spec: {{template: {TEMPLATE}}}"),
        &[("spec.selector", r#"{"a":"b"}"#), ("metadata.labels", r#"{"a":"b"}"#), ("spec.replicas", "1")],
    );
    kind.check_invalid(
        &format!("spec: {{selector: {{x: y}}, template: {TEMPLATE}}}"),
        &["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"],
    );
}
