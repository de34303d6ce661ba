//! Kinds with less to say.

use super::{Kind, at};

#[test]
fn nodes() {
    let kind = Kind::of("", "v1", "Node");
    kind.check_created(
        "{spec: {podCIDR: 10.244.0.0/24}, status: {capacity: {cpu: '4'}}}",
        &[("spec.podCIDRs", "[\"10.244.0.0/24\"]"), ("status.allocatable", r#"{"cpu":"4"}"#)],
    );
    kind.check_invalid(
        "{spec: {podCIDRs: [10.0.0.0/24, 10.0.1.0/24], taints: [{key: a, effect: X}, {key: a, effect: NoSchedule}, {key: a, value: v, effect: NoSchedule}]}, status: {capacity: {cpu: '-1'}, allocatable: {}}}",
        &[
            "metadata.taints[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            "metadata.taints[2]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\",\"value\":\"v\"}: taints must be unique by key and effect pair",
            "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "status.allocatable.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
        ],
    );
    kind.check_update("spec: {unschedulable: true}", "spec: {podCIDR: 10.0.0.0/24, providerID: x}", "", &[]);
    kind.check_update(
        "spec: {podCIDR: 10.0.0.0/24, providerID: x}",
        "spec: {podCIDR: 10.0.1.0/24, providerID: y}",
        "",
        &[
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
        ],
    );
    let value = kind.check_update("spec: {unschedulable: true}", "status: {capacity: {cpu: '2'}}", "status", &[]);
    assert_eq!(at(&value, "spec.unschedulable").unwrap().as_bool(), Some(true));
}

#[test]
fn endpoints_and_slices() {
    let kind = Kind::of("", "v1", "Endpoints");
    kind.check_created(
        "subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]",
        &[("subsets.0.ports", r#"[{"port":80,"protocol":"TCP"}]"#)],
    );
    kind.check_invalid(
        "subsets: [{ports: [{port: 80}, {port: 0}]}, {addresses: [{ip: 127.0.0.1}, {ip: x}]}]",
        &[
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            "subsets[0].ports[0].name: Required value",
            "subsets[0].ports[1].name: Required value",
            "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "subsets[1].addresses[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "subsets[1].addresses[1].ip: Invalid value: \"x\": must be a valid IP address",
        ],
    );
    let kind = Kind::of("discovery.k8s.io", "v1", "EndpointSlice");
    let slice = "{addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}], ports: [{port: 80}]}";
    kind.check_created(slice, &[("ports", r#"[{"name":"","port":80,"protocol":"TCP"}]"#)]);
    kind.check_invalid(
        "{addressType: IPv4, endpoints: [{addresses: []}, {addresses: ['fd00::1', x]}], ports: [{port: 1}, {port: 2}]}",
        &[
            "ports[1].name: Duplicate value: \"\"",
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "endpoints[1].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
            "endpoints[1].addresses: Invalid value: \"x\": must be an IPv4 address",
        ],
    );
    kind.check_update(
        slice,
        "{addressType: FQDN, endpoints: [{addresses: [example.com]}]}",
        "",
        &["addressType: Invalid value: \"FQDN\": field is immutable"],
    );
}

#[test]
fn secrets() {
    let kind = Kind::of("", "v1", "Secret");
    kind.check_created(
        "{data: {a: eA==, b: eA==}, stringData: {a: hello, c: x}}",
        &[("data", r#"{"a":"aGVsbG8=","b":"eA==","c":"eA=="}"#), ("stringData", "absent"), ("type", "\"Opaque\"")],
    );
    kind.check_invalid("{type: kubernetes.io/tls, data: {tls.crt: eA==}}", &["data[tls.key]: Required value"]);
    kind.check_invalid(
        "{type: kubernetes.io/basic-auth}",
        &["data[username]: Required value", "data[password]: Required value"],
    );
    kind.check_invalid(
        "{type: kubernetes.io/service-account-token}",
        &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
    );
    kind.check_invalid("{type: kubernetes.io/dockerconfigjson}", &["data[.dockerconfigjson]: Required value"]);
    kind.check_invalid("{type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: '{}'}}", &[]);
    kind.check_invalid(
        "{data: {'a/b': eA==}}",
        &["data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"],
    );
    kind.check_update(
        "{immutable: true, data: {a: eA==}}",
        "{type: other, data: {a: eQ==}}",
        "",
        &[
            "type: Invalid value: \"other\": field is immutable",
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
}

#[test]
fn events_and_leases() {
    let kind = Kind::of("", "v1", "Event");
    kind.check_invalid("{involvedObject: {namespace: default, name: a}}", &[]);
    kind.check_invalid("{involvedObject: {name: node}}", &[]);
    kind.check_invalid(
        "{involvedObject: {namespace: other, name: a}}",
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
    kind.check_invalid(
        "{involvedObject: {namespace: default, name: a}, eventTime: '2026-01-01T00:00:00.000000Z', reason: R, type: X}",
        &[
            "reportingController: Required value",
            "reportingInstance: Required value",
            "action: Required value",
            "type: Invalid value: \"\": has invalid value: X",
        ],
    );
    Kind::of("coordination.k8s.io", "v1", "Lease").check_invalid(
        "spec: {leaseDurationSeconds: 0, leaseTransitions: -1}",
        &[
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
}

#[test]
fn priorities() {
    let kind = Kind::of("scheduling.k8s.io", "v1", "PriorityClass");
    kind.check_created("value: 5", &[("preemptionPolicy", "\"PreemptLowerPriority\"")]);
    kind.check_invalid(
        "value: 1000000001",
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    kind.check_invalid("{metadata: {name: system-node-critical}, value: 2000001000}", &[]);
    kind.check_invalid(
        "{metadata: {name: system-x}, value: 1}",
        &["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class"],
    );
    kind.check_update("value: 5", "value: 6", "", &["value: Forbidden: may not be changed in an update."]);
}

#[test]
fn limits_and_quotas() {
    let kind = Kind::of("", "v1", "LimitRange");
    kind.check_created(
        "spec: {limits: [{type: Container, max: {cpu: 2}, min: {memory: 1Mi}}]}",
        &[
            ("spec.limits.0.default", r#"{"cpu":"2"}"#),
            ("spec.limits.0.defaultRequest", r#"{"cpu":"2","memory":"1Mi"}"#),
        ],
    );
    kind.check_invalid(
        "spec: {limits: [{type: X}, {type: Pod, min: {cpu: 2}, max: {cpu: 1}, default: {cpu: 1}}]}",
        &[
            "spec.limits[0].type: Invalid value: \"X\": must be a standard limit type or fully qualified",
            "spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'",
            "spec.limits[1].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
        ],
    );
    kind.check_invalid(
        "spec: {limits: [{type: a--/b}, {type: Container, min: {cpu: 1, memory: 1}, max: {cpu: 2, memory: 3},
            maxLimitRequestRatio: {cpu: 500m, memory: 4}, default: {x.y/z: 2}, defaultRequest: {x.y/z: 1}}]}",
        &[
            "spec.limits[0].type: Invalid value: \"a--/b\": prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.limits[1].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            "spec.limits[1].maxLimitRequestRatio[memory]: Invalid value: \"4\": ratio 4 is greater than max/min = 3.000000",
            "spec.limits[1].defaultRequest[x.y/z]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in x.y/z",
        ],
    );
    let kind = Kind::of("", "v1", "ResourceQuota");
    kind.check_invalid(
        "spec: {hard: {pods: '1.5', nonsense: 1, count/deployments.apps: 3}, scopes: [BestEffort, NotBestEffort]}",
        &[
            "spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource type or fully qualified",
            "spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource for quota",
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
        ],
    );
    kind.check_update("spec: {scopes: [BestEffort]}", "spec: {scopes: [BestEffort, BestEffort]}", "", &[]);
    kind.check_update(
        "spec: {}",
        "spec: {scopes: [BestEffort]}",
        "",
        &["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"],
    );
}

#[test]
fn autoscalers_and_budgets() {
    let kind = Kind::of("autoscaling", "v2", "HorizontalPodAutoscaler");
    kind.check_created(
        "spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: d}, behavior: {scaleDown: {}}}",
        &[
            ("spec.minReplicas", "1"),
            ("spec.metrics", r#"[{"resource":{"name":"cpu","target":{"averageUtilization":80,"type":"Utilization"}},"type":"Resource"}]"#),
            (
                "spec.behavior.scaleUp",
                r#"{"policies":[{"periodSeconds":15,"type":"Pods","value":4},{"periodSeconds":15,"type":"Percent","value":100}],"selectPolicy":"Max","stabilizationWindowSeconds":0}"#,
            ),
            ("spec.behavior.scaleDown.policies", r#"[{"periodSeconds":15,"type":"Percent","value":100}]"#),
        ],
    );
    kind.check_invalid(
        "spec: {minReplicas: 0, maxReplicas: 0, scaleTargetRef: {kind: '', name: d}}",
        &[
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
            "spec.scaleTargetRef.kind: Required value",
            "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ],
    );
    Kind::of("policy", "v1", "PodDisruptionBudget").check_invalid(
        "spec: {minAvailable: 1, maxUnavailable: 200%}",
        &[
            "spec: Invalid value: {\"maxUnavailable\":\"200%\",\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            "spec.maxUnavailable: Invalid value: \"200%\": must not be greater than 100%",
        ],
    );
}

#[test]
fn networking() {
    let kind = Kind::of("networking.k8s.io", "v1", "Ingress");
    kind.check_invalid(
        "spec: {}",
        &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    kind.check_invalid(
        "spec: {rules: [{host: 10.0.0.1, http: {paths: [{path: a, backend: {service: {name: s, port: {number: 80}}}}]}}]}",
        &[
            "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
        ],
    );
    let kind = Kind::of("networking.k8s.io", "v1", "NetworkPolicy");
    kind.check_created(
        "spec: {podSelector: {}, egress: [{ports: [{port: 53}]}]}",
        &[
            ("spec.policyTypes", "[\"Ingress\",\"Egress\"]"),
            ("spec.egress.0.ports", r#"[{"port":53,"protocol":"TCP"}]"#),
        ],
    );
    kind.check_invalid(
        "spec: {podSelector: {}, ingress: [{from: [{}, {ipBlock: {cidr: x}, podSelector: {}}]}]}",
        &[
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.ingress[0].from[1].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
        ],
    );
}

#[test]
fn addresses_and_their_ranges() {
    let kind = Kind::of("networking.k8s.io", "v1", "IPAddress");
    let parent = "spec: {parentRef: {resource: services, namespace: default, name: s}}";
    kind.check_invalid(&format!("{{metadata: {{name: 'fd00::1'}}, {parent}}}"), &[]);
    kind.check_invalid(
        "{metadata: {name: 10.0.0.01}, spec: {parentRef: {resource: services}}}",
        &[
            "metadata.name: Invalid value: \"10.0.0.01\": must not have leading 0s",
            "spec.parentRef.name: Required value",
        ],
    );
    let kind = Kind::of("networking.k8s.io", "v1", "ServiceCIDR");
    kind.check_invalid("spec: {}", &["spec.cidrs: Required value: at least one CIDR required"]);
    kind.check_update(
        "spec: {cidrs: [10.0.0.0/24]}",
        "spec: {cidrs: [10.0.1.0/24]}",
        "",
        &["spec.cidrs: Invalid value: [\"10.0.1.0/24\"]: field is immutable"],
    );
}

#[test]
fn classes() {
    let kind = Kind::of("node.k8s.io", "v1", "RuntimeClass");
    kind.check_update("handler: a", "handler: b", "", &["handler: Invalid value: \"b\": field is immutable"]);
    let kind = Kind::of("networking.k8s.io", "v1", "IngressClass");
    kind.check_invalid(
        "spec: {controller: x}",
        &["spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
}

#[test]
fn certificate_requests() {
    let kind = Kind::of("certificates.k8s.io", "v1", "CertificateSigningRequest");
    let request = "spec: {request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K, signerName: example.com/s, usages: [client auth], username: mallory, groups: [system:masters]}";
    kind.check_created(request, &[("spec.username", "\"alice\""), ("spec.groups", r#"["system:authenticated"]"#)]);
    kind.check_invalid(
        "spec: {request: '', signerName: x, usages: [], expirationSeconds: 5}",
        &[
            "spec.request: Invalid value: \"\": PEM block type must be CERTIFICATE REQUEST",
            "spec.usages: Required value",
            "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
        ],
    );
    let approve = "{spec: {request: eQ==, signerName: a.b/c, usages: [x]}, status: {certificate: eA==, conditions: [{type: Approved, status: 'True'}]}}";
    let value = kind.check_update(request, approve, "approval", &[]);
    assert_eq!(at(&value, "spec.request").unwrap().as_str(), Some("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"));
    assert_eq!(at(&value, "status.certificate"), None);
    assert_eq!(at(&value, "status.conditions.0.type").unwrap().as_str(), Some("Approved"));
    let value = kind.check_update(request, approve, "status", &[]);
    assert_eq!(at(&value, "status.certificate").unwrap().as_str(), Some("eA=="));
    assert_eq!(at(&value, "status.conditions"), None);
}
