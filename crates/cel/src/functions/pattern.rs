//! Regular expressions: RE2's syntax, in linear time.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use crate::program::Program;

/// Beyond this, a compiled pattern is refused.
const MAX_COMPILED: usize = 4 << 20;

pub(crate) fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build().ok()
}

/// The program's own if the pattern is a constant of it.
pub(crate) fn of<'p>(program: &'p Program, pattern: &str) -> Option<Cow<'p, Regex>> {
    match program.patterns.get(pattern) {
        Some(regex) => Some(Cow::Borrowed(regex)),
        None => compile(pattern).map(Cow::Owned),
    }
}
