//! What the devices of one claim must have in common.

use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceConstraint};

use super::inventory::Candidate;
use super::request::Wanted;

/// All devices of some requests share one attribute's value. Upstream: matchAttributeConstraint.
pub(super) struct Match<'a> {
    /// Empty: all.
    requests: &'a [String],
    attribute: &'a str,
    value: Option<&'a DeviceAttribute>,
    devices: usize,
}

impl<'a> Match<'a> {
    /// `None`: a constraint of a kind that isn't known.
    pub fn read(constraint: &'a DeviceConstraint) -> Option<Match<'a>> {
        let requests = constraint.requests.as_deref().unwrap_or_default();
        let attribute = constraint.match_attribute.as_deref()?;
        Some(Match { requests, attribute, value: None, devices: 0 })
    }

    fn concerns(&self, wanted: &Wanted<'_>) -> bool {
        self.requests.is_empty()
            || self
                .requests
                .iter()
                .any(|name| *name == wanted.name || wanted.parent.is_some_and(|parent| name == parent))
    }

    /// Takes the device in, if it may be.
    pub fn add(&mut self, wanted: &Wanted<'_>, candidate: &Candidate<'a>) -> bool {
        if !self.concerns(wanted) {
            return true;
        }
        let Some(value) = self.look_up(candidate) else { return false };
        if self.devices == 0 {
            self.value = Some(value);
        } else if !self.value.is_some_and(|known| same(known, value)) {
            return false;
        }
        self.devices += 1;
        true
    }

    pub fn remove(&mut self, wanted: &Wanted<'_>) {
        if self.concerns(wanted) {
            self.devices -= 1;
        }
    }

    fn look_up(&self, candidate: &Candidate<'a>) -> Option<&'a DeviceAttribute> {
        let attributes = candidate.device.attributes.as_ref()?;
        attributes.get(self.attribute).or_else(|| {
            // The driver's own attributes may be named without their domain.
            let (domain, name) = self.attribute.split_once('/')?;
            attributes.get(name).filter(|_| *domain == *candidate.id.driver)
        })
    }
}

fn same(known: &DeviceAttribute, value: &DeviceAttribute) -> bool {
    if value.string.is_some() {
        return known.string == value.string;
    }
    if value.int.is_some() {
        return known.int == value.int;
    }
    if value.bool.is_some() {
        return known.bool == value.bool;
    }
    value.version.is_some() && known.version == value.version
}
