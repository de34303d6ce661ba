//! Files of requests.
//!
//! ```text
//! ### create
//! # @capture uid metadata.uid
//! POST /api/v1/namespaces/${ns}/configmaps
//! Content-Type: application/json
//!
//! {"metadata":{"name":"a"}}
//! ```
//!
//! Each request begins with `###` and a name. Directives: `@capture NAME PATH` keeps a member of the answer for later
//! `${NAME}`s; `@as USER [GROUP]` sends with that user's certificate, `@as anonymous` with none; `@until CODE` repeats a request
//! whose effect comes a moment later; `@base64` says that the body is bytes. `${ns}` is a namespace of the file's own.

use std::io;
use std::path::Path;

/// A file of requests that is independent of others.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    pub steps: Vec<Step>,
}

/// One request, before substitution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub name: String,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub base64: bool,
    pub who: Who,
    /// Repeated until it is answered so.
    pub until: Option<u16>,
    /// Names, and the members of the answer they stand for.
    pub captures: Vec<(String, Vec<String>)>,
}

/// Whose certificate is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A member of `system:masters`.
    #[default]
    Admin,
    Nobody,
    User {
        name: String,
        group: String,
    },
}

/// All scripts of a folder, by name.
pub fn scripts(folder: &Path) -> io::Result<Vec<Script>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "http") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path)?;
            let script = Script::parse(&name, &text)
                .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display())))?;
            found.push(script);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Script {
    /// Reads a file's text.
    pub fn parse(name: &str, text: &str) -> Result<Script, String> {
        let mut steps: Vec<Step> = Vec::new();
        for block in format!("\n{text}").split("\n###").skip(1) {
            let step = Step::parse(block)?;
            if steps.iter().any(|earlier| earlier.name == step.name) {
                return Err(format!("two requests are called {:?}", step.name));
            }
            steps.push(step);
        }
        Ok(Script { name: name.to_owned(), steps })
    }
}

impl Step {
    fn parse(block: &str) -> Result<Step, String> {
        let (head, body) = block.split_once("\n\n").unwrap_or((block, ""));
        let mut lines = head.lines();
        let name = lines.next().unwrap_or_default().trim().to_owned();
        let mut step = Step { name: name.clone(), body: body.trim_end().to_owned(), ..Step::default() };
        for line in lines {
            if let Some(comment) = line.strip_prefix('#') {
                if let Some(directive) = comment.trim().strip_prefix('@') {
                    step.direct(directive).ok_or_else(|| format!("{name}: what is {line:?}?"))?;
                }
            } else if step.method.is_empty() {
                let (method, target) = line.split_once(' ').ok_or_else(|| format!("{name}: what is {line:?}?"))?;
                (step.method, step.target) = (method.to_owned(), target.trim().to_owned());
            } else {
                let (key, value) = line.split_once(':').ok_or_else(|| format!("{name}: what is {line:?}?"))?;
                step.headers.push((key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        if step.method.is_empty() || name.is_empty() || name.contains(' ') {
            return Err(format!("{name:?} is no request"));
        }
        let typed = step.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case("content-type"));
        if !typed && step.body.starts_with('{') {
            let media = if step.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            step.headers.push(("Content-Type".to_owned(), media.to_owned()));
        }
        Ok(step)
    }

    fn direct(&mut self, directive: &str) -> Option<()> {
        let words: Vec<&str> = directive.split_whitespace().collect();
        match words.as_slice() {
            ["capture", name, path] => {
                self.captures.push(((*name).to_owned(), path.split('/').map(str::to_owned).collect()));
            }
            ["as", "anonymous"] => self.who = Who::Nobody,
            ["as", name] => self.who = Who::User { name: (*name).to_owned(), group: String::new() },
            ["as", name, group] => self.who = Who::User { name: (*name).to_owned(), group: (*group).to_owned() },
            ["until", code] => self.until = Some(code.parse().ok()?),
            ["base64"] => self.base64 = true,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read() {
        let text = "# about\n\n### a\n# @capture uid metadata/uid\n# a note\nPOST /x?y=1\nAccept: a/b\n\n{\"a\":1,\n\n\"b\":2}\n\n### b\n# @as me team\n# @until 403\nGET /y\n";
        let script = Script::parse("s", text).unwrap();
        let [a, b] = &script.steps[..] else { panic!("{script:?}") };
        assert_eq!((a.name.as_str(), a.method.as_str(), a.target.as_str()), ("a", "POST", "/x?y=1"));
        assert_eq!(a.body, "{\"a\":1,\n\n\"b\":2}");
        assert_eq!(a.captures, [("uid".to_owned(), vec!["metadata".to_owned(), "uid".to_owned()])]);
        assert_eq!(a.headers.len(), 2, "a body of JSON is typed: {:?}", a.headers);
        assert_eq!(b.who, Who::User { name: "me".to_owned(), group: "team".to_owned() });
        assert_eq!(b.until, Some(403));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("### a\nGET /\n### a\nGET /", "two requests"),
            ("### a\n# @nonsense\nGET /", "@nonsense"),
            ("### a\n", "no request"),
            ("### a\nGET", "GET"),
            ("### a\nGET /\nnonsense", "nonsense"),
        ];
        for (text, expected) in cases {
            let why = Script::parse("s", text).unwrap_err();
            assert!(why.contains(expected), "{text:?}: {why}");
        }
    }
}
