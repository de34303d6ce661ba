//! `Informers`: one informer for each resource and selection, shared by everybody in a component.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Client, Informer, Resource, Selection};

/// Starts informers on demand and keeps them running until the last clone is dropped.
#[derive(Clone)]
pub struct Informers(Arc<Inner>);

struct Inner {
    client: Client,
    started: Mutex<BTreeMap<(Resource, Selection), Informer>>,
}

impl Informers {
    pub fn new(client: Client) -> Informers {
        Informers(Arc::new(Inner { client, started: Mutex::default() }))
    }

    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The informer of every object of `resource`; started if it is the first time, which needs a runtime.
    pub fn of(&self, resource: &Resource) -> Informer {
        self.selected(resource, Selection::all())
    }

    pub fn selected(&self, resource: &Resource, selection: Selection) -> Informer {
        let mut started = self.0.started.lock();
        let start = || Informer::start(&self.0.client, resource.clone(), selection.clone());
        started.entry((resource.clone(), selection.clone())).or_insert_with(start).clone()
    }

    /// The informer of every object of `resource`, if somebody has started it.
    pub fn started(&self, resource: &Resource) -> Option<Informer> {
        self.0.started.lock().get(&(resource.clone(), Selection::all())).cloned()
    }

    /// Lets go of an informer nobody else needs, such as that of a resource that is no longer served.
    pub fn forget(&self, resource: &Resource, selection: &Selection) {
        let informer = self.0.started.lock().remove(&(resource.clone(), selection.clone()));
        drop(informer);
    }

    /// Waits until every informer started so far has its first complete copy.
    pub async fn synced(&self) {
        let started: Vec<_> = self.0.started.lock().values().cloned().collect();
        for informer in started {
            informer.synced().await;
        }
    }
}
