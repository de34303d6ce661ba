//! Resources that containers and pods ask for: names, amounts, quality of service.

use std::collections::BTreeMap;

use apimachinery::validation::qualified_name;
use apimachinery::{Quantity, Value};
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use rules::QosClass;

use super::super::field::{Errors, NEGATIVE, Path, Report, entries, has, items, text};

const HUGEPAGES: &str = "hugepages-";
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "resourcequotas",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
];
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "resourcequotas",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];

pub(super) fn is_hugepages(name: &str) -> bool {
    name.starts_with(HUGEPAGES)
}

/// What a pod as a whole may ask for.
pub(super) fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_hugepages(name)
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

pub(crate) fn is_overcommittable(name: &str) -> bool {
    is_native(name) && !is_hugepages(name)
}

/// A resource's name as quotas and limit ranges know it. Upstream: validateResourceName.
pub(crate) fn name(path: &Path<'_>, name: &str, errors: &mut Errors) -> bool {
    let problems = qualified_name(name);
    let mut valid = problems.is_empty();
    errors.problems(path, name, problems);
    if valid
        && !name.contains('/')
        && !STANDARD.contains(&name)
        && !is_hugepages(name)
        && !name.starts_with("requests.hugepages-")
    {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        valid = false;
    }
    valid
}

/// Upstream: validateContainerResourceName.
pub(crate) fn container_resource_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    self::name(path, name, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_hugepages(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// An amount that is not negative, and whole where it counts things. Upstream: ValidateResourceQuantityValue.
pub(crate) fn amount(path: &Path<'_>, name: &str, value: &Value, errors: &mut Errors) -> Quantity {
    let quantity = match Quantity::from_value(value) {
        Some(Ok(quantity)) => quantity,
        Some(Err(problem)) => {
            errors.invalid(path, value, problem.to_string());
            return Quantity::default();
        }
        None => return Quantity::default(),
    };
    if quantity.sign() < 0 {
        errors.invalid(path, quantity.to_string(), NEGATIVE);
    }
    if (COUNTED.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        errors.invalid(path, quantity.to_string(), "must be an integer");
    }
    quantity
}

/// Requests and limits of one container. Upstream: validateResourceRequirements.
pub(crate) fn requirements(resources: &Value, claims: &[Value], path: &Path<'_>, errors: &mut Errors) {
    check(resources, claims, path, false, errors);
}

/// Requests and limits of the pod as a whole, and how they fit those of its containers. Upstream: validatePodResources.
pub(super) fn of_pod(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(resources) = spec.get("resources").filter(|resources| !resources.is_null()) else { return };
    if has(resources, "claims") {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    check(resources, &[], path, true, errors);
    let requests = path.child("requests");
    for (name, sum) in aggregate_requests(items(spec, "containers"), items(spec, "initContainers")) {
        let own = resources.at(&["requests", &name]).and_then(Quantity::from_value).and_then(Result::ok);
        if let Some(own) = own.filter(|own| sum > *own) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&requests.key(&name), own.to_string(), why);
        }
    }
    for (i, container) in items(spec, "containers").iter().enumerate() {
        let Some(limits) = container.get("resources") else { continue };
        for (name, limit) in entries(limits, "limits") {
            let (Some(Ok(limit)), Some(Some(Ok(whole)))) =
                (Quantity::from_value(limit), resources.at(&["limits", name]).map(Quantity::from_value))
            else {
                continue;
            };
            if limit > whole {
                let why = format!("must be less than or equal to pod limits of {whole}");
                let containers = path.child("containers");
                let container = containers.index(i);
                errors.invalid(&container.key(name).child("limits"), limit.to_string(), why);
            }
        }
    }
}

fn check(resources: &Value, claims: &[Value], path: &Path<'_>, pod_level: bool, errors: &mut Errors) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    let (mut computes, mut huge) = (false, false);
    let one = |path: &Path<'_>, name: &str, value: &Value, errors: &mut Errors| {
        match pod_level {
            true if !self::name(path, name, errors) => {}
            true if !is_pod_level(name) => errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]),
            true => {}
            false => container_resource_name(path, name, errors),
        }
        let quantity = amount(path, name, value, errors);
        if is_hugepages(name)
            && let Some(Ok(size)) = name.strip_prefix(HUGEPAGES).map(str::parse::<Quantity>)
            && size.value() > 0
            && quantity.value() % size.value() != 0
        {
            let why = format!("{quantity} is not positive integer multiple of {name}");
            errors.invalid(path, quantity.to_string(), why);
        }
        quantity
    };
    for (name, value) in entries(resources, "limits") {
        one(&limits.key(name), name, value, errors);
        computes |= matches!(name, "cpu" | "memory");
        huge |= is_hugepages(name);
    }
    for (name, value) in entries(resources, "requests") {
        let quantity = one(&requests.key(name), name, value, errors);
        computes |= matches!(name, "cpu" | "memory");
        huge |= is_hugepages(name);
        match resources.at(&["limits", name]).map(Quantity::from_value) {
            Some(Some(Ok(limit))) if quantity != limit && !is_overcommittable(name) => {
                errors.invalid(&requests, quantity.to_string(), format!("must be equal to {name} limit of {limit}"));
            }
            Some(Some(Ok(limit))) if quantity > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&requests, quantity.to_string(), why);
            }
            None if !is_overcommittable(name) => {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    if huge && !computes {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    let path = path.child("claims");
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in items(resources, "claims").iter().enumerate() {
        let path = path.index(i);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        let known = |key: &str| seen.iter().any(|known| known == key);
        if known(name) {
            // All requests of that claim are meant already.
            errors.duplicate(&path, name);
        } else {
            if !request.is_empty() {
                errors.label(&path.child("request"), request);
            }
            if known(&key) {
                errors.duplicate(&path, key.as_str());
            } else if request.is_empty() {
                let of_claim = |known: &&String| known.split_once('/').is_some_and(|(claim, _)| claim == name);
                seen.iter().filter(of_claim).for_each(|_| errors.duplicate(&path, name));
            }
            seen.push(key);
        }
        if !claims.iter().any(|known| text(known, "name") == name) {
            let mut error = apimachinery::FieldError::not_found(path.to_string(), name);
            let known: Vec<&str> = claims.iter().map(|claim| text(claim, "name")).collect();
            error.detail = match known.is_empty() {
                true => "must be one of the names in pod.spec.resourceClaims which is empty".to_owned(),
                false => format!("must be one of the names in pod.spec.resourceClaims: {}", known.join(", ")),
            };
            errors.add(error);
        }
    }
}

/// The sum of what containers and sidecars request, or the most that starting takes.
pub(super) fn aggregate_requests(containers: &[Value], init_containers: &[Value]) -> BTreeMap<String, Quantity> {
    let mut running: BTreeMap<String, Quantity> = BTreeMap::new();
    let requests = |container: &Value| -> Vec<(String, Quantity)> {
        let requests = container.at(&["resources", "requests"]).and_then(Value::as_object);
        let members = requests.into_iter().flat_map(|map| map.iter());
        members.filter_map(|(name, value)| Some((name.to_owned(), Quantity::from_value(value)?.ok()?))).collect()
    };
    for (name, quantity) in containers.iter().flat_map(requests) {
        *running.entry(name).or_default() += quantity;
    }
    let (mut sidecars, mut starting): (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) = Default::default();
    for init in init_containers {
        let mut here = sidecars.clone();
        for (name, quantity) in requests(init) {
            *here.entry(name.clone()).or_default() += quantity;
            if text(init, "restartPolicy") == "Always" {
                *running.entry(name.clone()).or_default() += quantity;
                *sidecars.entry(name).or_default() += quantity;
            }
        }
        for (name, quantity) in here {
            let most = starting.entry(name).or_default();
            *most = quantity.max(*most);
        }
    }
    for (name, quantity) in starting {
        let most = running.entry(name).or_default();
        *most = quantity.max(*most);
    }
    running
}

/// The pod's quality of service.
pub(super) fn qos(spec: &Value) -> QosClass {
    let list = |resources: &Value, key: &str| -> Option<BTreeMap<String, Text>> {
        let map = resources.get(key)?.as_object()?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(map.iter().map(|(name, value)| (name.to_owned(), Text(text(value)))).collect())
    };
    let read = |holder: &Value| {
        let resources = holder.get("resources")?;
        let (requests, limits) = (list(resources, "requests"), list(resources, "limits"));
        Some(ResourceRequirements { requests, limits, ..Default::default() })
    };
    let containers = |key: &str| -> Vec<Container> {
        items(spec, key).iter().map(|value| Container { resources: read(value), ..Default::default() }).collect()
    };
    rules::qos_class(&PodSpec {
        containers: containers("containers"),
        init_containers: Some(containers("initContainers")),
        resources: read(spec),
        ..Default::default()
    })
}
