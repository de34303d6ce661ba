//! What a claim was given, and who uses it. Upstream: validateResourceClaimStatusUpdate.

use apimachinery::{FieldError, Value};

use super::super::Context;
use super::super::device::{configuration, device_key, pool_name};
use super::super::field::{Errors, Path, Report, flag, immutable, items, items_mut, member, text};
use super::super::persistent_volume::driver_name;
use super::super::pod::scheduling::node_selector;
use super::{MAX_CONFIGURATIONS, MAX_REQUESTS, Names, check_administered, default_tolerations, duplicates, raw, set};

const MAX_USERS: usize = 256;
const MAX_CONDITIONS: usize = 8;
const MAX_DATA: usize = 10 << 10;
const MAX_ADDRESSES: usize = 16;

pub(super) fn default(claim: &mut Value) {
    if let Some(devices) = claim.at_mut(&["status", "allocation", "devices"]) {
        items_mut(devices, "results").for_each(default_tolerations);
    }
}

/// Drops what belongs to features that are off, and what devices reported that the claim has no longer.
pub(super) fn prepare(new: &mut Value, old: &Value) {
    let results = |claim: &Value| -> Vec<Value> {
        let results = claim.items_at(&["status", "allocation", "devices", "results"]);
        results.iter().map(device_key).collect()
    };
    let kept = results(new);
    let gone: Vec<Value> = results(old).into_iter().filter(|device| !kept.contains(device)).collect();
    if let Some(devices) = new.at_mut(&["status", "allocation", "devices"]) {
        for result in items_mut(devices, "results") {
            for field in ["shareID", "consumedCapacity", "bindingConditions", "bindingFailureConditions"] {
                result.remove(&[field]);
            }
        }
    }
    let Some(status) = new.get_mut("status") else { return };
    items_mut(status, "devices").for_each(|device| drop(device.remove(&["shareID"])));
    if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(|device| !gone.contains(&device_key(device)));
        if devices.is_empty() {
            status.remove(&["devices"]);
        }
    }
}

pub(super) fn validate(ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Errors) {
    may_administer(ctx, new, old, errors);
    let names = Names::of(new.get("spec").unwrap_or(&Value::Null));
    let status = new.get("status").unwrap_or(&Value::Null);
    let path = Path::new("status");
    let users = path.child("reservedFor");
    let list = items(status, "reservedFor");
    let user = |user: &Value, path: &Path<'_>, errors: &mut Errors| {
        for key in ["resource", "name", "uid"] {
            if text(user, key).is_empty() {
                errors.required(&path.child(key), "");
            }
        }
    };
    if set(list, MAX_USERS, &users, errors, &user) {
        duplicates(list, &users, errors, |user| text(user, "uid").into());
    }
    let allocation = member(status, "allocation");
    let allocated: Vec<Value> = allocation
        .map(|allocation| allocation.items_at(&["devices", "results"]).iter().map(device_key).collect())
        .unwrap_or_default();
    let devices = path.child("devices");
    for (i, device) in items(status, "devices").iter().enumerate() {
        device_status(device, &allocated, &devices.index(i), errors);
    }
    duplicates(items(status, "devices"), &devices, errors, device_key);
    let before = old.items_at(&["status", "reservedFor"]);
    if !list.is_empty() {
        if allocation.is_none() {
            errors.forbidden(&users, "may not be specified when `allocated` is not set");
        } else if new.at(&["metadata", "deletionTimestamp"]).is_some() && list.iter().any(|user| !before.contains(user))
        {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.forbidden(&users, why);
        }
    }
    let path = path.child("allocation");
    let before = old.at(&["status", "allocation"]).filter(|allocation| !allocation.is_null());
    match (allocation, before) {
        (Some(new), Some(old)) => immutable(errors, &path, Some(new), Some(old)),
        (Some(new), None) => validate_allocation(new, &names, &path, errors),
        (None, _) => {}
    }
}

/// Upstream: AuthorizedForAdminStatus.
fn may_administer(ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Errors) {
    let administers = |claim: &Value| {
        let results = claim.items_at(&["status", "allocation", "devices", "results"]);
        results.iter().position(|result| flag(result, "adminAccess"))
    };
    let (None, Some(i)) = (administers(old), administers(new)) else { return };
    let status = Path::new("status");
    let allocation = status.child("allocation");
    let devices = allocation.child("devices");
    let results = devices.child("results");
    check_administered(ctx, &results.index(i).child("adminAccess"), errors);
}

fn validate_allocation(allocation: &Value, names: &Names<'_>, path: &Path<'_>, errors: &mut Errors) {
    let devices = allocation.get("devices").unwrap_or(&Value::Null);
    let devices_path = path.child("devices");
    let result = |result: &Value, path: &Path<'_>, errors: &mut Errors| {
        names.check(text(result, "request"), &path.child("request"), errors);
        driver_name(text(result, "driver"), &path.child("driver"), errors);
        pool_name(text(result, "pool"), &path.child("pool"), errors);
        errors.label(&path.child("device"), text(result, "device"));
    };
    set(items(devices, "results"), MAX_REQUESTS, &devices_path.child("results"), errors, &result);
    let config = |config: &Value, path: &Path<'_>, errors: &mut Errors| {
        errors.needs_one_of(&path.child("source"), text(config, "source"), &["FromClaim", "FromClass"]);
        names.check_all(config, path, errors);
        configuration(config, path, errors);
    };
    set(items(devices, "config"), 2 * MAX_CONFIGURATIONS, &devices_path.child("config"), errors, &config);
    if let Some(selector) = member(allocation, "nodeSelector") {
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

/// Upstream: validateDeviceStatus.
fn device_status(device: &Value, allocated: &[Value], path: &Path<'_>, errors: &mut Errors) {
    driver_name(text(device, "driver"), &path.child("driver"), errors);
    pool_name(text(device, "pool"), &path.child("pool"), errors);
    errors.label(&path.child("device"), text(device, "device"));
    if !allocated.contains(&device_key(device)) {
        errors.invalid(path, device_key(device), "must be an allocated device in the claim");
    }
    let conditions = items(device, "conditions");
    let conditions_path = path.child("conditions");
    if conditions.len() > MAX_CONDITIONS {
        errors.add(FieldError::too_many(conditions_path.to_string(), conditions.len(), MAX_CONDITIONS));
    }
    validate_conditions(conditions, &conditions_path, errors);
    if let Some(data) = member(device, "data") {
        raw(Some(data), MAX_DATA, &path.child("data"), errors);
    }
    let Some(network) = member(device, "networkData") else { return };
    let path = path.child("networkData");
    for (key, max) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if text(network, key).len() > max {
            errors.add(FieldError::too_long(path.child(key).to_string(), max));
        }
    }
    let path = path.child("ips");
    let address = |address: &Value, path: &Path<'_>, errors: &mut Errors| {
        let text = address.as_str().unwrap_or_default();
        if let Some(problem) = interface_address(text) {
            errors.invalid(path, text, problem);
        }
    };
    if set(items(network, "ips"), MAX_ADDRESSES, &path, errors, &address) {
        duplicates(items(network, "ips"), &path, errors, Clone::clone);
    }
}

/// Upstream: metav1's ValidateConditions.
fn validate_conditions(conditions: &[Value], path: &Path<'_>, errors: &mut Errors) {
    const MAX_REASON: usize = 1 << 10;
    const MAX_MESSAGE: usize = 32 << 10;
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        let (kind, reason, message) = (text(condition, "type"), text(condition, "reason"), text(condition, "message"));
        if conditions[..i].iter().any(|earlier| text(earlier, "type") == kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        errors.qualified(&path.child("type"), kind);
        errors.one_of(&path.child("status"), text(condition, "status"), &["False", "True", "Unknown"]);
        errors.non_negative(&path, condition, "observedGeneration");
        errors.needs(&path, condition, "lastTransitionTime");
        let path_of_reason = path.child("reason");
        match reason {
            "" => errors.required(&path_of_reason, ""),
            _ if !is_reason(reason) => errors.invalid(&path_of_reason, reason, reason_error()),
            _ if reason.len() > MAX_REASON => errors.add(FieldError::too_long(path_of_reason.to_string(), MAX_REASON)),
            _ => {}
        }
        if message.len() > MAX_MESSAGE {
            errors.add(FieldError::too_long(path.child("message").to_string(), MAX_MESSAGE));
        }
    }
}

/// `[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?`
fn is_reason(reason: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = reason.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|last| word(*last))
        && bytes.iter().all(|b| word(*b) || b",:".contains(b))
}

fn reason_error() -> String {
    apimachinery::validation::pattern_error(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )
}

/// An address whose parts may have zeros before them, as upstream still reads it.
fn sloppy(ip: &str) -> Option<std::net::IpAddr> {
    let part = |part: &str| match part.trim_start_matches('0') {
        "" if part.is_empty() => String::new(),
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    };
    match ip.contains(':') {
        true => ip.parse().ok(),
        false => ip.split('.').map(part).collect::<Vec<_>>().join(".").parse().ok(),
    }
}

/// Upstream: IsValidInterfaceAddress.
fn interface_address(text: &str) -> Option<String> {
    let Some((ip, prefix)) = text.split_once('/') else { return Some(SHAPE.to_owned()) };
    let (Some(ip), Ok(prefix)) = (sloppy(ip), prefix.parse::<u8>()) else {
        return Some(SHAPE.to_owned());
    };
    if prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Some(SHAPE.to_owned());
    }
    let canonical = format!("{ip}/{prefix}");
    (canonical != text).then(|| format!("must be in canonical form (\"{canonical}\")"))
}

const SHAPE: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
