//! Which computed cell is whose.

use apimachinery::Value;

use super::{Row, network, nodes, others, pods, storage, workloads};

/// The cell of a column that is more than a field. An unknown one is empty: a new column in the kind table needs a line here,
/// and a test says so.
pub(super) fn computed(row: &Row<'_>, column: &str) -> Value {
    find(row, column).unwrap_or_else(|| "".into())
}

/// `None` when nobody computes that cell.
pub(super) fn find(row: &Row<'_>, column: &str) -> Option<Value> {
    match row.object.kind() {
        "Pod" => pods::cell(row, column),
        "Node" => nodes::cell(row, column),
        "Service" | "Endpoints" | "EndpointSlice" | "Ingress" | "IngressClass" | "IPAddress" | "ServiceCIDR" => {
            network::cell(row, column)
        }
        "Deployment"
        | "StatefulSet"
        | "Job"
        | "CronJob"
        | "ControllerRevision"
        | "HorizontalPodAutoscaler"
        | "PodDisruptionBudget" => workloads::cell(row, column),
        "PersistentVolume" | "PersistentVolumeClaim" | "StorageClass" | "CSIDriver" | "CSIStorageCapacity" => {
            storage::cell(row, column)
        }
        _ => others::cell(row, column),
    }
}
