//! Validation of definitions. Upstream: apiextensions pkg/apis/apiextensions/validation.

use apimachinery::validation::{dns1035_label, dns1123_subdomain, immutable_at};
use apimachinery::{FieldError, Value};

use super::check_schema;
use super::definition::is_true;

const APPROVED: &str = "api-approved.kubernetes.io";
const MAX_SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Brings the schemas of a definition into their form: what Go doesn't write isn't there.
pub(crate) fn canonical(definition: &mut Value) {
    let versions = definition.at_mut(&["spec", "versions"]).and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        if let Some(schema) = version.at_mut(&["schema", "openAPIV3Schema"]) {
            check_schema::canonical(schema);
        }
    }
}

/// Names what is wrong with a new definition.
pub(crate) fn check_create(new: &Value, errors: &mut Vec<FieldError>) {
    check_name(new, errors);
    check_spec(new, errors);
    check_names(new.at(&["status", "acceptedNames"]), "status.acceptedNames", errors);
    check_stored(new, errors);
    check_approval(new, None, errors);
    check_preservation(new, None, errors);
}

/// Names what is wrong with a change of a definition.
pub(crate) fn check_update(new: &Value, old: &Value, subresource: &str, errors: &mut Vec<FieldError>) {
    if !subresource.is_empty() {
        check_names(new.at(&["status", "acceptedNames"]), "status.acceptedNames", errors);
        return;
    }
    // What was let in before may stay.
    if new.get("spec") != old.get("spec") {
        check_spec(new, errors);
    }
    let mut fixed: Vec<&[&str]> = Vec::new();
    if is_true(old, "Established") {
        fixed.extend([&["spec", "scope"][..], &["spec", "names", "kind"]]);
    }
    fixed.extend([&["spec", "group"][..], &["spec", "names", "plural"]]);
    errors.extend(fixed.into_iter().filter_map(|path| immutable_at(path, new, old)));
    check_names(new.at(&["status", "acceptedNames"]), "status.acceptedNames", errors);
    check_stored(new, errors);
    check_approval(new, Some(old), errors);
    check_preservation(new, Some(old), errors);
}

fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    value.str_at(path).unwrap_or_default()
}

fn check_name(new: &Value, errors: &mut Vec<FieldError>) {
    let name = text(new, &["metadata", "name"]);
    let wanted = format!("{}.{}", text(new, &["spec", "names", "plural"]), text(new, &["spec", "group"]));
    if name != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
}

fn check_spec(new: &Value, errors: &mut Vec<FieldError>) {
    let spec = new.get("spec").cloned().unwrap_or_default();
    match text(&spec, &["group"]) {
        "" => errors.push(FieldError::required("spec.group", "")),
        group => {
            let problems = dns1123_subdomain(group);
            if !problems.is_empty() {
                errors.push(FieldError::invalid("spec.group", group, problems.join(",")));
            } else if !group.contains('.') {
                errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
            }
        }
    }
    one_of(text(&spec, &["scope"]), "spec.scope", &["Cluster", "Namespaced"], errors);
    let versions = spec.items_at(&["versions"]);
    for (index, version) in versions.iter().enumerate() {
        if version.at(&["schema", "openAPIV3Schema"]).is_none() {
            errors.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
        }
    }
    let mut names: Vec<&str> = Vec::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let (name, path) = (text(version, &["name"]), format!("spec.versions[{index}]"));
        unique &= !names.contains(&name);
        names.push(name);
        let problems = dns1035_label(name);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.name"), name, problems.join(",")));
        }
        check_version(version, &path, errors);
    }
    let shown = || spec.get("versions").cloned().unwrap_or_default();
    if !unique {
        errors.push(FieldError::invalid("spec.versions", shown(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version.bool_at(&["storage"]) == Some(true)).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", shown(), why));
    }
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(&spec, &["names", key]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{key}"), ""));
        }
    }
    check_names(spec.get("names"), "spec.names", errors);
    check_conversion(spec.get("conversion"), errors);
}

fn one_of(value: &str, path: &str, known: &[&str], errors: &mut Vec<FieldError>) {
    match value {
        "" => errors.push(FieldError::required(path, "")),
        value if known.contains(&value) => {}
        value => errors.push(FieldError::not_supported(path, value, known)),
    }
}

fn check_names(names: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(names) = names else { return };
    for key in ["plural", "singular"] {
        let name = text(names, &[key]);
        let problems = dns1035_label(name);
        if !name.is_empty() && !problems.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.{key}"), name, problems.join(",")));
        }
    }
    for key in ["kind", "listKind"] {
        let name = text(names, &[key]);
        let problems = dns1035_label(&name.to_lowercase());
        if !name.is_empty() && !problems.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
            errors.push(FieldError::invalid(format!("{path}.{key}"), name, why));
        }
    }
    let list = |key: &str, errors: &mut Vec<FieldError>| {
        for (index, name) in names.items_at(&[key]).iter().enumerate() {
            let problems = dns1035_label(name.as_str().unwrap_or_default());
            if !problems.is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{key}[{index}]"), name, problems.join(",")));
            }
        }
    };
    list("shortNames", errors);
    let (kind, list_kind) = (text(names, &["kind"]), text(names, &["listKind"]));
    if !kind.is_empty() && kind == list_kind {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{path}.listKind"), list_kind, why));
    }
    list("categories", errors);
}

fn check_version(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let deprecated = version.bool_at(&["deprecated"]).unwrap_or_default();
    if let Some(warning) = version.str_at(&["deprecationWarning"]) {
        let mut refuse =
            |why: String| errors.push(FieldError::invalid(format!("{path}.deprecationWarning"), warning, why));
        if !deprecated {
            refuse("can only be set for deprecated versions".to_owned());
        } else {
            if warning.len() > 256 {
                refuse("must be <= 256 characters long".to_owned());
            }
            if warning.is_empty() {
                refuse("must not be an empty string".to_owned());
            }
            if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
                refuse(format!(
                    "must only contain printable UTF-8 characters; non-printable character found at index {index}"
                ));
            }
        }
    }
    let status = version.at(&["subresources", "status"]).is_some();
    if let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) {
        check_schema::check(schema, &format!("{path}.schema.openAPIV3Schema"), status, errors);
    }
    if let Some(scale) = version.at(&["subresources", "scale"]) {
        check_scale(scale, &format!("{path}.subresources"), errors);
    }
    for (index, column) in version.items_at(&["additionalPrinterColumns"]).iter().enumerate() {
        check_column(column, &format!("{path}.additionalPrinterColumns[{index}]"), errors);
    }
    check_selectable(version, path, errors);
}

fn check_scale(scale: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut check = |key: &str, roots: &[&str], required: bool, where_: &str| {
        let (value, at) = (text(scale, &[key]), format!("{path}.scale.{key}"));
        if value.is_empty() {
            if required {
                errors.push(FieldError::required(at, ""));
            }
        } else if !value.starts_with('.') {
            errors.push(FieldError::invalid(at, value, "must be a simple json path starting with ."));
        } else if !roots.iter().any(|root| value.starts_with(root)) {
            errors.push(FieldError::invalid(at, value, format!("should be a json path under {where_}")));
        }
    };
    check("specReplicasPath", &[".spec."], true, ".spec");
    check("statusReplicasPath", &[".status."], true, ".status");
    check("labelSelectorPath", &[".spec.", ".status."], false, "either .spec or .status");
}

fn check_column(column: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if text(column, &["name"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    let known = format!("must be one of {}", COLUMN_TYPES.join(","));
    match text(column, &["type"]) {
        "" => errors.push(FieldError::required(format!("{path}.type"), known)),
        ty if COLUMN_TYPES.contains(&ty) => {}
        ty => errors.push(FieldError::invalid(format!("{path}.type"), ty, known)),
    }
    let format = text(column, &["format"]);
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
        errors.push(FieldError::invalid(format!("{path}.format"), format, why));
    }
    match text(column, &["jsonPath"]) {
        "" => errors.push(FieldError::required(format!("{path}.JSONPath"), "")),
        json_path if json_path.starts_with('.') => {}
        json_path => {
            let why = "must be a simple json path starting with .";
            errors.push(FieldError::invalid(format!("{path}.JSONPath"), json_path, why));
        }
    }
}

fn check_selectable(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fields = version.items_at(&["selectableFields"]);
    if fields.is_empty() {
        return;
    }
    let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) else {
        let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
        errors.push(FieldError::invalid(format!("{path}.selectableFields"), "", why));
        return;
    };
    let node = super::schema::Node::read(schema);
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let (json_path, at) = (text(field, &["jsonPath"]), format!("{path}.selectableFields[{index}].jsonPath"));
        if json_path.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let steps = super::simple_path::steps(json_path);
        let names: Vec<&str> = steps.iter().map(String::as_str).collect();
        let Some(found) = node.walk(&names).filter(|_| json_path.starts_with('.')) else {
            let missing = names.iter().enumerate().find(|(i, _)| node.walk(&names[..=*i]).is_none());
            let why = match missing {
                Some((_, name)) => format!("is an invalid path: does not refer to a valid field: {name}"),
                None => "is an invalid path: does not refer to a valid field".to_owned(),
            };
            errors.push(FieldError::invalid(at, json_path, why));
            continue;
        };
        if names.first() == Some(&"metadata") {
            errors.push(FieldError::invalid(at.clone(), json_path, "must not point to fields in metadata"));
        }
        if !matches!(found.ty.as_str(), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                       are allowed.";
            errors.push(FieldError::invalid(at.clone(), json_path, why));
        }
        match seen.contains(&steps) {
            true => errors.push(FieldError::duplicate(at, json_path)),
            false => seen.push(steps),
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(format!("{path}.selectableFields"), seen.len(), MAX_SELECTABLE));
    }
}

fn check_conversion(conversion: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(conversion) = conversion else { return };
    let strategy = text(conversion, &["strategy"]);
    one_of(strategy, "spec.conversion.strategy", &["None", "Webhook"], errors);
    let webhook = conversion.get("webhook");
    if strategy != "Webhook" {
        if webhook.is_some_and(|webhook| webhook.get("clientConfig").is_some()) {
            let why = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden("spec.conversion.webhookClientConfig", why));
        }
        return;
    }
    let Some(config) = webhook.and_then(|webhook| webhook.get("clientConfig")) else {
        let why = "required when strategy is set to Webhook";
        errors.push(FieldError::required("spec.conversion.webhookClientConfig", why));
        return;
    };
    if config.get("url").is_some() == config.get("service").is_some() {
        let why = "exactly one of url or service is required";
        errors.push(FieldError::required("spec.conversion.webhookClientConfig", why));
    }
    let reviews = webhook.map(|webhook| webhook.items_at(&["conversionReviewVersions"])).unwrap_or_default();
    if reviews.is_empty() {
        errors.push(FieldError::required("spec.conversion.conversionReviewVersions", ""));
    } else if !reviews.iter().any(|version| matches!(version.as_str(), Some("v1" | "v1beta1"))) {
        let why = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid("spec.conversion.conversionReviewVersions", reviews.to_vec(), why));
    }
}

fn check_stored(new: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "status.storedVersions";
    let stored = new.items_at(&["status", "storedVersions"]);
    let shown = || stored.to_vec();
    if stored.is_empty() {
        errors.push(FieldError::invalid(PATH, shown(), "must have at least one stored version"));
        return;
    }
    let versions = new.items_at(&["spec", "versions"]);
    for version in versions.iter().filter(|version| version.bool_at(&["storage"]) == Some(true)) {
        let name = text(version, &["name"]);
        if !stored.iter().any(|known| known.as_str() == Some(name)) {
            errors.push(FieldError::invalid(PATH, shown(), format!("must have the storage version {name}")));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if !versions.iter().any(|version| text(version, &["name"]) == name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("{PATH}[{index}]"), name, why));
        }
    }
}

/// What an annotation says of a group of the community.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

pub(super) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')))
}

/// Upstream: apihelpers.GetAPIApprovalState.
pub(super) fn approval(definition: &Value) -> (Approval, String) {
    let annotation = text(definition, &["metadata", "annotations", APPROVED]);
    const MORE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    if annotation.is_empty() {
        return (Approval::Missing, format!("protected groups must have approval annotation {APPROVED:?}, {MORE}"));
    }
    if annotation.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: {annotation:?}"));
    }
    let host = annotation.split_once("://").filter(|(scheme, _)| !scheme.is_empty());
    if host.is_some_and(|(_, rest)| !rest.split('/').next().unwrap_or_default().is_empty()) {
        return (Approval::Approved, format!("approved in {annotation}"));
    }
    let why = format!(
        "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {MORE}"
    );
    (Approval::Invalid, why)
}

fn check_approval(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if !is_protected(text(new, &["spec", "group"])) {
        return;
    }
    let (state, why) = approval(new);
    if old.is_some_and(|old| approval(old).0 == state) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVED}]");
    match state {
        Approval::Missing => errors.push(FieldError::required(path, why)),
        Approval::Invalid => {
            errors.push(FieldError::invalid(path, text(new, &["metadata", "annotations", APPROVED]), why));
        }
        Approval::Approved | Approval::Bypassed => {}
    }
}

fn check_preservation(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let preserves = |of: &Value| of.bool_at(&["spec", "preserveUnknownFields"]) == Some(true);
    if preserves(new) && !old.is_some_and(preserves) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
}
