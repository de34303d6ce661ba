//! Sets whose items are ordered and found by a part of themselves, so that the part is not kept twice.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

/// The part by which a [`KeyedSet`] orders and finds an item; it never changes.
pub trait Keyed<K: ?Sized> {
    fn key(&self) -> &K;
}

/// Shared items, at most one for each key.
pub struct KeyedSet<K: ?Sized, T>(BTreeSet<Item<K, T>>);

struct Item<K: ?Sized, T>(Arc<T>, PhantomData<fn(&K)>);

impl<K: Ord + ?Sized, T: Keyed<K>> KeyedSet<K, T> {
    pub fn get(&self, key: &K) -> Option<&Arc<T>> {
        self.0.get(key).map(|item| &item.0)
    }

    /// Puts the item in the place of the one with the same key, if there is one.
    pub fn put(&mut self, item: Arc<T>) {
        self.0.replace(Item(item, PhantomData));
    }

    pub fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.iter().map(|item| &item.0)
    }

    /// Those whose keys are `first` or greater.
    pub fn iter_from(&self, first: &K) -> impl Iterator<Item = &Arc<T>> {
        self.0.range::<K, _>((Bound::Included(first), Bound::Unbounded)).map(|item| &item.0)
    }

    /// The one with this key, else the one before it.
    pub fn last_up_to(&self, key: &K) -> Option<&Arc<T>> {
        self.0.range::<K, _>((Bound::Unbounded, Bound::Included(key))).next_back().map(|item| &item.0)
    }
}

impl<K: ?Sized, T> Default for KeyedSet<K, T> {
    fn default() -> Self {
        KeyedSet(BTreeSet::new())
    }
}

impl<K: ?Sized, T: Keyed<K>> Borrow<K> for Item<K, T> {
    fn borrow(&self) -> &K {
        self.0.key()
    }
}

impl<K: Eq + ?Sized, T: Keyed<K>> PartialEq for Item<K, T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<K: Eq + ?Sized, T: Keyed<K>> Eq for Item<K, T> {}

impl<K: Ord + ?Sized, T: Keyed<K>> PartialOrd for Item<K, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord + ?Sized, T: Keyed<K>> Ord for Item<K, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Person {
        name: String,
        age: u32,
    }

    impl Keyed<str> for Person {
        fn key(&self) -> &str {
            &self.name
        }
    }

    #[test]
    fn there_is_one_item_for_a_key() {
        let mut people = KeyedSet::<str, Person>::default();
        for (name, age) in [("eve", 3), ("ada", 1), ("bob", 2), ("ada", 4)] {
            people.put(Arc::new(Person { name: name.to_owned(), age }));
        }
        let ages = |people: &KeyedSet<str, Person>| people.iter().map(|person| person.age).collect::<Vec<_>>();
        assert_eq!(ages(&people), [4, 2, 3]);
        assert_eq!(people.get("ada").map(|person| person.age), Some(4));
        assert_eq!(people.iter_from("b").map(|person| person.age).collect::<Vec<_>>(), [2, 3]);
        let last = |name: &str| people.last_up_to(name).map(|person| person.age);
        assert_eq!((last("a"), last("ada"), last("d")), (None, Some(4), Some(2)));
        people.remove("bob");
        assert_eq!(ages(&people), [4, 3]);
        assert_eq!((people.len(), people.is_empty()), (2, false));
    }
}
