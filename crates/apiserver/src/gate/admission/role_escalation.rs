//! Nobody grants more than they have; see [`escalation`](crate::gate::escalation). Upstream does this in the storage of RBAC's
//! kinds, before validation: so it is done when completing.

use apimachinery::{Status, Value};

use super::{Plugin, Write};
use crate::gate::escalation::RbacWrite;

pub(super) struct RoleEscalation;

impl Plugin for RoleEscalation {
    fn admit(&self, write: &Write<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        if write.group != "rbac.authorization.k8s.io" {
            return Ok(());
        }
        let name = new.str_at(&["metadata", "name"]).unwrap_or(write.name);
        let Write { user, resource, namespace, .. } = *write;
        RbacWrite { user, resource, namespace, name, new, old }.check(write.gate)
    }
}
