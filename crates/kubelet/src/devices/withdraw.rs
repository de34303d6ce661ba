//! Devices that nobody could make ready are not offered: their slices are deleted. Upstream: DRAPluginManager's wipeResourceSlices and sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Backoff, DeleteOptions, Resource, Selection, TaskGuard};

use crate::context::Context;

const RESOURCE_SLICES: Resource = Resource::cluster("resource.k8s.io", "v1", "resourceslices");

/// The devices of a driver that stays away for longer are not offered any more (upstream: `defaultWipingDelay`).
const AWAY: Duration = Duration::from_secs(30);

/// Withdraws what an earlier kubelet's drivers offered, and what drivers offer that stay away, as long as the kubelet runs.
pub(super) async fn run(ctx: Arc<Context>) {
    // Nobody has registered yet: devices are offered again by drivers that come.
    let _first = TaskGuard::new(ctx.env.spawn(withdraw(ctx.clone(), None)));
    let mut changes = ctx.devices.changes();
    let mut absent: BTreeMap<String, TaskGuard> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let away = ctx.devices.drivers.away();
        // One that comes back soon, as after an update, keeps its devices.
        absent.retain(|driver, _| away.contains(driver));
        for driver in away {
            let later = |driver| TaskGuard::new(ctx.env.spawn(withdraw_later(ctx.clone(), driver)));
            absent.entry(driver.clone()).or_insert_with(|| later(driver));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn withdraw_later(ctx: Arc<Context>, driver: String) {
    ctx.env.sleep(AWAY).await;
    withdraw(ctx, Some(driver)).await;
}

/// Deletes what is offered of this node, by all drivers or by one.
async fn withdraw(ctx: Arc<Context>, driver: Option<String>) {
    ctx.node.synced().await;
    let mut fields = format!("spec.nodeName={}", ctx.config.node_name);
    if let Some(driver) = &driver {
        fields.push_str(&format!(",spec.driver={driver}"));
    }
    let selection = Selection::all().fields(fields);
    let mut pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
    loop {
        match ctx.client.delete_collection(&RESOURCE_SLICES, &selection, &DeleteOptions::default()).await {
            Ok(()) => return,
            Err(error) if error.is_not_found() => return,
            Err(error) => tracing::debug!(%error, "a node's devices can't be withdrawn yet"),
        }
        ctx.env.sleep(pause.next(&ctx.env)).await;
    }
}
