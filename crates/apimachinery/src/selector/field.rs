//! Field selectors: `spec.nodeName=a,status.phase!=Running`.

use std::fmt;

use super::SelectorError;
use crate::Object;

/// A condition on an object's selectable fields: all requirements hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

/// `field=value` or `field!=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

impl FieldSelector {
    /// Reads a selector; `\` escapes `\`, `,` and `=` in values. Whether a kind has the fields is for its registry to say.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let requirement = |term: &&str| -> Result<FieldRequirement, SelectorError> {
            let (equal, unequal) = (term.find('='), term.find("!="));
            let Some(at) = unequal.into_iter().chain(equal).min() else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            let (field, rest) = term.split_at(at);
            let (equal, value) = match rest.strip_prefix("!=") {
                Some(value) => (false, value),
                None => (true, rest.strip_prefix("==").or(rest.strip_prefix('=')).unwrap_or(rest)),
            };
            Ok(FieldRequirement { field: field.to_owned(), equal, value: unescape(value)? })
        };
        let terms = terms.iter().filter(|term| !term.is_empty());
        Ok(FieldSelector { requirements: terms.map(requirement).collect::<Result<_, _>>()? })
    }

    /// Objects whose `field` is `value`.
    pub fn equal(field: &str, value: &str) -> FieldSelector {
        let requirement = FieldRequirement { field: field.to_owned(), equal: true, value: value.to_owned() };
        FieldSelector { requirements: vec![requirement] }
    }

    /// Both this and `other`.
    pub fn and(mut self, other: FieldSelector) -> FieldSelector {
        self.requirements.extend(other.requirements);
        self
    }

    /// Adds a requirement.
    pub fn push(&mut self, requirement: FieldRequirement) {
        self.requirements.push(requirement);
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The value that every match has in `field`, if the selector fixes it.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether `object`'s selectable fields satisfy it; an absent field is empty.
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_with(|field| object.field(field))
    }

    pub fn matches_with<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (field(&r.field).unwrap_or_default() == r.value) == r.equal)
    }
}

impl From<FieldRequirement> for FieldSelector {
    fn from(requirement: FieldRequirement) -> FieldSelector {
        FieldSelector { requirements: vec![requirement] }
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if requirement.equal { "=" } else { "!=" };
            let value = requirement.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", requirement.field)?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    let at_comma = |c: char| {
        let split = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        split
    };
    text.split(at_comma).collect()
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                let code = c as u32;
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {code}")));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_select() {
        let fields = |field: &str| match field {
            "spec.nodeName" => Some("a"),
            "x" => Some("1,2=3\\"),
            _ => None,
        };
        for (text, expect) in [
            ("", true),
            ("spec.nodeName=a", true),
            ("spec.nodeName==a", true),
            ("spec.nodeName!=a", false),
            ("spec.nodeName=a,status.phase=", true),
            ("spec.nodeName=a,status.phase!=Running", true),
            ("spec.nodeName=b,", false),
            (r"x=1\,2\=3\\", true),
        ] {
            let selector = FieldSelector::parse(text).unwrap();
            assert_eq!(selector.matches_with(fields), expect, "{text}");
            assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }
        assert_eq!(FieldSelector::parse("b!=1,a=2").unwrap().to_string(), "a=2,b!=1");
        assert_eq!(FieldSelector::parse("a=2").unwrap().exact("a"), Some("2"));
        assert_eq!(FieldSelector::parse("a!=2").unwrap().exact("a"), None);
    }

    #[test]
    fn bad_texts_are_refused_with_upstreams_sentences() {
        for (text, expect) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().0, expect);
        }
    }
}
