//! What is wrong with an expression, in cel-go's words and pictures: clients match on them.

use std::fmt::Write;

/// One finding, at an offset in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub at: u32,
    pub message: String,
}

/// Why an expression does not compile. Displayed as cel-go's `Issues.String()`; see [`CompileError::kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CompileError {
    pub kind: CompileErrorKind,
    pub issues: Vec<Issue>,
    text: String,
}

/// What sort of mistake it is: callers word their field errors by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileErrorKind {
    /// It does not parse or type check. Upstream prefixes the text with `compilation failed: `.
    Syntax,
    /// It is sound, but evaluates to something else than asked for (`must evaluate to bool but got int`).
    Output,
}

/// Why an evaluation ended without a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// cel-go's text: `no such key: foo`, `division by zero`, ...
    #[error("{0}")]
    Failed(String),
    /// A single expression cost more than [`PER_CALL_LIMIT`](crate::PER_CALL_LIMIT).
    #[error("operation cancelled: actual cost limit exceeded")]
    CallLimit,
    /// The [`Budget`](crate::Budget) that several expressions share ran out.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
}

impl EvalError {
    /// Limits end the evaluation; failures of one operand may still be absorbed by `||` and `&&`.
    pub fn is_limit(&self) -> bool {
        !matches!(self, EvalError::Failed(_))
    }
}

pub(crate) fn failed<T>(message: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(message.into()))
}

pub(crate) fn no_overload<T>() -> Result<T, EvalError> {
    failed("no such overload")
}

impl CompileError {
    pub(crate) fn syntax(source: &str, mut issues: Vec<Issue>) -> CompileError {
        issues.sort_by_key(|issue| issue.at);
        issues.dedup();
        let mut text = String::new();
        for issue in &issues {
            if !text.is_empty() {
                text.push('\n');
            }
            picture(source, issue, &mut text);
        }
        CompileError { kind: CompileErrorKind::Syntax, issues, text }
    }

    pub(crate) fn output(text: String) -> CompileError {
        CompileError { kind: CompileErrorKind::Output, issues: Vec::new(), text }
    }

    pub(crate) fn program(text: String) -> CompileError {
        CompileError { kind: CompileErrorKind::Syntax, issues: Vec::new(), text }
    }

    /// The expression is sound, but a constant in it cannot be what it is made into (`int('x')`). Upstream prefixes the text with
    /// `program instantiation failed: ` instead, and sometimes calls it an internal error.
    pub fn is_program(&self) -> bool {
        self.kind == CompileErrorKind::Syntax && self.issues.is_empty()
    }
}

/// The message, the line it is about, and a caret under the place.
fn picture(source: &str, issue: &Issue, out: &mut String) {
    if source.is_empty() {
        // There is no line to show.
        let _ = write!(out, "ERROR: <input>:1:0: {}", issue.message);
        return;
    }
    let (mut line, mut start) = (1, 0);
    let at = issue.at as usize;
    for (i, c) in source.chars().enumerate().take(at) {
        if c == '\n' {
            line += 1;
            start = i + 1;
        }
    }
    let column = at - start;
    let shown: String =
        source.chars().skip(start).take_while(|c| *c != '\n').map(|c| if c == '\t' { ' ' } else { c }).collect();
    let _ = write!(out, "ERROR: <input>:{line}:{}: {}\n | {shown}\n | ", column + 1, issue.message);
    let wide = |c: char| c.len_utf8() > 1;
    let mut chars = shown.chars();
    for _ in 0..column {
        out.push(if chars.next().is_some_and(wide) { '．' } else { '.' });
    }
    out.push(if chars.next().is_some_and(wide) { '＾' } else { '^' });
}

/// A character as ANTLR shows it in a message.
pub(crate) fn quoted_char(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c => c.to_string(),
    }
}
