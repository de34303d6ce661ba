//! How long attempts to find a node take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps to each doubling: a quantile is right to about a tenth.
const STEPS: u32 = 8;
const BUCKETS: usize = 256;

/// Durations of attempts, from a pod's turn to its node or to why there is none. Asking extenders is part of it, binding is not.
#[derive(Debug)]
pub struct Attempts([AtomicU64; BUCKETS]);

impl Default for Attempts {
    fn default() -> Attempts {
        Attempts([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Attempts {
    pub(crate) fn record(&self, took: Duration) {
        let steps = (took.as_nanos().max(1) as f64 / 100.0).log2() * f64::from(STEPS);
        let bucket = (steps.max(0.0) as usize).min(BUCKETS - 1);
        self.0[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// What this part of them took at most, 0 of none.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count.load(Ordering::Relaxed);
            seen >= wanted && seen > 0
        });
        let nanos = |bucket: usize| 100.0 * ((bucket + 1) as f64 / f64::from(STEPS)).exp2();
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_nanos(nanos(bucket) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_about_right() {
        let attempts = Attempts::default();
        assert_eq!(attempts.quantile(0.5), Duration::ZERO);
        (1..=1000).for_each(|micros| attempts.record(Duration::from_micros(micros)));
        let check = |part, micros: f64| {
            let told = attempts.quantile(part).as_secs_f64() * 1e6;
            assert!((told / micros - 1.0).abs() < 0.1, "{told} instead of {micros}");
        };
        check(0.5, 500.0);
        check(0.99, 990.0);
        assert_eq!(attempts.count(), 1000);
    }
}
