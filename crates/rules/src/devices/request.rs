//! What claims ask for, checked.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::{DeviceClass, DeviceRequest, DeviceSelector, DeviceToleration, ResourceClaim};

use super::inventory::{Candidate, State};
use super::search::Search;
use super::{AllocationError, name_of, tolerates};

/// One request of a claim: one of its alternatives is to be satisfied.
pub(super) struct Request<'a> {
    pub alternatives: Vec<Wanted<'a>>,
    /// Which one was.
    pub chosen: usize,
}

/// What is asked for by a request, or by one of its alternatives.
pub(super) struct Wanted<'a> {
    /// `request`, or `request/alternative`.
    pub name: String,
    /// Of the request, where this is an alternative.
    pub parent: Option<&'a str>,
    pub class: Arc<DeviceClass>,
    pub selectors: &'a [DeviceSelector],
    pub tolerations: Option<&'a Vec<DeviceToleration>>,
    /// Devices may be in use already.
    pub admin: bool,
    pub count: usize,
    /// Every device that suits, by its place in the search; `None`: any `count` of them.
    pub all: Option<Vec<usize>>,
    /// What is known of devices, by their place in the search.
    pub suits: Vec<Option<bool>>,
}

/// The parts that a request and an alternative have in common.
struct Parts<'a> {
    name: &'a str,
    parent: Option<&'a str>,
    class: &'a str,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin: bool,
    selectors: Option<&'a Vec<DeviceSelector>>,
    tolerations: Option<&'a Vec<DeviceToleration>>,
}

impl<'a> Request<'a> {
    pub fn read(
        search: &Search<'a>,
        claim: &'a ResourceClaim,
        request: &'a DeviceRequest,
    ) -> Result<Self, AllocationError> {
        let mut alternatives = Vec::new();
        match &request.exactly {
            Some(exactly) => {
                let parts = Parts {
                    name: &request.name,
                    parent: None,
                    class: &exactly.device_class_name,
                    mode: exactly.allocation_mode.as_deref(),
                    count: exactly.count,
                    admin: exactly.admin_access == Some(true),
                    selectors: exactly.selectors.as_ref(),
                    tolerations: exactly.tolerations.as_ref(),
                };
                alternatives.push(parts.check(search, claim)?);
            }
            None => {
                for option in request.first_available.iter().flatten() {
                    let parts = Parts {
                        name: &option.name,
                        parent: Some(&request.name),
                        class: &option.device_class_name,
                        mode: option.allocation_mode.as_deref(),
                        count: option.count,
                        admin: false,
                        selectors: option.selectors.as_ref(),
                        tolerations: option.tolerations.as_ref(),
                    };
                    alternatives.push(parts.check(search, claim)?);
                }
            }
        }
        if alternatives.is_empty() {
            let reason = "missing device class name (unsupported request type?)";
            return Err(broken(claim, &request.name, reason));
        }
        Ok(Request { alternatives, chosen: 0 })
    }

    /// The fewest devices that satisfy it.
    pub fn least(&self) -> usize {
        self.alternatives.iter().map(|wanted| wanted.count).min().unwrap_or_default()
    }
}

impl<'a> Parts<'a> {
    /// Upstream: validateDeviceRequest.
    fn check(self, search: &Search<'a>, claim: &'a ResourceClaim) -> Result<Wanted<'a>, AllocationError> {
        let fail = |reason: &str| broken(claim, self.name, reason);
        let selectors = self.selectors.map(Vec::as_slice).unwrap_or_default();
        if let Some(i) = selectors.iter().position(|selector| selector.cel.is_none()) {
            let request = format!("{}, selector #{i}", self.name);
            return Err(broken(claim, &request, "CEL expression empty (unsupported selector type?)"));
        }
        if self.class.is_empty() {
            return Err(fail("missing device class name (unsupported request type?)"));
        }
        let class = (search.allocator.class)(self.class).ok_or_else(|| {
            let missing = format!("deviceclass.resource.k8s.io {:?} not found", self.class);
            fail(&format!("could not retrieve device class {}: {missing}", self.class))
        })?;
        let mut wanted = Wanted {
            name: self.parent.map_or_else(|| self.name.to_owned(), |parent| format!("{parent}/{}", self.name)),
            parent: self.parent,
            class,
            selectors,
            tolerations: self.tolerations,
            admin: self.admin,
            count: 0,
            all: None,
            suits: vec![None; search.devices.len()],
        };
        match self.mode.unwrap_or_default() {
            // Written by an API server that knew only this.
            "ExactCount" => wanted.count = usize::try_from(self.count.unwrap_or_default()).unwrap_or_default(),
            "All" => {
                for pool in &search.pools {
                    let state = match pool.state {
                        State::Usable => continue,
                        State::Incomplete => "being updated",
                        State::Invalid => "invalid",
                    };
                    let pool = format!("{}/{}", pool.driver, pool.name);
                    return Err(fail(&format!("asks for all devices, but resource pool {pool} is currently {state}")));
                }
                let mut all = Vec::new();
                for at in 0..search.devices.len() {
                    if wanted.suits(search, claim, at)? {
                        all.push(at);
                    }
                }
                wanted.count = all.len();
                wanted.all = Some(all);
            }
            other => return Err(fail(&format!("unsupported count mode {other}"))),
        }
        Ok(wanted)
    }
}

impl Wanted<'_> {
    /// Whether class and selectors allow the device. Upstream: isSelectable.
    pub fn suits(&mut self, search: &Search<'_>, claim: &ResourceClaim, at: usize) -> Result<bool, AllocationError> {
        if let Some(known) = self.suits[at] {
            return Ok(known);
        }
        let candidate = &search.devices[at];
        let usable = candidate.device.binding_conditions.as_ref().is_none_or(Vec::is_empty);
        let suits = usable && self.selected(search, claim, candidate)?;
        self.suits[at] = Some(suits);
        Ok(suits)
    }

    /// Whether the device has a taint that isn't tolerated. Upstream: taintPreventsAllocation.
    pub fn is_kept_off(&self, candidate: &Candidate<'_>) -> bool {
        let taints = candidate.device.taints.iter().flatten();
        let mut keeping = taints.filter(|taint| matches!(taint.effect.as_str(), "NoExecute" | "NoSchedule"));
        keeping.any(|taint| !self.tolerations.into_iter().flatten().any(|toleration| tolerates(toleration, taint)))
    }

    fn selected(
        &self,
        search: &Search<'_>,
        claim: &ResourceClaim,
        candidate: &Candidate<'_>,
    ) -> Result<bool, AllocationError> {
        let of_class = self.class.spec.selectors.iter().flatten().enumerate().map(|(i, selector)| (true, i, selector));
        let own = self.selectors.iter().enumerate().map(|(i, selector)| (false, i, selector));
        for (from_class, i, selector) in of_class.chain(own) {
            let Some(cel) = &selector.cel else { return Ok(false) };
            let driver = &*candidate.id.driver;
            match search.allocator.selectors.matches(&cel.expression, driver, candidate.device) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    let class = || format!("class {}", self.class.metadata.name.as_deref().unwrap_or_default());
                    let whose = if from_class { class() } else { format!("claim {}", name_of(claim)) };
                    return Err(AllocationError::Broken(format!("{whose}: selector #{i}: {error}")));
                }
            }
        }
        Ok(true)
    }
}

fn broken(claim: &ResourceClaim, request: &str, reason: &str) -> AllocationError {
    AllocationError::Broken(format!("claim {}, request {request}: {reason}", name_of(claim)))
}
