use std::sync::Arc;

use super::*;

fn cells(json: &str) -> String {
    let object = Object::parse(json.as_bytes()).unwrap();
    let gvk = object.gvk();
    let kind = api::kind(&gvk.group, &gvk.version, &gvk.kind).unwrap();
    let value = object.to_value();
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let row = Row { object: &object, value: &value, now };
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    kind.columns.iter().map(|column| text(row.cell(column))).collect::<Vec<_>>().join(" | ")
}

#[test]
fn rows_are_upstreams() {
    let check = |json: &str, expect: &str| assert_eq!(cells(json), expect);
    check(
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","creationTimestamp":"2026-01-01T00:55:00Z"},
            "spec":{"nodeName":"n1","containers":[{"name":"c"},{"name":"d"}]},
            "status":{"phase":"Running","podIPs":[{"ip":"10.0.0.1"}],"containerStatuses":[
              {"name":"c","ready":true,"restartCount":2,"state":{"running":{}},"lastState":{"terminated":{"finishedAt":"2026-01-01T00:59:00Z"}}},
              {"name":"d","ready":false,"restartCount":0,"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}}"#,
        "a | 1/2 | CrashLoopBackOff | 2 (60s ago) | 5m | 10.0.0.1 | n1 | <none> | <none>",
    );
    check(
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","deletionTimestamp":"2026-01-01T00:55:00Z"},"spec":{"containers":[{"name":"c"}]},
            "status":{"phase":"Running"}}"#,
        "a | 0/1 | Terminating | 0 | <unknown> | <none> | <none> | <none> | <none>",
    );
    check(
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"initContainers":[{"name":"i"},{"name":"j"}],"containers":[{"name":"c"}]},
            "status":{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":0}}},{"name":"j","state":{"running":{}}}]}}"#,
        "a | 0/1 | Init:1/2 | 0 | <unknown> | <none> | <none> | <none> | <none>",
    );
    check(
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"type":"NodePort","clusterIP":"10.96.0.9",
            "ports":[{"port":80,"nodePort":30080,"protocol":"TCP"},{"port":53,"protocol":"UDP"}],"selector":{"a":"b"}}}"#,
        "s | NodePort | 10.96.0.9 | <none> | 80:30080/TCP,53/UDP | <unknown> | a=b",
    );
    check(
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":3,"selector":{"matchLabels":{"a":"b"}},
            "template":{"spec":{"containers":[{"name":"c","image":"i:1"}]}}},"status":{"readyReplicas":1,"updatedReplicas":2}}"#,
        "d | 1/3 | 2 | 0 | <unknown> | c | i:1 | a=b",
    );
    check(
        r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n","labels":{"node-role.kubernetes.io/control-plane":""}},"spec":{"unschedulable":true},
            "status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"1.2.3.4"}],"nodeInfo":{"kubeletVersion":"v1.35.4"}}}"#,
        "n | Ready,SchedulingDisabled | control-plane | <unknown> | v1.35.4 | 1.2.3.4 | <none> | <unknown> | <unknown> | <unknown>",
    );
    check(
        r#"{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"e"},"subsets":[{"addresses":[{"ip":"1.1.1.1"},{"ip":"1.1.1.2"}],"ports":[{"port":80},{"port":81}]}]}"#,
        "e | 1.1.1.1:80,1.1.1.1:81,1.1.1.2:80 + 1 more... | <unknown>",
    );
    check(
        r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"involvedObject":{"kind":"Pod","name":"a"},"type":"Normal","reason":"Pulled","message":"m\n",
            "lastTimestamp":"2026-01-01T00:59:30Z","count":3,"source":{"component":"kubelet","host":"n1"}}"#,
        "30s | Normal | Pulled | pod/a |  | kubelet, n1 | m | <unknown> | 3 | e",
    );
}

#[test]
fn every_computed_cell_is_computed() {
    for kind in api::kinds() {
        let json =
            format!(r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"name":"x"}}}}"#, kind.api_version(), kind.kind);
        let object = Object::parse(json.as_bytes()).unwrap();
        let value = object.to_value();
        let row = Row { object: &object, value: &value, now: Timestamp::UNIX_EPOCH };
        for column in kind.columns.iter().filter(|column| column.cell == Cell::Computed) {
            assert!(cells::find(&row, column.name).is_some(), "{} {}", kind.kind, column.name);
        }
    }
}

#[test]
fn a_table_has_columns_once_and_the_metadata_of_its_objects() {
    let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
    let table = Table::new(api::kind("", "v1", "Secret"), "v1", "", &env).unwrap();
    let json = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","resourceVersion":"7"},"type":"t","data":{"a":"","b":""}}"#;
    let object = Arc::new(Object::parse(json).unwrap());
    let value: serde_json::Value = serde_json::from_slice(&table.of_object(&object)).unwrap();
    assert_eq!(value["rows"][0]["cells"], json!(["s", "t", 2, "<unknown>"]));
    assert_eq!(value["rows"][0]["object"]["metadata"]["resourceVersion"], "7");
    assert_eq!(value["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(value["columnDefinitions"][0]["format"], "name");
    assert!(Table::new(None, "v1", "Nonsense", &env).is_err());
}
