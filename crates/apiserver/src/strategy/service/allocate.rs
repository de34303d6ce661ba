//! Takes and gives back the addresses and ports of a Service. Upstream: registry/core/service/storage alloc.go.

use std::sync::Arc;

use apimachinery::{FieldError, GroupKind, Status, Value};

use super::super::field::{int, items, items_mut, text};
use super::super::{Context, Together};
use super::addresses::{self, AddressError, Cidr};
use super::node_ports::{self, NodePorts, PortError};
use super::{Service, allocates_node_ports, families, is_headless, needs_health_check};
use crate::registry::store_failure;

impl Service {
    /// Completes `new` and returns what must be written with it.
    pub(super) async fn take(
        &self,
        ctx: &Context<'_>,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Together, Status> {
        let ranges = self.ranges(ctx);
        let mut cluster: Vec<&str> = Vec::new();
        for range in &ranges {
            if !cluster.contains(&range.family()) {
                cluster.push(range.family());
            }
        }
        families::complete(new, old, &cluster)?;
        let mut together = Together::default();
        self.cluster_ips(ctx, &ranges, new, old, &mut together).await?;
        self.ports(ctx, new, old, &mut together).await?;
        Ok(together)
    }

    /// What must be written when a Service goes.
    pub(super) async fn give_back(&self, ctx: &Context<'_>, old: &Value) -> Result<Together, Status> {
        let mut together = Together::default();
        let name = old.str_at(&["metadata", "name"]).unwrap_or_default();
        for address in allocated(Some(old)) {
            addresses::give_back(ctx, &address, (ctx.namespace, name), &mut together).await?;
        }
        let taken = taken_ports(Some(old));
        if !taken.is_empty() {
            let mut ports = node_ports::all(ctx).await.map_err(store_failure)?;
            taken.into_iter().for_each(|port| ports.give_back(port));
            ports.finish(&mut together);
        }
        Ok(together)
    }

    /// The cluster's ranges: those it was started with, then those of ServiceCIDR objects.
    fn ranges(&self, ctx: &Context<'_>) -> Vec<Cidr> {
        let mut ranges = self.cidrs.clone();
        let mut objects = ctx.objects.list("networking.k8s.io", "servicecidrs", "");
        objects.sort_by(|a, b| a.name().cmp(b.name()));
        for object in objects {
            let value = object.to_value();
            if value.at(&["metadata", "deletionTimestamp"]).is_some() {
                continue;
            }
            let cidrs = value.items_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
            for cidr in cidrs.filter_map(|cidr| cidr.parse::<Cidr>().ok()) {
                if !ranges.contains(&cidr) {
                    ranges.push(cidr);
                }
            }
        }
        ranges
    }

    /// One address for each family, those of `old` kept.
    async fn cluster_ips(
        &self,
        ctx: &Context<'_>,
        ranges: &[Cidr],
        new: &mut Value,
        old: Option<&Value>,
        together: &mut Together,
    ) -> Result<(), Status> {
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
        let service = (ctx.namespace, name.as_str());
        let before = allocated(old);
        let Some(spec) = new.get_mut("spec") else { return Ok(()) };
        if text(spec, "type") == "ExternalName" || is_headless(spec) {
            for address in &before {
                addresses::give_back(ctx, address, service, together).await?;
            }
            return Ok(());
        }
        let mut now: Vec<String> =
            items(spec, "clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let wanted: Vec<String> =
            items(spec, "ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let asked = items(spec, "clusterIPs").to_vec();
        for (i, family) in wanted.iter().enumerate() {
            let given = now.get(i).cloned().unwrap_or_default();
            if !given.is_empty() && before.contains(&given) {
                continue;
            }
            let of_family: Vec<Cidr> = ranges.iter().filter(|range| range.family() == family).copied().collect();
            let address = if given.is_empty() {
                addresses::take_any(ctx, &of_family, service, together).await.map_err(|error| match error {
                    AddressError::Store(failure) => store_failure(failure),
                    other => Status::internal(format!("failed to allocate a serviceIP: {other}")),
                })?
            } else {
                let taken = addresses::take(ctx, &of_family, &given, service, together).await;
                taken.map_err(|error| match error {
                    AddressError::Store(failure) => store_failure(failure),
                    other => {
                        let why = format!("failed to allocate IP {given}: {other}");
                        invalid(&name, FieldError::invalid("spec.clusterIPs", asked.clone(), why))
                    }
                })?;
                given
            };
            match now.get_mut(i) {
                Some(slot) => *slot = address,
                None => now.push(address),
            }
        }
        for gone in before.iter().filter(|address| !now.contains(address)) {
            addresses::give_back(ctx, gone, service, together).await?;
        }
        if let Some(first) = now.first() {
            spec.set(&["clusterIP"], first.as_str());
            spec.set(&["clusterIPs"], now);
        }
        Ok(())
    }

    async fn ports(
        &self,
        ctx: &Context<'_>,
        new: &mut Value,
        old: Option<&Value>,
        together: &mut Together,
    ) -> Result<(), Status> {
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
        let before = taken_ports(old);
        let Some(spec) = new.get_mut("spec") else { return Ok(()) };
        let exposed = matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
        if !exposed && before.is_empty() {
            return Ok(());
        }
        if !ctx.dry_run {
            together.turn = Some(Arc::new(self.turn.clone().lock_owned().await));
        }
        let mut ports = NodePorts::read(ctx.store, &self.node_ports).await.map_err(store_failure)?;
        if exposed {
            take_ports(ctx, spec, &before, old.is_none(), &mut ports).map_err(|refusal| refusal.into_status(&name))?;
        }
        if needs_health_check(spec) {
            let given = int(spec, "healthCheckNodePort");
            if given == 0 {
                let port = ports.take_any(ctx.env);
                let port = port.map_err(|error| {
                    Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {error}"))
                })?;
                spec.set(&["healthCheckNodePort"], i64::from(port));
            } else if !before.contains(&given) {
                ports.take(given).map_err(|error| {
                    Status::internal(format!("failed to allocate requested HealthCheck NodePort {given}: {error}"))
                })?;
            }
        }
        let kept = ports_of(spec);
        before.into_iter().filter(|port| !kept.contains(port)).for_each(|port| ports.give_back(port));
        ports.finish(together);
        Ok(())
    }
}

/// Why a port was not taken.
enum Refusal {
    Port { index: usize, number: i64, error: PortError },
    Any(PortError),
}

impl Refusal {
    fn into_status(self, name: &str) -> Status {
        match self {
            Refusal::Port { index, number, error } => {
                let field = format!("spec.ports[{index}].nodePort");
                invalid(name, FieldError::invalid(field, number, error.to_string()))
            }
            Refusal::Any(error) => Status::internal(format!("failed to allocate a nodePort: {error}")),
        }
    }
}

/// Ports of one number that differ in their protocol share a node port when they are new. Upstream: initNodePorts, updateNodePorts.
fn take_ports(
    ctx: &Context<'_>,
    spec: &mut Value,
    before: &[i64],
    is_new: bool,
    ports: &mut NodePorts,
) -> Result<(), Refusal> {
    let allocates = allocates_node_ports(spec);
    let asked: Vec<(i64, i64)> =
        items(spec, "ports").iter().map(|port| (int(port, "port"), int(port, "nodePort"))).collect();
    let mut by_port: Vec<(i64, i64)> = Vec::new();
    let mut mine: Vec<i64> = before.to_vec();
    for (index, port) in items_mut(spec, "ports").enumerate() {
        let (number, given) = asked[index];
        let shared =
            by_port.iter().find(|(port, _)| *port == number).map(|(_, node_port)| *node_port).filter(|_| is_new);
        let requested = match (given, shared) {
            (0, Some(shared)) => {
                port.set(&["nodePort"], shared);
                continue;
            }
            (0, None) if !allocates => continue,
            (0, None) if is_new => asked[index..]
                .iter()
                .find(|(port, given)| *port == number && *given != 0)
                .map_or(0, |(_, given)| *given),
            (given, _) => given,
        };
        let taken = if requested == 0 {
            i64::from(ports.take_any(ctx.env).map_err(Refusal::Any)?)
        } else {
            if !mine.contains(&requested) {
                ports.take(requested).map_err(|error| Refusal::Port { index, number: requested, error })?;
            }
            requested
        };
        mine.push(taken);
        by_port.push((number, taken));
        port.set(&["nodePort"], taken);
    }
    Ok(())
}

/// The addresses that a stored Service holds.
pub(super) fn allocated(service: Option<&Value>) -> Vec<String> {
    let Some(spec) = service.and_then(|service| service.get("spec")) else { return Vec::new() };
    if text(spec, "type") == "ExternalName" {
        return Vec::new();
    }
    items(spec, "clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .filter(|address| *address != "None")
        .map(str::to_owned)
        .collect()
}

/// The node ports that a stored Service holds.
pub(super) fn taken_ports(service: Option<&Value>) -> Vec<i64> {
    service.and_then(|service| service.get("spec")).map(ports_of).unwrap_or_default()
}

fn ports_of(spec: &Value) -> Vec<i64> {
    let mut ports: Vec<i64> = items(spec, "ports").iter().map(|port| int(port, "nodePort")).collect();
    if needs_health_check(spec) {
        ports.push(int(spec, "healthCheckNodePort"));
    }
    ports.retain(|port| *port != 0);
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn invalid(name: &str, error: FieldError) -> Status {
    Status::invalid(&GroupKind { group: String::new(), kind: "Service".into() }, name, &[error])
}
