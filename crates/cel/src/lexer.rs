//! From text to tokens.

use std::sync::Arc;

use crate::ast::Const;
use crate::error::{Issue, quoted_char};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(Arc<str>),
    Literal(Const),
    /// Operators, brackets and the words `in`, `true`, `false`, `null`.
    Sign(&'static str),
    End,
}

/// A token, its offset in characters, and its text as messages show it.
#[derive(Clone, Debug)]
pub(crate) struct Lexeme {
    pub token: Token,
    pub at: u32,
    pub text: String,
}

const SIGNS: [&str; 29] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "in", "true", "false", "null", "=",
];

pub(crate) fn lex(text: &str) -> (Vec<Lexeme>, Vec<Issue>) {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, issues: Vec::new() };
    let mut out = Vec::new();
    while let Some(lexeme) = lexer.next() {
        out.push(lexeme);
    }
    out.push(Lexeme { token: Token::End, at: lexer.chars.len() as u32, text: "<EOF>".to_owned() });
    (out, lexer.issues)
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    issues: Vec<Issue>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn next(&mut self) -> Option<Lexeme> {
        loop {
            self.blanks();
            let start = self.at;
            let c = *self.chars.get(start)?;
            let token = if let Some(literal) = self.string() {
                literal
            } else if c.is_ascii_digit() || c == '.' && self.peek(1).is_ascii_digit() {
                Some(self.number())
            } else if c.is_ascii_alphabetic() || c == '_' {
                Some(self.word())
            } else {
                self.sign()
            };
            let text: String = self.chars[start..self.at].iter().collect();
            match token {
                Some(token) => return Some(Lexeme { token, at: start as u32, text }),
                None => {
                    if self.at == start {
                        // The first half of an operator takes what should have been the second with it.
                        let half = matches!(c, '=' | '&' | '|');
                        self.at = (start + 1 + usize::from(half)).min(self.chars.len());
                    }
                    let text: String = self.chars[start..self.at].iter().map(|c| quoted_char(*c)).collect();
                    self.issue(start, format!("Syntax error: token recognition error at: '{text}'"));
                }
            }
        }
    }

    fn issue(&mut self, at: usize, message: String) {
        self.issues.push(Issue { at: at as u32, message });
    }

    fn blanks(&mut self) {
        loop {
            match self.peek(0) {
                ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.chars.len() && self.chars[self.at] != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        match SIGNS.iter().find(|sign| **sign == word) {
            Some(sign) => Token::Sign(sign),
            None => Token::Ident(word.into()),
        }
    }

    fn sign(&mut self) -> Option<Token> {
        let found = SIGNS.iter().find(|sign| {
            *sign != &"="
                && sign.chars().enumerate().all(|(i, c)| self.peek(i) == c)
                && !sign.starts_with(char::is_alphabetic)
        })?;
        self.at += found.len();
        Some(Token::Sign(found))
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            let digits: String = self.chars[start + 2..self.at].iter().collect();
            return self.integer(start, &digits, 16);
        }
        self.digits();
        let mut float = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            float = true;
            self.at += 1;
            self.digits();
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            float = true;
            self.at += 1 + sign;
            self.digits();
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if float {
            let parsed: f64 = text.parse().unwrap_or(f64::INFINITY);
            if !parsed.is_finite() {
                self.issue(start, "invalid double literal".to_owned());
            }
            return Token::Literal(Const::Double(parsed));
        }
        self.integer(start, &text, 10)
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Token {
        let parsed = u64::from_str_radix(digits, radix).ok();
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            if parsed.is_none() {
                self.issue(start, "invalid uint literal".to_owned());
            }
            return Token::Literal(Const::Uint(parsed.unwrap_or(0)));
        }
        // The sign belongs to the literal, so the least integer has a magnitude of its own.
        let value = match parsed {
            Some(n) if n == 1 << 63 && self.negated(start) => i64::MIN,
            Some(n) => i64::try_from(n).unwrap_or_else(|_| {
                self.issue(start, "invalid int literal".to_owned());
                0
            }),
            None => {
                self.issue(start, "invalid int literal".to_owned());
                0
            }
        };
        Token::Literal(Const::Int(value))
    }

    fn negated(&self, start: usize) -> bool {
        self.chars[..start].iter().rev().find(|c| !c.is_whitespace()) == Some(&'-')
    }

    /// `None`: no string begins here. `Some(None)`: one begins and never ends.
    fn string(&mut self) -> Option<Option<Token>> {
        let (mut ahead, mut raw, mut bytes) = (0, false, false);
        loop {
            match self.peek(ahead) {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes && !raw => bytes = true,
                '"' | '\'' => break,
                _ => return None,
            }
            ahead += 1;
        }
        let start = self.at;
        let quote = self.peek(ahead);
        let triple = self.peek(ahead + 1) == quote && self.peek(ahead + 2) == quote;
        let mut i = self.at + ahead + if triple { 3 } else { 1 };
        let begin = i;
        let closes = |i: usize| {
            let at = |n: usize| self.chars.get(i + n) == Some(&quote);
            if triple { at(0) && at(1) && at(2) } else { at(0) }
        };
        loop {
            match self.chars.get(i) {
                None => break,
                Some('\n' | '\r') if !triple => break,
                Some('\\') if !raw => i += 2,
                Some(_) if closes(i) => {
                    let inner: Vec<char> = self.chars[begin..i].to_vec();
                    self.at = i + if triple { 3 } else { 1 };
                    return Some(Some(self.unescaped(start, &inner, raw, bytes)));
                }
                Some(_) => i += 1,
            }
        }
        self.at = i.min(self.chars.len());
        Some(None)
    }

    fn unescaped(&mut self, start: usize, inner: &[char], raw: bool, bytes: bool) -> Token {
        let mut out: Vec<u8> = Vec::with_capacity(inner.len());
        let mut rest = inner;
        while let Some((&c, after)) = rest.split_first() {
            rest = after;
            if raw || c != '\\' {
                push(&mut out, c);
                continue;
            }
            match escape(after, bytes) {
                Some((Escaped::Char(c), used)) => {
                    push(&mut out, c);
                    rest = &after[used..];
                }
                Some((Escaped::Byte(byte), used)) => {
                    out.push(byte);
                    rest = &after[used..];
                }
                None => {
                    self.issue(start, format!("invalid {} literal", if bytes { "bytes" } else { "string" }));
                    break;
                }
            }
        }
        Token::Literal(if bytes {
            Const::Bytes(out.into())
        } else {
            Const::String(String::from_utf8_lossy(&out).as_ref().into())
        })
    }
}

enum Escaped {
    Char(char),
    Byte(u8),
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What an escape stands for, and how many characters follow the backslash.
fn escape(after: &[char], bytes: bool) -> Option<(Escaped, usize)> {
    let first = *after.first()?;
    let plain = match first {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' | '\'' | '"' | '`' | '?' => first,
        _ => {
            let (skip, len, radix) = match first {
                'x' | 'X' => (1, 2, 16),
                'u' if !bytes => (1, 4, 16),
                'U' if !bytes => (1, 8, 16),
                '0'..='3' => (0, 3, 8),
                _ => return None,
            };
            let digits: String = after.get(skip..skip + len)?.iter().collect();
            let code = u32::from_str_radix(&digits, radix).ok().filter(|_| !digits.starts_with('+'))?;
            let escaped =
                if bytes { Escaped::Byte(u8::try_from(code).ok()?) } else { Escaped::Char(char::from_u32(code)?) };
            return Some((escaped, skip + len));
        }
    };
    Some((Escaped::Char(plain), 1))
}
