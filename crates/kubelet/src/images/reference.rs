//! Names of images.

/// The image's name with `:latest` where it has neither tag nor digest; `None` if it is no image name.
pub(crate) fn with_default_tag(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let tag_fits = tag.is_none_or(|tag| {
        let first = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        first && tag.len() <= 128 && tag.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    });
    let digest_fits = digest.is_none_or(|digest| {
        let parts = digest.split_once(':');
        parts.is_some_and(|(kind, hex)| {
            !kind.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    });
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, path),
    };
    let host_fits = host
        .is_none_or(|host| !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c)));
    if !(tag_fits && digest_fits && host_fits && path.len() <= 255 && rest.split('/').all(is_component)) {
        return None;
    }
    if tag.is_none() && digest.is_none() { Some(format!("{image}:latest")) } else { Some(image.to_owned()) }
}

/// Lower-case words joined by `.`, `_`, `__` or hyphens.
fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = part.starts_with(alphanumeric) && part.ends_with(alphanumeric);
    let separators = part.split(alphanumeric).filter(|separator| !separator.is_empty());
    ends && separators
        .into_iter()
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

/// The registry and the repository of an image, as credentials are looked up by: `docker.io` where it names none.
pub(super) fn registry_and_repository(image: &str) -> (String, String) {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    };
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host.to_owned(), rest.to_owned()),
        Some(_) => ("docker.io".to_owned(), name.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag() {
        let check = |image: &str, expect: Option<&str>| {
            assert_eq!(with_default_tag(image).as_deref(), expect, "{image}");
        };
        check("busybox", Some("busybox:latest"));
        check("busybox:1.36", Some("busybox:1.36"));
        check("localhost:5000/a/b", Some("localhost:5000/a/b:latest"));
        check("a.b/c_d/e--f__g:V1.0-x", Some("a.b/c_d/e--f__g:V1.0-x"));
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        check(&digest, Some(&digest));
        check("Busybox", None);
        check("", None);
        check("a//b", None);
        check("a:b:c", None);
        check("a b", None);
        check("a:-x", None);
        check("busybox@sha256:1", None);
    }

    #[test]
    fn registries_are_found() {
        let check = |image: &str, host: &str, rest: &str| {
            assert_eq!(registry_and_repository(image), (host.to_owned(), rest.to_owned()), "{image}");
        };
        check("busybox:1", "docker.io", "library/busybox");
        check("a/b", "docker.io", "a/b");
        check("localhost:5000/a:1", "localhost:5000", "a");
        check("r.example/a/b@sha256:0", "r.example", "a/b");
    }
}
