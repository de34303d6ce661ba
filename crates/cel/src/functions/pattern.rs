//! Regular expressions: RE2's syntax, in linear time.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use crate::program::Program;

/// Beyond this, a compiled pattern is refused.
const MAX_COMPILED: usize = 4 << 20;

pub(crate) fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build().ok()
}

/// What Go's `regexp` says of a pattern that it does not take, as far as it is told here.
pub(crate) fn mistake(pattern: &str) -> String {
    let depth = pattern.chars().fold(0i64, |depth, c| depth + i64::from(c == '(') - i64::from(c == ')'));
    let why = if depth > 0 {
        "missing closing )"
    } else if depth < 0 {
        "unexpected )"
    } else {
        "invalid or unsupported syntax"
    };
    format!("error parsing regexp: {why}: `{pattern}`")
}

/// The program's own if the pattern is a constant of it.
pub(crate) fn of<'p>(program: &'p Program, pattern: &str) -> Option<Cow<'p, Regex>> {
    match program.patterns.get(pattern) {
        Some(regex) => Some(Cow::Borrowed(regex)),
        None => compile(pattern).map(Cow::Owned),
    }
}
