//! Pods: defaults, refusals and updates as goldens.

use super::super::tests::{Kind, World, at};

fn pods() -> Kind {
    Kind::of("", "v1", "Pod")
}

const SMALL: &str = "spec: {containers: [{name: c, image: 'nginx:1.27'}]}";

#[test]
fn a_small_pod_is_completed() {
    pods().check_created(
        SMALL,
        &[
            (
                "spec",
                r#"{"containers":[{"image":"nginx:1.27","imagePullPolicy":"IfNotPresent","name":"c","resources":{},
                "terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],
                "dnsPolicy":"ClusterFirst","enableServiceLinks":true,"restartPolicy":"Always",
                "schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}"#,
            ),
            ("status", r#"{"phase":"Pending","qosClass":"BestEffort"}"#),
            ("metadata.generation", "1"),
        ],
    );
}

#[test]
fn what_is_left_out_is_filled_in() {
    pods().check_created(
        "
spec:
  serviceAccount: robot
  hostNetwork: true
  schedulingGates: [{name: a.b/c}]
  initContainers:
  - {name: i, image: busybox, ports: [{containerPort: 53, protocol: UDP}]}
  containers:
  - name: c
    image: busybox:latest
    ports: [{containerPort: 80}]
    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 0.5}}
    livenessProbe: {httpGet: {port: 80}}
    readinessProbe: {grpc: {port: 9}, periodSeconds: 3}
    lifecycle: {preStop: {httpGet: {port: a}}}
  volumes:
  - {name: empty}
  - {name: config, configMap: {name: x}}
  - {name: secret, secret: {secretName: x, defaultMode: 256}}
  - {name: down, downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}}
  - {name: host, hostPath: {path: /x}}
  - {name: all, projected: {sources: [{serviceAccountToken: {path: t}}]}}
  - {name: im, image: {reference: x}}
",
        &[
            ("spec.serviceAccountName", "\"robot\""),
            ("spec.serviceAccount", "\"robot\""),
            ("spec.initContainers.0.imagePullPolicy", "\"Always\""),
            ("spec.initContainers.0.ports", r#"[{"containerPort":53,"hostPort":53,"protocol":"UDP"}]"#),
            ("spec.containers.0.ports", r#"[{"containerPort":80,"hostPort":80,"protocol":"TCP"}]"#),
            ("spec.containers.0.env.0.valueFrom.fieldRef", r#"{"apiVersion":"v1","fieldPath":"status.podIP"}"#),
            ("spec.containers.0.resources.requests", r#"{"cpu":"500m","memory":"1Gi"}"#),
            (
                "spec.containers.0.livenessProbe",
                r#"{"failureThreshold":3,"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"periodSeconds":10,
                "successThreshold":1,"timeoutSeconds":1}"#,
            ),
            (
                "spec.containers.0.readinessProbe",
                r#"{"failureThreshold":3,"grpc":{"port":9,"service":""},"periodSeconds":3,"successThreshold":1,"timeoutSeconds":1}"#,
            ),
            ("spec.containers.0.lifecycle.preStop.httpGet", r#"{"path":"/","port":"a","scheme":"HTTP"}"#),
            ("spec.volumes.0", r#"{"emptyDir":{},"name":"empty"}"#),
            ("spec.volumes.1.configMap", r#"{"defaultMode":420,"name":"x"}"#),
            ("spec.volumes.2.secret", r#"{"defaultMode":256,"secretName":"x"}"#),
            ("spec.volumes.3.downwardAPI.defaultMode", "420"),
            ("spec.volumes.3.downwardAPI.items.0.fieldRef.apiVersion", "\"v1\""),
            ("spec.volumes.4.hostPath", r#"{"path":"/x","type":""}"#),
            ("spec.volumes.5.projected.defaultMode", "420"),
            ("spec.volumes.5.projected.sources.0.serviceAccountToken.expirationSeconds", "3600"),
            ("spec.volumes.6.image.pullPolicy", "\"Always\""),
            ("status.qosClass", "\"Burstable\""),
            ("status.conditions.0.reason", "\"SchedulingGated\""),
        ],
    );
}

#[test]
fn quality_of_service_is_computed() {
    let check = |resources: &str, class: &str| {
        let yaml = format!("spec: {{containers: [{{name: c, image: i, resources: {resources}}}]}}");
        pods().check_created(&yaml, &[("status.qosClass", &format!("{class:?}"))]);
    };
    check("{}", "BestEffort");
    check("{requests: {cpu: 1}}", "Burstable");
    check("{limits: {cpu: 1, memory: 1Gi}}", "Guaranteed");
}

#[test]
fn bad_containers_are_refused() {
    let check = |containers: &str, expect: &[&str]| {
        pods().check_invalid(&format!("spec: {{containers: {containers}}}"), expect)
    };
    check("[]", &["spec.containers: Required value"]);
    check("[{name: c}]", &["spec.containers[0].image: Required value"]);
    check("[{image: i}]", &["spec.containers[0].name: Required value"]);
    check("[{name: c, image: i}, {name: c, image: i}]", &["spec.containers[1].name: Duplicate value: \"c\""]);
    check("[{name: a.b, image: i}]", &["spec.containers[0].name: Invalid value: \"a.b\": must not contain dots"]);
    check(
        "[{name: c, image: ' i'}]",
        &["spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"],
    );
    check(
        "[{name: c, image: i, imagePullPolicy: Sometimes, terminationMessagePolicy: X}]",
        &[
            "spec.containers[0].terminationMessagePolicy: Unsupported value: \"X\": supported values: \"File\", \"FallbackToLogsOnError\"",
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        "[{name: c, image: i, ports: [{containerPort: 0}, {containerPort: 70000, name: a}, {containerPort: 1, name: a}, {containerPort: 1, protocol: X, hostPort: 5}, {containerPort: 2, protocol: X, hostPort: 5}]}]",
        &[
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[2].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[3].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[4].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[4].hostPort: Duplicate value: \"X//5\"",
        ],
    );
    check(
        "[{name: c, image: i, env: [{name: ''}, {name: 'a=b'}, {name: A, value: x, valueFrom: {fieldRef: {fieldPath: spec.x}}}, {name: B, valueFrom: {}}, {name: C, valueFrom: {secretKeyRef: {name: s, key: ''}}}]}]",
        &[
            "spec.containers[0].env[0].name: Required value",
            "spec.containers[0].env[1].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            "spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
            "spec.containers[0].env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[3].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            "spec.containers[0].env[4].valueFrom.secretKeyRef.key: Required value",
        ],
    );
    check(
        "[{name: c, image: i, resources: {requests: {cpu: 2, foo: 1, example.com/x: 1}, limits: {cpu: 1, memory: -1}}}]",
        &[
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check(
        "[{name: c, image: i, livenessProbe: {successThreshold: 2, exec: {command: []}, tcpSocket: {port: 1}}, readinessProbe: {initialDelaySeconds: -1}}]",
        &[
            "spec.containers[0].livenessProbe.exec.command: Required value",
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
            "spec.containers[0].readinessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check(
        "[{name: c, image: i, securityContext: {runAsUser: -1, allowPrivilegeEscalation: false, privileged: true, seccompProfile: {type: Localhost}}}]",
        &[
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true,\"runAsUser\":-1,\"seccompProfile\":{\"type\":\"Localhost\"}}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
}

#[test]
fn bad_specs_are_refused() {
    let check = |spec: &str, expect: &[&str]| {
        let yaml = format!("spec:\n  containers: [{{name: c, image: i}}]\n  {}", spec.trim().replace('\n', "\n  "));
        pods().check_invalid(&yaml, expect);
    };
    check(
        "initContainers: [{name: c, image: i, livenessProbe: {exec: {command: [a]}}}, {name: s, image: i, restartPolicy: Always, livenessProbe: {exec: {command: [a]}}}]",
        &[
            "spec.initContainers[0].name: Duplicate value: \"c\"",
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    check(
        "ephemeralContainers: [{name: e, image: i, targetContainerName: x, ports: [{containerPort: 1}]}]",
        &[
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ],
    );
    check(
        "volumes: [{name: A}, {name: a, emptyDir: {}, hostPath: {path: /a}}, {name: b, secret: {}}, {name: c, hostPath: {path: /../a, type: X}}]",
        &[
            "spec.volumes[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[2].secret.secretName: Required value",
            "spec.volumes[3].hostPath.path: Invalid value: \"/../a\": must not contain '..'",
            "spec.volumes[3].hostPath.type: Unsupported value: \"X\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    check(
        "restartPolicy: Now\ndnsPolicy: None\nhostname: A.b\nactiveDeadlineSeconds: 0\npriorityClassName: A_",
        &[
            "spec.restartPolicy: Unsupported value: \"Now\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            "spec.priorityClassName: Invalid value: \"A_\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.hostname: Invalid value: \"A.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        "tolerations: [{key: '', operator: Equal}, {key: a, operator: X, effect: Y}, {key: a, operator: Exists, value: v, tolerationSeconds: 5}]",
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[1].operator: Unsupported value: \"X\": supported values: \"Equal\", \"Exists\"",
            "spec.tolerations[1].effect: Unsupported value: \"Y\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            "spec.tolerations[2].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            "spec.tolerations[2].operator: Invalid value: \"v\": value must be empty when `operator` is 'Exists'",
        ],
    );
    check(
        "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}, podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, podAffinityTerm: {topologyKey: ''}}]}}",
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must be non-empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    check(
        "topologySpreadConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: Never}]",
        &[
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ],
    );
    check(
        "nodeName: n\nschedulingGates: [{name: a}]",
        &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
    );
    pods().check_invalid(
        "spec: {containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /a}, {name: w, mountPath: /a}]}], volumes: [{name: w}]}",
        &[
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
        ],
    );
}

#[test]
fn updates_change_little() {
    let check = |new: &str, expect: &[&str]| {
        let old = "spec: {activeDeadlineSeconds: 10, tolerations: [{key: a, operator: Exists, effect: NoExecute}], containers: [{name: c, image: 'nginx:1.27'}]}";
        pods().check_update(old, new, "", expect)
    };
    let same = "activeDeadlineSeconds: 10, tolerations: [{key: a, operator: Exists, effect: NoExecute}]";
    let new = check(&format!("spec: {{{same}, containers: [{{name: c, image: 'nginx:1.28'}}]}}"), &[]);
    assert_eq!(new.i64_at(&["metadata", "generation"]), Some(2));
    let new = check(
        "{metadata: {labels: {a: b}}, spec: {activeDeadlineSeconds: 10, tolerations: [{key: a, operator: Exists, effect: NoExecute}], containers: [{name: c, image: 'nginx:1.27'}]}}",
        &[],
    );
    assert_eq!(new.i64_at(&["metadata", "generation"]), Some(1));
    check(
        "spec: {activeDeadlineSeconds: 5, tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {operator: Exists}], containers: [{name: c, image: 'nginx:1.27'}]}",
        &[],
    );
    check(
        "spec: {activeDeadlineSeconds: 11, containers: [{name: c, image: 'nginx:1.27'}]}",
        &["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"],
    );
    check(
        "spec: {activeDeadlineSeconds: 10, containers: [{name: c, image: 'nginx:1.27'}]}",
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    check(
        &format!("spec: {{{same}, containers: [{{name: c, image: i}}, {{name: d, image: i}}]}}"),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    check(
        &format!("spec: {{{same}, hostname: x, containers: [{{name: c, image: 'nginx:1.27', command: [a]}}]}}"),
        &[
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n\
             - spec.containers[0].command: null\n+ spec.containers[0].command: [\"a\"]\n- spec.hostname: null\n+ spec.hostname: \"x\"\n",
        ],
    );
}

#[test]
fn gated_pods_may_be_narrowed() {
    let old =
        "spec: {schedulingGates: [{name: a}, {name: b}], nodeSelector: {x: y}, containers: [{name: c, image: i}]}";
    let check = |spec: &str, expect: &[&str]| {
        pods().check_update(old, &format!("spec: {{{spec}, containers: [{{name: c, image: i}}]}}"), "", expect);
    };
    check("schedulingGates: [{name: b}], nodeSelector: {x: y, z: w}", &[]);
    check(
        "schedulingGates: [{name: d}], nodeSelector: {x: z}",
        &[
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'd'",
            "spec.nodeSelector: Invalid value: {\"x\":\"z\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ],
    );
}

#[test]
fn a_status_update_owns_the_status() {
    let old = "{metadata: {labels: {a: b}, ownerReferences: [{apiVersion: v1, kind: X, name: x, uid: u}]}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}, status: {phase: Running, qosClass: BestEffort, containerStatuses: [{name: c, image: i, imageID: '', ready: false, restartCount: 0, state: {terminated: {exitCode: 1}}}]}}";
    let new = "{metadata: {labels: {a: c}}, spec: {containers: [{name: x, image: y}]}, status: {phase: Failed, conditions: [{type: Ready, status: 'False'}]}}";
    let value = pods().check_update(old, new, "status", &[]);
    for (path, expect) in [
        ("spec.containers.0.name", "\"c\""),
        ("status.phase", "\"Failed\""),
        ("status.qosClass", "\"BestEffort\""),
        ("metadata.labels.a", "\"c\""),
        ("metadata.ownerReferences.0.uid", "\"u\""),
    ] {
        assert_eq!(at(&value, path).unwrap().to_string(), expect, "{path}");
    }
    pods().check_update(
        old,
        "{spec: {containers: [{name: c, image: i}]}, status: {qosClass: Guaranteed, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], containerStatuses: [{name: c, image: i, imageID: '', ready: false, restartCount: 0, state: {running: {}}}]}}",
        "status",
        &[
            "status.qosClass: Invalid value: \"Guaranteed\": field is immutable",
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
        ],
    );
}

#[test]
fn ephemeral_containers_are_only_added() {
    let debug = "ephemeralContainers: [{name: e, image: i}]";
    let new = format!("spec: {{hostname: no, {debug}, containers: [{{name: x, image: y}}]}}");
    let value = pods().check_update(SMALL, &new, "ephemeralcontainers", &[]);
    assert_eq!(value.str_at(&["spec", "hostname"]), None);
    assert_eq!(at(&value, "spec.ephemeralContainers.0.imagePullPolicy").unwrap().as_str(), Some("Always"));
    assert_eq!(value.i64_at(&["metadata", "generation"]), Some(2));
    let old = format!("spec: {{{debug}, containers: [{{name: c, image: i}}]}}");
    pods().check_update(
        &old,
        "spec: {containers: [{name: c, image: i}]}",
        "ephemeralcontainers",
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"],
    );
}

#[test]
fn a_resize_changes_cpu_and_memory() {
    let pod = |resources: &str| format!("spec: {{containers: [{{name: c, image: i, resources: {resources}}}]}}");
    let old = pod("{requests: {cpu: 1}, limits: {cpu: 2}}");
    let value = pods().check_update(&old, &pod("{requests: {cpu: 1500m}, limits: {cpu: 2}}"), "resize", &[]);
    assert_eq!(at(&value, "spec.containers.0.resources.requests.cpu").unwrap().as_str(), Some("1500m"));
    pods().check_update(
        &old,
        &pod("{limits: {cpu: 2, memory: 1Gi}}"),
        "resize",
        &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
    );
    pods().check_update(
        &old,
        &pod("{requests: {cpu: 1}}"),
        "resize",
        &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
    );
    // Where there was nothing, something may come.
    let two = |second: &str| {
        let first = "{name: c, image: i, resources: {requests: {cpu: 1}}}";
        format!("spec: {{containers: [{first}, {{name: d, image: i{second}}}]}}")
    };
    pods().check_update(&two(""), &two(", resources: {requests: {cpu: 1}, limits: {memory: 1Gi}}"), "resize", &[]);
    pods().check_update(
        &two(""),
        &two(", resources: {requests: {ephemeral-storage: 1}}"),
        "resize",
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
}

#[test]
fn grace_follows_the_pod() {
    let kind = pods();
    let check = |yaml: &str, requested: Option<i64>, expect: i64| {
        let mut value = kind.created(yaml);
        let given = kind.defaulted(yaml);
        if let Some(phase) = given.str_at(&["status", "phase"]) {
            value.set(&["status", "phase"], phase);
        }
        assert_eq!(kind.strategy().grace_period(&value, requested), Some(expect), "{yaml}");
    };
    check(SMALL, None, 0);
    let node = "spec: {nodeName: n, containers: [{name: c, image: i}]}";
    check(node, None, 30);
    check(node, Some(5), 5);
    check(node, Some(0), 0);
    check(node, Some(-1), 1);
    check("{spec: {nodeName: n, containers: [{name: c, image: i}]}, status: {phase: Succeeded}}", Some(5), 0);
}

#[test]
fn authors_are_advised() {
    let kind = pods();
    let value = kind.created(
        "{metadata: {name: a.b}, spec: {nodeSelector: {beta.kubernetes.io/os: linux}, containers: [{name: c, image: i, env: [{name: A}, {name: A}]}]}}",
    );
    let world = World::new();
    assert_eq!(
        kind.strategy().warnings(&world.context(""), &value, None),
        [
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        ]
    );
}
