//! What the daemon tells the DNS process: Services and endpoints from informers, as a snapshot and then as changes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey};
use client::{Informer, Informers, Subscription, resources};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::frames::{FromProcess, ToProcess};
use crate::view;
use crate::wire::Connection;
use crate::zone::ServiceKind;

/// The state of the cluster, as far as DNS tells of it.
pub(crate) struct Feed {
    services: Informer,
    slices: Informer,
    changed: Arc<Changed>,
    _subscriptions: [Subscription; 2],
}

/// Services of which something changed that was not told yet.
#[derive(Default)]
struct Changed {
    keys: Mutex<BTreeSet<ObjectKey>>,
    more: Notify,
}

impl Changed {
    fn add(&self, key: ObjectKey) {
        self.keys.lock().insert(key);
        self.more.notify_one();
    }
}

impl Feed {
    /// Returns once everything there is is known.
    pub(crate) async fn start(informers: &Informers) -> Feed {
        let services = informers.of(&resources::SERVICES);
        let slices = informers.of(&resources::ENDPOINT_SLICES);
        slices.index(view::BY_SERVICE, view::service_of_slice);
        let changed = Arc::new(Changed::default());
        let (on_service, on_slice) = (changed.clone(), changed.clone());
        let subscriptions = [
            services.on_event(move |event| on_service.add(event.object().key().clone())),
            slices.on_event(move |event| {
                // A slice that changes hands concerns both Services.
                for slice in [Some(event.object()), event.old()].into_iter().flatten() {
                    view::service_key(slice).into_iter().for_each(|key| on_slice.add(key));
                }
            }),
        ];
        services.synced().await;
        slices.synced().await;
        Feed { services, slices, changed, _subscriptions: subscriptions }
    }

    /// Tells everything; returns once it is what the process answers from.
    pub(crate) async fn tell_all(&self, connection: &mut Connection, resolv_conf: &Path) -> io::Result<()> {
        // What changes from here on is told again afterwards.
        self.changed.keys.lock().clear();
        connection.queue(&ToProcess::Begin { resolv_conf: resolv_conf.to_owned() }).await?;
        for service in self.services.list("") {
            connection.queue(&self.frame(service.key(), Some(&service))).await?;
        }
        connection.queue(&ToProcess::Complete).await?;
        connection.flush().await?;
        match connection.receive().await? {
            Some(FromProcess::Complete) => Ok(()),
            Some(other) => Err(io::Error::other(format!("unexpected answer {other:?}"))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Tells changes as they come, until that fails.
    pub(crate) async fn tell_changes(&self, connection: &mut Connection) -> io::Result<Infallible> {
        loop {
            self.changed.more.notified().await;
            let keys = std::mem::take(&mut *self.changed.keys.lock());
            for key in &keys {
                connection.queue(&self.frame(key, self.services.get(key).as_deref())).await?;
            }
            connection.flush().await?;
        }
    }

    fn frame(&self, key: &ObjectKey, service: Option<&Object>) -> ToProcess {
        let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
        let Some(service) = service.and_then(view::service) else { return ToProcess::Gone { namespace, name } };
        let endpoints = match service.kind {
            ServiceKind::Headless { .. } => {
                let slices = self.slices.by_index(view::BY_SERVICE, &key.to_string());
                slices.iter().filter_map(|slice| view::endpoints(slice)).flatten().collect()
            }
            _ => Vec::new(),
        };
        ToProcess::Set { namespace, name, service, endpoints }
    }
}
