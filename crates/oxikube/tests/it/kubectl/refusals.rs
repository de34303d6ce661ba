//! What is wrong is said as upstream says it, and changes nothing.

use testkit::machine::Machine;

/// Manifests and what is said of them.
const REFUSED: &[(&str, &str)] = &[
    ("apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: x\n", "found character that cannot start any token"),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatum: {}\n",
        "Error from server (BadRequest): error when creating \"STDIN\": ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"datum\"",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: i, imagePullPolcy: Never}], hostnam: h}\n",
        "unknown field \"spec.containers[0].imagePullPolcy\", unknown field \"spec.hostnam\"",
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: X_y}\n",
        "The ConfigMap \"X_y\" is invalid: metadata.name: Invalid value: \"X_y\": a lowercase RFC 1123 subdomain must consist of",
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n",
        "The ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
    ),
    (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: many}\n",
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c}]}\n",
        "The Pod \"x\" is invalid: spec.containers[0].image: Required value",
    ),
    (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}\n",
        "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 70000}]}\n",
        "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: none}\n", "namespaces \"none\" not found"),
    // kubectl asks for the kind's schema, and then for the kind itself.
    ("apiVersion: v9\nkind: Thing\nmetadata: {name: x}\n", "no matches for kind \"Thing\" in version \"v9\""),
    ("kind: ConfigMap\nmetadata: {name: x}\n", "apiVersion not set"),
    ("apiVersion: v1\nmetadata: {name: x}\n", "kind not set"),
    ("just words\n", "error"),
];

/// Changes of what must not change.
const IMMUTABLE: &[(&str, &str, &str)] = &[
    ("deployment fixed", r#"{"spec":{"selector":{"matchLabels":{"a":"c"}}}}"#, "field is immutable"),
    ("service fixed", r#"{"spec":{"clusterIP":"10.1.2.3"}}"#, "spec.clusterIPs[0]: Invalid value"),
    ("secret fixed", r#"{"type":"other"}"#, "type: Invalid value: \"other\": field is immutable"),
    ("pod sleeper", r#"{"spec":{"hostNetwork":true}}"#, "pod updates may not change fields other than"),
    (
        "configmap fixed",
        r#"{"metadata":{"name":"other"}}"#,
        "the name of the object (other) does not match the name on the URL (fixed)",
    ),
];

const FIXED: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: fixed}
spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: fixed}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Secret
metadata: {name: fixed}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: fixed}
";

pub fn all(machine: &Machine) {
    let objects = || machine.kubectl("get all,configmaps,secrets -o name").ok();
    let before = objects();
    let mut wrong = Vec::new();
    for (manifest, expect) in REFUSED {
        let said = machine.kubectl_with("create -f -", manifest);
        if said.code != Some(1) || !said.err.contains(expect) {
            wrong.push(format!("{manifest}expected {expect}\nis {}{}", said.out, said.err));
        }
    }
    assert_eq!(objects(), before);
    machine.kubectl_with("create -f -", FIXED).ok();
    for (object, patch, expect) in IMMUTABLE {
        let mut args = vec!["patch"];
        args.extend(object.split(' '));
        let said = machine.kubectl_args(&[&args[..], &["--type=merge", "-p", patch]].concat());
        if said.code != Some(1) || !said.err.contains(expect) {
            wrong.push(format!("{object} {patch}\nexpected {expect}\nis {}{}", said.out, said.err));
        }
    }
    machine.kubectl_with("delete -f -", FIXED).ok();
    let said = machine.kubectl("get things").failed();
    assert!(said.contains("the server doesn't have a resource type \"things\""), "{said}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A body beyond 3 MiB is not read, one beyond an object's own limit is told which.
pub fn too_large(machine: &Machine) {
    let check = |size: usize, expect: &str| {
        let path = machine.folder().join("large");
        std::fs::write(&path, "x".repeat(size)).unwrap();
        let said = machine.kubectl(&format!("create configmap large --from-file={}", path.display())).failed();
        assert!(said.contains(expect), "{size}: {}", &said[..said.len().min(500)]);
    };
    check(2 << 20, "ConfigMap \"large\" is invalid: []: Too long: may not be more than 1048576 bytes");
    check(4 << 20, "Request entity too large: limit is 3145728");
    assert!(machine.kubectl("get configmap large").failed().contains("not found"));
}
