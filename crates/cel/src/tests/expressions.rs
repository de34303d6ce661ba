//! Expressions and what becomes of them.

use apimachinery::Value as Json;

use crate::{Activation, Environment, Type, Value};

fn run(expression: &str) -> String {
    let json = Json::parse(
        br#"{"a":1,"s":"hello","l":[1,2,3],"m":{"x":"1","y":"2"},"n":null,"deep":{"er":[{"name":"a"},{"name":"b"}]}}"#,
    )
    .unwrap();
    let env = Environment::new().with("o", Type::Dyn);
    let program = match env.compile(expression, &[]) {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let activation = Activation::new().with("o", Value::json(&json, None));
    match program.evaluate_counted(&activation).0 {
        Ok(value) => value.to_json().map_or_else(|| format!("{value:?}"), |json| json.to_string()),
        Err(error) => format!("! {error}"),
    }
}

#[test]
fn values() {
    for (expression, expect) in [
        ("1 + 2 * 3", "7"),
        ("-5 / 2", "-2"),
        ("7 % 3 == 1 && true", "true"),
        ("o.a == 1.0", "true"),
        ("1 / 0", "! division by zero"),
        ("o.missing", "! no such key: missing"),
        ("has(o.missing) || o.a == 1", "true"),
        ("o.missing == 1 || true", "true"),
        ("o.l.all(x, x > 0)", "true"),
        ("o.l.exists(x, x > 2)", "true"),
        ("o.l.exists_one(x, x > 2)", "true"),
        ("o.l.map(x, x * 2)", "[2,4,6]"),
        ("o.l.map(x, x > 1, x * 2)", "[4,6]"),
        ("o.l.filter(x, x != 2)", "[1,3]"),
        ("o.m.all(k, k in ['x', 'y'])", "true"),
        ("o.m.transformList(k, v, k + v)", r#"["x1","y2"]"#),
        ("o.m.transformMap(k, v, v + '!')", r#"{"x":"1!","y":"2!"}"#),
        ("[1, 2].transformMapEntry(i, v, {string(v): i})", r#"{"1":0,"2":1}"#),
        (
            "[1, 'a', 2].exists(x, x > 1)",
            "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a', 2].exists(x, x > 1)\n | ....^",
        ),
        ("o.l.exists(x, x.foo == 1)", "! no such overload"),
        ("o.deep.er[1].name", "\"b\""),
        ("o.?foo.orValue('x')", "\"x\""),
        ("o.?s.orValue('x')", "\"hello\""),
        ("o.?foo.bar.hasValue()", "false"),
        ("o[?'a'].optMap(v, v + 1).orValue(0)", "2"),
        ("[?o.?a, ?o.?b]", "[1]"),
        ("{'a': 1, ?'b': optional.none()}", r#"{"a":1}"#),
        ("'hello'.charAt(1) + 'x'.upperAscii()", "\"eX\""),
        ("'tacocat'.indexOf('ac', 3)", "-1"),
        ("'tacocat'.lastIndexOf('ac')", "1"),
        ("'a,b,c'.split(',').join('-')", "\"a-b-c\""),
        ("'hello'.substring(1, 3)", "\"el\""),
        ("'hello'.substring(9)", "! index out of range: 9"),
        ("'hello hello'.replace('he', 'we', 1)", "\"wello hello\""),
        ("'%s is %d, %.2f, %x'.format([dyn('a'), dyn(5), dyn(1.5), dyn('hi')])", "\"a is 5, 1.50, 6869\""),
        ("strings.quote('a\"b')", r#""\"a\\\"b\"""#),
        ("'abc 123'.find('[0-9]+')", "\"123\""),
        ("'a1b22'.findAll('[0-9]+')", r#"["1","22"]"#),
        ("'abc'.matches('^a.c$')", "true"),
        ("[3, 1, 2].isSorted()", "false"),
        ("[3, 1, 2].sum() + [3, 1, 2].max() + [3, 1].min()", "10"),
        ("[1, 2, 2].lastIndexOf(2)", "2"),
        ("sets.contains([1, 2, 3], [2])", "true"),
        ("duration('1h30m').getMinutes()", "90"),
        ("timestamp('2024-02-29T12:30:00Z').getDayOfYear()", "59"),
        ("timestamp('2024-02-29T23:30:00Z').getDate('+02:00')", "1"),
        ("string(timestamp('2024-02-29T12:30:00Z') + duration('1h'))", "\"2024-02-29T13:30:00Z\""),
        ("string(duration('90s'))", "\"90s\""),
        ("int('12') + int(3.9)", "15"),
        ("string(1.0) + string(b'ab')", "\"1ab\""),
        ("type(1) == int && type('a') == string", "true"),
        ("quantity('1Gi').isGreaterThan(quantity('500Mi'))", "true"),
        ("quantity('1k').add(5).asInteger()", "1005"),
        ("isQuantity('1x')", "false"),
        ("ip('10.0.0.1').family()", "4"),
        ("isIP('::ffff:1.2.3.4')", "false"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true"),
        ("cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')", "true"),
        ("url('https://a.b:80/p?x=1&x=2').getQuery()", r#"{"x":["1","2"]}"#),
        ("url('https://a.b:80/p').getPort()", "\"80\""),
        ("isURL('../x')", "false"),
        ("format.dns1123Label().validate('a-b').hasValue()", "false"),
        ("format.named('dns1123Label').value().validate('A').hasValue()", "true"),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", "true"),
        ("isSemver('v1.0')", "false"),
        ("semver('v1.0', true).major()", "1"),
        ("r'\\d' + '\\x41\\u00e9\\101'", "\"\\\\dAéA\""),
        ("b'\\xff' == b'\\377'", "true"),
        ("'''a\nb'''", "\"a\\nb\""),
        ("9223372036854775807 + 1", "! integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("2u > 1", "true"),
        ("true ? 1 : 2", "1"),
        ("!(!true)", "true"),
        ("dyn(1) == dyn('a')", "false"),
        ("o.n == null", "true"),
        ("o.l[5]", "! index out of bounds: 5"),
        ("[1] + [2, 3]", "[1,2,3]"),
        ("size('héllo') + size([1, 2]) + o.l.size()", "10"),
        ("// a comment\n1", "1"),
        ("'%s %e'.format([dyn(['a', 'b']), dyn(1234.5)])", r#""[\"a\", \"b\"] 1.234500×10⁰³""#),
        (
            "'%d'.format([dyn('a')])",
            "! error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("string(o)", "! no such overload: string(map)"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("int(o.s)", "! type conversion error from 'string' to 'int'"),
        (
            "ip('300.1.1.1')",
            r#"! IP Address "300.1.1.1" parse error during conversion from string: ParseAddr("300.1.1.1"): IPv4 field has value >255"#,
        ),
    ] {
        assert_eq!(run(expression), expect, "{expression}");
    }
}

#[test]
fn mistakes() {
    for (expression, expect) in [
        ("x", "1:1: undeclared reference to 'x' (in container '')\n | x\n | ^"),
        ("1 + 'a'", "1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^"),
        (
            "o.foo.startsWith(1)",
            "1:17: found no matching overload for 'startsWith' applied to 'dyn.(int)'\n | o.foo.startsWith(1)\n | ................^",
        ),
        ("foo(1)", "1:4: undeclared reference to 'foo' (in container '')\n | foo(1)\n | ...^"),
        (
            "1.all(x, x)",
            "1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | 1.all(x, x)\n | ^",
        ),
        ("[1].all(x, x)", "1:12: expected type 'bool' but found 'int'\n | [1].all(x, x)\n | ...........^"),
        ("has(o)", "1:5: invalid argument to has() macro\n | has(o)\n | ....^"),
        ("[1].map(a.b, 1)", "1:10: argument is not an identifier\n | [1].map(a.b, 1)\n | .........^"),
        ("'a'.foo", "1:4: type 'string' does not support field selection\n | 'a'.foo\n | ...^"),
        ("duration('x')", "1:10: invalid duration argument\n | duration('x')\n | .........^"),
        ("'a'.matches('(')", "1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^"),
        ("1 == = 1 + 'a'", "1:6: Syntax error: token recognition error at: '= '\n | 1 == = 1 + 'a'\n | .....^"),
        ("true ? 1", "1:9: Syntax error: mismatched input '<EOF>' expecting ':'\n | true ? 1\n | ........^"),
        (
            "'%q'.format([1])",
            "1:12: could not parse formatting clause: unrecognized formatting clause \"q\"\n | '%q'.format([1])\n | ...........^",
        ),
        (
            "1 +",
            "1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
    ] {
        assert_eq!(run(expression), format!("ERROR: <input>:{expect}"), "{expression}");
    }
}

#[test]
fn output_types() {
    let env = Environment::new().with("o", Type::Dyn);
    let message = |expression: &str, types: &[Type]| env.compile(expression, types).unwrap_err().to_string();
    assert_eq!(message("1", &[Type::Bool]), "must evaluate to bool but got int");
    assert_eq!(message("o.a", &[Type::Bool]), "must evaluate to bool but got dyn");
    assert_eq!(message("1", &[Type::String, Type::Null]), "must evaluate to one of [string null_type] but got int");
}

/// On a stack like the server's.
#[test]
fn hostile_expressions_end() {
    let checks = std::thread::Builder::new().stack_size(16 << 20).spawn(hostile).unwrap();
    checks.join().unwrap();
}

fn hostile() {
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(run(&deep).contains("expression recursion limit exceeded: 250"));
    let chain = vec!["1"; 5000].join("+");
    assert!(run(&chain).contains("expression recursion limit exceeded: 250"));
    let members = format!("o{}", ".a".repeat(20_000));
    assert!(run(&members).contains("expression recursion limit exceeded: 250"));
    let bang = format!("{}true", "!".repeat(50_000));
    assert_eq!(run(&bang), "true");
    let list = format!("[{}]", ["1,2,3,4,5,6,7,8,9,10"; 10].join(","));
    let nested = format!("{list}.map(a, {list}.map(b, {list}.map(c, {list}.map(d, a + b + c + d))))");
    assert_eq!(run(&nested), "! operation cancelled: actual cost limit exceeded");
    assert!(run(&"o".repeat(200_000)).contains("expression code point size exceeds limit"));
    let and = vec!["true"; 5000].join(" && ");
    assert_eq!(run(&and), "true");
    let maps = format!("o{}", ".?a.optMap(x, x)".repeat(60));
    assert!(run(&maps).starts_with("ERROR"), "{}", run(&maps));
    assert!(run("'a'.matches('a{1000}{1000}{1000}')").contains("invalid matches argument"));
}

#[test]
fn costs() {
    let json = Json::parse(br#"{"l":[1,2,3],"s":"0123456789abcdef"}"#).unwrap();
    let env = Environment::new().with("o", Type::Dyn);
    for (expression, expect) in [
        ("true", 0),
        ("o.l", 2),
        ("has(o.l)", 1),
        ("o.l[0] == 1", 4),
        ("[1, 2, 3]", 0),
        ("[o.l]", 12),
        ("o.s.startsWith('0123')", 3),
        // The range, then per turn: condition 2, accumulator, variable and comparison; the result.
        ("[1, 2, 3].all(x, x > 0)", 3 * 5 + 1),
        ("o.l.map(x, x)", 2 + 3 * (1 + 1 + 10 + 1) + 1),
    ] {
        let program = env.compile(expression, &[]).unwrap();
        let activation = Activation::new().with("o", Value::json(&json, None));
        let (result, cost) = program.evaluate_counted(&activation);
        assert!(result.is_ok(), "{expression}: {result:?}");
        assert_eq!(cost, expect, "{expression}");
    }
}
