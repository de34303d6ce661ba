//! What the store reads from a key: ranges of a prefix, and the prefix a resource is stored under.

use bytes::Bytes;

/// The first key after all that start with `prefix`; empty, which stands for no end, when there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
    let mut end = prefix[..kept].to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// Says how many leading bytes of a key name its resource. Revisions are unique within the watch of one, also where a
/// transaction writes several of its keys.
pub type PrefixLength = fn(&[u8]) -> usize;

/// The default [`PrefixLength`]: up to and with the slash after the second component (`/registry/pods/`), or after the
/// third when the second is a group's name, which has a dot (`/registry/example.com/widgets/`), or one of the two that
/// hold several resources (`/registry/services/specs/`, `/registry/ranges/serviceips`). A key without that slash is its own.
pub fn resource_prefix_length(key: &[u8]) -> usize {
    let mut slashes = key.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let (Some(first), Some(second)) = (slashes.next(), slashes.next()) else { return key.len() };
    let component = &key[first + 1..second];
    if component.contains(&b'.') || component == b"services" || component == b"ranges" {
        return slashes.next().map_or(key.len(), |third| third + 1);
    }
    second + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends() {
        let check = |prefix: &[u8], end: &[u8]| assert_eq!(prefix_end(prefix), end);
        check(b"/registry/pods/", b"/registry/pods0");
        check(b"a\xff\xff", b"b");
        check(b"\xff", b"");
        check(b"", b"");
    }

    #[test]
    fn resource_prefixes() {
        let check = |key: &str, prefix: &str| assert_eq!(&key[..resource_prefix_length(key.as_bytes())], prefix);
        check("/registry/pods/default/a", "/registry/pods/");
        check("/registry/namespaces/default", "/registry/namespaces/");
        check("/registry/services/specs/default/a", "/registry/services/specs/");
        check("/registry/services/endpoints/default/a", "/registry/services/endpoints/");
        check("/registry/ranges/serviceips", "/registry/ranges/serviceips");
        check("/registry/example.com/widgets/default/a", "/registry/example.com/widgets/");
        check("/registry/health", "/registry/health");
        check("x", "x");
        check("", "");
    }
}
