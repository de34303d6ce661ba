//! The search: every device in every order, until one solution is found.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::constraint::Match;
use super::inventory::{Candidate, Pool, State};
use super::outcome;
use super::request::Request;
use super::{AllocationError, Allocator, MAX_DEVICES, name_of};
use crate::affinity::NodeLabels;

/// What doesn't change while searching on one node.
pub(super) struct Search<'a> {
    pub allocator: Allocator<'a>,
    pub pools: Vec<Pool<'a>>,
    /// Devices of usable pools.
    pub devices: Vec<Candidate<'a>>,
}

/// A device that a claim gets.
#[derive(Clone, Copy)]
pub(super) struct Chosen {
    pub request: usize,
    pub alternative: usize,
    pub device: usize,
}

/// A claim on its way to devices.
pub(super) struct Asking<'a> {
    pub claim: &'a ResourceClaim,
    pub requests: Vec<Request<'a>>,
    constraints: Vec<Match<'a>>,
    pub chosen: Vec<Chosen>,
}

/// How a part of the search ended without a solution.
enum Ended {
    /// Another device may do.
    Failed,
    /// Whatever devices come before, there would be too many.
    TooMany,
    Error(AllocationError),
}

impl From<AllocationError> for Ended {
    fn from(error: AllocationError) -> Ended {
        Ended::Error(error)
    }
}

/// The next device to be found.
#[derive(Clone, Copy)]
struct At {
    claim: usize,
    request: usize,
    /// `None`: to be chosen.
    alternative: Option<usize>,
    device: usize,
}

pub(super) fn search(
    allocator: &Allocator<'_>,
    node: &dyn NodeLabels,
    claims: &[Arc<ResourceClaim>],
) -> Result<Option<Vec<AllocationResult>>, AllocationError> {
    let pools = allocator.inventory.pools(node);
    let devices: Vec<_> = pools.iter().flat_map(|pool| pool.devices.iter().copied()).collect();
    let search = Search { allocator: *allocator, pools, devices };
    let mut asking = Vec::with_capacity(claims.len());
    for claim in claims {
        asking.push(read(&search, claim)?);
    }
    let using = vec![Vec::new(); search.devices.len()];
    let mut attempt = Attempt { search: &search, claims: asking, using };
    match attempt.go(At { claim: 0, request: 0, alternative: None, device: 0 }) {
        Ok(()) => {
            let results = attempt.claims.iter().map(|claim| outcome::result(&search, claim));
            results.collect::<Result<_, _>>().map(Some)
        }
        Err(Ended::Error(error)) => Err(error),
        Err(Ended::Failed | Ended::TooMany) => match search.pools.iter().any(|pool| pool.state == State::Invalid) {
            true => Err(AllocationError::InvalidPools),
            false => Ok(None),
        },
    }
}

fn read<'a>(search: &Search<'a>, claim: &'a ResourceClaim) -> Result<Asking<'a>, AllocationError> {
    let wanted = claim.spec.devices.as_ref();
    let mut requests = Vec::new();
    for request in wanted.and_then(|devices| devices.requests.as_ref()).into_iter().flatten() {
        requests.push(Request::read(search, claim, request)?);
    }
    let least: usize = requests.iter().map(Request::least).sum();
    if least > MAX_DEVICES {
        let reason = format!("number of requested devices {least} exceeds the claim limit of {MAX_DEVICES}");
        return Err(AllocationError::Broken(format!("claim {}: {reason}", name_of(claim))));
    }
    let mut constraints = Vec::new();
    for (i, constraint) in wanted.and_then(|devices| devices.constraints.as_ref()).into_iter().flatten().enumerate() {
        constraints.push(Match::read(constraint).ok_or_else(|| {
            let reason = format!("constraint #{i}: empty constraint (unsupported constraint type?)");
            AllocationError::Broken(format!("claim {}, {reason}", name_of(claim)))
        })?);
    }
    Ok(Asking { claim, requests, constraints, chosen: Vec::new() })
}

/// What is chosen so far.
struct Attempt<'a, 's> {
    search: &'s Search<'a>,
    claims: Vec<Asking<'a>>,
    /// By device: the claims that it is chosen for.
    using: Vec<Vec<usize>>,
}

impl Attempt<'_, '_> {
    /// Finds the device, and all that follow. Upstream: allocateOne.
    fn go(&mut self, at: At) -> Result<(), Ended> {
        if (self.search.allocator.late)() {
            return Err(AllocationError::TimedOut.into());
        }
        let Some(claim) = self.claims.get(at.claim) else { return Ok(()) };
        if at.request >= claim.requests.len() {
            let next = At { claim: at.claim + 1, request: 0, alternative: None, device: 0 };
            // Another choice for this claim may leave enough for the next one.
            return self.go(next).map_err(|ended| if matches!(ended, Ended::TooMany) { Ended::Failed } else { ended });
        }
        let request = &claim.requests[at.request];
        let Some(alternative) = at.alternative else { return self.choose(at, request.alternatives.len()) };
        let wanted = &request.alternatives[alternative];
        if wanted.all.as_ref().is_some_and(Vec::is_empty) {
            return Err(Ended::Failed);
        }
        if at.device >= wanted.count {
            return self.go(At { claim: at.claim, request: at.request + 1, alternative: None, device: 0 });
        }
        if claim.chosen.len() + wanted.count - at.device > MAX_DEVICES {
            return Err(Ended::TooMany);
        }
        if let Some(all) = &wanted.all {
            let device = all[at.device];
            return self.try_device(at, alternative, device, true);
        }
        for device in 0..self.search.devices.len() {
            if self.is_used(at, alternative, device) {
                continue;
            }
            let claim = &mut self.claims[at.claim];
            let wanted = &mut claim.requests[at.request].alternatives[alternative];
            if !wanted.suits(self.search, claim.claim, device)? {
                continue;
            }
            match self.try_device(at, alternative, device, false) {
                Err(Ended::Failed) => {}
                ended => return ended,
            }
        }
        Err(Ended::Failed)
    }

    /// Tries the request's alternatives, best first.
    fn choose(&mut self, at: At, alternatives: usize) -> Result<(), Ended> {
        let mut too_many = true;
        for alternative in 0..alternatives {
            match self.go(At { alternative: Some(alternative), ..at }) {
                Ok(()) => {
                    self.claims[at.claim].requests[at.request].chosen = alternative;
                    return Ok(());
                }
                Err(Ended::TooMany) => {}
                Err(Ended::Failed) => too_many = false,
                Err(error) => return Err(error),
            }
        }
        Err(if too_many { Ended::TooMany } else { Ended::Failed })
    }

    fn is_used(&self, at: At, alternative: usize, device: usize) -> bool {
        let wanted = &self.claims[at.claim].requests[at.request].alternatives[alternative];
        if wanted.admin {
            return self.using[device].contains(&at.claim);
        }
        !self.using[device].is_empty() || (self.search.allocator.taken)(self.search.devices[device].id)
    }

    /// Takes the device and goes on; takes it back if that leads nowhere. Upstream: allocateDevice.
    fn try_device(&mut self, at: At, alternative: usize, device: usize, must: bool) -> Result<(), Ended> {
        let candidate = &self.search.devices[device];
        let counters = candidate.device.consumes_counters.as_ref();
        if self.is_used(at, alternative, device) || counters.is_some_and(|counters| !counters.is_empty()) {
            return Err(Ended::Failed);
        }
        let Asking { claim, requests, constraints, chosen } = &mut self.claims[at.claim];
        let wanted = &requests[at.request].alternatives[alternative];
        if wanted.is_kept_off(candidate) {
            return Err(Ended::Failed);
        }
        if let Some(refused) = constraints.iter_mut().position(|constraint| !constraint.add(wanted, candidate)) {
            constraints[..refused].iter_mut().for_each(|constraint| constraint.remove(wanted));
            if !must {
                return Err(Ended::Failed);
            }
            let (claim, name) = (name_of(claim), wanted.name.rsplit('/').next().unwrap_or_default());
            let reason =
                format!("cannot add device {} because a claim constraint would not be satisfied", candidate.id);
            return Err(AllocationError::Broken(format!("claim {claim}, request {name}: {reason}")).into());
        }
        chosen.push(Chosen { request: at.request, alternative, device });
        self.using[device].push(at.claim);
        let ended = self.go(At { alternative: Some(alternative), device: at.device + 1, ..at });
        if ended.is_err() {
            let Asking { requests, constraints, chosen, .. } = &mut self.claims[at.claim];
            let wanted = &requests[at.request].alternatives[alternative];
            constraints.iter_mut().for_each(|constraint| constraint.remove(wanted));
            chosen.pop();
            self.using[device].retain(|claim| *claim != at.claim);
        }
        ended
    }
}
