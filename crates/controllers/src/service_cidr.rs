//! A service range says that it is ready, and goes only when no address is left that no other range holds. Upstream:
//! pkg/controller/servicecidrs.

use std::net::IpAddr;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, Event, EventRecorder, Informer, PatchKind, ReconcileContext, ReconcileError, Requeue, Resource, Watch,
};
use ipnet::IpNet;

use crate::Setup;
use crate::meta::{between, metadata, now, time};

const RANGES: Resource = Resource::cluster("networking.k8s.io", "v1", "servicecidrs");
const ADDRESSES: Resource = Resource::cluster("networking.k8s.io", "v1", "ipaddresses");
const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// So long a deletion is known before the range goes: nobody takes an address from it any more.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct ServiceCidrs {
    ranges: Informer,
    addresses: Informer,
    events: EventRecorder,
}

impl ServiceCidrs {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        ServiceCidrs {
            ranges: setup.informers.of(&RANGES),
            addresses: setup.informers.of(&ADDRESSES),
            events: setup.recorder("service-cidrs-controller", NAME),
        }
    }

    async fn protect(
        &self,
        ctx: &ReconcileContext,
        range: &std::sync::Arc<Object>,
    ) -> Result<std::sync::Arc<Object>, ReconcileError> {
        let mut finalizers = metadata(range).items_at(&["finalizers"]).to_vec();
        if finalizers.iter().any(|name| name.as_str() == Some(FINALIZER)) {
            return Ok(range.clone());
        }
        finalizers.push(FINALIZER.into());
        set_finalizers(ctx, range, finalizers).await
    }

    /// Whether each address of the range, or the range as a whole, is in another range too.
    fn may_go(&self, range: &Object) -> bool {
        let others: Vec<IpNet> = self
            .ranges
            .list("")
            .iter()
            .filter(|other| other.name() != range.name())
            .flat_map(|other| nets(other))
            .collect();
        let own = nets(range);
        if own.iter().all(|net| others.iter().any(|other| other.contains(net))) {
            return true;
        }
        let taken = self.addresses.list("").into_iter().filter(|address| address.label(MANAGED_BY) == Some(ALLOCATOR));
        let mut taken = taken.filter_map(|address| address.name().parse::<IpAddr>().ok());
        !taken.any(|address| {
            let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
            within(&own) && !within(&others)
        })
    }
}

fn nets(range: &Object) -> Vec<IpNet> {
    let value = range.to_value();
    let cidrs = value.items_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}

async fn set_finalizers(
    ctx: &ReconcileContext,
    range: &Object,
    finalizers: Vec<Value>,
) -> Result<std::sync::Arc<Object>, ReconcileError> {
    let mut patch = Value::object();
    patch.set(&["metadata", "resourceVersion"], range.revision().to_string());
    patch.set(&["metadata", "finalizers"], finalizers);
    Ok(ctx.client().patch(&RANGES, range.key(), PatchKind::Merge, &patch).await?)
}

/// Says in the range's status whether it is ready.
async fn set_ready(
    ctx: &ReconcileContext,
    range: &Object,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<(), ReconcileError> {
    let fields = [("type", "Ready"), ("status", status), ("reason", reason), ("message", message)];
    let says = |known: &Value| fields.iter().all(|(field, text)| known.str_at(&[field]).unwrap_or_default() == *text);
    if range.to_value().items_at(&["status", "conditions"]).iter().any(says) {
        return Ok(());
    }
    let mut condition = Value::object();
    fields.iter().for_each(|(field, text)| condition.set(&[field], *text));
    condition.set(&["lastTransitionTime"], now(ctx.env()));
    let mut applied = Value::object();
    applied.set(&["apiVersion"], "networking.k8s.io/v1");
    applied.set(&["kind"], "ServiceCIDR");
    applied.set(&["metadata", "name"], range.name());
    applied.set(&["status", "conditions"], vec![condition]);
    ctx.client().apply(&RANGES, "status", &applied, NAME).await?;
    Ok(())
}

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        let ranges = self.ranges.clone();
        let ranges_of_address = ranges.clone();
        let deleting = |ranges: &Informer| -> Vec<ObjectKey> {
            ranges.list("").iter().filter(|range| range.is_deleting()).map(|range| range.key().clone()).collect()
        };
        let of_range = move |event: &Event| {
            let mut keys = deleting(&ranges);
            keys.push(event.object().key().clone());
            keys
        };
        let of_address = move |event: &Event| match event {
            Event::Deleted(_) => deleting(&ranges_of_address),
            _ => Vec::new(),
        };
        vec![Watch::new(self.ranges.clone(), of_range), Watch::new(self.addresses.clone(), of_address)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(range) = self.ranges.get(key) else { return Ok(Requeue::No) };
        let Some(deleted) = range.deletion_timestamp() else {
            let range = self.protect(ctx, &range).await?;
            let told = set_ready(ctx, &range, "True", "", "Kubernetes Service CIDR is ready").await;
            if told.is_err() {
                let message = "The ServiceCIDR Status can not be set to Ready=True";
                self.events.warning(&range, "KubernetesServiceCIDRError", message);
            }
            return told.map(|()| Requeue::No);
        };
        if !self.may_go(&range) {
            let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            set_ready(ctx, &range, "False", "Terminating", why).await?;
            return Ok(Requeue::No);
        }
        let left = GRACE.saturating_sub(between(time(Some(deleted)), ctx.env().now()));
        if !left.is_zero() {
            return Ok(Requeue::After(left));
        }
        let kept = metadata(&range).items_at(&["finalizers"]).to_vec();
        let kept: Vec<Value> = kept.into_iter().filter(|name| name.as_str() != Some(FINALIZER)).collect();
        set_finalizers(ctx, &range, kept).await?;
        Ok(Requeue::No)
    }
}
