//! What is written into a claim that got its devices.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
};

use super::AllocationError;
use super::search::{Asking, Search};

pub(super) fn result(search: &Search<'_>, asking: &Asking<'_>) -> Result<AllocationResult, AllocationError> {
    let result = |chosen: &super::search::Chosen| {
        let wanted = &asking.requests[chosen.request].alternatives[chosen.alternative];
        let id = search.devices[chosen.device].id;
        DeviceRequestAllocationResult {
            request: wanted.name.clone(),
            driver: id.driver.to_string(),
            pool: id.pool.to_string(),
            device: id.device.to_string(),
            admin_access: wanted.admin.then_some(true),
            tolerations: wanted.tolerations.cloned(),
            ..DeviceRequestAllocationResult::default()
        }
    };
    let results: Vec<_> = asking.chosen.iter().map(result).collect();
    let config = config(asking);
    let some = |config: Vec<_>| if config.is_empty() { None } else { Some(config) };
    Ok(AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult { config: some(config), results: Some(results) }),
        node_selector: node_selector(search, asking)?,
    })
}

/// The classes' configuration, once for each class, then the claim's own.
fn config(asking: &Asking<'_>) -> Vec<DeviceAllocationConfiguration> {
    let mut config: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut known: Vec<(Option<&str>, std::ops::Range<usize>)> = Vec::new();
    for request in &asking.requests {
        let wanted = &request.alternatives[request.chosen];
        let class = wanted.class.metadata.name.as_deref();
        if let Some((_, range)) = known.iter().find(|(name, _)| *name == class) {
            let more = &mut config[range.clone()];
            more.iter_mut().for_each(|one| one.requests.get_or_insert_default().push(wanted.name.clone()));
            continue;
        }
        let start = config.len();
        for own in wanted.class.spec.config.iter().flatten() {
            config.push(DeviceAllocationConfiguration {
                source: "FromClass".into(),
                requests: Some(vec![wanted.name.clone()]),
                opaque: own.opaque.clone(),
            });
        }
        known.push((class, start..config.len()));
    }
    let devices = asking.claim.spec.devices.as_ref();
    for own in devices.and_then(|devices| devices.config.as_ref()).into_iter().flatten() {
        let one = DeviceAllocationConfiguration {
            source: "FromClaim".into(),
            requests: own.requests.clone(),
            opaque: own.opaque.clone(),
        };
        match own.requests.as_deref().unwrap_or_default() {
            [] => config.push(one),
            names => {
                for request in &asking.requests {
                    let wanted = &request.alternatives[request.chosen];
                    if names.iter().any(|name| *name == wanted.name || Some(name.as_str()) == wanted.parent) {
                        config.push(one.clone());
                    }
                }
            }
        }
    }
    config
}

/// Where the devices are; `None`: everywhere.
fn node_selector(search: &Search<'_>, asking: &Asking<'_>) -> Result<Option<NodeSelector>, AllocationError> {
    let mut together = NodeSelectorTerm::default();
    for chosen in &asking.chosen {
        let spec = &search.devices[chosen.device].slice.spec;
        if let Some(name) = &spec.node_name {
            let field = NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![name.clone()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
            return Ok(Some(NodeSelector { node_selector_terms: vec![term] }));
        }
        match spec.node_selector.as_ref().map(|selector| selector.node_selector_terms.as_slice()) {
            None | Some([]) => {}
            Some([term]) => {
                add(term.match_fields.as_ref(), &mut together.match_fields);
                add(term.match_expressions.as_ref(), &mut together.match_expressions);
            }
            Some(terms) => {
                let name = asking.claim.metadata.name.as_deref().unwrap_or_default();
                let reason = format!("unsupported ResourceSlice.NodeSelector with {} terms", terms.len());
                return Err(AllocationError::Broken(format!("create NodeSelector for claim {name}: {reason}")));
            }
        }
    }
    let any = together.match_fields.is_some() || together.match_expressions.is_some();
    Ok(any.then(|| NodeSelector { node_selector_terms: vec![together] }))
}

fn add(from: Option<&Vec<NodeSelectorRequirement>>, to: &mut Option<Vec<NodeSelectorRequirement>>) {
    let sorted = |requirement: &NodeSelectorRequirement| {
        let mut values = requirement.values.clone().unwrap_or_default();
        values.sort_unstable();
        values.dedup();
        values
    };
    for requirement in from.into_iter().flatten() {
        let to = to.get_or_insert_default();
        let known = to.iter().any(|known| {
            known.key == requirement.key
                && known.operator == requirement.operator
                && sorted(known) == sorted(requirement)
        });
        if !known {
            to.push(requirement.clone());
        }
    }
}
