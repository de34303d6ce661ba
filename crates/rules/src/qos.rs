//! A pod's quality of service. Upstream: pkg/apis/core/v1/helper/qos.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use crate::resources::parse_quantity;

/// How much of its node a pod can rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosClass {
    BestEffort,
    Burstable,
    Guaranteed,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::BestEffort => "BestEffort",
            QosClass::Burstable => "Burstable",
            QosClass::Guaranteed => "Guaranteed",
        }
    }
}

/// Guaranteed: CPU and memory of every container limited and requested alike; best effort: nothing asked for at all.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let all: Vec<Option<&ResourceRequirements>> = match &spec.resources {
        Some(pod) if pod.requests.is_some() || pod.limits.is_some() => vec![Some(pod)],
        _ => {
            let init = spec.init_containers.iter().flatten();
            init.chain(&spec.containers).map(|container| container.resources.as_ref()).collect()
        }
    };
    let amount = |of: Option<&ResourceRequirements>, limit: bool, name: &str| {
        let list = of.and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
        list.and_then(|list| list.get(name)).map(parse_quantity).filter(|quantity| !quantity.is_zero())
    };
    let names = ["cpu", "memory"];
    let anything =
        all.iter().any(|r| names.iter().any(|n| amount(*r, true, n).is_some() || amount(*r, false, n).is_some()));
    let guaranteed = all.iter().all(|r| {
        names.iter().all(|name| {
            let limit = amount(*r, true, name);
            limit.is_some() && amount(*r, false, name).is_none_or(|request| Some(request) == limit)
        })
    });
    match (anything, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_follow_requests_and_limits() {
        let check = |resources: serde_json::Value, expect: QosClass| {
            let spec = json!({"containers": [{"name": "c", "resources": resources}]});
            assert_eq!(qos_class(&serde_json::from_value(spec).unwrap()), expect, "{resources}");
        };
        check(json!({}), QosClass::BestEffort);
        check(json!({"requests": {"cpu": "0"}}), QosClass::BestEffort);
        check(json!({"requests": {"cpu": "1"}}), QosClass::Burstable);
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), QosClass::Guaranteed);
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}), QosClass::Guaranteed);
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), QosClass::Burstable);
        check(json!({"limits": {"cpu": "1"}}), QosClass::Burstable);
    }
}
