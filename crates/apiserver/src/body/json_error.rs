//! What is wrong with a text that is no JSON, in the words that clients know. Upstream: Go's encoding/json scanner.

/// The first mistake in `text`; `None` if it is one JSON value.
pub(crate) fn json_error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document() {
        Ok(()) => None,
        Err(Mistake::End) => Some("unexpected end of JSON input".to_owned()),
        Err(Mistake::Character(c, context)) => Some(format!("invalid character {} {context}", quoted(c))),
    }
}

enum Mistake {
    End,
    Character(u8, String),
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

type Scanned = Result<(), Mistake>;

impl Scanner<'_> {
    fn document(&mut self) -> Scanned {
        self.value()?;
        self.space();
        match self.text.get(self.at) {
            None => Ok(()),
            Some(c) => Err(wrong(*c, "after top-level value")),
        }
    }

    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(|c| b" \t\r\n".contains(c)) {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Result<u8, Mistake> {
        self.space();
        self.byte()
    }

    fn byte(&mut self) -> Result<u8, Mistake> {
        let byte = self.text.get(self.at).copied().ok_or(Mistake::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn value(&mut self) -> Scanned {
        match self.next()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' => match self.byte()? {
                c @ b'0'..=b'9' => self.number(c),
                c => Err(wrong(c, "in numeric literal")),
            },
            c @ b'0'..=b'9' => self.number(c),
            c => Err(wrong(c, "looking for beginning of value")),
        }
    }

    fn object(&mut self) -> Scanned {
        let mut first = true;
        loop {
            match self.next()? {
                b'}' if first => return Ok(()),
                b'"' => self.string()?,
                c => return Err(wrong(c, "looking for beginning of object key string")),
            }
            first = false;
            match self.next()? {
                b':' => self.value()?,
                c => return Err(wrong(c, "after object key")),
            }
            match self.next()? {
                b',' => {}
                b'}' => return Ok(()),
                c => return Err(wrong(c, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self) -> Scanned {
        self.space();
        if self.text.get(self.at) == Some(&b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            match self.next()? {
                b',' => {}
                b']' => return Ok(()),
                c => return Err(wrong(c, "after array element")),
            }
        }
    }

    fn string(&mut self) -> Scanned {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => match self.byte()? {
                    b'u' => {
                        for _ in 0..4 {
                            let c = self.byte()?;
                            if !c.is_ascii_hexdigit() {
                                return Err(wrong(c, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    c if b"bfnrt\\/\"".contains(&c) => {}
                    c => return Err(wrong(c, "in string escape code")),
                },
                c if c < 0x20 => return Err(wrong(c, "in string literal")),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &str) -> Scanned {
        for expected in word.bytes().skip(1) {
            let c = self.byte()?;
            if c != expected {
                return Err(wrong(c, &format!("in literal {word} (expecting {})", quoted(expected))));
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Scanned {
        if first != b'0' {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            match self.byte()? {
                b'0'..=b'9' => self.digits(),
                c => return Err(wrong(c, "after decimal point in numeric literal")),
            }
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            let sign = self.byte()?;
            let digit = if matches!(sign, b'+' | b'-') { self.byte()? } else { sign };
            match digit {
                b'0'..=b'9' => self.digits(),
                c => return Err(wrong(c, "in exponent of numeric literal")),
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn wrong(c: u8, context: &str) -> Mistake {
    Mistake::Character(c, context.to_owned())
}

/// A character as Go quotes it.
fn quoted(c: u8) -> String {
    match c {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(c)),
        0xa1..=0xff if c != 0xad => format!("'{}'", char::from(c)),
        0x80..=0xff => format!("'\\u00{c:02x}'"),
        _ => format!("'\\x{c:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_as_upstream_tells_them() {
        let check = |text: &str, expect: &str| {
            assert_eq!(json_error(text.as_bytes()).as_deref(), (!expect.is_empty()).then_some(expect), "{text}");
        };
        check(r#" {"a":[1,-2.5e+7,true,false,null,"x\u00e9\n"],"b":{}} "#, "");
        check("", "unexpected end of JSON input");
        check(r#"{"a":1"#, "unexpected end of JSON input");
        check("nonsense", "invalid character 'o' in literal null (expecting 'u')");
        check("just", "invalid character 'j' looking for beginning of value");
        check(r#"{"a":1} {"#, "invalid character '{' after top-level value");
        check(r#"{"a" 1}"#, "invalid character '1' after object key");
        check(r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string");
        check(r#"{a:1}"#, "invalid character 'a' looking for beginning of object key string");
        check("[1 2]", "invalid character '2' after array element");
        check(r#"{"a":1 2}"#, "invalid character '2' after object key:value pair");
        check("01", "invalid character '1' after top-level value");
        check("1.x", "invalid character 'x' after decimal point in numeric literal");
        check(r#""\q""#, "invalid character 'q' in string escape code");
        check("\"a\nb\"", "invalid character '\\n' in string literal");
        check("-x", "invalid character 'x' in numeric literal");
    }
}
