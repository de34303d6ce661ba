//! Objects read once for each revision.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Object;
use client::{Event, Informer, Subscription};
use parking_lot::RwLock;

/// What is read of an informer's objects, kept while it has them.
pub(crate) struct Views<V> {
    informer: Informer,
    known: Arc<RwLock<Known<V>>>,
    _forget: Subscription,
}

/// Revision and view, by uid.
type Known<V> = HashMap<String, (u64, Arc<V>)>;

impl<V: Send + Sync + 'static> Views<V> {
    pub(crate) fn new(informer: Informer) -> Views<V> {
        let known = Arc::new(RwLock::new(Known::new()));
        let forget = informer.on_event({
            let known = known.clone();
            move |event| {
                if let Event::Deleted(object) = event {
                    known.write().remove(object.uid());
                }
            }
        });
        Views { informer, known, _forget: forget }
    }

    /// What was read of this revision of the object, or what `read` makes of it.
    pub(crate) fn get(&self, object: &Object, read: impl FnOnce(&Object) -> V) -> Arc<V> {
        if let Some((revision, view)) = self.known.read().get(object.uid())
            && *revision == object.revision()
        {
            return view.clone();
        }
        let view = Arc::new(read(object));
        // What the informer no longer has is not kept.
        if self.informer.get(object.key()).is_some_and(|known| known.uid() == object.uid()) {
            self.known.write().insert(object.uid().to_owned(), (object.revision(), view.clone()));
        }
        view
    }
}
