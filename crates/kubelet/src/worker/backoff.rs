//! Pauses before a container is run again. Upstream: client-go flowcontrol.Backoff as doBackOff uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// The first pause; each is twice the one before.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// The longest pause. Who ran for twice this long begins anew.
pub(crate) const MAX: Duration = Duration::from_secs(300);

/// By container, as it is described.
#[derive(Debug, Default)]
pub(crate) struct Restarts(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    pause: Duration,
    last: Timestamp,
}

impl Restarts {
    /// The pause under way for a container that ended at `ended`, and when it is over.
    pub(crate) fn pause(&self, name: &str, ended: Timestamp, now: Timestamp) -> Option<(Duration, Timestamp)> {
        let entry = self.0.get(name).filter(|entry| !expired(ended, entry.last))?;
        let until = ended.saturating_add(entry.pause).unwrap_or(Timestamp::MAX);
        (now < until).then_some((entry.pause, until))
    }

    /// The container that ended at `ended` is run again now.
    pub(crate) fn restarted(&mut self, name: &str, ended: Timestamp, now: Timestamp) {
        let pause = match self.0.get(name) {
            Some(entry) if !expired(ended, entry.last) => (entry.pause * 2).min(MAX),
            _ => FIRST,
        };
        self.0.insert(name.to_owned(), Entry { pause, last: now });
    }
}

fn expired(ended: Timestamp, last: Timestamp) -> bool {
    Duration::try_from(ended.duration_since(last)).is_ok_and(|since| since > MAX * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_forgotten() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut restarts = Restarts::default();
        let pause = |restarts: &Restarts, ended: i64, now: i64| {
            restarts.pause("c", at(ended), at(now)).map(|(pause, until)| (pause.as_secs(), until.as_second()))
        };
        assert_eq!(pause(&restarts, 5, 5), None, "the first time at once");
        restarts.restarted("c", at(5), at(5));
        assert_eq!(pause(&restarts, 6, 6), Some((10, 16)));
        assert_eq!(pause(&restarts, 6, 16), None);
        restarts.restarted("c", at(6), at(16));
        assert_eq!(pause(&restarts, 17, 17), Some((20, 37)));
        let mut now = 37;
        for _ in 0..10 {
            restarts.restarted("c", at(now - 1), at(now));
            now += 1;
        }
        assert_eq!(pause(&restarts, now, now), Some((300, now + 300)));
        assert_eq!(pause(&restarts, now + 601, now + 601), None, "it ran for more than ten minutes");
        restarts.restarted("c", at(now + 601), at(now + 601));
        assert_eq!(pause(&restarts, now + 602, now + 602), Some((10, now + 612)));
    }
}
