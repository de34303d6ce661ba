use super::*;

fn check(input: &str, canonical: &str) {
    assert_eq!(Value::parse(input.as_bytes()).unwrap().to_string(), canonical, "{input}");
}

#[test]
fn documents_have_one_encoding() {
    check(r#" { "b" : 1 , "a" : [ true, null, "x\n\"\u0001" ] } "#, r#"{"a":[true,null,"x\n\"\u0001"],"b":1}"#);
    check("1.5", "1.5");
    check("-9223372036854775808", "-9223372036854775808");
    check("1e3", "1000");
    check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#);
    check(r#"{"z":1,"a":2,"z":3,"m":{}}"#, r#"{"a":2,"m":{},"z":3}"#);
}

#[test]
fn duplicates_are_named_by_path() {
    let (_, duplicates) = Value::parse_strict(br#"{"spec":{"c":[{"x":1},{"n":1,"n":2}]},"spec":1}"#).unwrap();
    assert_eq!(duplicates, ["spec.c[1].n", "spec"]);
}

#[test]
fn bad_documents_are_refused() {
    for bad in ["", "{", "[1,]", "{\"a\" 1}", "1 2", "\"\u{1}\""] {
        assert!(Value::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(Value::parse(deep.as_bytes()).is_err());
}

#[test]
fn paths_are_set_and_removed() {
    let mut value = Value::Null;
    value.set(&["metadata", "labels", "app"], "web");
    assert_eq!(value.str_at(&["metadata", "labels", "app"]), Some("web"));
    assert_eq!(value.remove(&["metadata", "labels", "app"]), Some("web".into()));
    assert_eq!(value.remove(&["metadata", "nothing", "app"]), None);
    assert_eq!(value.to_string(), r#"{"metadata":{"labels":{}}}"#);
}

#[test]
fn a_view_takes_null_for_none() {
    #[derive(serde::Deserialize)]
    struct Condition {
        #[serde(default)]
        since: String,
        why: Option<String>,
    }
    let value = Value::parse(br#"[{"since":null,"why":null},{"since":"now","why":"so"}]"#).unwrap();
    let conditions: Vec<Condition> = value.view().unwrap();
    assert_eq!((conditions[0].since.as_str(), &conditions[0].why), ("", &None));
    assert_eq!((conditions[1].since.as_str(), conditions[1].why.as_deref()), ("now", Some("so")));
    // What doesn't fit without nulls either is told of as it stands.
    let wrong = Value::parse(br#"[{"since":7}]"#).unwrap().view::<Vec<Condition>>();
    assert!(wrong.err().unwrap().to_string().contains("integer `7`"));
}

#[test]
fn what_was_written_is_read_back_by_both_readers() {
    for json in [
        r#"{"metadata":{"annotations":{"a/b":"x"},"name":"a"},"spec":{"list":[1,-2,{}],"none":null,"off":false,"on":true}}"#,
        r#"["\"\\\n\r\t\u0001é🦀",[],{},9223372036854775807,-9223372036854775808]"#,
        r#"{"\"":1,"never-heard-of":1}"#,
        "18446744073709551615",
        r#"{"a":1.5,"b":[0.25]}"#,
    ] {
        let value = Value::parse(json.as_bytes()).unwrap();
        let written = value.to_json();
        assert_eq!(Value::parse_canonical(&written).unwrap(), value, "{json}");
        assert_eq!(
            canonical::parse(std::str::from_utf8(&written).unwrap(), &[]).is_some(),
            !json.contains(['.']) && !json.starts_with("18")
        );
    }
    for other in [
        "{\"b\":1,\"a\":2}",
        "{\"a\":1,\"a\":2}",
        "[1, 2]",
        "[1,]",
        "",
        "{",
        "{\"a\"",
        "\"a",
        "\"\\ud800\"",
        "nul",
        "[1",
    ] {
        assert!(canonical::parse(other, &[]).is_none(), "{other}");
    }
    assert!(canonical::parse(&"[".repeat(100_000), &[]).is_none());
}

#[test]
fn a_member_is_left_out_where_it_is_read() {
    let check = |json: &str, expect: &str, canonical: bool| {
        let without = ["metadata", "managedFields"];
        assert_eq!(Value::parse_canonical_without(json.as_bytes(), &without).unwrap().to_string(), expect, "{json}");
        assert_eq!(canonical::parse(json, &without).is_some(), canonical, "{json}");
    };
    for managed in [r#"[{"f:a":{"}":["\\\"]",-1,null]}},{},[]]"#, "\"x\"", "true", "1.5", "{}"] {
        check(&format!(r#"{{"metadata":{{"managedFields":{managed}}}}}"#), r#"{"metadata":{}}"#, true);
        check(
            &format!(r#"{{"a":1,"metadata":{{"labels":{{}},"managedFields":{managed},"name":"a"}},"z":[2]}}"#),
            r#"{"a":1,"metadata":{"labels":{},"name":"a"},"z":[2]}"#,
            true,
        );
        check(&format!(r#"{{"metadata":{{"managedFields": {managed}}},"a":1}}"#), r#"{"a":1,"metadata":{}}"#, false);
    }
    let elsewhere = r#"{"data":{"managedFields":"x"},"metadata":{"labels":{"managedFields":"x"}}}"#;
    check(elsewhere, elsewhere, true);
    let list = r#"{"metadata":[{"managedFields":"x"}]}"#;
    check(list, list, true);
    for bad in
        [r#"{"metadata":{"managedFields":}}"#, r#"{"metadata":{"managedFields":["#, r#"{"metadata":{"managedFields":"#]
    {
        assert!(Value::parse_canonical_without(bad.as_bytes(), &["metadata", "managedFields"]).is_err(), "{bad}");
    }
}
