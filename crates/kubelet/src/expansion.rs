//! `$(NAME)` in commands, arguments and values. Upstream: third_party/forked/golang/expansion.

/// Replaces each `$(NAME)` by what `lookup` says; `$$` is a dollar. References that nobody knows stay as they are.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced() {
        let check = |text: &str, expect: &str| {
            let lookup = |name: &str| match name {
                "A" => Some("a".to_owned()),
                "EMPTY" => Some(String::new()),
                "NESTED" => Some("$(A)".to_owned()),
                _ => None,
            };
            assert_eq!(expand(text, lookup), expect, "{text:?}");
        };
        check("", "");
        check("plain", "plain");
        check("$(A)-$(A)", "a-a");
        check("$(EMPTY)x", "x");
        check("$(NESTED)", "$(A)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$a");
        check("$(B)", "$(B)");
        check("$A $ $", "$A $ $");
        check("$(A", "$(A");
        check("$()", "$()");
    }
}
