//! IPAddress: the taking of one service address. Upstream: pkg/apis/networking/validation ValidateIPAddress.

use apimachinery::validation::{NameFormat, ip};
use apimachinery::{FieldError, Value};

use super::field::{Path, Report, immutable, member, text};
use super::{Context, Strategy};

pub(super) struct IpAddress;

impl Strategy for IpAddress {
    fn resource(&self) -> (&'static str, &'static str) {
        ("networking.k8s.io", "ipaddresses")
    }

    /// Its name is the address, which may have colons.
    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        errors.problems(&Path::new("metadata.name"), name, ip(name));
        let path = Path::new("spec.parentRef");
        let Some(parent) = new.at(&["spec"]).and_then(|spec| member(spec, "parentRef")) else {
            return errors.required(&path, "");
        };
        errors.needs(&path, parent, "resource");
        errors.needs(&path, parent, "name");
        let group = text(parent, "group");
        if !group.is_empty() {
            errors.subdomain(&path.child("group"), group);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
        let path = ["spec", "parentRef"];
        immutable(errors, &Path::new("spec.parentRef"), new.at(&path), old.at(&path));
    }
}
