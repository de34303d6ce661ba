//! Which IP families a Service has. Upstream: registry/core/service/storage initIPFamilyFields.

use std::net::IpAddr;

use apimachinery::{GroupKind, Status, Value};

use super::super::field::{Errors, Path, Report, entries, has, items, text};
use super::{addresses, is_headless, validation};

/// Fills in `ipFamilyPolicy` and `ipFamilies`, or says why they cannot be. `cluster` has the families of the cluster's
/// ranges, the default first.
pub(super) fn complete(service: &mut Value, old: Option<&Value>, cluster: &[&str]) -> Result<(), Status> {
    let name = service.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
    let invalid = |errors: Errors| match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&GroupKind { group: String::new(), kind: "Service".into() }, &name, &errors)),
    };
    let before = old.and_then(|old| old.get("spec"));
    let Some(spec) = service.get_mut("spec") else { return Ok(()) };
    if text(spec, "type") == "ExternalName" || before.is_some_and(|before| stays_preferring(spec, before)) {
        return Ok(());
    }
    let selects = entries(spec, "selector").next().is_some();
    if !has(spec, "ipFamilyPolicy") {
        let policy = match before.and_then(|before| before.str_at(&["ipFamilyPolicy"])) {
            Some(policy) => policy,
            None if is_headless(spec) && !selects => "RequireDualStack",
            None => "SingleStack",
        };
        spec.set(&["ipFamilyPolicy"], policy);
    }
    invalid(validation::cluster_ips(spec))?;
    let path = Path::new("spec");
    let policy_path = path.child("ipFamilyPolicy");
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    let mut errors = Errors::new();
    if let Some(before) = before {
        shrink(spec, before, &policy, &policy_path, &mut errors);
    }
    if policy == "SingleStack" {
        for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if items(spec, key).len() == 2 {
                let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                errors.invalid(&policy_path, policy.as_str(), why);
            }
        }
    }
    let mut families: Vec<String> =
        items(spec, "ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let addresses: Vec<String> =
        items(spec, "clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    for (i, address) in addresses.iter().enumerate().skip(families.len()) {
        let Ok(address) = address.parse::<IpAddr>() else { break };
        let family = addresses::family(&address);
        if cluster.contains(&family) {
            families.push(family.to_owned());
        } else {
            let path = path.child("clusterIPs");
            let why = format!("{family} is not configured on this cluster");
            errors.invalid(&path.index(i), items(spec, "clusterIPs").to_vec(), why);
        }
    }
    invalid(std::mem::take(&mut errors))?;
    let default = cluster.first().copied().unwrap_or("IPv4");
    if is_headless(spec) && !selects {
        if families.is_empty() {
            families.push(default.to_owned());
        }
        if families.len() < 2 && policy != "SingleStack" {
            families.push(other(&families[0]).to_owned());
        }
        spec.set(&["ipFamilies"], families);
        return Ok(());
    }
    if policy == "RequireDualStack" && cluster.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.invalid(&policy_path, policy.as_str(), why);
    }
    for (i, family) in families.iter().enumerate().filter(|(_, family)| !cluster.contains(&family.as_str())) {
        let path = path.child("ipFamilies");
        errors.invalid(&path.index(i), family.as_str(), "not configured on this cluster");
    }
    invalid(errors)?;
    if families.is_empty() {
        families.push(default.to_owned());
    }
    if policy != "SingleStack" && families.len() == 1 && cluster.len() == 2 {
        families.push(other(&families[0]).to_owned());
    }
    spec.set(&["ipFamilies"], families);
    Ok(())
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// A Service that prefers two families is not changed because the cluster's ranges were.
/// Upstream: isMatchingPreferDualStackClusterIPFields.
fn stays_preferring(spec: &Value, before: &Value) -> bool {
    text(before, "type") != "ExternalName"
        && text(spec, "ipFamilyPolicy") == "PreferDualStack"
        && text(before, "ipFamilyPolicy") == "PreferDualStack"
        && ["type", "clusterIPs", "ipFamilies"].iter().all(|key| spec.get(key) == before.get(key))
}

/// Gives up the second family where the policy says so, and refuses to without it.
fn shrink(spec: &mut Value, before: &Value, policy: &str, path: &Path<'_>, errors: &mut Errors) {
    for (key, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (now, then) = (items(spec, key), items(before, key));
        if policy == "SingleStack" {
            if now == then && now.len() > 1 {
                let first = now[..1].to_vec();
                spec.set(&[key], first);
            }
        } else if !now.is_empty() && now.len() < then.len() {
            errors.invalid(path, policy, format!("must be 'SingleStack' to release the secondary {what}"));
        }
    }
}
