//! CSIDriver, CSINode, CSIStorageCapacity and VolumeAttachment: what storage drivers register. Upstream: pkg/apis/storage v1
//! defaults, validation; pkg/registry/storage.

use apimachinery::validation::{range_error, validate_label_selector};
use apimachinery::{FieldError, Quantity, Value};

use super::field::{Errors, NEGATIVE, Path, Report, entries, fill, fill_absent, immutable, items, member, text};
use super::persistent_volume::{driver_name, validate_spec};
use super::{Context, Strategy};

const GROUP: &str = "storage.k8s.io";
const MAX_NODE_ID: usize = 256;
const MAX_ATTACHMENT_METADATA: usize = 256 << 10;
const MAX_ERROR: usize = 1024;

pub(super) struct CsiDriver;
pub(super) struct CsiNode;
pub(super) struct CsiStorageCapacity;
pub(super) struct VolumeAttachment;

impl Strategy for CsiDriver {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "csidrivers")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    /// Upstream: SetDefaults_CSIDriver.
    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill_absent(spec, "attachRequired", true);
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for key in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
            fill_absent(spec, key, false);
        }
        if items(spec, "volumeLifecycleModes").is_empty() {
            spec.set(&["volumeLifecycleModes"], vec!["Persistent"]);
        }
    }

    /// Only changes are counted, so a new driver has no generation.
    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if new.get("spec") != old.get("spec") {
            let generation = old.i64_at(&["metadata", "generation"]).unwrap_or_default() + 1;
            new.set(&["metadata", "generation"], generation);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let spec = new.get("spec").unwrap_or(&Value::Null);
        let path = Path::new("spec");
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        errors.one_of(&path.child("fsGroupPolicy"), text(spec, "fsGroupPolicy"), &policies);
        token_requests(items(spec, "tokenRequests"), &path.child("tokenRequests"), errors);
        let modes = path.child("volumeLifecycleModes");
        for mode in items(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
            errors.one_of(&modes, mode, &["Persistent", "Ephemeral"]);
        }
        let period = "nodeAllocatableUpdatePeriodSeconds";
        if let Some(seconds) = spec.i64_at(&[period]).filter(|seconds| *seconds < 10) {
            errors.invalid(&path.child(period), seconds, "must be greater than or equal to 10 seconds");
        }
        let secrets = "serviceAccountTokenInSecrets";
        if let Some(value) = member(spec, secrets).filter(|_| items(spec, "tokenRequests").is_empty()) {
            let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.invalid(&path.child(secrets), value, why);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
        for (key, shown) in
            [("attachRequired", "spec.attachedRequired"), ("volumeLifecycleModes", "spec.volumeLifecycleModes")]
        {
            immutable(errors, &Path::new(shown), new.at(&["spec", key]), old.at(&["spec", key]));
        }
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let requests = new.items_at(&["spec", "tokenRequests"]);
        let changed = old.is_none_or(|old| old.items_at(&["spec", "tokenRequests"]) != requests);
        let unset = new.at(&["spec", "serviceAccountTokenInSecrets"]).is_none_or(Value::is_null);
        let warns = changed && unset && !requests.is_empty();
        warns.then(|| LOGGED_TOKENS.to_owned()).into_iter().collect()
    }
}

/// Tokens would be told to the driver where its log may show them.
const LOGGED_TOKENS: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
possible logging of tokens in volume attributes";

fn token_requests(requests: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, request) in requests.iter().enumerate() {
        let path = path.index(i);
        let audience = text(request, "audience");
        if requests[..i].iter().any(|earlier| text(earlier, "audience") == audience) {
            errors.duplicate(&path.child("audience"), audience);
            continue;
        }
        let Some(seconds) = request.i64_at(&["expirationSeconds"]) else { continue };
        let path = path.child("expirationSeconds");
        if seconds < 600 {
            errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

impl Strategy for CsiNode {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "csinodes")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let drivers = new.items_at(&["spec", "drivers"]);
        let path = Path::new("spec.drivers");
        for (i, driver) in drivers.iter().enumerate() {
            let path = path.index(i);
            let name = text(driver, "name");
            driver_name(name, &path.child("name"), errors);
            let id = text(driver, "nodeID");
            errors.needs(&path, driver, "nodeID");
            if id.len() > MAX_NODE_ID {
                errors.invalid(&path.child("nodeID"), id, format!("must be {MAX_NODE_ID} characters or less"));
            }
            if let Some(count) = driver.i64_at(&["allocatable", "count"]).filter(|count| *count < 0) {
                let path = path.child("allocatable");
                errors.invalid(&path.child("count"), count, NEGATIVE);
            }
            if drivers[..i].iter().any(|earlier| text(earlier, "name") == name) {
                errors.duplicate(&path.child("name"), name);
            }
            let keys: Vec<&str> = items(driver, "topologyKeys").iter().filter_map(Value::as_str).collect();
            for (j, key) in keys.iter().enumerate() {
                if key.is_empty() {
                    errors.required(&path, "");
                }
                if keys[..j].contains(key) {
                    errors.duplicate(&path, *key);
                }
                errors.qualified(&path, key);
            }
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
        let without_count = |driver: &Value| {
            let mut driver = driver.clone();
            driver.remove(&["allocatable"]);
            driver
        };
        for driver in old.items_at(&["spec", "drivers"]) {
            let same = |new: &&Value| text(new, "name") == text(driver, "name");
            for new in new.items_at(&["spec", "drivers"]).iter().filter(same) {
                let (new, old) = (without_count(new), without_count(driver));
                immutable(errors, &Path::new("spec.drivers"), Some(&new), Some(&old));
            }
        }
    }
}

impl Strategy for CsiStorageCapacity {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "csistoragecapacities")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        if let Some(selector) = member(new, "nodeTopology") {
            errors.extend(validate_label_selector(selector, "nodeTopology", false));
        }
        errors.subdomain(&Path::new("storageClassName"), text(new, "storageClassName"));
        if let Some(Ok(size)) = new.get("capacity").and_then(Quantity::from_value)
            && size.sign() < 0
        {
            errors.invalid(&Path::new("capacity"), size.to_string(), NEGATIVE);
        }
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for key in ["nodeTopology", "storageClassName"] {
            immutable(errors, &Path::new(key), new.get(key), old.get(key));
        }
    }
}

impl Strategy for VolumeAttachment {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "volumeattachments")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        attachment(new, errors);
        let spec = new.get("spec").unwrap_or(&Value::Null);
        let path = Path::new("spec");
        driver_name(text(spec, "attacher"), &path.child("attacher"), errors);
        if let Some(name) = spec.str_at(&["source", "persistentVolumeName"]) {
            errors.subdomain(&Path::new("spec.source.persistentVolumeName"), name);
        }
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        attachment(new, errors);
        immutable(errors, &Path::new("spec"), new.get("spec"), old.get("spec"));
    }
}

/// Upstream: ValidateVolumeAttachment.
fn attachment(attachment: &Value, errors: &mut Errors) {
    let spec = attachment.get("spec").unwrap_or(&Value::Null);
    let path = Path::new("spec");
    errors.needs(&path, spec, "attacher");
    let source = spec.get("source").unwrap_or(&Value::Null);
    let source_path = path.child("source");
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (member(source, "inlineVolumeSpec"), source.str_at(&["persistentVolumeName"])) {
        (None, None) => errors.required(&source_path, ONE),
        (Some(_), Some(_)) => errors.forbidden(&source_path, ONE),
        (None, Some("")) => {
            errors.required(&source_path.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (Some(inline), None) => validate_spec(inline, "", true, &source_path.child("inlineVolumeSpec"), errors),
        _ => {}
    }
    errors.subdomain(&path.child("nodeName"), text(spec, "nodeName"));
    let path = Path::new("status");
    let status = attachment.get("status").unwrap_or(&Value::Null);
    let size = |(key, value): (&str, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if entries(status, "attachmentMetadata").map(size).sum::<usize>() > MAX_ATTACHMENT_METADATA {
        errors.add(FieldError::too_long("status.attachmentMetadata", MAX_ATTACHMENT_METADATA));
    }
    for key in ["attachError", "detachError"] {
        let Some(error) = member(status, key) else { continue };
        let path = path.child(key);
        if text(error, "message").len() > MAX_ERROR {
            errors.add(FieldError::too_long(path.child("message").to_string(), MAX_ATTACHMENT_METADATA));
        }
        if let Some(code) = error.i64_at(&["errorCode"]).filter(|code| *code < 0) {
            errors.invalid(&path.child("errorCode"), code, range_error(0, i64::from(i32::MAX)));
        }
    }
}
