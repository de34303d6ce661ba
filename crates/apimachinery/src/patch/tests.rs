use super::*;
use crate::Value;
use crate::schema::{Builder, Field, Node, PatchStrategy, Schema};

fn value(json: &str) -> Value {
    Value::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"))
}

#[test]
fn json_patches_apply() {
    let check = |document: &str, patch: &str, expect: &str| {
        let patched = JsonPatch::decode(value(patch)).unwrap().apply(value(document));
        assert_eq!(patched.unwrap_or_else(|e| panic!("{patch}: {e}")), value(expect), "{patch}");
    };
    check(r#"{"a":1}"#, "[]", r#"{"a":1}"#);
    check(r#"{"a":1}"#, r#"[{"op":"add","path":"/b","value":2}]"#, r#"{"a":1,"b":2}"#);
    check(r#"{"a":1}"#, r#"[{"op":"add","path":"/a","value":2}]"#, r#"{"a":2}"#);
    check(r#"{"a":[1,3]}"#, r#"[{"op":"add","path":"/a/1","value":2}]"#, r#"{"a":[1,2,3]}"#);
    check(r#"{"a":[1]}"#, r#"[{"op":"add","path":"/a/-","value":2}]"#, r#"{"a":[1,2]}"#);
    check(r#"{"a":[1]}"#, r#"[{"op":"add","path":"/a/-1","value":2}]"#, r#"{"a":[1,2]}"#);
    check(r#"{"a":[1,2]}"#, r#"[{"op":"remove","path":"/a/0"}]"#, r#"{"a":[2]}"#);
    check(r#"{"a":[1,2]}"#, r#"[{"op":"remove","path":"/a/-1"}]"#, r#"{"a":[1]}"#);
    check(r#"{"a/b":{"~":1}}"#, r#"[{"op":"replace","path":"/a~1b/~0","value":2}]"#, r#"{"a/b":{"~":2}}"#);
    check(r#"{"a":1}"#, r#"[{"op":"replace","path":"","value":{"b":1}}]"#, r#"{"b":1}"#);
    check(r#"{"a":{"b":1}}"#, r#"[{"op":"move","from":"/a/b","path":"/c"}]"#, r#"{"a":{},"c":1}"#);
    check(r#"{"a":{"b":1}}"#, r#"[{"op":"copy","from":"/a","path":"/c"}]"#, r#"{"a":{"b":1},"c":{"b":1}}"#);
    check(r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":1},{"op":"remove","path":"/a"}]"#, "{}");
    check(
        r#"{"a":{"y":1,"x":[1]}}"#,
        r#"[{"op":"test","path":"/a","value":{"x":[1],"y":1}}]"#,
        r#"{"a":{"y":1,"x":[1]}}"#,
    );
    check(r#"{"a":1}"#, r#"[{"op":"test","path":"/b","value":null}]"#, r#"{"a":1}"#);
    check(r#"{"a":1}"#, r#"[{"op":"test","path":"/b"}]"#, r#"{"a":1}"#);
    check(r#"{"a":null}"#, r#"[{"op":"add","path":"/b"}]"#, r#"{"a":null,"b":null}"#);
}

#[test]
fn json_patches_that_do_not_apply() {
    let check = |document: &str, patch: &str, expect: &str| {
        let error = JsonPatch::decode(value(patch)).unwrap().apply(value(document)).unwrap_err();
        assert_eq!(error.to_string(), expect);
        let status = error.to_status();
        assert_eq!((status.code, status.reason), (422, Reason::Invalid));
        assert_eq!(status.message, "the server rejected our request due to an error in our request");
    };
    check(
        "{}",
        r#"[{"op":"remove","path":"/a"}]"#,
        "error in remove for path: '/a': Unable to remove nonexistent key: a: missing value",
    );
    check(
        "{}",
        r#"[{"op":"remove","path":"/a/b"}]"#,
        "remove operation does not apply: doc is missing path: \"/a/b\": missing value",
    );
    check(
        "{}",
        r#"[{"op":"add","path":"/a/b","value":1}]"#,
        "add operation does not apply: doc is missing path: \"/a/b\": missing value",
    );
    check(
        "{}",
        r#"[{"op":"replace","path":"/a","value":1}]"#,
        "replace operation does not apply: doc is missing path: \"/a\": missing value",
    );
    check(r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":2}]"#, "testing value /a failed: test failed");
    check(
        r#"{"a":[]}"#,
        r#"[{"op":"add","path":"/a/1","value":2}]"#,
        "error in add for path: '/a/1': Unable to access invalid index: 1: invalid index referenced",
    );
    check("{}", r#"[{"op":"jump","path":"/a"}]"#, "Unexpected kind: jump");
    check("{}", r#"[{"path":"/a"}]"#, "Unexpected kind: unknown");
    check("{}", r#"[{"op":"add"}]"#, "add operation failed to decode path: missing value");
    check(
        "{}",
        r#"[{"op":"copy","from":"/b","path":"/a"}]"#,
        "copy operation does not apply: doc is missing path: \"/b\": missing value",
    );
    check(
        r#"{"a":{"a":1}}"#,
        &format!("[{}]", vec![r#"{"op":"copy","from":"/a","path":"/a/a"}"#; 130].join(",")),
        "copy operation does not apply: the document would be too deep",
    );
    let doubling: Vec<String> = (0..24).map(|i| format!(r#"{{"op":"copy","from":"/a","path":"/a/{i}"}}"#)).collect();
    let error = JsonPatch::decode(value(&format!("[{}]", doubling.join(",")))).unwrap();
    let error = error.apply(value(&format!(r#"{{"a":{{"x":"{}"}}}}"#, "x".repeat(1000)))).unwrap_err();
    assert!(error.to_string().starts_with("Unable to complete the copy"), "{error}");
}

#[test]
fn malformed_json_patches() {
    let check = |patch: &str, code: u16, expect: &str| {
        let status = JsonPatch::decode(value(patch)).unwrap_err().to_status();
        assert_eq!((status.code, status.message.as_str()), (code, expect));
    };
    check(
        "{}",
        400,
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
    );
    check("[1]", 400, "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp");
    check(
        r#"[{"op":1}]"#,
        400,
        "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
    );
    let many = format!("[{}]", vec![r#"{"op":"test","path":"/a"}"#; 10_001].join(","));
    check(&many, 413, "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001");
}

#[test]
fn merge_patches_apply() {
    // The cases of RFC 7386, appendix A, that are about objects.
    for (target, patch, expect) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
        ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ] {
        let mut merged = value(target);
        merge_patch(&mut merged, value(patch)).unwrap();
        assert_eq!(merged, value(expect), "{target} {patch}");
    }
    let error = merge_patch(&mut value("{}"), value("[]")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    assert_eq!(error.to_status().code, 400);
}

/// `item {name, value, other, nested [item]}`, and a document with a list of each sort.
fn schema() -> (Schema, crate::schema::NodeId) {
    let mut builder = Builder::default();
    let string = builder.push(Node::string());
    let number = builder.push(Node::integer(64));
    let item = builder.reserve();
    let items = builder.push(Node::list(item));
    builder.define_object(
        item,
        "test.Item",
        vec![
            Field::new("name", string),
            Field::new("value", number),
            Field::new("other", number),
            Field::new("nested", items).merge_by("name"),
        ],
    );
    let strings = builder.push(Node::list(string));
    let map = builder.push(Node::map(string));
    let raw = builder.push(Node::of(crate::schema::Shape::Raw));
    let root = builder.object(
        "test.Root",
        vec![
            Field::new("items", items).merge_by("name"),
            Field::new("atomic", items),
            Field::new("unkeyed", items).patch(PatchStrategy::Merge),
            Field::new("set", strings).patch(PatchStrategy::Merge),
            Field::new("strings", strings),
            Field::new("labels", map),
            Field::new("item", item),
            Field::new("retained", item).patch(PatchStrategy::RetainKeys),
            Field::new("replaced", item).patch(PatchStrategy::Replace),
            Field::new("scalar", number),
            Field::new("raw", raw),
        ],
    );
    (builder.finish(), root)
}

fn strategic(original: &str, patch: &str) -> Result<Value, PatchError> {
    let (schema, root) = schema();
    strategic_merge_patch(value(original), value(patch), schema.at(root))
}

#[test]
fn strategic_merge_patches_apply() {
    let check = |original: &str, patch: &str, expect: &str| {
        let patched = strategic(original, patch).unwrap_or_else(|e| panic!("{patch}: {e}"));
        assert_eq!(patched.to_string(), value(expect).to_string(), "{original} {patch}");
    };
    // Scalars and maps.
    check(r#"{"scalar":1}"#, r#"{"scalar":2}"#, r#"{"scalar":2}"#);
    check(r#"{"scalar":1}"#, r#"{"scalar":null}"#, "{}");
    check("{}", r#"{"scalar":null}"#, "{}");
    check(r#"{"labels":{"a":"1","b":"2"}}"#, r#"{"labels":{"a":null,"c":"3"}}"#, r#"{"labels":{"b":"2","c":"3"}}"#);
    check(r#"{"labels":{"a":"1"}}"#, r#"{"labels":{"$patch":"replace","b":"2"}}"#, r#"{"labels":{"b":"2"}}"#);
    check(r#"{"labels":{"a":"1"}}"#, r#"{"labels":{"$patch":"delete"}}"#, r#"{"labels":{}}"#);
    check(r#"{"replaced":{"name":"a","value":1}}"#, r#"{"replaced":{"name":"b"}}"#, r#"{"replaced":{"name":"b"}}"#);
    check(r#"{"scalar":1}"#, r#"{"$patch":"replace","item":{"name":"a"}}"#, r#"{"item":{"name":"a"}}"#);
    // New values lose nulls and directives.
    check("{}", r#"{"item":{"name":"a","value":null}}"#, r#"{"item":{"name":"a"}}"#);
    check("{}", r#"{"item":{"$patch":"delete","name":"a"}}"#, "{}");
    check("{}", r#"{"items":[{"name":"a"},{"$patch":"delete","name":"b"}]}"#, r#"{"items":[{"name":"a"}]}"#);
    // Lists with a merge key.
    check(
        r#"{"items":[{"name":"a","value":1},{"name":"b","value":2}]}"#,
        r#"{"items":[{"name":"b","other":3}]}"#,
        r#"{"items":[{"name":"a","value":1},{"name":"b","value":2,"other":3}]}"#,
    );
    check(
        r#"{"items":[{"name":"a"},{"name":"b"}]}"#,
        r#"{"items":[{"name":"c"}]}"#,
        r#"{"items":[{"name":"c"},{"name":"a"},{"name":"b"}]}"#,
    );
    check(
        r#"{"items":[{"name":"a"},{"name":"b"}]}"#,
        r#"{"items":[{"$patch":"delete","name":"a"}]}"#,
        r#"{"items":[{"name":"b"}]}"#,
    );
    check(
        r#"{"items":[{"name":"a"},{"name":"b"}]}"#,
        r#"{"items":[{"name":"c"},{"$patch":"replace"}]}"#,
        r#"{"items":[{"name":"c"}]}"#,
    );
    check(r#"{"items":[{"name":"a"}]}"#, r#"{"items":[{"$patch":"replace"}]}"#, r#"{"items":[]}"#);
    check(r#"{"items":[{"name":"a"}]}"#, r#"{"items":null}"#, "{}");
    check(
        r#"{"items":[{"name":"a","nested":[{"name":"x","value":1}]}]}"#,
        r#"{"items":[{"name":"a","nested":[{"name":"x","value":null,"other":2}]}]}"#,
        r#"{"items":[{"name":"a","nested":[{"name":"x","other":2}]}]}"#,
    );
    // Lists without a strategy are replaced.
    check(r#"{"atomic":[{"name":"a"}]}"#, r#"{"atomic":[{"name":"b"}]}"#, r#"{"atomic":[{"name":"b"}]}"#);
    check(r#"{"strings":["a"]}"#, r#"{"strings":["b"]}"#, r#"{"strings":["b"]}"#);
    // Sets of scalars.
    check(r#"{"set":["a","b"]}"#, r#"{"set":["c","a"]}"#, r#"{"set":["c","a","b"]}"#);
    check(r#"{"set":["a","b"]}"#, r#"{"$deleteFromPrimitiveList/set":["a"]}"#, r#"{"set":["b"]}"#);
    check(r#"{"set":["a","b"]}"#, r#"{"$deleteFromPrimitiveList/set":["a"],"set":["c"]}"#, r#"{"set":["c","b"]}"#);
    check("{}", r#"{"$deleteFromPrimitiveList/set":["a"]}"#, "{}");
    // Order.
    check(
        r#"{"items":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#,
        r#"{"$setElementOrder/items":[{"name":"c"},{"name":"a"}]}"#,
        r#"{"items":[{"name":"b"},{"name":"c"},{"name":"a"}]}"#,
    );
    check(
        r#"{"items":[{"name":"a"},{"name":"b"}]}"#,
        r#"{"$setElementOrder/items":[{"name":"a"},{"name":"b"},{"name":"c"}],"items":[{"name":"c","value":1}]}"#,
        r#"{"items":[{"name":"a"},{"name":"b"},{"name":"c","value":1}]}"#,
    );
    check(
        r#"{"items":[{"name":"a"},{"name":"injected"},{"name":"b"}]}"#,
        r#"{"$setElementOrder/items":[{"name":"b"},{"name":"c"}],"items":[{"name":"c"},{"$patch":"delete","name":"a"}]}"#,
        r#"{"items":[{"name":"injected"},{"name":"b"},{"name":"c"}]}"#,
    );
    check(
        r#"{"set":["a","b","c"]}"#,
        r#"{"$setElementOrder/set":["c","d","a"],"set":["d"]}"#,
        r#"{"set":["b","c","d","a"]}"#,
    );
    check("{}", r#"{"$setElementOrder/items":[{"name":"a"}],"items":[{"name":"a"}]}"#, r#"{"items":[{"name":"a"}]}"#);
    check("{}", r#"{"$setElementOrder/items":[{"name":"a"}]}"#, "{}");
    // Retained keys.
    check(
        r#"{"retained":{"name":"a","value":1,"other":2}}"#,
        r#"{"retained":{"$retainKeys":["name","other"],"other":3}}"#,
        r#"{"retained":{"name":"a","other":3}}"#,
    );
    check("{}", r#"{"retained":{"$retainKeys":["name"],"name":"a"}}"#, r#"{"retained":{"name":"a"}}"#);
    // Values of any form merge as objects and replace lists.
    check(
        r#"{"raw":{"a":{"b":1},"l":[1]}}"#,
        r#"{"raw":{"a":{"c":2},"l":[2]}}"#,
        r#"{"raw":{"a":{"b":1,"c":2},"l":[2]}}"#,
    );
    // A changed type replaces.
    check(r#"{"raw":{"a":1}}"#, r#"{"raw":{"a":{"b":null,"c":1}}}"#, r#"{"raw":{"a":{"c":1}}}"#);
}

#[test]
fn strategic_merge_patches_that_are_refused() {
    let check = |original: &str, patch: &str, code: u16, expect: &str| {
        let status = strategic(original, patch).unwrap_err().to_status();
        assert_eq!((status.code, status.message.as_str()), (code, expect), "{patch}");
    };
    check("{}", "[]", 400, "json: cannot unmarshal array into Go value of type map[string]interface {}");
    check(
        r#"{"items":[{"name":"a"}]}"#,
        r#"{"items":[{"value":1}]}"#,
        500,
        "map: map[value:1] does not contain declared merge key: name",
    );
    check(
        r#"{"items":[{"name":"a"}]}"#,
        r#"{"items":[{"$patch":"delete"}]}"#,
        500,
        "map: map[$patch:delete] does not contain declared merge key: name",
    );
    check(
        r#"{"items":[{"name":"a"}]}"#,
        r#"{"items":[{"$patch":"x","name":"a"}]}"#,
        500,
        "unknown patch type: x in map: map[$patch:x name:a]",
    );
    check(
        r#"{"items":[{"name":"a"}]}"#,
        r#"{"items":[{"$patch":"merge"}]}"#,
        500,
        "merging lists cannot yet be specified in the patch",
    );
    check(
        r#"{"labels":{}}"#,
        r#"{"labels":{"$patch":"merge"}}"#,
        500,
        "unknown patch type: merge in map: map[$patch:merge]",
    );
    check(
        r#"{"unkeyed":[{"name":"a"}]}"#,
        r#"{"unkeyed":[{"name":"a"}]}"#,
        500,
        "cannot merge lists without merge key for Item",
    );
    check(
        "{}",
        r#"{"$setElementOrder/nope":[]}"#,
        500,
        "unable to find api field in struct Root for the json field \"nope\"",
    );
    check("{}", r#"{"$setElementOrder":[]}"#, 400, "invalid patch format of setElementOrder list");
    check("{}", r#"{"$deleteFromPrimitiveList":[]}"#, 400, "invalid patch format of primitive list");
    check("{}", r#"{"$setElementOrder/set":"x"}"#, 500, "expected a []interface {}, but received a string");
    check(
        r#"{"set":["a"]}"#,
        r#"{"$setElementOrder/set":["a"],"set":["b"]}"#,
        500,
        "The order in patch list:\n[b]\n doesn't match $setElementOrder list:\n[a]\n",
    );
    check(
        r#"{"retained":{"name":"a"}}"#,
        r#"{"retained":{"$retainKeys":["name"],"value":1}}"#,
        400,
        "invalid patch format of retainKeys",
    );
    check(
        r#"{"retained":{"name":"a"}}"#,
        r#"{"retained":{"$retainKeys":"name"}}"#,
        400,
        "invalid patch format of retainKeys",
    );
    check(
        r#"{"set":["a"]}"#,
        r#"{"set":[["b"]]}"#,
        422,
        "the server rejected our request due to an error in our request",
    );
    check(
        r#"{"items":[{"name":"a"}]}"#,
        r#"{"items":["b"]}"#,
        500,
        "list element types are not identical: object and string",
    );
}
