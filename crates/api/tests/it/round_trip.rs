use apimachinery::Value;

use crate::populate::{assert_same, every_kind, populated};

#[test]
fn every_kind_goes_round_as_json() {
    for (api_version, kind, ty) in every_kind() {
        let value = populated(ty, &api_version, &kind);
        let decoded = ty.decode(&value.to_json()).unwrap_or_else(|error| panic!("{api_version} {kind}: {error}"));
        assert!(decoded.problems.is_empty(), "{api_version} {kind}: {:?}", decoded.problems);
        assert_same(&decoded.value, &value, &format!("{api_version} {kind}"));
        let mut defaulted = value.clone();
        ty.default_value(&mut defaulted);
        assert_same(&defaulted, &value, &format!("{api_version} {kind}: nothing is left to default"));
    }
}

fn check_canonical(resource: (&str, &str), json: &str, expect: &str) {
    let row = api::resource(resource.0, "v1", resource.1).unwrap();
    let decoded = row.ty().decode(json.as_bytes()).unwrap();
    assert_eq!(decoded.value, Value::parse(expect.as_bytes()).unwrap(), "{}", decoded.value);
}

#[test]
fn objects_look_as_upstreams_do() {
    check_canonical(
        ("", "pods"),
        r#"{"metadata":{"name":"a","creationTimestamp":null},"spec":{"containers":[{"name":"c","stdin":false}],"hostNetwork":false,"terminationGracePeriodSeconds":0}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","resources":{}}],"terminationGracePeriodSeconds":0},"status":{}}"#,
    );
    check_canonical(
        ("apps", "deployments"),
        r#"{"spec":{"replicas":0,"minReadySeconds":0}}"#,
        r#"{"metadata":{},"spec":{"replicas":0,"selector":null,"strategy":{},"template":{"metadata":{},"spec":{"containers":null}}},"status":{}}"#,
    );
    check_canonical(
        ("", "services"),
        r#"{"spec":{"ports":[{"port":80}]}}"#,
        r#"{"metadata":{},"spec":{"ports":[{"port":80,"targetPort":0}]},"status":{"loadBalancer":{}}}"#,
    );
    check_canonical(
        ("", "events"),
        "{}",
        r#"{"eventTime":null,"firstTimestamp":null,"involvedObject":{},"lastTimestamp":null,"metadata":{},"reportingComponent":"","reportingInstance":"","source":{}}"#,
    );
}

fn check_error(resource: (&str, &str), json: &str, expect: &str) {
    let row = api::resource(resource.0, "v1", resource.1).unwrap();
    match row.ty().decode(json.as_bytes()) {
        Err(error) => assert_eq!(error.to_string(), expect),
        Ok(decoded) => {
            let problems: Vec<String> = decoded.problems.iter().map(ToString::to_string).collect();
            assert_eq!(problems.join(", "), expect);
        }
    }
}

#[test]
fn wrong_bodies_are_told_in_upstreams_words() {
    check_error(
        ("apps", "deployments"),
        r#"{"spec":{"replicas":"three"}}"#,
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check_error(
        ("", "pods"),
        r#"{"spec":{"containers":[{"image":7}]}}"#,
        "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
    );
    check_error(
        ("", "pods"),
        r#"{"spec":{"containers":{}}}"#,
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    check_error(
        ("", "pods"),
        r#"{"metadata":{"labels":{"a":"1","a":"2"}},"spec":{"containers":[{"name":"a"},{"nam":"b"}],"nodeName":"x","nodeName":"y"}}"#,
        r#"duplicate field "metadata.labels.a", unknown field "spec.containers[1].nam", duplicate field "spec.nodeName""#,
    );
}

#[test]
fn constant_defaults_are_set() {
    let row = api::resource("", "v1", "services").unwrap();
    let mut value = row.ty().decode(br#"{"spec":{"ports":[{"port":80}]}}"#).unwrap().value;
    row.ty().default_value(&mut value);
    assert_eq!(value.items_at(&["spec", "ports"])[0].str_at(&["protocol"]), Some("TCP"));
}
