//! What a binding passes to its policy as `params`.

use apimachinery::{GroupVersion, ObjectKey, Selector, Value};

use super::matching::Request;
use super::policy::Policy;

/// One evaluation for each; `None` is evaluated without. An error is a mistake of the configuration.
pub(super) fn collect(request: &Request<'_>, policy: &Policy, binding: &Value) -> Result<Vec<Option<Value>>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(vec![None]) };
    let Some(reference) = binding.at(&["spec", "paramRef"]).filter(|reference| !reference.is_null()) else {
        return Ok(vec![None]);
    };
    let Ok(version) = api_version.parse::<GroupVersion>();
    let registry = request.call.registry;
    let customs = registry.customs();
    let mut all = registry.resources.iter().chain(customs.all().flat_map(|custom| custom.resources.iter()));
    let of_kind = all.find(|resource| {
        let row = resource.kind;
        row.group == version.group && row.version == version.version && row.kind == *kind
    });
    let Some(resource) = of_kind else {
        return Err(format!("paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known"));
    };
    let row = resource.kind;
    let own = reference.str_at(&["namespace"]).unwrap_or_default();
    let namespace = match (row.namespaced, own, request.write.namespace) {
        (false, "", _) => "",
        (false, _, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "", "") => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        (true, "", of_request) => of_request,
        (true, own, _) => own,
    };
    let objects = request.write.objects;
    let found = match reference.str_at(&["name"]).filter(|name| !name.is_empty()) {
        Some(name) => objects.get(row.group, row.resource, &ObjectKey::new(namespace, name)).into_iter().collect(),
        None => {
            let selector =
                Selector::from_label_selector(reference.get("selector")).map_err(|error| error.to_string())?;
            let mut listed = objects.list(row.group, row.resource, namespace);
            listed.retain(|object| selector.matches(object));
            listed
        }
    };
    if found.is_empty() && reference.str_at(&["parameterNotFoundAction"]) == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let served = found.iter().map(|object| {
        let mut value = object.to_value();
        resource.to_served(&mut value);
        Some(value)
    });
    Ok(served.collect())
}
