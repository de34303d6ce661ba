//! Pure decisions that the API server, the scheduler, the controllers and the kubelet must take alike: what a pod requests,
//! its quality of service, whether it tolerates a taint, whether a node's labels and resources suit it, whether it is ready.
//!
//! Everything is a function of typed views: no I/O, no clock (times come as arguments), no cache.
//!
//! ```
//! use k8s_openapi::api::core::v1::{Taint, Toleration};
//! let taint = Taint { key: "gpu".into(), effect: "NoSchedule".into(), ..Default::default() };
//! let toleration = Toleration { key: Some("gpu".into()), operator: Some("Exists".into()), ..Default::default() };
//! assert!(rules::tolerates(&toleration, &taint));
//! ```

mod affinity;
mod pod;
mod ports;
mod qos;
mod resources;
mod tolerations;

pub use affinity::{matches_node_selector, preferred_node_score, required_node_affinity};
pub use pod::{
    container_status, is_available, is_ready, is_sidecar, is_static, is_terminal, is_terminating, ready_since,
};
pub use ports::{HostPort, conflicts, host_ports};
pub use qos::{QosClass, qos_class};
pub use resources::{Resources, allocatable, parse_quantity, pod_requests, scored_pod_requests};
pub use tolerations::{tolerates, tolerates_all, untolerated};
