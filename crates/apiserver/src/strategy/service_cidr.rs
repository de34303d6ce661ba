//! ServiceCIDR: a range that service addresses come from. Upstream: pkg/apis/networking/validation ValidateServiceCIDR.

use apimachinery::validation::cidr;
use apimachinery::{FieldError, Value};

use super::field::{Path, Report, immutable};
use super::{Context, Strategy};

pub(super) struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn resource(&self) -> (&'static str, &'static str) {
        ("networking.k8s.io", "servicecidrs")
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let list = new.items_at(&["spec", "cidrs"]);
        let path = Path::new("spec.cidrs");
        if list.is_empty() {
            errors.required(&path, "at least one CIDR required");
        }
        if list.len() > 2 {
            errors.invalid(&path, list.to_vec(), "must only hold up to 2 values");
        }
        let sixes = list.iter().filter_map(Value::as_str).filter(|block| block.contains(':')).count();
        if list.len() == 2 && sixes != 1 {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.invalid(&path, list.to_vec(), why);
        }
        for (i, block) in list.iter().filter_map(Value::as_str).enumerate() {
            errors.problems(&path.index(i), block, cidr(block));
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource.is_empty() {
            let path = ["spec", "cidrs"];
            immutable(errors, &Path::new("spec.cidrs"), new.at(&path), old.at(&path));
        }
    }
}
