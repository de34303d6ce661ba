//! Finds the links of a page without understanding the rest of it.

/// Attributes whose value is a link, by element. Upstream: apimachinery pkg/util/proxy atomsToAttrs.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text up to their own end.
const RAW: &[&str] = &["script", "style", "textarea", "title"];

/// The page with every link replaced; all else stays byte for byte.
pub(super) fn rewrite(page: &[u8], link: impl Fn(&str) -> String) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        let (text, tag) = rest.split_at(at);
        out.extend_from_slice(text);
        if tag.starts_with(b"<!--") {
            let end = find(tag, b"-->").map_or(tag.len(), |end| end + 3);
            out.extend_from_slice(&tag[..end]);
            rest = &tag[end..];
            continue;
        }
        let name_len = tag[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if name_len == 0 {
            out.push(b'<');
            rest = &tag[1..];
            continue;
        }
        let name = String::from_utf8_lossy(&tag[1..=name_len]).to_ascii_lowercase();
        let links = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, links)| links);
        out.extend_from_slice(&tag[..=name_len]);
        rest = attributes(&tag[name_len + 1..], links, &link, &mut out);
        if RAW.contains(&name.as_str()) {
            let end = find_end(rest, &name).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.extend_from_slice(rest);
    out
}

/// Copies a tag's attributes up to and with its end; returns what follows.
fn attributes<'p>(mut rest: &'p [u8], links: &[&str], link: &impl Fn(&str) -> String, out: &mut Vec<u8>) -> &'p [u8] {
    loop {
        let skipped = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'/').count();
        out.extend_from_slice(&rest[..skipped]);
        rest = &rest[skipped..];
        match rest.first() {
            None => return rest,
            Some(b'>') => {
                out.push(b'>');
                return &rest[1..];
            }
            Some(_) => {}
        }
        let is_name = |byte: &&u8| !byte.is_ascii_whitespace() && !matches!(**byte, b'=' | b'>' | b'/');
        let name_len = rest.iter().take_while(is_name).count().max(1);
        let name = String::from_utf8_lossy(&rest[..name_len]).to_ascii_lowercase();
        let blank = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let sign = name_len + blank(name_len);
        if rest.get(sign) != Some(&b'=') {
            out.extend_from_slice(&rest[..name_len]);
            rest = &rest[name_len..];
            continue;
        }
        let start = sign + 1 + blank(sign + 1);
        let quote = rest.get(start).copied().filter(|byte| matches!(byte, b'"' | b'\''));
        let value_at = start + usize::from(quote.is_some());
        let ends = |byte: &u8| match quote {
            Some(quote) => *byte == quote,
            None => byte.is_ascii_whitespace() || *byte == b'>',
        };
        let value_len = rest[value_at..].iter().position(ends).unwrap_or(rest.len() - value_at);
        let value = &rest[value_at..value_at + value_len];
        out.extend_from_slice(&rest[..value_at]);
        match std::str::from_utf8(value) {
            Ok(text) if links.contains(&name.as_str()) => out.extend_from_slice(link(text).as_bytes()),
            _ => out.extend_from_slice(value),
        }
        rest = &rest[value_at + value_len..];
        if quote.is_some() && !rest.is_empty() {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Where `</name` begins.
fn find_end(text: &[u8], name: &str) -> Option<usize> {
    let len = name.len() + 2;
    text.windows(len).position(|window| window.starts_with(b"</") && window[2..].eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_replaced_and_nothing_else() {
        let check = |page: &str, expect: &str| {
            let got = rewrite(page.as_bytes(), |url| format!("[{url}]"));
            assert_eq!(String::from_utf8(got).unwrap(), expect);
        };
        check(r#"<a href="/x">/x</a>"#, r#"<a href="[/x]">/x</a>"#);
        check("<A class=b HREF = '/x' id>t", "<A class=b HREF = '[/x]' id>t");
        check("<img src=/a alt=/b><img/>", "<img src=[/a] alt=/b><img/>");
        check(r#"<p href="/x">1 < 2 <br> <b"#, r#"<p href="/x">1 < 2 <br> <b"#);
        check(
            r#"<!-- <a href="/x"> --><script src="/s">"<a href='/x'>"</script>"#,
            r#"<!-- <a href="/x"> --><script src="[/s]">"<a href='/x'>"</script>"#,
        );
        check(r#"<a href="/unfinished"#, r#"<a href="[/unfinished]"#);
        check("<a href=", "<a href=[]");
        check("<!DOCTYPE html><form action=\"/go\" ==x>", "<!DOCTYPE html><form action=\"[/go]\" ==x>");
    }

    #[test]
    fn no_bytes_break_it() {
        let parts = ["<", "a", " ", "href", "=", "\"", "'", ">", "/", "<!--", "-->", "\u{e9}", "</script"];
        for seed in 0..20_000usize {
            let mut n = seed.wrapping_mul(2_654_435_761);
            let mut page = Vec::new();
            for _ in 0..8 {
                page.extend_from_slice(parts[n % parts.len()].as_bytes());
                n /= parts.len();
            }
            assert_eq!(rewrite(&page, str::to_owned), page);
        }
    }
}
