//! The plugins, one file each, and the table of them.

mod allocation;
mod balanced_allocation;
mod default_binder;
pub(crate) mod default_preemption;
pub(crate) mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
pub(crate) mod volume_binding;
mod volume_restrictions;
mod volume_zone;

use std::sync::Arc;

use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::framework::{Plugin, Point};
use default_preemption::Preempting;
use volume_binding::Io;

/// What plugins are made with, besides their arguments.
#[derive(Clone, Default)]
pub struct Parts {
    pub io: Option<Io>,
    pub preempting: Arc<Preempting>,
    /// `None`: nothing is queued.
    pub cluster: Option<Arc<Cluster>>,
}

/// Makes a plugin from its arguments, or says what is wrong with these.
type Make = fn(&Value, &Parts) -> Result<Arc<dyn Plugin>, String>;

/// A plugin that there is.
pub struct Known {
    pub name: &'static str,
    /// How much its scores count unless the configuration says otherwise; 0: it doesn't score.
    pub weight: i64,
    /// Where it can be asked.
    pub points: &'static [Point],
    pub make: Make,
}

/// Reads a plugin's arguments.
fn args<T: DeserializeOwned + Default>(value: &Value) -> Result<T, String> {
    if value.is_null() { Ok(T::default()) } else { T::deserialize(value).map_err(|error| error.to_string()) }
}

const FILTERS: &[Point] = &[Point::PreFilter, Point::Filter];
const COMPARES: &[Point] = &[Point::PreFilter, Point::Filter, Point::PreScore, Point::Score];

/// Every plugin, in the order in which they are asked unless the configuration says otherwise.
pub const ALL: &[Known] = &[
    Known {
        name: "SchedulingGates",
        weight: 0,
        points: &[Point::PreEnqueue],
        make: |_, _| Ok(Arc::new(scheduling_gates::SchedulingGates)),
    },
    Known {
        name: "PrioritySort",
        weight: 0,
        points: &[Point::QueueSort],
        make: |_, _| Ok(Arc::new(priority_sort::PrioritySort)),
    },
    Known {
        name: "NodeUnschedulable",
        weight: 0,
        points: &[Point::Filter],
        make: |_, _| Ok(Arc::new(node_unschedulable::NodeUnschedulable)),
    },
    Known { name: "NodeName", weight: 0, points: &[Point::Filter], make: |_, _| Ok(Arc::new(node_name::NodeName)) },
    Known {
        name: "TaintToleration",
        weight: 3,
        points: &[Point::Filter, Point::PreScore, Point::Score],
        make: |_, _| Ok(Arc::new(taint_toleration::TaintToleration)),
    },
    Known {
        name: "NodeAffinity",
        weight: 2,
        points: COMPARES,
        make: |value, _| Ok(Arc::new(node_affinity::NodeAffinity::new(args(value)?))),
    },
    Known { name: "NodePorts", weight: 0, points: FILTERS, make: |_, _| Ok(Arc::new(node_ports::NodePorts)) },
    Known {
        name: "NodeResourcesFit",
        weight: 1,
        points: COMPARES,
        make: |value, _| Ok(Arc::new(node_resources_fit::NodeResourcesFit::new(args(value)?)?)),
    },
    Known {
        name: "VolumeRestrictions",
        weight: 0,
        points: FILTERS,
        make: |_, _| Ok(Arc::new(volume_restrictions::VolumeRestrictions)),
    },
    Known {
        name: "NodeVolumeLimits",
        weight: 0,
        points: FILTERS,
        make: |_, _| Ok(Arc::new(node_volume_limits::NodeVolumeLimits)),
    },
    Known {
        name: "VolumeBinding",
        weight: 1,
        points: &[Point::PreFilter, Point::Filter, Point::PreScore, Point::Score, Point::Reserve, Point::PreBind],
        make: |value, parts| Ok(Arc::new(volume_binding::VolumeBinding::new(args(value)?, parts.io.clone()))),
    },
    Known { name: "VolumeZone", weight: 0, points: FILTERS, make: |_, _| Ok(Arc::new(volume_zone::VolumeZone)) },
    Known {
        name: "PodTopologySpread",
        weight: 2,
        points: COMPARES,
        make: |value, _| Ok(Arc::new(pod_topology_spread::PodTopologySpread::new(args(value)?)?)),
    },
    Known {
        name: "InterPodAffinity",
        weight: 2,
        points: COMPARES,
        make: |value, _| Ok(Arc::new(inter_pod_affinity::InterPodAffinity::new(args(value)?)?)),
    },
    Known {
        name: "DynamicResources",
        weight: 2,
        points: &[
            Point::PreEnqueue,
            Point::PreFilter,
            Point::Filter,
            Point::PostFilter,
            Point::Score,
            Point::Reserve,
            Point::PreBind,
        ],
        make: |value, parts| {
            let (io, cluster) = (parts.io.clone(), parts.cluster.clone());
            Ok(Arc::new(dynamic_resources::DynamicResources::new(args(value)?, io, cluster)?))
        },
    },
    Known {
        name: "DefaultPreemption",
        weight: 0,
        points: &[Point::PreEnqueue, Point::PostFilter],
        make: |value, parts| {
            let preempting = parts.preempting.clone();
            Ok(Arc::new(default_preemption::DefaultPreemption::new(args(value)?, preempting)?))
        },
    },
    Known {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        points: &[Point::PreScore, Point::Score],
        make: |value, _| Ok(Arc::new(balanced_allocation::NodeResourcesBalancedAllocation::new(args(value)?))),
    },
    Known {
        name: "ImageLocality",
        weight: 1,
        points: &[Point::Score],
        make: |_, _| Ok(Arc::new(image_locality::ImageLocality)),
    },
    Known {
        name: "DefaultBinder",
        weight: 0,
        points: &[Point::Bind],
        make: |_, _| Ok(Arc::new(default_binder::DefaultBinder)),
    },
];

/// The plugin called `name`.
pub fn known(name: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.name == name)
}

#[cfg(test)]
pub(crate) fn default_profile() -> crate::framework::Profile {
    let configuration = crate::config::Configuration::default();
    configuration.profiles(&Parts::default()).expect("the defaults are right").remove(0)
}

#[cfg(test)]
pub(crate) mod tests;
