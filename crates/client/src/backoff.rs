//! Pauses that double.

use std::time::Duration;

use env::Env;

/// Doubling pauses with jitter, for whoever tries again.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first`, doubled up to `max`.
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, next: first }
    }

    /// The next pause, up to half of it longer by chance.
    pub fn next(&mut self, env: &Env) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        env.jitter(pause, 0.5)
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }
}
