//! What an apply would take from others.

use super::managed::{ManagedEntry, Operation};
use super::{FieldSet, PathElement};
use crate::{Cause, Details, Reason, Status};

/// A field that another manager has, with another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub manager: String,
    pub operation: Operation,
    pub version: String,
    pub subresource: String,
    pub path: Vec<PathElement>,
}

impl Conflict {
    /// The conflicts with one manager.
    pub(super) fn with(entry: &ManagedEntry, fields: &FieldSet) -> Vec<Conflict> {
        let conflict = |path| Conflict {
            manager: entry.manager.clone(),
            operation: entry.operation,
            version: entry.version.clone(),
            subresource: entry.subresource.clone(),
            path,
        };
        fields.paths().into_iter().map(conflict).collect()
    }

    /// The field's path: `.spec.containers[name="web"].image`.
    fn field(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }

    fn manager(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.version));
        }
        text
    }

    fn same_manager(&self, other: &Conflict) -> bool {
        (&self.manager, self.operation, &self.version, &self.subresource)
            == (&other.manager, other.operation, &other.version, &other.subresource)
    }
}

/// The answer to an apply that isn't forced. The conflicts are grouped by manager.
pub fn conflict_status(conflicts: &[Conflict]) -> Status {
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager(), one.field()),
        many => {
            let mut lines = Vec::new();
            for (i, conflict) in many.iter().enumerate() {
                if i == 0 || !many[i - 1].same_manager(conflict) {
                    lines.push(format!("conflicts with {}:", conflict.manager()));
                }
                lines.push(format!("- {}", conflict.field()));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager()),
        field: conflict.field(),
    });
    let details = Details { causes: causes.collect(), ..Details::default() };
    Status { details: Some(details), ..Status::new(409, Reason::Conflict, message) }
}
