//! The node's sign of life. Upstream: component-helpers apimachinery/lease.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value, format_micro_time};
use client::{Backoff, Error, resources};

use crate::context::Context;

const NAMESPACE: &str = "kube-node-lease";
const SECONDS: i64 = 40;
const RENEW: Duration = Duration::from_secs(10);

/// Renews the lease for ever.
pub(super) async fn run(ctx: Arc<Context>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7));
    let mut held: Option<Arc<Object>> = None;
    loop {
        match renew(&ctx, held.as_deref()).await {
            Ok(lease) => {
                held = Some(lease);
                backoff.reset();
                ctx.env.sleep(RENEW).await;
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the node's lease is not renewed yet");
                held = None;
                ctx.env.sleep(backoff.next(&ctx.env)).await;
            }
        }
    }
}

async fn renew(ctx: &Context, held: Option<&Object>) -> Result<Arc<Object>, Error> {
    let name = &ctx.config.node_name;
    let key = ObjectKey::new(NAMESPACE, &**name);
    let known = match held {
        Some(held) => Some(held.to_value()),
        None => ctx.client.find(&resources::LEASES, &key).await?.map(|lease| lease.to_value()),
    };
    let exists = known.is_some();
    let mut lease = known.unwrap_or_else(|| {
        let mut lease = Value::object();
        lease.set(&["apiVersion"], "coordination.k8s.io/v1");
        lease.set(&["kind"], "Lease");
        lease.set(&["metadata", "name"], name);
        lease.set(&["metadata", "namespace"], NAMESPACE);
        lease
    });
    lease.set(&["spec", "holderIdentity"], name);
    lease.set(&["spec", "leaseDurationSeconds"], SECONDS);
    lease.set(&["spec", "renewTime"], format_micro_time(ctx.env.now()));
    // It goes with its node.
    if lease.items_at(&["metadata", "ownerReferences"]).is_empty()
        && let Some(node) = ctx.node.get(&ObjectKey::cluster(&**name))
    {
        let mut owner = Value::object();
        owner.set(&["apiVersion"], "v1");
        owner.set(&["kind"], "Node");
        owner.set(&["name"], name);
        owner.set(&["uid"], node.uid());
        lease.set(&["metadata", "ownerReferences"], Value::Array(vec![owner]));
    }
    if exists {
        ctx.client.update(&resources::LEASES, &lease).await
    } else {
        ctx.client.create(&resources::LEASES, &lease).await
    }
}
