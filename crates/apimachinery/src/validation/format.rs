//! Text formats, matched by hand: they are short, and every write checks dozens of them.

/// What is wrong with a text; empty when it is valid.
pub type Problems = Vec<String>;

const DNS_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// "must be no more than N bytes"
pub fn max_length_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The same in the words of upstream's older checks.
fn longer_than(max: usize, text: &str) -> Problems {
    unless(text.len() <= max, || format!("must be no more than {max} characters"))
}

/// "must be between A and B, inclusive"
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// The sentence about a text that does not match `pattern`, with examples of texts that do.
pub fn pattern_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    let quoted: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    let examples = if quoted.is_empty() { String::new() } else { format!("e.g. {}", quoted.join(" or ")) };
    format!("{message} ({examples}regex used for validation is '{pattern}')")
}

/// A DNS label (RFC 1123), as the names of namespaces and services' ports.
pub fn dns1123_label(text: &str) -> Problems {
    let mut problems = longer_than(63, text);
    if !is_label(text) {
        problems.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            pattern_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
                 with an alphanumeric character",
                DNS_LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    problems
}

/// A DNS subdomain (RFC 1123), as most objects' names.
pub fn dns1123_subdomain(text: &str) -> Problems {
    let mut problems = longer_than(253, text);
    problems.extend(subdomain_pattern(text));
    problems
}

fn subdomain_pattern(text: &str) -> Problems {
    unless(is_subdomain(text), || {
        pattern_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
             end with an alphanumeric character",
            DNS_SUBDOMAIN,
            &["example.com"],
        )
    })
}

/// `*.` and a DNS subdomain.
pub fn wildcard_dns1123_subdomain(text: &str) -> Problems {
    let mut problems = longer_than(253, text);
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        problems.push(pattern_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower \
             case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{DNS_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    problems
}

/// A DNS label that begins with a letter (RFC 1035), as services' names.
pub fn dns1035_label(text: &str) -> Problems {
    let mut problems = longer_than(63, text);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        problems.push(pattern_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and \
             end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

/// A label's key, and whatever else has the form `[prefix/]Name`: annotations, finalizers, conditions, resources.
pub fn qualified_name(text: &str) -> Problems {
    let wrong = || {
        pattern_error(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            LABEL_KEY,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let mut problems = Problems::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                wrong()
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                let of_prefix = unless(prefix.len() <= 253, || max_length_error(253)).into_iter();
                let of_prefix = of_prefix.chain(subdomain_pattern(prefix));
                problems.extend(of_prefix.map(|problem| format!("prefix part {problem}")));
            }
            name
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push(format!("name part {}", max_length_error(63)));
    }
    if !is_label_name(name) {
        problems.push(format!("name part {}", wrong()));
    }
    problems
}

/// A label's value.
pub fn label_value(text: &str) -> Problems {
    let mut problems = unless(text.len() <= 63, || max_length_error(63));
    if !text.is_empty() && !is_label_name(text) {
        problems.push(pattern_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
             with an alphanumeric character",
            &format!("({LABEL_KEY})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// An identifier as in C.
pub fn c_identifier(text: &str) -> Problems {
    let valid = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    unless(valid, || {
        pattern_error(
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or \
             '_'",
            "[A-Za-z_][A-Za-z0-9_]*",
            &["my_name", "MY_NAME", "MyName"],
        )
    })
}

/// The name of an environment variable: any printable ASCII but `=`.
pub fn env_var_name(text: &str) -> Problems {
    let mut problems = unless(!text.is_empty(), || "environment variable name must be non-empty".to_owned());
    if !text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    problems
}

/// A key of a ConfigMap's or Secret's data.
pub fn config_map_key(text: &str) -> Problems {
    let mut problems = longer_than(253, text);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        problems.push(pattern_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// A port's number.
pub fn port_number(port: i64) -> Problems {
    in_range(port, 1, 65535)
}

/// A container port's name.
pub fn port_name(text: &str) -> Problems {
    let mut problems = longer_than(15, text);
    let mut check = |valid: bool, problem: &str| {
        if !valid {
            problems.push(problem.to_owned());
        }
    };
    check(
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    check(text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    check(!text.contains("--"), "must not contain consecutive hyphens");
    check(!text.starts_with('-') && !text.ends_with('-'), "must not begin or end with a hyphen");
    problems
}

/// `10%`
pub fn percent(text: &str) -> Problems {
    let valid = text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    unless(valid, || {
        pattern_error(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )
    })
}

/// The name of a header in an HTTP probe.
pub fn http_header_name(text: &str) -> Problems {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    unless(valid, || {
        pattern_error(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )
    })
}

/// A name that fits into a path: RBAC's objects may be called almost anything.
pub fn path_segment(text: &str) -> Problems {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// `low <= n <= high`
pub fn in_range(n: i64, low: i64, high: i64) -> Problems {
    unless((low..=high).contains(&n), || range_error(low, high))
}

/// A user or group id.
pub fn user_id(id: i64) -> Problems {
    in_range(id, 0, i32::MAX.into())
}

fn unless(valid: bool, problem: impl FnOnce() -> String) -> Problems {
    if valid { Problems::new() } else { vec![problem()] }
}

fn is_label(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || *b == b'-'),
        _ => false,
    }
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_label_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: fn(&str) -> Problems, valid: &[&str], invalid: &[&str]) {
        for text in valid {
            assert_eq!(format(text), Problems::new(), "{text:?}");
        }
        for text in invalid {
            assert!(!format(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn formats_take_what_upstream_takes() {
        let long = "a".repeat(64);
        check(dns1123_label, &["a", "0", "a-b", "a--b", "0a"], &["", "-", "a-", "-a", "A", "a.b", "a_b", &long]);
        check(dns1123_subdomain, &["a", "a.b", "0.1", "a-b.c"], &["", ".", "a.", ".a", "a..b", "a.-b", "A.b"]);
        check(wildcard_dns1123_subdomain, &["*.a", "*.a.b"], &["*", "a", "*.", "a.*.b"]);
        check(dns1035_label, &["a", "a-1"], &["", "1a", "-a", "a-", "a.b", "A"]);
        check(
            qualified_name,
            &["a", "A_b.c", "example.com/Name", "1/2"],
            &["", "/a", "a/", "a/b/c", "a b", "-a", "Ab.c/", &long],
        );
        check(label_value, &["", "a", "A_b.c-1"], &["a b", "-a", "a-", "ä", &long]);
        check(c_identifier, &["a", "_1", "A_b"], &["", "1a", "a-b"]);
        check(env_var_name, &["A", "a b", "1", "x:y"], &["", "a=b", "ä", "a\n"]);
        check(config_map_key, &["a", "A_b.c", ".hidden"], &["", ".", "..", "..a", "a/b"]);
        check(port_name, &["a", "http-1"], &["", "1", "a--b", "-a", "a-", "A", "abcdefghijklmnop"]);
        check(percent, &["1%", "100%"], &["", "%", "1", "-1%"]);
        check(http_header_name, &["X-A"], &["", "a:b", "a b"]);
        check(path_segment, &["system:node", "a b"], &[".", "..", "a/b", "a%b"]);
    }

    #[test]
    fn sentences_are_upstreams() {
        assert_eq!(
            dns1123_subdomain("My_Name"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
              end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
              an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
    }
}
