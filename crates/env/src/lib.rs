//! The outside world a component may touch: wall clock, monotonic clock, randomness, tasks and failpoints.
//!
//! Every component's `Config` carries an [`Env`] and takes time, chance and tasks from nowhere else (`clippy.toml` bans the
//! direct calls). So a test can pause the clock, seed the randomness, and crash a component by dropping its tasks.
//! It deliberately knows nothing of Kubernetes, of files or of sockets.
//!
//! ```
//! let env = env::Env::seeded(7, jiff::Timestamp::UNIX_EPOCH);
//! assert_eq!(env.now(), jiff::Timestamp::UNIX_EPOCH);
//! ```

mod failpoint;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use failpoint::{FailAction, FailpointError};

/// A handle to the world; clones share one clock, one random source and one set of failpoints.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

struct Inner {
    clock: Clock,
    random: Mutex<fastrand::Rng>,
    failpoints: failpoint::Failpoints,
}

enum Clock {
    System,
    /// Follows tokio's (pausable) clock from a fixed start.
    Manual {
        start: Timestamp,
        origin: std::sync::OnceLock<Instant>,
    },
}

impl Env {
    /// The real clock, randomness seeded by the operating system; failpoints from `OXIKUBE_FAILPOINTS`
    /// (`name=kill,name2=error,name3=error-once`, each with `@n` for the n-th time; `trace=FILE` writes down the process and
    /// the name of each that is passed), which tests of the binary set.
    pub fn system() -> Env {
        let failpoints = failpoint::Failpoints::default();
        if let Ok(spec) = std::env::var("OXIKUBE_FAILPOINTS") {
            failpoints.configure(&spec);
        }
        #[allow(clippy::disallowed_methods)] // the one place that may ask for a real seed
        let random = fastrand::Rng::new();
        Env(Arc::new(Inner { clock: Clock::System, random: Mutex::new(random), failpoints }))
    }

    /// A deterministic world: the wall clock begins at `start` and advances with tokio's clock, chance follows `seed`.
    /// Outside a runtime the clock stands still: a slow machine must not be seen.
    pub fn seeded(seed: u64, start: Timestamp) -> Env {
        Env(Arc::new(Inner {
            clock: Clock::Manual { start, origin: std::sync::OnceLock::new() },
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            failpoints: failpoint::Failpoints::default(),
        }))
    }

    /// Wall-clock time, for what is written into objects and certificates.
    pub fn now(&self) -> Timestamp {
        match &self.0.clock {
            #[allow(clippy::disallowed_methods)]
            Clock::System => Timestamp::now(),
            Clock::Manual { start, .. } if tokio::runtime::Handle::try_current().is_err() => *start,
            Clock::Manual { start, origin } => {
                let now = self.monotonic();
                let since = now.duration_since(*origin.get_or_init(|| now));
                start.saturating_add(since).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Monotonic time, for measuring and for deadlines. Follows tokio's paused clock in tests.
    pub fn monotonic(&self) -> Instant {
        #[allow(clippy::disallowed_methods)]
        Instant::now()
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        #[allow(clippy::disallowed_methods)]
        tokio::time::sleep(duration).await;
    }

    /// Waits until `deadline`.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// `future`'s output, or `None` when `limit` passes first.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(limit, future).await.ok()
    }

    /// Runs `future` as a task of the current runtime. Dropping the handle detaches it; abort it to end it.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(future)
    }

    /// A number below `bound`, which must not be 0. Not for keys or tokens: see [`Env::secret`].
    pub fn random_below(&self, bound: u64) -> u64 {
        self.0.random.lock().u64(0..bound)
    }

    /// A random number.
    pub fn random_u64(&self) -> u64 {
        self.0.random.lock().u64(..)
    }

    /// `duration` lengthened by a random part of at most `factor` of it.
    pub fn jitter(&self, duration: Duration, factor: f64) -> Duration {
        duration.mul_f64(1.0 + self.0.random.lock().f64() * factor)
    }

    /// A random (version 4) UUID in its usual spelling.
    pub fn uuid(&self) -> String {
        let mut bytes = [0u8; 16];
        self.secret(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        text
    }

    /// `n` characters of the alphabet that generated names use (`bcdfghjklmnpqrstvwxz2456789`).
    pub fn name_suffix(&self, n: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..n).map(|_| ALPHABET[self.random_below(ALPHABET.len() as u64) as usize] as char).collect()
    }

    /// Fills `out` with unguessable bytes (in a seeded world: with the seed's).
    pub fn secret(&self, out: &mut [u8]) {
        match self.0.clock {
            Clock::System => getrandom::fill(out).expect("the kernel has a random source"),
            Clock::Manual { .. } => self.0.random.lock().fill(out),
        }
    }

    /// Passes unless a test armed the failpoint `name`; then fails, or kills the process, as told.
    pub fn failpoint(&self, name: &'static str) -> Result<(), FailpointError> {
        self.0.failpoints.hit(name)
    }

    /// A failpoint where nothing can fail: the process goes on, or is killed.
    pub fn crashpoint(&self, name: &'static str) {
        let _ = self.failpoint(name);
    }

    /// Arms the failpoint `name`; `None` disarms it.
    pub fn arm(&self, name: &str, action: Option<FailAction>) {
        self.0.failpoints.arm(name, action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_seeded_clock_follows_the_paused_one() {
        let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
        assert_eq!(env.now(), Timestamp::UNIX_EPOCH);
        env.sleep(Duration::from_secs(90)).await;
        assert_eq!(env.now().as_second(), 90);
    }

    #[test]
    fn the_seeded_clock_stands_still_without_a_runtime() {
        let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
        assert_eq!(env.now(), Timestamp::UNIX_EPOCH);
        let begin = env.monotonic();
        while env.monotonic() == begin {
            std::thread::yield_now();
        }
        assert_eq!(env.now(), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn chance_follows_the_seed() {
        let (a, b) = (Env::seeded(3, Timestamp::UNIX_EPOCH), Env::seeded(3, Timestamp::UNIX_EPOCH));
        assert_eq!(a.uuid(), b.uuid());
        assert_eq!(a.name_suffix(5), b.name_suffix(5));
        assert_ne!(Env::system().uuid(), Env::system().uuid());
    }

    #[test]
    fn uuids_are_version_4() {
        let uuid = Env::system().uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]));
    }
}
