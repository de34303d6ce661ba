use super::*;
use crate::Value;

/// A small cluster of types with every shape and presence in it.
fn sample() -> (Schema, NodeId) {
    let mut builder = Builder::default();
    let string = builder.push(Node::string());
    let int32 = builder.push(Node::integer(32));
    let int64 = builder.push(Node::integer(64));
    let flag = builder.push(Node::of(Shape::Boolean));
    let number = builder.push(Node::of(Shape::Number));
    let quantity = builder.push(Node::of(Shape::Quantity));
    let time = builder.push(Node::of(Shape::Time));
    let raw = builder.push(Node::of(Shape::Raw));
    let bytes = builder.push(Node::of(Shape::Bytes));
    let port_number = builder.push(Node::of(Shape::IntOrString));
    let labels = builder.push(Node::map(string));
    let data = builder.push(Node::map(bytes));
    let limits = builder.push(Node::map(quantity));
    let port = builder.object(
        "io.v1.Port",
        vec![
            Field::new("port", int32).presence(Presence::Always),
            Field::new("protocol", string).presence(Presence::NonEmpty).default_json("\"TCP\""),
            Field::new("target", port_number).presence(Presence::Always),
        ],
    );
    let ports = builder.push(Node::map_list(port, &["port", "protocol"]));
    let strings = builder.push(Node::set_list(string));
    let status = builder.object("io.v1.Status", vec![Field::new("ready", int32).presence(Presence::NonEmpty)]);
    let this = builder.reserve();
    let children = builder.push(Node::list(this));
    builder.define_object(
        this,
        "io.v1.ThingSpec",
        vec![
            Field::new("replicas", int32),
            Field::new("size", int64).presence(Presence::NonEmpty),
            Field::new("paused", flag).presence(Presence::NonEmpty),
            Field::new("weight", number),
            Field::new("at", time),
            Field::new("born", time).presence(Presence::NonZero),
            Field::new("seen", time).presence(Presence::Always),
            Field::new("extra", raw),
            Field::new("labels", labels).presence(Presence::NonEmpty),
            Field::new("data", data).presence(Presence::NonEmpty),
            Field::new("limits", limits).presence(Presence::NonEmpty),
            Field::new("ports", ports).presence(Presence::NonEmpty).merge_by("port"),
            Field::new("rules", strings).presence(Presence::AlwaysNull),
            Field::new("children", children).presence(Presence::NonEmpty),
            Field::new("status", status).presence(Presence::Always),
        ],
    );
    let thing = builder.object("io.v1.Thing", vec![Field::new("spec", this)]);
    (builder.finish(), thing)
}

/// Decodes `spec`, and brings it into its form in place; the expected members of `spec` besides the ones that are always there.
fn check(spec: &str, expect: &str) {
    let (schema, thing) = sample();
    let json = format!(r#"{{"spec":{spec}}}"#);
    let decoded = schema.at(thing).decode(json.as_bytes()).unwrap();
    let in_place = schema.at(thing).canonical(Value::parse(json.as_bytes()).unwrap()).unwrap();
    assert_eq!(in_place.value, decoded.value, "{spec}: in place");
    let mut value = decoded.value.get("spec").unwrap().clone();
    let always = Value::parse(br#"{"rules":null,"seen":null,"status":{}}"#).unwrap();
    for (key, zero) in always.as_object().unwrap().iter() {
        if value.get(key) == Some(zero) {
            value.remove(&[key]);
        }
    }
    assert_eq!(value.to_string(), expect, "{spec}");
    let again = schema.at(thing).canonical(decoded.value.clone()).unwrap();
    assert_eq!(again.value, decoded.value, "{spec}: canonical twice");
}

#[test]
fn values_take_their_canonical_form() {
    check("{}", "{}");
    check(r#"{"replicas":0,"size":0,"paused":false}"#, r#"{"replicas":0}"#);
    check(r#"{"replicas":null,"extra":null,"at":null}"#, "{}");
    check(r#"{"weight":1.0,"size":9007199254740993}"#, r#"{"size":9007199254740993,"weight":1}"#);
    check(r#"{"weight":0.25}"#, r#"{"weight":0.25}"#);
    check(r#"{"at":"2024-05-01T12:00:00+02:00"}"#, r#"{"at":"2024-05-01T10:00:00Z"}"#);
    check(r#"{"born":null}"#, "{}");
    check(r#"{"extra":{"b":[1,{"x":null}],"a":0}}"#, r#"{"extra":{"a":0,"b":[1,{"x":null}]}}"#);
    check(r#"{"labels":{"b":"1","a":""},"data":{"k":"YQ=="}}"#, r#"{"data":{"k":"YQ=="},"labels":{"a":"","b":"1"}}"#);
    check(r#"{"labels":{},"children":[],"ports":[]}"#, "{}");
    check(r#"{"labels":{"a":null}}"#, r#"{"labels":{"a":""}}"#);
    check(r#"{"limits":{"cpu":0.5,"mem":"1024Mi","n":2}}"#, r#"{"limits":{"cpu":"500m","mem":"1Gi","n":"2"}}"#);
    check(
        r#"{"ports":[{"port":80,"target":"http"},null]}"#,
        r#"{"ports":[{"port":80,"target":"http"},{"port":0,"target":0}]}"#,
    );
    check(r#"{"rules":[]}"#, r#"{"rules":[]}"#);
    check(r#"{"rules":[null],"status":{"ready":0},"seen":""}"#, r#"{"rules":[""]}"#);
    check(
        r#"{"at":"0001-01-01T00:00:00Z","seen":"0001-01-01T00:00:00Z","born":"2024-05-01T10:00:00Z"}"#,
        "{\"born\":\"2024-05-01T10:00:00Z\"}",
    );
    check(
        r#"{"children":[{"replicas":1,"labels":{}}]}"#,
        r#"{"children":[{"replicas":1,"rules":null,"seen":null,"status":{}}]}"#,
    );
    check(r#"{"limits":{"cpu":" 1000m "},"data":{"k":"YW\nI="}}"#, r#"{"data":{"k":"YWI="},"limits":{"cpu":"1"}}"#);
}

fn check_problems(json: &str, expect: &[&str]) {
    let (schema, thing) = sample();
    let decoded = schema.at(thing).decode(json.as_bytes()).unwrap();
    let problems: Vec<String> = decoded.problems.iter().map(StrictError::to_string).collect();
    assert_eq!(problems, expect, "{json}");
}

#[test]
fn strict_problems_are_named_by_path() {
    let (schema, thing) = sample();
    let unknown = Value::parse(br#"{"spec":{"ports":[{},{"prot":1}],"rules":null}}"#).unwrap();
    let problems = schema.at(thing).canonical(unknown).unwrap().problems;
    assert_eq!(problems, [StrictError::Unknown("spec.ports[1].prot".into())]);
    check_problems(
        r#"{"spec":{"ports":[{},{"prot":1}],"foo":{"deep":[1]}},"Spec":{}}"#,
        &[r#"unknown field "spec.ports[1].prot""#, r#"unknown field "spec.foo""#, r#"unknown field "Spec""#],
    );
    check_problems(
        r#"{"spec":{"replicas":1,"replicas":2,"labels":{"a":"1","a":"2"}},"spec":{}}"#,
        &[r#"duplicate field "spec.replicas""#, r#"duplicate field "spec.labels.a""#, r#"duplicate field "spec""#],
    );
    let decoded = schema.at(thing).decode(br#"{"spec":{"replicas":1,"size":5,"replicas":2,"replicas":3}}"#).unwrap();
    assert_eq!(decoded.value.i64_at(&["spec", "replicas"]), Some(3));
    assert_eq!(decoded.problems.len(), 2);
}

fn check_error(json: &str, expect: &str) {
    let (schema, thing) = sample();
    let error = schema.at(thing).decode(json.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), expect, "{json}");
    let in_place = schema.at(thing).canonical(Value::parse(json.as_bytes()).unwrap()).unwrap_err();
    assert_eq!(in_place, error, "{json}: in place");
}

#[test]
fn wrong_types_are_told_as_upstream_does() {
    let field = |found: &str, at: &str, ty: &str| {
        format!("json: cannot unmarshal {found} into Go struct field {at} of type {ty}")
    };
    check_error(r#"{"spec":{"replicas":"3"}}"#, &field("string", "ThingSpec.spec.replicas", "int32"));
    check_error(r#"{"spec":{"replicas":1.5}}"#, &field("number 1.5", "ThingSpec.spec.replicas", "int32"));
    check_error(r#"{"spec":{"replicas":4294967296}}"#, &field("number 4294967296", "ThingSpec.spec.replicas", "int32"));
    check_error(r#"{"spec":{"ports":[{"port":true}]}}"#, &field("bool", "Port.spec.ports.port", "int32"));
    check_error(r#"{"spec":{"ports":{"a":1}}}"#, &field("object", "ThingSpec.spec.ports", "[]v1.Port"));
    check_error(r#"{"spec":{"labels":{"a":1}}}"#, &field("number", "ThingSpec.spec.labels", "string"));
    check_error(r#"{"spec":[]}"#, &field("array", "Thing.spec", "v1.ThingSpec"));
    check_error("[]", "json: cannot unmarshal array into Go value of type v1.Thing");
    check_error(
        r#"{"spec":{"limits":{"cpu":"one"}}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check_error(
        r#"{"spec":{"at":"soon"}}"#,
        r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
    );
}

#[test]
fn bad_documents_are_refused() {
    let (schema, thing) = sample();
    let deep = format!(r#"{{"spec":{}{}}}"#, r#"{"children":["#.repeat(5000), "]}".repeat(5000));
    let deep_raw = format!(r#"{{"spec":{{"extra":{}{}}}}}"#, "[".repeat(5000), "]".repeat(5000));
    let deep_unknown = format!(r#"{{"other":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many = format!(r#"{{"spec":{{"ports":[{}{{}}]}}}}"#, "{},".repeat(250_000));
    assert_eq!(
        schema.at(thing).decode(many.as_bytes()).unwrap_err().to_string(),
        "too many objects and lists in one document"
    );
    for bad in ["", "{", r#"{"spec":{}}x"#, r#"{"spec":{"labels":{"a":"\ud800"}}}"#, &deep, &deep_raw, &deep_unknown] {
        assert!(schema.at(thing).decode(bad.as_bytes()).is_err(), "{:.40}", bad);
    }
    assert!(schema.at(thing).decode(b"{\"spec\":{\"labels\":{\"a\":\"\xff\"}}}").is_err());
}

#[test]
fn constant_defaults_fill_gaps() {
    let (schema, thing) = sample();
    let mut value = Value::parse(br#"{"spec":{"ports":[{"port":1},{"port":2,"protocol":"UDP"}]}}"#).unwrap();
    schema.at(thing).default_value(&mut value);
    assert_eq!(value.to_string(), r#"{"spec":{"ports":[{"port":1,"protocol":"TCP"},{"port":2,"protocol":"UDP"}]}}"#);
}

#[test]
fn types_are_walked() {
    let (schema, thing) = sample();
    let thing = schema.at(thing);
    assert!(matches!(thing.walk(&["spec", "ports", "port"]).unwrap().shape(), Shape::Integer { bits: 32 }));
    assert!(thing.walk(&["spec", "ports", "nothing"]).is_none());
    let ports = thing.walk(&["spec"]).unwrap().field("ports").unwrap();
    assert_eq!((ports.patch, ports.patch_merge_key.as_deref()), (PatchStrategy::Merge, Some("port")));
    assert!(thing.walk(&["spec", "extra"]).unwrap().is_atomic());
    assert!(!thing.walk(&["spec"]).unwrap().is_atomic());
}
