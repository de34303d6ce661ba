//! How long new pods wait after pods failed. Upstream: backoff_utils.go.

use std::time::Duration;

use jiff::Timestamp;

use super::pod::Member;
use crate::meta::between;

/// The first pause after a failure, doubled by each further one, and the longest.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);
/// The same for requests that failed.
const FIRST_OF_REQUESTS: Duration = Duration::from_secs(1);
const LONGEST_OF_REQUESTS: Duration = Duration::from_secs(60);

/// The failures of a Job's pods since the last success.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    count: u32,
    last: Option<Timestamp>,
}

impl Failures {
    /// With the pods that newly ended.
    pub(super) fn with(&self, succeeded: &[&Member], failed: &[&Member]) -> Failures {
        let last_success = succeeded.iter().map(|member| member.pod.finished).max();
        let counted = failed.iter().map(|member| member.pod.finished);
        let mut after: Vec<Timestamp> =
            counted.filter(|time| last_success.is_none_or(|success| *time > success)).collect();
        after.sort_unstable();
        let before = if last_success.is_some() { Failures::default() } else { self.clone() };
        Failures { count: before.count + after.len() as u32, last: after.last().copied().or(before.last) }
    }

    /// How long to wait until the next pods.
    pub(super) fn remaining(&self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.count, last, now))
    }
}

/// How long to wait after `failures` failures, the last of them at `last`.
pub(super) fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    doubled(FIRST, LONGEST, failures).saturating_sub(between(last, now))
}

/// The pause after so many failed requests for one Job.
pub(super) fn of_requests(failures: u32) -> Duration {
    doubled(FIRST_OF_REQUESTS, LONGEST_OF_REQUESTS, failures)
}

fn doubled(first: Duration, longest: Duration, times: u32) -> Duration {
    let factor = 1u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        let last = Timestamp::UNIX_EPOCH;
        let check = |failures: u32, since: u64, expect: u64| {
            let pause = remaining(failures, last, last + Duration::from_secs(since));
            assert_eq!(pause, Duration::from_secs(expect), "{failures} failures, {since} s ago");
        };
        check(0, 0, 0);
        check(1, 0, 10);
        check(1, 4, 6);
        check(1, 40, 0);
        check(2, 0, 20);
        check(7, 0, 600);
        check(40, 0, 600);
    }
}
