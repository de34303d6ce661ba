//! The text form of label selectors. Upstream: labels.Parse, whose lexer and look-ahead this follows, errors included.

use super::{Operator, Requirement, SelectorError};
use crate::FieldError;
use crate::validation::qualified_name;

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(requirements),
            Token::Word(_) | Token::Symbol("!") => {}
            other => return Err(fail(format!("found '{other}', expected: !, identifier, or 'end of string'"))),
        }
        let requirement =
            parser.requirement().map_err(|error| fail(format!("unable to parse requirement: {}", error.0)))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(fail(format!("found '{other}', expected: identifier after ','"))),
            },
            other => return Err(fail(format!("found '{other}', expected: ',' or 'end of string'"))),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A key, a value, or `in` and `notin`.
    Word(String),
    Symbol(&'static str),
    Unknown(String),
    End,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Word(word) => f.write_str(word),
            Token::Symbol(symbol) => f.write_str(symbol),
            Token::Unknown(text) => write!(f, "error expected: keyword found '{text}'"),
            Token::End => Ok(()),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.peek() == Token::Symbol("!");
        if absent {
            self.at += 1;
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(fail(format!("found '{other}', expected: identifier"))),
        };
        let problems = qualified_name(&key);
        if !problems.is_empty() {
            return Err(fail(FieldError::invalid("<nil>", key, problems.join("; ")).to_string()));
        }
        if absent {
            return Requirement::checked(&key, Operator::DoesNotExist, Vec::new(), "");
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::checked(&key, Operator::Exists, Vec::new(), "");
        }
        let operator = self.operator()?;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort();
        values.dedup();
        Requirement::checked(&key, operator, values, "")
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let token = self.next();
        Ok(match &token {
            Token::Word(word) if word == "in" => Operator::In,
            Token::Word(word) if word == "notin" => Operator::NotIn,
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => return Err(fail(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"))),
        })
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(word) => Ok(word),
            other => Err(fail(format!("found '{other}', expected: identifier"))),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(fail(format!("found '{other}' expected: '('"))),
        }
        match self.peek() {
            Token::Word(_) | Token::Symbol(",") => {}
            Token::Symbol(")") => {
                self.at += 1;
                return Ok(vec![String::new()]);
            }
            other => return Err(fail(format!("found '{other}', expected: ',', ')' or identifier"))),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word);
                    match self.peek() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        other => return Err(fail(format!("found '{other}', expected: ',' or ')'"))),
                    }
                }
                // An empty value stands before a leading comma, between two, and after a trailing one.
                Token::Symbol(",") => {
                    if values.is_empty() || self.peek() == Token::Symbol(",") {
                        values.push(String::new());
                    }
                    if self.peek() == Token::Symbol(")") {
                        values.push(String::new());
                        break;
                    }
                }
                other => return Err(fail(format!("found '{other}', expected: ',', or identifier"))),
            }
        }
        self.at += 1;
        Ok(values)
    }
}

fn scan(text: &str) -> Vec<Token> {
    let special = |c: char| "=!(),><".contains(c);
    let white = |c: char| " \t\r\n".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(white);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if special(first) {
            let symbol = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"].into_iter().find(|s| rest.starts_with(s));
            symbol.map_or((Token::Unknown(first.into()), 1), |symbol| (Token::Symbol(symbol), symbol.len()))
        } else {
            let length = rest.find(|c| special(c) || white(c)).unwrap_or(rest.len());
            (Token::Word(rest[..length].to_owned()), length)
        };
        tokens.push(token);
        rest = rest[length..].trim_start_matches(white);
    }
    tokens.push(Token::End);
    tokens
}

fn fail(message: String) -> SelectorError {
    SelectorError(message)
}
