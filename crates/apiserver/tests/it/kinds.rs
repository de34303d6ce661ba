//! Every stored kind can be created, read, listed, watched, updated, patched and deleted.

use serde_json::{Value, json};

use crate::fixture::{Fixture, next};

/// A request that is signed by its key.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWk1JR0FBZ0VBTUI0eERUQUxCZ05WQkFNTUJHcGhibVV4RFRBTEJnTlZCQW9NQkhSbFlX\
    MHdXVEFUQmdjcQpoa2pPUFFJQkJnZ3Foa2pPUFFNQkJ3TkNBQVFOeXMvb21RbThNdGs0Wnl5WjBwa0lXMWRVMm0xRGJhMDNpUzFSCi9KL256Y0h3VEhEbUta\
    RDY4RUZxS1pBdEs4ZFpzU3ptYkRvYWsraERBNU5CemdVRG9BQXdDZ1lJS29aSXpqMEUKQXdJRFNBQXdSUUlnZmRnN1plOStYVDk1T3R5WlE0QSt5ejdvMW5M\
    QnNHS3dGVzQxN2Z6NGZMQUNJUURxSU15YwpNRGpNQmdXcER4cTNUb1JYZTBkMTg0aGFXNzJyekwrTUkrYi9uUT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJF\
    UVVFU1QtLS0tLQo=";

/// The least that each kind wants besides its name.
fn body(kind: &str) -> Value {
    let template =
        json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let selector = json!({ "matchLabels": { "a": "b" } });
    let mut job_template = template.clone();
    job_template["spec"]["restartPolicy"] = "Never".into();
    match kind {
        "Pod" => json!({ "spec": { "containers": [{ "name": "c", "image": "i" }] } }),
        "PodTemplate" => json!({ "template": template }),
        "ReplicationController" => json!({ "spec": { "selector": { "a": "b" }, "template": template } }),
        "Deployment" | "ReplicaSet" | "DaemonSet" => json!({ "spec": { "selector": selector, "template": template } }),
        "StatefulSet" => json!({ "spec": { "serviceName": "s", "selector": selector, "template": template } }),
        "Job" => json!({ "spec": { "template": job_template } }),
        "CronJob" => {
            json!({ "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": { "template": job_template } } } })
        }
        "Service" => json!({ "spec": { "ports": [{ "port": 80 }], "selector": { "a": "b" } } }),
        "Endpoints" => json!({ "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "port": 80 }] }] }),
        "EndpointSlice" => json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"] }] }),
        "Event" => {
            json!({ "involvedObject": { "namespace": "test", "name": "x", "kind": "Pod" }, "reason": "R", "type": "Normal" })
        }
        "EventsEvent" => json!({
            "regarding": { "namespace": "test", "name": "x", "kind": "Pod" }, "reason": "R", "type": "Normal", "action": "A",
            "reportingController": "example.com/c", "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z",
        }),
        "PersistentVolume" => {
            json!({ "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/x" } } })
        }
        "PersistentVolumeClaim" => {
            json!({ "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } })
        }
        "RoleBinding" => json!({ "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x" } }),
        "ClusterRoleBinding" => {
            json!({ "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "x" } })
        }
        "HorizontalPodAutoscaler" => {
            json!({ "spec": { "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "d", "apiVersion": "apps/v1" } } })
        }
        "ControllerRevision" => json!({ "data": { "a": 1 } }),
        "CertificateSigningRequest" => {
            json!({ "spec": { "request": REQUEST, "signerName": "example.com/s", "usages": ["client auth"] } })
        }
        "Ingress" => json!({ "spec": { "defaultBackend": { "service": { "name": "s", "port": { "number": 80 } } } } }),
        "APIService" => {
            json!({ "spec": { "group": "example.com", "version": "v9", "groupPriorityMinimum": 9, "versionPriority": 9 } })
        }
        "IngressClass" => json!({ "spec": { "controller": "example.com/c" } }),
        "IPAddress" => json!({ "spec": { "parentRef": { "resource": "services", "namespace": "test", "name": "s" } } }),
        "NetworkPolicy" => json!({ "spec": { "podSelector": {} } }),
        "ServiceCIDR" => json!({ "spec": { "cidrs": ["10.200.0.0/24"] } }),
        "RuntimeClass" => json!({ "handler": "h" }),
        "PriorityClass" => json!({ "value": 5 }),
        "StorageClass" => json!({ "provisioner": "example.com/p" }),
        "CSIDriver" => json!({ "spec": {} }),
        "CSINode" => json!({ "spec": { "drivers": [] } }),
        "CSIStorageCapacity" => json!({ "storageClassName": "s" }),
        "VolumeAttachment" => {
            json!({ "spec": { "attacher": "example.com", "nodeName": "n", "source": { "persistentVolumeName": "pv" } } })
        }
        "VolumeAttributesClass" => json!({ "driverName": "example.com/d", "parameters": { "a": "b" } }),
        "ValidatingAdmissionPolicy" => json!({ "spec": {
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"] }] },
            "validations": [{ "expression": "true" }] } }),
        "ValidatingAdmissionPolicyBinding" => json!({ "spec": { "policyName": "p", "validationActions": ["Deny"] } }),
        "FlowSchema" => json!({ "spec": { "matchingPrecedence": 5, "priorityLevelConfiguration": { "name": "p" } } }),
        "PriorityLevelConfiguration" => {
            json!({ "spec": { "type": "Limited", "limited": { "limitResponse": { "type": "Reject" } } } })
        }
        "DeviceClass" => json!({ "spec": {} }),
        "ResourceClaim" => json!({ "spec": {} }),
        "ResourceClaimTemplate" => json!({ "spec": { "spec": {} } }),
        "ResourceSlice" => {
            json!({ "spec": { "driver": "example.com", "pool": { "name": "p", "generation": 1, "resourceSliceCount": 1 }, "nodeName": "n", "devices": [] } })
        }
        _ => json!({}),
    }
}

/// The stored kinds but definitions, which are named by what they say, written by the server too, and tested with `crds`.
fn stored() -> impl Iterator<Item = &'static api::Kind> {
    let apart = |kind: &&&'static api::Kind| kind.storage.is_some() && kind.kind != "CustomResourceDefinition";
    api::kinds().iter().filter(apart).copied()
}

/// Where objects of the kind in namespace `test` are, and one of them with its name and label `it`.
fn example(kind: &api::Kind) -> (String, &'static str, Value) {
    let root = api::openapi::root(kind.group, kind.version);
    let collection = match kind.namespaced {
        true => format!("/{root}/namespaces/test/{}", kind.resource),
        false => format!("/{root}/{}", kind.resource),
    };
    let name = match kind.kind {
        "IPAddress" => "192.168.7.9",
        "CSIDriver" => "driver.example.com",
        "APIService" => "v9.example.com",
        _ => "x",
    };
    let mut object = body(if kind.group == "events.k8s.io" { "EventsEvent" } else { kind.kind });
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.into();
    object["metadata"] = json!({ "name": name, "labels": { "it": "yes" } });
    (collection, name, object)
}

/// What may be said of any object with conditions.
fn condition(of: &str) -> Value {
    json!({ "type": of, "status": "True", "reason": "Test", "message": "said by a test", "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

/// Their metadata is not changed with their status. Upstream: ResetObjectMetaForStatus.
const METADATA_APART: &[&str] = &[
    "APIService",
    "FlowSchema",
    "PriorityLevelConfiguration",
    "ResourceClaim",
    "ServiceCIDR",
    "ValidatingAdmissionPolicy",
    "VolumeAttachment",
];

/// What upstream's conformance suite asks of every kind with a status: it is read, replaced and patched by itself.
#[tokio::test]
async fn every_status_is_a_subresource() {
    let fixture = Fixture::start().await;
    fixture.ok("POST", "/api/v1/namespaces", r#"{"metadata":{"name":"test"}}"#).await;
    fixture.account("test").await;
    for kind in stored().filter(|kind| kind.subresource("status").is_some()) {
        let (collection, name, object) = example(kind);
        fixture.ok("POST", &collection, &object.to_string()).await;
        let (one, status) = (format!("{collection}/{name}"), format!("{collection}/{name}/status"));
        let read = fixture.ok("GET", &status, "").await;
        assert_eq!(read, fixture.ok("GET", &one, "").await, "{status}");
        let has_conditions = kind.ty().walk(&["status", "conditions"]).is_some_and(|ty| ty.item().is_some());
        let mut patch = json!({ "metadata": { "annotations": { "patched": "status" } } });
        if has_conditions {
            let mut conditions = read["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.push(condition("Tested"));
            patch["status"] = json!({ "conditions": conditions });
        }
        let patched = fixture.ok("PATCH", &status, &patch.to_string()).await;
        let has = |object: &Value, of: &str| {
            let conditions = object["status"]["conditions"].as_array();
            conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == of))
        };
        assert!(!has_conditions || has(&patched, "Tested"), "{status}: {patched}");
        assert_eq!(patched["spec"], read["spec"], "{status}");
        let mut changed = patched.clone();
        changed["metadata"]["annotations"]["updated"] = "status".into();
        if has_conditions {
            changed["status"]["conditions"].as_array_mut().unwrap().push(condition("Updated"));
        }
        let updated = fixture.ok("PUT", &status, &changed.to_string()).await;
        assert!(!has_conditions || has(&updated, "Updated"), "{status}: {updated}");
        for annotation in ["patched", "updated"] {
            let expect = if METADATA_APART.contains(&kind.kind) { Value::Null } else { "status".into() };
            assert_eq!(updated["metadata"]["annotations"][annotation], expect, "{status}");
        }
        // By the object itself the status cannot be changed.
        let mut other = updated.clone();
        other["status"] = json!({});
        other["metadata"]["labels"]["more"] = "x".into();
        let same = fixture.ok("PUT", &one, &other.to_string()).await;
        assert_eq!(same["status"], updated["status"], "{one}");
        assert_eq!(same["metadata"]["labels"]["more"], "x");
        // The next version of the kind has the same objects.
        fixture.ok("DELETE", &format!("{one}?propagationPolicy=Background&gracePeriodSeconds=0"), "").await;
    }
}

/// Does what the controllers do that hold back the deletion of claims and volumes.
async fn release(fixture: &Fixture, one: &str) {
    fixture.ok("PATCH", one, r#"{"metadata":{"finalizers":null}}"#).await;
}

#[tokio::test]
async fn every_kind_is_deleted_by_the_dozen() {
    let fixture = Fixture::start().await;
    fixture.ok("POST", "/api/v1/namespaces", r#"{"metadata":{"name":"test"}}"#).await;
    fixture.account("test").await;
    for kind in stored().filter(|kind| kind.has_verb("deletecollection")) {
        let (collection, name, mut object) = example(kind);
        fixture.ok("POST", &collection, &object.to_string()).await;
        let other = if kind.kind == "IPAddress" { "192.168.7.10" } else { "y.example.com" };
        let other = if kind.kind == "Service" { "y" } else { other };
        object["metadata"] = json!({ "name": other, "labels": { "it": "no" } });
        if kind.kind == "APIService" {
            object["spec"]["version"] = "y".into();
        }
        if kind.kind == "ServiceCIDR" {
            object["spec"]["cidrs"] = json!(["10.201.0.0/24"]);
        }
        let created = fixture.ok("POST", &collection, &object.to_string()).await;
        if !created["metadata"]["finalizers"].is_null() {
            for one in [name, other] {
                release(&fixture, &format!("{collection}/{one}")).await;
            }
        }
        let metadata = [("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")];
        let selected = format!("{collection}?labelSelector=it");
        let list = fixture.send_as("GET", &selected, "", b"", &metadata).await;
        assert_eq!((list.code, list.json["kind"].as_str()), (200, Some("PartialObjectMetadataList")), "{}", list.text);
        assert_eq!(list.json["items"].as_array().unwrap().len(), 2, "{selected}");
        assert!(list.json["items"][0].get("spec").is_none());
        fixture.ok("DELETE", &format!("{collection}?labelSelector=it%3Dyes&dryRun=All"), "").await;
        let left = async || {
            let list = fixture.ok("GET", &selected, "").await;
            let items = list["items"].as_array().unwrap().iter();
            items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(left().await.len(), 2, "{selected}");
        // What the collection orphans by default waits for the garbage collector.
        let at_once = "propagationPolicy=Background";
        fixture.ok("DELETE", &format!("{collection}?labelSelector=it%3Dyes&{at_once}"), "").await;
        assert_eq!(left().await, [other], "{selected} without {name}");
        fixture.ok("DELETE", &format!("{selected}&{at_once}"), "").await;
        assert!(left().await.is_empty(), "{selected}");
    }
}

#[tokio::test]
async fn every_kind_lives_and_dies() {
    let fixture = Fixture::start().await;
    fixture.ok("POST", "/api/v1/namespaces", r#"{"metadata":{"name":"test"}}"#).await;
    fixture.account("test").await;
    for kind in stored() {
        let (collection, name, object) = example(kind);
        let one = format!("{collection}/{name}");
        let mut events = fixture.watch(&format!("{collection}?watch=1&labelSelector=it%3Dyes")).await;

        let strict = format!("{collection}?fieldValidation=Strict");
        let created = fixture.ok("POST", &strict, &object.to_string()).await;
        assert_eq!(created["kind"], kind.kind);
        assert_eq!(created["apiVersion"], kind.api_version());
        assert!(created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string());
        assert_eq!(next(&mut events).await, format!("ADDED {name}"), "{one}");
        fixture.check("POST", &collection, &object.to_string(), 409, "already exists").await;

        let read = fixture.ok("GET", &one, "").await;
        assert_eq!(read, created, "{one}");
        let list = fixture
            .ok("GET", &format!("{collection}?labelSelector=it%3Dyes&fieldSelector=metadata.name%3D{name}"), "")
            .await;
        assert_eq!(list["items"], json!([read]));

        let mut changed = read.clone();
        changed["metadata"]["labels"]["more"] = "x".into();
        let updated = fixture.ok("PUT", &one, &changed.to_string()).await;
        assert_eq!(updated["metadata"]["labels"]["more"], "x");
        assert_ne!(updated["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
        assert_eq!(next(&mut events).await, format!("MODIFIED {name}"));
        fixture.check("PUT", &one, &changed.to_string(), 409, "the object has been modified").await;
        let same = fixture.ok("PUT", &one, &updated.to_string()).await;
        assert_eq!(same, updated, "an equal body is not written");

        let patched = fixture.ok("PATCH", &one, r#"{"metadata":{"annotations":{"a":"b"}}}"#).await;
        assert_eq!(patched["metadata"]["annotations"]["a"], "b");
        assert_eq!(next(&mut events).await, format!("MODIFIED {name}"));

        fixture.ok("DELETE", &format!("{one}?propagationPolicy=Background"), "").await;
        if kind.kind == "Namespace" {
            assert_eq!(next(&mut events).await, "MODIFIED x");
            continue;
        }
        if !patched["metadata"]["finalizers"].is_null() {
            assert_eq!(next(&mut events).await, format!("MODIFIED {name}"));
            release(&fixture, &one).await;
        }
        assert_eq!(next(&mut events).await, format!("DELETED {name}"));
        fixture.check("GET", &one, "", 404, "not found").await;
    }
}

#[tokio::test]
async fn tables_of_every_kind() {
    let fixture = Fixture::start().await;
    for kind in api::kinds().iter().filter(|kind| kind.has_verb("list")) {
        let path = format!("/{}/{}", api::openapi::root(kind.group, kind.version), kind.resource);
        let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
        let table = fixture.send_as("GET", &path, "", b"", &accept).await;
        assert_eq!((table.code, table.json["kind"].as_str()), (200, Some("Table")), "{path}: {}", table.text);
        assert_eq!(table.json["columnDefinitions"].as_array().unwrap().len(), kind.columns.len());
    }
}
