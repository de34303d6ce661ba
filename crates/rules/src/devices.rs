//! Which devices a claim gets on a node. Upstream: dynamic-resource-allocation structured allocator, with the features that are on by default
//! (admin access, prioritised lists), and taints, which only API servers keep that are told to; whatever belongs to others is left alone, as
//! upstream's does while they are off.
//!
//! Selectors are expressions; who evaluates them is a seam ([`Selectors`]).

mod constraint;
mod expression;
mod inventory;
mod outcome;
mod request;
mod search;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceClass, DeviceTaint, DeviceToleration, ResourceClaim,
};
use thiserror::Error;

pub use expression::Expression;
pub use inventory::Inventory;

use crate::affinity::{NodeLabels, matches_node_selector};

/// The most devices that one claim can have.
pub const MAX_DEVICES: usize = 32;
/// The most alternatives that one request can list.
pub const MAX_ALTERNATIVES: usize = 8;
/// Held by claims that are allocated.
pub const CLAIM_FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// A device, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    pub driver: Arc<str>,
    pub pool: Arc<str>,
    pub device: Arc<str>,
}

impl DeviceId {
    pub fn new(driver: &str, pool: &str, device: &str) -> DeviceId {
        DeviceId { driver: driver.into(), pool: pool.into(), device: device.into() }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// Why an expression doesn't say whether a device suits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    #[error("CEL compile error: {0}")]
    Compile(String),
    #[error("CEL runtime error: {0}")]
    Runtime(String),
}

/// Evaluates device selectors.
pub trait Selectors: Send + Sync {
    /// Whether the device, of this driver, satisfies the expression.
    fn matches(&self, expression: &str, driver: &str, device: &Device) -> Result<bool, SelectorError>;
}

/// Why devices couldn't even be looked for, or found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocationError {
    /// The claim or a class is wrong: no node would do.
    #[error("{0}")]
    Broken(String),
    /// Other nodes may do.
    #[error("invalid resource pools were encountered")]
    InvalidPools,
    /// The caller's patience ended.
    #[error("timed out trying to allocate devices")]
    TimedOut,
}

/// What allocation looks at.
#[derive(Clone, Copy)]
pub struct Allocator<'a> {
    pub inventory: &'a Inventory,
    /// Devices of allocated claims, those for administration left out.
    pub taken: &'a dyn Fn(&DeviceId) -> bool,
    pub class: &'a dyn Fn(&str) -> Option<Arc<DeviceClass>>,
    pub selectors: &'a dyn Selectors,
    /// Asked now and then; true: give up.
    pub late: &'a dyn Fn() -> bool,
}

impl Allocator<'_> {
    /// What each of the claims would get on the node; `None`: there isn't enough. The first solution is taken: claims, requests and devices are tried
    /// in order, and taken back where what follows fails.
    pub fn allocate(
        &self,
        node: &dyn NodeLabels,
        claims: &[Arc<ResourceClaim>],
    ) -> Result<Option<Vec<AllocationResult>>, AllocationError> {
        search::search(self, node, claims)
    }
}

/// The devices that an allocated claim holds for itself.
pub fn devices_of(claim: &ResourceClaim) -> HashSet<DeviceId> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    let results = devices.into_iter().flat_map(|devices| devices.results.iter().flatten());
    results
        .filter(|result| result.admin_access != Some(true))
        .map(|result| DeviceId::new(&result.driver, &result.pool, &result.device))
        .collect()
}

/// Whether the pod of this UID is among the claim's users.
pub fn is_reserved_for(claim: &ResourceClaim, uid: &str) -> bool {
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    users.into_iter().any(|user| user.uid == uid)
}

/// Whether the claim has its devices.
pub fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// Whether the toleration is for such a taint. Upstream: resourceclaim.ToleratesTaint.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let same = |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| wanted.is_empty() || wanted == found);
    if !same(toleration.effect.as_deref(), &taint.effect) || !same(toleration.key.as_deref(), &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(operator) => operator == "Exists",
    }
}

/// Whether what is only on some nodes is on this one. Upstream: NodeMatches.
fn node_matches(
    node: &dyn NodeLabels,
    name: Option<&str>,
    everywhere: Option<bool>,
    selector: Option<&NodeSelector>,
) -> bool {
    match name {
        Some(name) if !name.is_empty() => node.name() == name,
        _ if everywhere == Some(true) => true,
        _ => selector.is_some_and(|selector| matches_node_selector(selector, node)),
    }
}

fn name_of(claim: &ResourceClaim) -> String {
    let meta = &claim.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
