//! Which records become new events, which count up a known one, and which are dropped.
//!
//! Upstream: client-go tools/record EventCorrelator, with its default limits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{EventType, ObjectReference, Record};

/// So many distinct messages of one reason within [`SIMILAR_WINDOW`] are told; further ones are combined.
const MAX_SIMILAR: usize = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_secs(600);
/// Events about one object: so many at once, then one each [`REFILL`].
const BURST: f64 = 25.0;
const REFILL: SignedDuration = SignedDuration::from_secs(300);
/// How many distinct things are remembered of each sort; the longest unused is forgotten.
const REMEMBERED: usize = 4096;

/// An event to write.
#[derive(Clone, Debug)]
pub(super) struct Send {
    pub record: Record,
    pub count: i64,
    pub first: Timestamp,
    /// The event to count up; `None`: a new one.
    pub known: Option<String>,
    pub identity: Arc<Identity>,
}

#[derive(Default)]
pub(super) struct Correlator {
    buckets: Recent<ObjectReference, Bucket>,
    similar: Recent<(Arc<ObjectReference>, EventType, &'static str), Similar>,
    told: Recent<Identity, Told>,
}

/// What makes two events the same one.
pub(super) type Identity = (Arc<ObjectReference>, EventType, &'static str, String);

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Similar {
    /// Hashes: all that is asked is how many there are, and one taken for another does no harm.
    messages: BTreeSet<u64>,
    last: Timestamp,
}

#[derive(Clone)]
struct Told {
    name: String,
    count: i64,
    first: Timestamp,
}

impl Correlator {
    /// What to write for `record`, or `None` if there are too many about this object.
    pub(super) fn correlate(&mut self, mut record: Record) -> Option<Send> {
        // What is the same object stays the same through its revisions.
        let object = self.share(ObjectReference { resource_version: String::new(), ..record.object.clone() });
        let combined = self.combine(&object, &mut record);
        let identity_message = if combined { String::new() } else { record.message.clone() };
        let identity = Arc::new((object.clone(), record.r#type, record.reason, identity_message));
        if !self.spend(object, record.at) {
            return None;
        }
        let mut send = Send { count: 1, first: record.at, known: None, identity, record };
        self.count_up(&mut send);
        Some(send)
    }

    /// Makes `send` count up the event that tells the same already, if there is one.
    pub(super) fn count_up(&self, send: &mut Send) {
        if let Some(told) = self.told.get(&send.identity) {
            send.count = told.count + 1;
            send.first = told.first;
            send.known = Some(told.name.clone());
        }
    }

    /// Remembers under which name `send` was written.
    pub(super) fn written(&mut self, send: &Send, name: String) {
        self.told.insert(send.identity.clone(), Told { name, count: send.count, first: send.first });
    }

    /// The object as it is remembered: thousands of events are of few objects.
    fn share(&self, object: ObjectReference) -> Arc<ObjectReference> {
        self.buckets.key(&object).cloned().unwrap_or_else(|| Arc::new(object))
    }

    /// Rewrites the message if there were too many different ones of this reason.
    fn combine(&mut self, object: &Arc<ObjectReference>, record: &mut Record) -> bool {
        let key = (object.clone(), record.r#type, record.reason);
        let known = self.similar.remove(&key);
        let known = known.filter(|similar| record.at.duration_since(similar.last) <= SIMILAR_WINDOW);
        let mut similar = known.unwrap_or(Similar { messages: BTreeSet::new(), last: record.at });
        similar.last = record.at;
        let mut hasher = DefaultHasher::new();
        record.message.hash(&mut hasher);
        similar.messages.insert(hasher.finish());
        let combined = similar.messages.len() >= MAX_SIMILAR;
        if combined {
            // One of the messages suffices to stay combined.
            while similar.messages.len() > MAX_SIMILAR {
                similar.messages.pop_first();
            }
            record.message = format!("(combined from similar events): {}", record.message);
        }
        self.similar.insert(Arc::new(key), similar);
        combined
    }

    fn spend(&mut self, mut object: Arc<ObjectReference>, now: Timestamp) -> bool {
        if !object.field_path.is_empty() {
            object = self.share(ObjectReference { field_path: String::new(), ..ObjectReference::clone(&object) });
        }
        let mut bucket = self.buckets.get(&object).copied().unwrap_or(Bucket { tokens: BURST, at: now });
        let gained = now.duration_since(bucket.at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + gained.max(0.0)).min(BURST);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        self.buckets.insert(object, bucket);
        allowed
    }
}

/// A map that forgets what was not used for longest.
struct Recent<K, V> {
    entries: HashMap<Arc<K>, (u64, V)>,
    order: BTreeMap<u64, Arc<K>>,
    tick: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { entries: HashMap::new(), order: BTreeMap::new(), tick: 0 }
    }
}

impl<K: Hash + Eq, V> Recent<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    fn key(&self, key: &K) -> Option<&Arc<K>> {
        self.entries.get_key_value(key).map(|(key, _)| key)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (tick, value) = self.entries.remove(key)?;
        self.order.remove(&tick);
        Some(value)
    }

    fn insert(&mut self, key: Arc<K>, value: V) {
        self.tick += 1;
        let key = self.key(&key).cloned().unwrap_or(key);
        if let Some((tick, _)) = self.entries.insert(key.clone(), (self.tick, value)) {
            self.order.remove(&tick);
        }
        self.order.insert(self.tick, key);
        while self.entries.len() > REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, message: &str, second: i64) -> Record {
        Record {
            object: ObjectReference { name: name.into(), ..ObjectReference::default() },
            r#type: EventType::Normal,
            reason: "Because",
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn the_same_event_is_counted_up() {
        let mut correlator = Correlator::default();
        for count in 1..5 {
            let send = correlator.correlate(record("a", "m", count)).unwrap();
            assert_eq!((send.count, send.first.as_second()), (count, 1));
            assert_eq!(send.known.is_some(), count > 1);
            correlator.written(&send, "event".into());
        }
        assert_eq!(correlator.correlate(record("b", "m", 9)).unwrap().count, 1);
    }

    #[test]
    fn similar_events_are_combined_and_floods_dropped() {
        let mut correlator = Correlator::default();
        let mut written = Vec::new();
        for i in 0..30 {
            if let Some(send) = correlator.correlate(record("a", &format!("m{i}"), 1)) {
                correlator.written(&send, format!("e{i}"));
                written.push((send.record.message.starts_with("(combined"), send.count));
            }
        }
        assert_eq!(written.len(), 25);
        assert_eq!(written[8], (false, 1));
        assert_eq!(written[9], (true, 1));
        assert_eq!(written[24], (true, 16));
        assert!(correlator.correlate(record("a", "later", 302)).is_some());
        assert!(correlator.correlate(record("a", "later", 303)).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for i in 0..REMEMBERED + 10 {
            recent.insert(Arc::new(i), ());
        }
        assert_eq!((recent.entries.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
        assert!(recent.get(&9).is_none() && recent.get(&10).is_some());
    }
}
