//! Service: addresses and ports that belong together. Upstream: pkg/registry/core/service.
//!
//! An address is taken by an `IPAddress` object named after it, node ports by one bitmap under a key of its own; both are
//! written in the transaction that writes the Service, so a crash leaves nothing half done ([`repair`] finds what a hand broke).

mod addresses;
mod allocate;
mod families;
mod node_ports;
pub(crate) mod repair;
#[cfg(test)]
mod tests;
mod validation;

use std::ops::RangeInclusive;
use std::sync::Arc;

use apimachinery::validation::NameFormat;
use apimachinery::{FieldError, Status, Value};
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use self::addresses::Cidr;
pub(super) use self::validation::special_ip;
use super::field::{fill, has, int, items, items_mut, member, text};
use super::{Context, Strategy, Together, keep};
use crate::config::Settings;

const CLIENT_IP_SECONDS: i64 = 10800;

pub(super) struct Service {
    cidrs: Vec<Cidr>,
    node_ports: RangeInclusive<u16>,
    /// Held by who is about to write the bitmap of node ports.
    turn: Arc<Mutex<()>>,
}

impl Service {
    /// Ranges that cannot be read are left out; the server refuses them at its start.
    pub(super) fn new(settings: &Settings) -> Service {
        let cidrs = settings.service_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
        Service { cidrs, node_ports: settings.node_ports.clone(), turn: Default::default() }
    }
}

impl Strategy for Service {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "services")
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::Dns1035Label
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        default(value);
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        let mut status = Value::object();
        status.set(&["loadBalancer"], Value::object());
        new.set(&["status"], status);
        let address = new.str_at(&["spec", "clusterIP"]).unwrap_or_default().to_owned();
        if !address.is_empty() && new.items_at(&["spec", "clusterIPs"]).is_empty() {
            new.set(&["spec", "clusterIPs"], vec![address]);
        }
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["status"]);
        let Some(before) = old.get("spec") else { return };
        let Some(after) = new.get_mut("spec") else { return };
        keep_allocated(after, before);
        match_cluster_ips(after, before);
        drop_unneeded(after, before);
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        validation::service(new, errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return validation::status(new, errors);
        }
        validation::update(new, old, errors);
        validation::service(new, errors);
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        validation::warnings(new, old)
    }

    fn allocates(&self) -> bool {
        true
    }

    fn allocate<'a>(
        &'a self,
        ctx: &'a Context<'_>,
        new: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Together, Status>> {
        Box::pin(async move {
            if !ctx.subresource.is_empty() {
                return Ok(Together::default());
            }
            self.take(ctx, new, old).await
        })
    }

    fn release<'a>(&'a self, ctx: &'a Context<'_>, old: &'a Value) -> BoxFuture<'a, Result<Together, Status>> {
        Box::pin(self.give_back(ctx, old))
    }
}

/// Upstream: SetDefaults_Service.
fn default(value: &mut Value) {
    let Some(spec) = value.get_mut("spec") else { return };
    fill(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => drop(spec.remove(&["sessionAffinityConfig"])),
        "ClientIP" => {
            let path = ["sessionAffinityConfig", "clientIP", "timeoutSeconds"];
            if spec.i64_at(&path).is_none() {
                spec.set(&path, CLIENT_IP_SECONDS);
            }
        }
        _ => {}
    }
    fill(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        fill(port, "protocol", "TCP");
        let number = int(port, "port");
        fill(port, "targetPort", number);
    }
    if is_externally_accessible(spec) {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if needs_cluster_ip(spec) && !has(spec, "internalTrafficPolicy") {
        spec.set(&["internalTrafficPolicy"], "Cluster");
    }
    let balanced = text(spec, "type") == "LoadBalancer";
    if balanced && !has(spec, "allocateLoadBalancerNodePorts") {
        spec.set(&["allocateLoadBalancerNodePorts"], true);
    }
    if balanced && let Some(ingress) = value.at_mut(&["status", "loadBalancer"]) {
        for point in items_mut(ingress, "ingress").filter(|point| !text(point, "ip").is_empty()) {
            fill(point, "ipMode", "VIP");
        }
    }
}

/// Puts back what was allocated and a client left out. Upstream: patchAllocatedValues.
fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(new, "clusterIP").is_empty() {
            keep(new, old, &["clusterIP"]);
        }
        if items(new, "clusterIPs").is_empty() && text(new, "clusterIP") == text(old, "clusterIP") {
            keep(new, old, &["clusterIPs"]);
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let numbers =
            |spec: &Value| -> Vec<i64> { items(spec, "ports").iter().map(|port| int(port, "nodePort")).collect() };
        let asked = numbers(new);
        let taken: Vec<i64> = numbers(old).into_iter().filter(|number| asked.contains(number)).collect();
        for port in items_mut(new, "ports").filter(|port| int(port, "nodePort") == 0) {
            let same = items(old, "ports").iter().rev().find(|before| text(before, "name") == text(port, "name"));
            if let Some(number) = same.map(|before| int(before, "nodePort")).filter(|number| *number != 0)
                && !taken.contains(&number)
            {
                port.set(&["nodePort"], number);
            }
        }
    }
    if needs_health_check(old) && needs_health_check(new) && int(new, "healthCheckNodePort") == 0 {
        keep(new, old, &["healthCheckNodePort"]);
    }
}

/// Lets `clusterIP` and `clusterIPs` say the same where a client changed one of them. Upstream: normalizeClusterIPs.
fn match_cluster_ips(new: &mut Value, old: &Value) {
    let same_single = text(new, "clusterIP") == text(old, "clusterIP");
    if same_single {
        if items(new, "clusterIPs").is_empty() && !items(old, "clusterIPs").is_empty() {
            keep(new, old, &["clusterIPs"]);
        }
    } else if items(new, "clusterIPs") == items(old, "clusterIPs") {
        match text(new, "clusterIP").to_owned() {
            cleared if cleared.is_empty() => drop(new.remove(&["clusterIPs"])),
            address => new.set(&["clusterIPs"], vec![address]),
        }
    }
}

/// Drops what the new type has no use for and the client did not change. Upstream: dropTypeDependentFields.
fn drop_unneeded(new: &mut Value, old: &Value) {
    let mut fields: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if items(new, "clusterIPs") == items(old, "clusterIPs") {
            fields.extend(["clusterIP", "clusterIPs"]);
        }
        if items(new, "ipFamilies") == items(old, "ipFamilies")
            && new.get("ipFamilyPolicy") == old.get("ipFamilyPolicy")
        {
            fields.extend(["ipFamilies", "ipFamilyPolicy"]);
        }
    }
    let numbers = |spec: &Value| -> Vec<i64> {
        let mut numbers: Vec<i64> =
            items(spec, "ports").iter().map(|port| int(port, "nodePort")).filter(|n| *n != 0).collect();
        numbers.sort_unstable();
        numbers
    };
    if needs_node_ports(old) && !needs_node_ports(new) && numbers(new) == numbers(old) {
        items_mut(new, "ports").for_each(|port| drop(port.remove(&["nodePort"])));
    }
    let mut unneeded = |needs: fn(&Value) -> bool, field: &'static str| {
        if needs(old) && !needs(new) && new.get(field) == old.get(field) {
            fields.push(field);
        }
    };
    unneeded(needs_health_check, "healthCheckNodePort");
    unneeded(is_balanced, "allocateLoadBalancerNodePorts");
    unneeded(is_balanced, "loadBalancerClass");
    unneeded(is_externally_accessible, "externalTrafficPolicy");
    unneeded(is_internal, "internalTrafficPolicy");
    for field in fields {
        new.remove(&[field]);
    }
}

fn is_internal(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn is_balanced(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer"
}

fn is_headless(spec: &Value) -> bool {
    matches!(items(spec, "clusterIPs"), [only] if only.as_str() == Some("None"))
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_ports(spec: &Value) -> bool {
    text(spec, "type") == "NodePort" || is_balanced(spec) && allocates_node_ports(spec)
}

/// Whether ports that name no node port get one.
fn allocates_node_ports(spec: &Value) -> bool {
    !is_balanced(spec) || member(spec, "allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false)
}

fn needs_health_check(spec: &Value) -> bool {
    is_balanced(spec) && text(spec, "externalTrafficPolicy") == "Local"
}

fn is_externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !items(spec, "externalIPs").is_empty(),
        _ => false,
    }
}
