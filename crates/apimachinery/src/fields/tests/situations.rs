//! Who applies and updates what, and who manages what then.

use super::check;

#[test]
fn leaves() {
    check(
        "apply twice",
        r#"
        apply one v1 {"n":1,"name":"a"}
        apply one v1 {"n":2,"name":"a"}
        "#,
        r#"{"n":2,"name":"a"}"#,
        &["one Apply v1 .n .name"],
    );
    check(
        "apply twice in two versions",
        r#"
        apply one v1 {"n":1,"name":"a"}
        apply one v2 {"n":2,"name":"a"}
        "#,
        r#"{"n":2,"name":"a"}"#,
        &["one Apply v2 .n .name"],
    );
    check(
        "apply, update of something else, apply",
        r#"
        apply one v1 {"n":1}
        update two v1 {"n":1,"name":"b"}
        apply one v1 {"n":2}
        "#,
        r#"{"n":2,"name":"b"}"#,
        &["one Apply v1 .n", "two Update v1 .name"],
    );
    check(
        "an update takes, an apply meets the conflict",
        r#"
        apply one v1 {"n":1,"name":"a"}
        update two v1 {"n":5,"name":"b"}
        conflict one v1 {"n":2,"name":"a"} => two .n, two .name
        "#,
        r#"{"n":5,"name":"b"}"#,
        &["two Update v1 .n .name"],
    );
    check(
        "a conflict in another version",
        r#"
        apply one v1 {"n":1}
        update two v2 {"n":5}
        conflict one v1 {"n":2} => two .n
        "#,
        r#"{"n":5}"#,
        &["two Update v2 .n"],
    );
    check(
        "force takes it back",
        r#"
        apply one v1 {"n":1}
        update two v1 {"n":5,"name":"b"}
        force one v1 {"n":2}
        "#,
        r#"{"n":2,"name":"b"}"#,
        &["one Apply v1 .n", "two Update v1 .name"],
    );
    check(
        "what is no longer applied goes",
        r#"
        apply one v1 {"n":1,"name":"a"}
        apply one v1 {"name":"a"}
        "#,
        r#"{"name":"a"}"#,
        &["one Apply v1 .name"],
    );
    check(
        "and in another version too",
        r#"
        apply one v1 {"n":1,"name":"a"}
        apply one v2 {"n":1}
        "#,
        r#"{"n":1}"#,
        &["one Apply v2 .n"],
    );
    check(
        "an update that leaves a field out takes it away",
        r#"
        apply one v1 {"n":1,"name":"a"}
        update two v1 {"name":"a"}
        "#,
        r#"{"name":"a"}"#,
        &["one Apply v1 .name"],
    );
    check(
        "an update that changes nothing manages nothing",
        r#"
        apply one v1 {"n":1}
        update two v1 {"n":1}
        "#,
        r#"{"n":1}"#,
        &["one Apply v1 .n"],
    );
    check(
        "nobody is asked before the first apply",
        r#"
        update gone x1 {}
        update two v1 {"n":1,"name":"a"}
        apply one v1 {"n":1}
        "#,
        r#"{"n":1,"name":"a"}"#,
        &["before-first-apply Update v1 .n .name", "one Apply v1 .n"],
    );
}

#[test]
fn several_appliers() {
    check(
        "the same value is shared",
        r#"
        apply one v1 {"list":[{"name":"a","value":0}]}
        apply two v2 {"list":[{"name":"a","value":0}]}
        "#,
        r#"{"list":[{"name":"a","value":0}]}"#,
        &[
            r#"one Apply v1 .list[name="a"] .list[name="a"].name .list[name="a"].value"#,
            r#"two Apply v2 .list[name="a"] .list[name="a"].name .list[name="a"].value"#,
        ],
    );
    check(
        "another value is a conflict",
        r#"
        apply one v1 {"list":[{"name":"a","value":0}]}
        conflict two v2 {"list":[{"name":"a","value":1}]} => one .list[name="a"].value
        "#,
        r#"{"list":[{"name":"a","value":0}]}"#,
        &[r#"one Apply v1 .list[name="a"] .list[name="a"].name .list[name="a"].value"#],
    );
    check(
        "what one drops and another has stays",
        r#"
        apply one v1 {"list":[{"name":"a"},{"name":"b"},{"name":"c"}]}
        apply two v2 {"list":[{"name":"c"},{"name":"d"}]}
        apply one v3 {"list":[{"name":"a"}]}
        "#,
        r#"{"list":[{"name":"a"},{"name":"c"},{"name":"d"}]}"#,
        &[
            r#"one Apply v3 .list[name="a"] .list[name="a"].name"#,
            r#"two Apply v2 .list[name="c"] .list[name="d"] .list[name="c"].name .list[name="d"].name"#,
        ],
    );
    check(
        "a scalar that both dropped goes",
        r#"
        apply one v1 {"part":{"name":"a","n":1}}
        apply two v2 {"part":{"n":1}}
        apply one v1 {"part":{"name":"a"}}
        apply two v2 {}
        "#,
        r#"{"part":{"name":"a"}}"#,
        &["one Apply v1 .part.name"],
    );
    check(
        "an updater keeps what it changed",
        r#"
        apply one v1 {"part":{"name":"a","n":1}}
        update two v1 {"part":{"name":"a","n":2}}
        apply one v1 {"part":{"name":"a"}}
        "#,
        r#"{"part":{"name":"a","n":2}}"#,
        &["one Apply v1 .part.name", "two Update v1 .part.n"],
    );
    check(
        "a map in a map of several",
        r#"
        apply one v1 {"parts":{"a":{"inner":{"a":"x"}},"c":{"inner":{"a":"y"}}}}
        apply two v2 {"parts":{"a":{"inner":{"a":"x"}},"b":{"inner":{"b":"z"}}}}
        apply one v3 {"parts":{"c":{"inner":{"a":"y"}}}}
        "#,
        r#"{"parts":{"a":{"inner":{"a":"x"}},"b":{"inner":{"b":"z"}},"c":{"inner":{"a":"y"}}}}"#,
        &["one Apply v3 .parts.c .parts.c.inner.a", "two Apply v2 .parts.a .parts.b .parts.a.inner.a .parts.b.inner.b"],
    );
}

#[test]
fn nested() {
    check(
        "all of a struct goes",
        r#"
        apply one v1 {"part":{"inner":{"a":"x","b":"y"},"n":1}}
        apply one v1 {}
        "#,
        "{}",
        &[],
    );
    check(
        "but not what an updater put there",
        r#"
        apply one v1 {"part":{"inner":{"a":"x"}}}
        update two v1 {"part":{"inner":{"a":"x","b":"y"}}}
        apply one v1 {}
        "#,
        r#"{"part":{"inner":{"b":"y"}}}"#,
        &["two Update v1 .part.inner.b"],
    );
    check(
        "an item goes with what it applied below it",
        r#"
        apply one v1 {"list":[{"name":"a","labels":{"x":"1","y":"2"}},{"name":"b"}]}
        apply one v1 {"list":[{"name":"b"}]}
        "#,
        r#"{"list":[{"name":"b"}]}"#,
        &[r#"one Apply v1 .list[name="b"] .list[name="b"].name"#],
    );
    check(
        "an item with another's part below it stays",
        r#"
        apply one v1 {"list":[{"name":"a","value":1}]}
        apply two v1 {"list":[{"name":"a","labels":{"x":"1"}}]}
        apply one v1 {"list":[]}
        "#,
        r#"{"list":[{"labels":{"x":"1"},"name":"a"}]}"#,
        &[r#"two Apply v1 .list[name="a"] .list[name="a"].name .list[name="a"].labels.x"#],
    );
    check(
        "a null is applied and removes nothing of others",
        r#"
        apply one v1 {"map":{"a":"1"}}
        apply two v1 {"map":null}
        "#,
        r#"{"map":{"a":"1"}}"#,
        &["one Apply v1 .map.a", "two Apply v1 .map"],
    );
    check(
        "an empty map is a value of its own",
        r#"
        apply one v1 {"part":{"inner":{}}}
        "#,
        r#"{"part":{"inner":{}}}"#,
        &["one Apply v1 .part.inner"],
    );
}

#[test]
fn sets() {
    check(
        "items in the order of the last apply",
        r#"
        apply one v1 {"set":["a","b","c"]}
        apply one v1 {"set":["c","a","d"]}
        "#,
        r#"{"set":["c","a","d"]}"#,
        &[r#"one Apply v1 .set[="a"] .set[="c"] .set[="d"]"#],
    );
    check(
        "items of others stay between their neighbours",
        r#"
        apply one v1 {"set":["a","b","c"]}
        update two v1 {"set":["a","aprime","b","c"]}
        apply one v1 {"set":["a","bprime","c"]}
        "#,
        r#"{"set":["a","aprime","bprime","c"]}"#,
        &[r#"one Apply v1 .set[="a"] .set[="bprime"] .set[="c"]"#, r#"two Update v1 .set[="aprime"]"#],
    );
    check(
        "an item of two stays with one",
        r#"
        apply one v1 {"set":["a","b"]}
        apply two v1 {"set":["b"]}
        apply one v1 {"set":["a"]}
        "#,
        r#"{"set":["a","b"]}"#,
        &[r#"one Apply v1 .set[="a"]"#, r#"two Apply v1 .set[="b"]"#],
    );
    check(
        "an empty set",
        r#"
        apply one v1 {"set":["a"]}
        apply one v1 {"set":[]}
        "#,
        "{}",
        &[],
    );
    check(
        "what an update added twice is one thing",
        r#"
        update two v1 {"set":["a","b","b"]}
        apply one v1 {"set":["a","c"]}
        "#,
        r#"{"set":["a","b","b","c"]}"#,
        &[r#"one Apply v1 .set[="a"] .set[="c"]"#, r#"two Update v1 .set .set[="a"] .set[="b"]"#],
    );
    check(
        "and once more once",
        r#"
        update two v1 {"set":["a","b","b"]}
        force one v1 {"set":["b"]}
        "#,
        r#"{"set":["a","b"]}"#,
        &[r#"one Apply v1 .set[="b"]"#, r#"two Update v1 .set .set[="a"]"#],
    );
}

#[test]
fn lists_by_key() {
    check(
        "a key with a default",
        r#"
        apply one v1 {"ports":[{"port":80}]}
        apply two v1 {"ports":[{"port":80,"name":"web"},{"port":80,"protocol":"UDP"}]}
        conflict one v1 {"ports":[{"port":80,"protocol":"TCP","name":"x"}]} => two .ports[port=80,protocol="TCP"].name
        "#,
        r#"{"ports":[{"name":"web","port":80},{"port":80,"protocol":"UDP"}]}"#,
        &[
            r#"one Apply v1 .ports[port=80,protocol="TCP"] .ports[port=80,protocol="TCP"].port"#,
            r#"two Apply v1 .ports[port=80,protocol="TCP"] .ports[port=80,protocol="UDP"] .ports[port=80,protocol="TCP"].name .ports[port=80,protocol="TCP"].port .ports[port=80,protocol="UDP"].port .ports[port=80,protocol="UDP"].protocol"#,
        ],
    );
    check(
        "new items come where they are put",
        r#"
        apply one v1 {"list":[{"name":"a"},{"name":"c"}]}
        update two v1 {"list":[{"name":"a"},{"name":"x","value":1},{"name":"c"}]}
        apply one v1 {"list":[{"name":"a"},{"name":"b"},{"name":"c"}]}
        "#,
        r#"{"list":[{"name":"a"},{"name":"x","value":1},{"name":"b"},{"name":"c"}]}"#,
        &[
            r#"one Apply v1 .list[name="a"] .list[name="b"] .list[name="c"] .list[name="a"].name .list[name="b"].name .list[name="c"].name"#,
            r#"two Update v1 .list[name="x"] .list[name="x"].name .list[name="x"].value"#,
        ],
    );
    check(
        "an update that removes an item takes it from its applier",
        r#"
        apply one v1 {"list":[{"name":"a","value":1},{"name":"b"}]}
        update two v1 {"list":[{"name":"b"}]}
        "#,
        r#"{"list":[{"name":"b"}]}"#,
        &[r#"one Apply v1 .list[name="b"] .list[name="b"].name"#],
    );
}

#[test]
fn values_that_are_one() {
    check(
        "an atomic list is taken as a whole",
        r#"
        apply one v1 {"atomic":["a","b"]}
        conflict two v1 {"atomic":["a"]} => one .atomic
        force two v1 {"atomic":["a"]}
        "#,
        r#"{"atomic":["a"]}"#,
        &["two Apply v1 .atomic"],
    );
    check(
        "an atomic map too",
        r#"
        apply one v1 {"atomicMap":{"a":"1"}}
        update two v1 {"atomicMap":{"a":"1","b":"2"}}
        apply one v1 {}
        "#,
        r#"{"atomicMap":{"a":"1","b":"2"}}"#,
        &["two Update v1 .atomicMap"],
    );
}

#[test]
fn versions_that_are_gone() {
    check(
        "their managers are forgotten",
        r#"
        update old x1 {"n":1,"name":"a"}
        update two v1 {"n":2,"name":"a"}
        apply one v1 {"n":2}
        "#,
        r#"{"n":2,"name":"a"}"#,
        &["one Apply v1 .n", "two Update v1 .n"],
    );
}
