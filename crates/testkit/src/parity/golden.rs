//! Answers as text: the same blocks as a script's, with code, headers and JSON. One member a line, so that a change reads well.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::{Answer, Script};

/// The text of a script's answers.
pub fn write(script: &Script, answers: &[Answer]) -> String {
    let mut out = String::new();
    for (step, answer) in script.steps.iter().zip(answers) {
        let _ = writeln!(out, "### {}\n{}", step.name, answer.code);
        for (name, value) in &answer.headers {
            let _ = writeln!(out, "{name}: {}", Value::from(value.as_str()));
        }
        let _ = writeln!(out, "\n{}\n", body(&answer.body));
    }
    out
}

/// Reads what [`write()`] wrote: answers by the names of their requests.
pub fn read(text: &str) -> Result<BTreeMap<String, Answer>, String> {
    let mut answers = BTreeMap::new();
    for block in format!("\n{text}").split("\n### ").skip(1) {
        let (head, body) = block.split_once("\n\n").ok_or("a block has no body")?;
        let mut lines = head.lines();
        let name = lines.next().unwrap_or_default();
        let wrong = |what: &str| format!("{name}: {what}");
        let code = lines.next().and_then(|code| code.parse().ok()).ok_or_else(|| wrong("no code"))?;
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").ok_or_else(|| wrong(line))?;
            Ok((name.to_owned(), serde_json::from_str(value).map_err(|error| wrong(&error.to_string()))?))
        });
        let headers = headers.collect::<Result<_, String>>()?;
        let body = serde_json::from_str(body).map_err(|error| wrong(&error.to_string()))?;
        answers.insert(name.to_owned(), Answer { code, headers, body });
    }
    Ok(answers)
}

/// JSON with the members of the whole, and the items of lists in it, on lines of their own.
fn body(value: &Value) -> String {
    let Value::Object(members) = value else { return lines(value, "") };
    let members: Vec<String> =
        members.iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), lines(value, " "))).collect();
    format!("{{{}}}", members.join(",\n "))
}

fn lines(value: &Value, indent: &str) -> String {
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            format!("[{}]", items.join(&format!(",\n{indent} ")))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_survive_the_text() {
        let script = Script::parse("s", "### a\nGET /\n### b\nGET /").unwrap();
        let headers = BTreeMap::from([("warning".to_owned(), "299 - \"x\"\n299 - \"y: z\"".to_owned())]);
        let list = json!({"kind": "List", "items": [{"a": 1}, {"b": "line\n\n### no"}], "metadata": {"x": [1, 2]}});
        let answers = [
            Answer { code: 200, headers, body: list },
            Answer { code: 404, headers: BTreeMap::new(), body: "404 page not found\n".into() },
        ];
        let text = write(&script, &answers);
        let read = read(&text).unwrap();
        assert_eq!((&read["a"], &read["b"]), (&answers[0], &answers[1]), "{text}");
    }
}
