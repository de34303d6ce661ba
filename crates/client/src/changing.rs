//! A value that tasks wait upon.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A value with a count of its changes. Unlike tokio's `watch`, which wakes in random order, it wakes tasks in the order in which they
/// began to wait: so a test's history follows from its seed.
#[derive(Default)]
pub(crate) struct Changing<T> {
    state: Mutex<(u64, T)>,
    changed: Notify,
}

impl<T: Copy> Changing<T> {
    pub(crate) fn get(&self) -> T {
        self.state.lock().1
    }

    /// Counts as a change even if the value stays.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut T)) {
        {
            let mut state = self.state.lock();
            state.0 += 1;
            change(&mut state.1);
        }
        self.changed.notify_waiters();
    }

    /// The count of changes until now.
    pub(crate) fn version(&self) -> u64 {
        self.state.lock().0
    }

    /// Waits for a change after the one counted as `seen`, and counts it as seen.
    pub(crate) async fn changed(&self, seen: &mut u64) -> T {
        loop {
            // Made before the look, so that no change falls in between.
            let changed = self.changed.notified();
            let (version, value) = *self.state.lock();
            if version != *seen {
                *seen = version;
                return value;
            }
            changed.await;
        }
    }

    /// Waits until `done` of the value, asked again after each change; `done` may look at the value itself.
    pub(crate) async fn until(&self, mut done: impl FnMut(T) -> bool) {
        loop {
            let changed = self.changed.notified();
            let value = self.get();
            if done(value) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiters_are_woken_in_order() {
        let env = env::Env::seeded(1, jiff::Timestamp::UNIX_EPOCH);
        let (value, order) = (Arc::new(Changing::<u64>::default()), Arc::new(Mutex::new(Vec::new())));
        let waiters: Vec<_> = (0..50)
            .map(|n| {
                let (value, order) = (value.clone(), order.clone());
                env.spawn(async move {
                    value.until(|value| value == 2).await;
                    order.lock().push(n);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let mut seen = value.version();
        value.modify(|value| *value = 1);
        assert_eq!(value.changed(&mut seen).await, 1);
        tokio::task::yield_now().await;
        assert!(order.lock().is_empty());
        value.modify(|value| *value = 2);
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..50).collect::<Vec<_>>());
    }
}
