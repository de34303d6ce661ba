//! ServiceAccount. Upstream: pkg/registry/core/serviceaccount.

use super::Strategy;

pub(super) struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "serviceaccounts")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
