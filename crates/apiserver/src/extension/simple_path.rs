//! The paths that CRDs name fields by: `.spec.replicas`.

/// The steps of a path in dots. Brackets with a quoted name are steps too.
pub(crate) fn steps(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['").or_else(|| rest.strip_prefix("[\"")) {
            let end = after.find(['\'', '"']).unwrap_or(after.len());
            steps.push(after[..end].to_owned());
            rest = after[end..].trim_start_matches(['\'', '"']).trim_start_matches(']');
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        if end > 0 {
            steps.push(rest[..end].to_owned());
        }
        // A bracket without quotes is no step.
        if end == 0 && rest.starts_with('[') && !rest.starts_with("['") && !rest.starts_with("[\"") {
            break;
        }
        rest = &rest[end..];
    }
    steps
}
