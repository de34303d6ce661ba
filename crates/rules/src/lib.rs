//! Pure decisions that the API server, the scheduler, the controllers and the kubelet must take alike: what a pod requests,
//! its quality of service, whether it tolerates a taint, whether a node's labels and resources suit it, whether it is ready,
//! which [`devices`] suit its claims, what counts against a [`quota`], and when a [`cron`] schedule is due.
//!
//! Everything is a function of its arguments, which are typed views or values: no I/O, no clock (times are told), no cache.
//!
//! ```
//! use k8s_openapi::api::core::v1::{Taint, Toleration};
//! let taint = Taint { key: "gpu".into(), effect: "NoSchedule".into(), ..Default::default() };
//! let toleration = Toleration { key: Some("gpu".into()), operator: Some("Exists".into()), ..Default::default() };
//! assert!(rules::tolerates(&toleration, &taint));
//! ```

mod affinity;
pub mod cron;
pub mod devices;
mod features;
mod pod;
mod ports;
mod qos;
pub mod quota;
mod resources;
mod selector;
mod tolerations;

pub use affinity::{NodeLabels, matches_node_selector, matches_node_term, required_node_affinity};
pub use features::Features;
pub use pod::{container_status, is_available, is_ready, is_sidecar, is_terminal, is_terminating, ready_since};
pub use ports::{HostPort, conflicts, host_ports};
pub use qos::{QosClass, qos_class};
pub use resources::{
    Resources, allocatable, parse_quantity, placed_pod_requests, placed_scored_pod_requests, pod_requests,
};
pub use selector::{label_selector, selects};
pub use tolerations::{tolerates, tolerates_all, untolerated};
