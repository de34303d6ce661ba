//! The situations of upstream's own tests (structured-merge-diff, `merge/*_test.go`) in a table of ours, and what is of ours alone.

mod situations;

use super::*;
use crate::Value;
use crate::schema::{Builder, Field, ListType, Node, NodeId, Schema, Shape, Type};

/// An object with every form of value that is managed apart or as one.
fn schema() -> (Schema, NodeId) {
    let mut builder = Builder::default();
    let string = builder.push(Node::string());
    let number = builder.push(Node::of(Shape::Integer { bits: 64 }));
    let set = builder.push(Node::of(Shape::Array { item: string, list: ListType::Set, keys: Default::default() }));
    let atomic =
        builder.push(Node::of(Shape::Array { item: string, list: ListType::Atomic, keys: Default::default() }));
    let map = builder.push(Node::of(Shape::Map { value: string, atomic: false }));
    let atomic_map = builder.push(Node::of(Shape::Map { value: string, atomic: true }));
    let item = builder.object(
        "Item",
        vec![
            Field::new("labels", map),
            Field::new("name", string),
            Field::new("tags", set),
            Field::new("value", number),
        ],
    );
    let list = builder.push(Node::map_list(item, &["name"]));
    let port = builder.object(
        "Port",
        vec![
            Field::new("name", string),
            Field::new("port", number),
            Field::new("protocol", string).default_json("\"TCP\""),
        ],
    );
    let ports = builder.push(Node::map_list(port, &["port", "protocol"]));
    let inner = builder.object("Inner", vec![Field::new("a", string), Field::new("b", string)]);
    let part = builder.object(
        "Part",
        vec![Field::new("inner", inner), Field::new("list", list), Field::new("n", number), Field::new("name", string)],
    );
    let parts = builder.push(Node::of(Shape::Map { value: part, atomic: false }));
    let object = builder.object(
        "Thing",
        vec![
            Field::new("apiVersion", string),
            Field::new("atomic", atomic),
            Field::new("atomicMap", atomic_map),
            Field::new("kind", string),
            Field::new("list", list),
            Field::new("map", map),
            Field::new("n", number),
            Field::new("name", string),
            Field::new("part", part),
            Field::new("parts", parts),
            Field::new("ports", ports),
            Field::new("set", set),
        ],
    );
    (builder.finish(), object)
}

/// Several versions of one shape.
struct Same<'a>(Type<'a>);

impl Versions for Same<'_> {
    fn convert(&self, value: &Value, from: &str, to: &str) -> Option<Value> {
        (self.ty(from).is_some() && self.ty(to).is_some()).then(|| value.clone())
    }

    fn ty(&self, version: &str) -> Option<Type<'_>> {
        version.starts_with('v').then_some(self.0)
    }
}

fn value(json: &str) -> Value {
    Value::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// The managers, a line each: `one Apply v1 .n .list[name="a"]`.
fn shown(managed: &ManagedFields) -> Vec<String> {
    let mut lines: Vec<String> = managed
        .0
        .iter()
        .map(|entry| {
            let paths = entry.fields.paths();
            let paths =
                paths.iter().map(|path| format!(" {}", path.iter().map(ToString::to_string).collect::<String>()));
            let sub = if entry.subresource.is_empty() { String::new() } else { format!("/{}", entry.subresource) };
            format!("{}{sub} {:?} {}{}", entry.manager, entry.operation, entry.version, paths.collect::<String>())
        })
        .collect();
    lines.sort();
    lines
}

/// Plays a situation. Each line of `script` is `apply WHO VERSION JSON`, `force ...`, `update ...` (the whole object after it),
/// or `conflict WHO VERSION JSON => MANAGER PATH, MANAGER PATH`; then the object and its managers are as said.
fn check(name: &str, script: &str, object: &str, managers: &[&str]) {
    let (schema, root) = schema();
    let ty = schema.at(root);
    let (mut live, mut managed) = (Value::object(), ManagedFields::default());
    let empty = Value::object();
    for (at, line) in script.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let mut words = line.splitn(4, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (verb, who, version, rest) = (next(), next(), next(), next());
        let (json, conflicts) = rest.split_once(" => ").unwrap_or((rest, ""));
        let now = format!("2026-01-01T00:00:{at:02}Z");
        let manager = FieldManager {
            name: who,
            subresource: "",
            version,
            ty,
            now: &now,
            reset: &Reset::Nothing,
            versions: &Same(ty),
        };
        let given = value(json);
        match verb {
            "update" => {
                let comparison = manager.compare(&live, &given).unwrap();
                let created = at == 0;
                managed = manager.update((&live, &given), comparison, managed, created).unwrap();
                live = given;
            }
            _ => match manager.apply(&live, &empty, &given, managed.clone(), verb == "force") {
                Ok(applied) => {
                    assert_ne!(verb, "conflict", "{name}: {line}");
                    live = applied.value.unwrap_or(live);
                    managed = applied.managed;
                }
                Err(ApplyError::Conflicts(found)) => {
                    let found: Vec<String> = found
                        .iter()
                        .map(|one| {
                            format!("{} {}", one.manager, one.path.iter().map(ToString::to_string).collect::<String>())
                        })
                        .collect();
                    assert_eq!(found.join(", "), conflicts, "{name}: {line}");
                }
                Err(error) => panic!("{name}: {line}: {error:?}"),
            },
        }
        // What is stored is read again.
        assert_eq!(ManagedFields::stored(&managed.to_json()), managed, "{name}: {line}");
    }
    let mut expected = value(object);
    if let Value::Object(map) = &mut expected {
        map.retain(|_, value| !value.is_null());
    }
    live.make_object();
    drop_nulls(&mut live);
    assert_eq!(live, expected, "{name}");
    assert_eq!(shown(&managed), managers, "{name}");
}

/// As decoding does with what was pruned.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|_, value| {
            drop_nulls(value);
            !value.is_null()
        }),
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[test]
fn elements_are_shown_as_upstream_does() {
    let check = |text: &str, expect: &str| {
        let element = PathElement::parse(text).unwrap().unwrap();
        assert_eq!(element.to_string(), expect);
    };
    check("f:spec", ".spec");
    check(r#"k:{"name":"web"}"#, r#"[name="web"]"#);
    check(r#"k:{"protocol":"TCP","port":80}"#, r#"[port=80,protocol="TCP"]"#);
    check(r#"v:"a""#, r#"[="a"]"#);
    check("v:3", "[=3]");
    check("i:3", "[3]");
    assert_eq!(PathElement::parse("x:later"), Ok(None));
    for bad in ["", "f", "fx", "k:[]", "v:", "i:x", "k:{"] {
        assert!(PathElement::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn sets_are_read_as_they_are_written() {
    let check = |json: &str| {
        let set = FieldSet::parse(&value(json)).unwrap();
        let mut written = Vec::new();
        set.write_json(&mut written);
        assert_eq!(String::from_utf8(written).unwrap(), value(json).to_string(), "{json}");
        assert_eq!(sonic_rs::from_str::<FieldSet>(json).unwrap(), set, "{json}");
    };
    check("{}");
    check(r#"{"f:spec":{"f:replicas":{}}}"#);
    check(r#"{"f:metadata":{"f:labels":{".":{},"f:app":{},"f:a\"b":{}}}}"#);
    check(r#"{"f:list":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}},"k:{\"name\":\"b\"}":{}},"f:set":{"v:\"x\"":{}}}"#);
    let later = FieldSet::parse(&value(r#"{"x:new":{},"f:a":{}}"#)).unwrap();
    assert_eq!(later, FieldSet::of_fields(&[&["a"]]));
}

#[test]
fn sets_are_joined_and_parted() {
    let set = |json: &str| FieldSet::parse(&value(json)).unwrap();
    let check = |a: &str, b: &str, union: &str, difference: &str, all: &str, both: &str| {
        let mut joined = set(a);
        joined.union(set(b));
        assert_eq!(joined, set(union), "{a} + {b}");
        let mut left = set(a);
        left.subtract(&set(b));
        assert_eq!(left, set(difference), "{a} - {b}");
        let mut left = set(a);
        left.subtract_all(&set(b));
        assert_eq!(left, set(all), "{a} without all of {b}");
        assert_eq!(set(a).intersection(&set(b)), set(both), "{a} and {b}");
    };
    check(r#"{"f:a":{}}"#, r#"{"f:b":{}}"#, r#"{"f:a":{},"f:b":{}}"#, r#"{"f:a":{}}"#, r#"{"f:a":{}}"#, "{}");
    check(
        r#"{"f:a":{".":{},"f:x":{},"f:y":{}}}"#,
        r#"{"f:a":{}}"#,
        r#"{"f:a":{".":{},"f:x":{},"f:y":{}}}"#,
        r#"{"f:a":{"f:x":{},"f:y":{}}}"#,
        "{}",
        r#"{"f:a":{}}"#,
    );
    check(
        r#"{"f:a":{"f:x":{}},"f:c":{}}"#,
        r#"{"f:a":{"f:x":{},"f:y":{}},"f:b":{}}"#,
        r#"{"f:a":{"f:x":{},"f:y":{}},"f:b":{},"f:c":{}}"#,
        r#"{"f:c":{}}"#,
        r#"{"f:c":{}}"#,
        r#"{"f:a":{"f:x":{}}}"#,
    );
}

#[test]
fn some_fields_are_out_of_reach() {
    let check = |reset: &Reset, given: &str, expect: &str| {
        let mut set = FieldSet::parse(&value(given)).unwrap();
        reset.filter(&mut set);
        assert_eq!(set, FieldSet::parse(&value(expect)).unwrap());
    };
    let given = r#"{"f:spec":{"f:list":{"k:{\"name\":\"a\"}":{"f:image":{},"f:resources":{"f:limits":{}}}},"f:x":{}},"f:status":{"f:y":{}}}"#;
    check(&Reset::Fields(FieldSet::of_fields(&[&["spec"]])), given, r#"{"f:status":{"f:y":{}}}"#);
    check(
        &Reset::AllBut(&[&[Some("spec"), Some("list"), None, Some("resources")], &[Some("spec"), Some("none")]]),
        given,
        r#"{"f:spec":{"f:list":{"k:{\"name\":\"a\"}":{"f:resources":{"f:limits":{}}}}}}"#,
    );
}

#[test]
fn configurations_are_checked() {
    let (schema, root) = schema();
    let ty = schema.at(root);
    let check = |config: &str, expect: &str| {
        let found = super::check(ty, &value(config)).err().map(|errors| errors.to_string()).unwrap_or_default();
        assert_eq!(found, expect, "{config}");
    };
    check(r#"{"n":1,"list":[{"name":"a"}],"map":null}"#, "");
    check(r#"{"m":1}"#, ".m: field not declared in schema");
    check(r#"{"list":[{"name":"a","x":1}]}"#, r#".list[name="a"].x: field not declared in schema"#);
    check(r#"{"n":"1"}"#, ".n: expected numeric (int or float), got string");
    check(r#"{"name":1}"#, ".name: expected string, got &value.valueUnstructured{Value:1}");
    check(r#"{"part":"x"}"#, ".part: expected map, got &{x}");
    check(r#"{"set":{"a":"b"}}"#, ".set: expected list, got &{map[a:b]}");
    check(r#"{"list":[{"name":"a"},{"name":"a"}]}"#, r#".list: duplicate entries for key [name="a"]"#);
    check(r#"{"set":["a","a"]}"#, r#".set: duplicate entries for key [="a"]"#);
    check(
        r#"{"list":[{"value":1}]}"#,
        ".list: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have \
         default values for any key fields)",
    );
    check(r#"{"list":[null]}"#, ".list: element 0: associative list with keys may not have a null element");
    check(r#"{"list":["a"]}"#, ".list: element 0: associative list with keys may not have non-map elements");
    check(r#"{"ports":[{"name":"x"}]}"#, "");
    check(
        r#"{"n":true,"name":[]}"#,
        "errors:\n  .n: expected numeric (int or float), got bool\n  .name: expected string, got &value.valueUnstructured{Value:[]interface {}{}}",
    );
}

#[test]
fn conflicts_are_told_by_manager() {
    let path = |names: &[&'static str]| names.iter().map(|name| PathElement::field(*name)).collect::<Vec<_>>();
    let conflict = |manager: &str, operation, subresource: &str, names: &[&'static str]| Conflict {
        manager: manager.to_owned(),
        operation,
        version: "apps/v1".to_owned(),
        subresource: subresource.to_owned(),
        path: path(names),
    };
    let one = conflict("kubectl", Operation::Apply, "", &["spec", "replicas"]);
    assert_eq!(
        conflict_status(std::slice::from_ref(&one)).message,
        "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"
    );
    let more = [
        conflict("hpa", Operation::Update, "scale", &["spec", "replicas"]),
        conflict("hpa", Operation::Update, "scale", &["spec", "paused"]),
        one,
    ];
    let status = conflict_status(&more);
    assert_eq!(
        status.message,
        "Apply failed with 3 conflicts: conflicts with \"hpa\" with subresource \"scale\" using apps/v1:\n- .spec.replicas\n\
         - .spec.paused\nconflicts with \"kubectl\":\n- .spec.replicas"
    );
    assert_eq!((status.code, status.details.unwrap().causes.len()), (409, 3));
}

#[test]
fn what_clients_say_of_managers_is_read_or_refused() {
    let check = |json: &str, expect: Result<usize, &str>| {
        let found = ManagedFields::parse(&value(json)).map(|managed| managed.0.len());
        assert_eq!(found.map_err(|error| error.to_string()), expect.map_err(str::to_owned), "{json}");
    };
    check("[]", Ok(0));
    check(
        r#"[{"manager":"a","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:a":{}}}]"#,
        Ok(1),
    );
    check(
        r#"[{"manager":"a","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1"},{"manager":"a","operation":"Apply","apiVersion":"v2","fieldsType":"FieldsV1"}]"#,
        Ok(1),
    );
    check("[{}]", Err("operation must be `Apply` or `Update`"));
    check(r#"[{"operation":"Apply"}]"#, Err("apiVersion must not be empty"));
    check(r#"[{"operation":"Apply","apiVersion":"v1"}]"#, Err("missing fieldsType in managed fields entry 0"));
    check(
        r#"[{"operation":"Apply","apiVersion":"v1","fieldsType":"X"}]"#,
        Err("invalid fieldsType \"X\" in managed fields entry 0"),
    );
    check(
        r#"[{"operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f":{}}}]"#,
        Err("error decoding set: key must be 2 characters long:"),
    );
    for (json, expect) in [("[]", true), ("[{}]", true), ("null", false), ("[{},{}]", false), (r#"[{"a":"b"}]"#, false)]
    {
        assert_eq!(ManagedFields::is_reset(&value(json)), expect, "{json}");
    }
}

#[test]
fn the_oldest_updates_are_rolled_into_one() {
    let mut script = String::from("update m00 v1 {\"map\":{\"m00\":\"x\"}}\n");
    let mut map = String::from("\"m00\":\"x\"");
    for i in 1..13 {
        map.push_str(&format!(",\"m{i:02}\":\"x\""));
        script.push_str(&format!("update m{i:02} v1 {{\"map\":{{{map}}}}}\n"));
    }
    let mut managers = vec!["ancient-changes Update v1 .map .map.m00 .map.m01 .map.m02 .map.m03".to_owned()];
    managers.extend((4..13).map(|i| format!("m{i:02} Update v1 .map.m{i:02}")));
    let managers: Vec<&str> = managers.iter().map(String::as_str).collect();
    check("13 updates", &script, &format!("{{\"map\":{{{map}}}}}"), &managers);
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_clients_side() {
    let mut builder = Builder::default();
    let string = builder.push(Node::string());
    let number = builder.push(Node::of(Shape::Integer { bits: 64 }));
    let map = builder.push(Node::of(Shape::Map { value: string, atomic: false }));
    let metadata = builder.object("Meta", vec![Field::new("annotations", map), Field::new("name", string)]);
    let object = builder.object(
        "Thing",
        vec![
            Field::new("apiVersion", string),
            Field::new("kind", string),
            Field::new("metadata", metadata),
            Field::new("n", number),
            Field::new("text", string),
        ],
    );
    let schema = builder.finish();
    let ty = schema.at(object);
    let last = r#"{"apiVersion":"v1","kind":"Thing","metadata":{"name":"a"},"n":1,"text":"x"}"#;
    let mut live = value(last);
    live.set(&["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"], last);
    let versions = Same(ty);
    let manager = |name| FieldManager {
        name,
        subresource: "",
        version: "v1",
        ty,
        now: "2026-01-01T00:00:00Z",
        reset: &Reset::Nothing,
        versions: &versions,
    };
    let client = manager("kubectl-client-side-apply");
    let comparison = client.compare(&Value::object(), &live).unwrap();
    let managed = client.update((&Value::object(), &live), comparison, ManagedFields::default(), true).unwrap();
    let config = value(r#"{"apiVersion":"v1","kind":"Thing","metadata":{"name":"a"},"n":2,"text":"<x>"}"#);
    // Another manager meets conflicts.
    let refused = manager("other").apply(&live, &Value::object(), &config, managed.clone(), false);
    assert!(matches!(refused, Err(ApplyError::Conflicts(conflicts)) if conflicts.len() == 2));
    let applied = manager("kubectl").apply(&live, &Value::object(), &config, managed.clone(), false).unwrap();
    let told = applied.value.unwrap();
    assert_eq!(
        told.str_at(&["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"]),
        Some(
            "{\"apiVersion\":\"v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"a\"},\"n\":2,\"text\":\"\\u003cx\\u003e\"}\n"
        )
    );
    assert_eq!(
        shown(&applied.managed),
        [
            "kubectl Apply v1 .n .text",
            "kubectl-client-side-apply Update v1 .metadata.annotations \
             .metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
        ]
    );
    // What somebody changed since then is a conflict again.
    live.set(&["n"], 5);
    let refused = manager("kubectl").apply(&live, &Value::object(), &config, managed, false);
    assert!(matches!(refused, Err(ApplyError::Conflicts(conflicts)) if conflicts.len() == 1));
}

#[test]
fn scales_share_the_managers_of_the_replica_count() {
    let entry = |manager: &str, operation, subresource: &str, version: &str, json: &str| ManagedEntry {
        manager: manager.to_owned(),
        operation,
        version: version.to_owned(),
        subresource: subresource.to_owned(),
        time: None,
        fields: FieldSet::parse(&value(json)).unwrap(),
    };
    let fields = ScaleFields { version: "apps/v1", versions: &[], path: &["spec".into(), "replicas".into()] };
    let object = ManagedFields(vec![
        entry("a", Operation::Apply, "", "apps/v1", r#"{"f:spec":{"f:replicas":{},"f:paused":{}}}"#),
        entry("b", Operation::Update, "", "apps/v1", r#"{"f:spec":{"f:template":{}}}"#),
    ]);
    let scale = fields.of_object(&object);
    assert_eq!(shown(&scale), ["a Apply autoscaling/v1 .spec.replicas"]);
    assert_eq!(fields.to_object(object.clone(), scale), object);
    let taken = ManagedFields(vec![entry(
        "hpa",
        Operation::Update,
        "scale",
        "autoscaling/v1",
        r#"{"f:spec":{"f:replicas":{}}}"#,
    )]);
    assert_eq!(
        shown(&fields.to_object(object, taken)),
        ["a Apply apps/v1 .spec.paused", "b Update apps/v1 .spec.template", "hpa/scale Update apps/v1 .spec.replicas"]
    );
}
