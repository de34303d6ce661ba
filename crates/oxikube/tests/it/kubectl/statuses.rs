//! The whole answer to what is wrong: code, reason, and the causes that programs read.

use apimachinery::Status;
use client::Client;
use testkit::machine::Machine;

use crate::support::with_client;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const STRICT: &str = "/api/v1/namespaces/default/configmaps?fieldValidation=Strict";

/// A request, the code and the reason of its answer, and each cause as `reason field: message`.
type Case = (&'static str, &'static str, &'static str, u16, &'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    ("POST", STRICT, r#"{"metadata":{"name":"x"},"datum":1}"#, 400, "BadRequest", &[]),
    ("POST", STRICT, r#"{"metadata":{"name":"x","name":"y"}}"#, 400, "BadRequest", &[]),
    ("POST", MAPS, r#"{"metadata":{"name":"x"},"data":{"a":1}}"#, 400, "BadRequest", &[]),
    ("POST", MAPS, r#"{"metadata":"#, 400, "BadRequest", &[]),
    ("POST", MAPS, r#"{"apiVersion":"v1","kind":"Thing","metadata":{"name":"x"}}"#, 400, "BadRequest", &[]),
    ("POST", "/api/v1/namespaces/default/things", r#"{"metadata":{"name":"x"}}"#, 404, "NotFound", &[]),
    ("POST", "/apis/example.com/v1/things", r#"{"metadata":{"name":"x"}}"#, 404, "NotFound", &[]),
    ("GET", "/api/v1/namespaces/default/configmaps/none", "", 404, "NotFound", &[]),
    ("POST", "/api/v1/namespaces/none/configmaps", r#"{"metadata":{"name":"x"}}"#, 404, "NotFound", &[]),
    ("POST", "/api/v1/namespaces/default/configmaps/x", r#"{"metadata":{"name":"x"}}"#, 405, "MethodNotAllowed", &[]),
    ("POST", MAPS, r#"{"metadata":{"name":"kept"}}"#, 409, "AlreadyExists", &[]),
    (
        "PUT",
        "/api/v1/namespaces/default/configmaps/kept",
        r#"{"metadata":{"name":"kept","resourceVersion":"1"},"data":{"a":"b"}}"#,
        409,
        "Conflict",
        &[],
    ),
    (
        "POST",
        MAPS,
        r#"{"metadata":{}}"#,
        422,
        "Invalid",
        &["FieldValueRequired metadata.name: Required value: name or generateName is required"],
    ),
    (
        "POST",
        MAPS,
        r#"{"metadata":{"name":"X_y"}}"#,
        422,
        "Invalid",
        &[
            "FieldValueInvalid metadata.name: Invalid value: \"X_y\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    ),
    (
        "POST",
        PODS,
        r#"{"metadata":{"name":"x"},"spec":{"restartPolicy":"Perhaps","containers":[{"name":"a"},{"name":"a","image":"i"}]}}"#,
        422,
        "Invalid",
        &[
            "FieldValueRequired spec.containers[0].image: Required value",
            "FieldValueDuplicate spec.containers[1].name: Duplicate value: \"a\"",
            "FieldValueNotSupported spec.restartPolicy: Unsupported value: \"Perhaps\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/secrets/kept",
        r#"{"type":"other"}"#,
        422,
        "Invalid",
        &["FieldValueInvalid type: Invalid value: \"other\": field is immutable"],
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/kept",
        r#"{"data":{"a":"b"}}"#,
        422,
        "Invalid",
        &["FieldValueForbidden data: Forbidden: field is immutable when `immutable` is set"],
    ),
];

/// Bodies that are not JSON: content type, body, code and reason.
const BODIES: &[(&str, &[u8], u16, &str)] = &[
    ("text/plain", b"x", 415, "UnsupportedMediaType"),
    ("application/yaml", b"metadata:\n\tname: x\n", 400, "BadRequest"),
    ("application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff\xff", 400, "BadRequest"),
    ("application/vnd.kubernetes.protobuf", b"no prefix", 400, "BadRequest"),
];

pub fn all(machine: &Machine) {
    machine.kubectl_with(
        "create -f -",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, immutable: true}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: kept}}\n",
    ).ok();
    // Pods of other steps go on with their lives.
    let there = || {
        let revisions = machine.kubectl("get configmaps,secrets -o jsonpath={.items[*].metadata.resourceVersion}").ok();
        (revisions, machine.kubectl("get pods -o name").ok())
    };
    let before = there();
    let wrong = with_client(machine, async |client| {
        let mut wrong = Vec::new();
        for (method, target, body, code, reason, causes) in CASES {
            let media = if *method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let said = said(&client, method, target, media, body.as_bytes()).await;
            let expect = (*code, (*reason).to_owned(), causes.iter().map(|cause| (*cause).to_owned()).collect());
            if said != expect {
                wrong.push(format!("{method} {target} {body}\nexpected {expect:?}\nis       {said:?}"));
            }
        }
        for (media, body, code, reason) in BODIES {
            let said = said(&client, "POST", MAPS, media, body).await;
            if (said.0, said.1.as_str()) != (*code, *reason) {
                wrong.push(format!("{media}: expected {code} {reason}, is {said:?}"));
            }
        }
        let large = vec![b' '; (3 << 20) + 1];
        let said = said(&client, "POST", MAPS, "application/json", &large).await;
        if (said.0, said.1.as_str()) != (413, "RequestEntityTooLarge") {
            wrong.push(format!("a large body: {said:?}"));
        }
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(there(), before, "nothing changed");
    machine.kubectl("delete configmap/kept secret/kept").ok();
}

/// Code, reason and causes of an answer.
async fn said(
    client: &Client,
    method: &str,
    target: &str,
    media: &'static str,
    body: &[u8],
) -> (u16, String, Vec<String>) {
    match client.raw(method.parse().unwrap(), target, Some(media), body.to_vec().into()).await {
        Ok(response) => (response.code.as_u16(), "it was accepted".to_owned(), Vec::new()),
        Err(error) => told(error.status().unwrap_or_else(|| panic!("{error:?}"))),
    }
}

fn told(status: &Status) -> (u16, String, Vec<String>) {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let causes = causes.iter().map(|cause| format!("{} {}: {}", cause.reason, cause.field, cause.message));
    (status.code, format!("{:?}", status.reason), causes.collect())
}
