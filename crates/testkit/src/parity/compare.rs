//! What differs between two answers, and which differences are meant.

use std::fmt;

use serde_json::Value;

use super::Answer;

/// One field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `code`, `headers.NAME` or `body.MEMBER.INDEX...`.
    pub path: String,
    pub theirs: Option<Value>,
    pub ours: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        write!(f, "{}\n      upstream: {}\n      ours:     {}", self.path, shown(&self.theirs), shown(&self.ours))
    }
}

/// Compares field by field.
pub fn differences(theirs: &Answer, ours: &Answer) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("code", Some(&theirs.code.into()), Some(&ours.code.into()), &mut found);
    let names: std::collections::BTreeSet<&String> = theirs.headers.keys().chain(ours.headers.keys()).collect();
    for name in names {
        let [theirs, ours] =
            [theirs, ours].map(|answer| answer.headers.get(name).map(|text| Value::from(text.as_str())));
        compare(&format!("headers.{name}"), theirs.as_ref(), ours.as_ref(), &mut found);
    }
    compare("body", Some(&theirs.body), Some(&ours.body), &mut found);
    found
}

fn compare(path: &str, theirs: Option<&Value>, ours: Option<&Value>, found: &mut Vec<Difference>) {
    match (theirs, ours) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                compare(&format!("{path}.{key}"), Some(value), b.get(key), found);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                compare(&format!("{path}.{key}"), None, Some(value), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if named(a).is_some() && named(b).is_some() => {
            let (a, b) = (named(a).unwrap_or_default(), named(b).unwrap_or_default());
            let find = |list: &[(String, &'_ Value)], name: &str| {
                list.iter().find(|(known, _)| known == name).map(|(_, value)| (*value).clone())
            };
            for (name, value) in &a {
                compare(&format!("{path}[{name}]"), Some(value), find(&b, name).as_ref(), found);
            }
            for (name, value) in b.iter().filter(|(name, _)| find(&a, name).is_none()) {
                compare(&format!("{path}[{name}]"), None, Some(value), found);
            }
            let common = |list: &[(String, &Value)], other: &[(String, &Value)]| -> Vec<String> {
                list.iter().map(|(name, _)| name.clone()).filter(|name| find(other, name).is_some()).collect()
            };
            let (theirs, ours) = (common(&a, &b), common(&b, &a));
            if theirs != ours {
                let order = |names: Vec<String>| Some(Value::from(names));
                found.push(Difference { path: format!("{path}[order]"), theirs: order(theirs), ours: order(ours) });
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                compare(&format!("{path}.{index}"), a.get(index), b.get(index), found);
            }
        }
        (theirs, ours) if theirs == ours => {}
        (theirs, ours) => {
            found.push(Difference { path: path.to_owned(), theirs: theirs.cloned(), ours: ours.cloned() });
        }
    }
}

/// The items of a list by their names, where each has one of its own.
fn named(items: &[Value]) -> Option<Vec<(String, &Value)>> {
    let name = |item: &Value| {
        let named = ["name", "resource", "subresource", "groupVersion"].iter().find_map(|key| item.get(key));
        Some(named.or_else(|| item.pointer("/metadata/name"))?.as_str()?.to_owned())
    };
    let named: Vec<(String, &Value)> = items.iter().map(|item| Some((name(item)?, item))).collect::<Option<_>>()?;
    let distinct = (1..named.len()).all(|i| !named[..i].iter().any(|(earlier, _)| *earlier == named[i].0));
    distinct.then_some(named)
}

/// The differences that are meant: lines of `SCRIPT/REQUEST PATH : REASON`, where `*` stands for anything. After the path,
/// `~ TEXT` asks that our value contains the text.
#[derive(Debug, Default)]
pub struct Kept {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    request: String,
    path: String,
    text: String,
    used: bool,
}

impl Kept {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Kept, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let rules = lines.map(|line| {
            let wrong = || format!("{line:?} is not SCRIPT/REQUEST PATH : REASON");
            let (what, reason) = line.split_once(" : ").ok_or_else(wrong)?;
            let (request, path) = what.trim().split_once(' ').ok_or_else(wrong)?;
            if reason.trim().is_empty() {
                return Err(wrong());
            }
            let (path, text) = path.split_once(" ~ ").unwrap_or((path, ""));
            let (path, text) = (path.trim().to_owned(), text.trim().to_owned());
            Ok(Rule { request: request.to_owned(), path, text, used: false })
        });
        Ok(Kept { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Whether a difference of `request` (`SCRIPT/REQUEST`) is meant.
    pub fn covers(&mut self, request: &str, difference: &Difference) -> bool {
        let ours = difference.ours.as_ref().map(Value::to_string).unwrap_or_default();
        let fits = |rule: &&mut Rule| {
            matches(&rule.request, request) && matches(&rule.path, &difference.path) && ours.contains(&rule.text)
        };
        let mut covered = false;
        for rule in self.rules.iter_mut().filter(fits) {
            rule.used = true;
            covered = true;
        }
        covered
    }

    /// Lines that covered nothing.
    pub fn unused(&self) -> Vec<String> {
        self.rules.iter().filter(|rule| !rule.used).map(|rule| format!("{} {}", rule.request, rule.path)).collect()
    }
}

/// `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((begin, rest)) => text.strip_prefix(begin).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn answer(code: u16, body: Value) -> Answer {
        Answer { code, headers: BTreeMap::new(), body }
    }

    #[test]
    fn differences_are_named_by_path() {
        let theirs = answer(200, json!({"a": {"b": [1, 2]}, "c": 1}));
        let ours = answer(201, json!({"a": {"b": [1, 3, 4]}, "d": 1}));
        let paths: Vec<String> = differences(&theirs, &ours).into_iter().map(|difference| difference.path).collect();
        assert_eq!(paths, ["code", "body.a.b.1", "body.a.b.2", "body.c", "body.d"]);
        let theirs = answer(200, json!([{"name": "x", "v": 1}, {"name": "y"}, {"name": "z"}]));
        let ours = answer(200, json!([{"name": "z"}, {"name": "x", "v": 2}]));
        let paths: Vec<String> = differences(&theirs, &ours).into_iter().map(|difference| difference.path).collect();
        assert_eq!(paths, ["body[x].v", "body[y]", "body[order]"]);
        assert_eq!(differences(&theirs, &theirs), []);
    }

    #[test]
    fn kept_differences_need_a_reason_and_a_use() {
        let mut kept = Kept::parse("# note\ns/* body.*.x : because\ns/r code : never seen\n").unwrap();
        let of = |path: &str| Difference { path: path.to_owned(), theirs: None, ours: None };
        assert!(kept.covers("s/r", &of("body.a.b.x")));
        assert!(!kept.covers("t/r", &of("body.a.b.x")) && !kept.covers("s/r", &of("body.a.b")));
        assert_eq!(kept.unused(), ["s/r code"]);
        let mut told = Kept::parse("s/* body.x ~ not yet : because").unwrap();
        let said = |text: &str| Difference { ours: Some(text.into()), ..of("body.x") };
        assert!(told.covers("s/r", &said("it is not yet so")) && !told.covers("s/r", &said("it is so")));
        assert!(Kept::parse("s/r code").is_err() && Kept::parse("s/r code : ").is_err());
    }
}
