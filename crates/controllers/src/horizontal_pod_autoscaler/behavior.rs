//! How fast a size may change: stabilisation, policies and bounds.

use apimachinery::{ObjectKey, Selector};
use jiff::{SignedDuration, Timestamp};

use super::view::{Behavior, Policy, Rules};

/// Downscales wait this long for higher recommendations to pass, where nothing else is said.
const DOWNSCALE_WINDOW: i64 = 300;

/// What is remembered of an autoscaler; sizes and changes no longer than its longest window.
#[derive(Default)]
pub(super) struct Memory {
    recommendations: Vec<(i64, Timestamp)>,
    ups: Vec<(i64, Timestamp)>,
    downs: Vec<(i64, Timestamp)>,
    /// Whose memory it is and which pods are its target's, once that is known.
    pub selects: Option<(ObjectKey, Selector)>,
}

pub(super) struct Bounds {
    pub min: i64,
    pub max: i64,
    pub current: i64,
}

/// A size and the conditions that say how it came about: reason and message, with whether it was limited.
#[derive(Debug, PartialEq)]
pub(super) struct Decision {
    pub replicas: i64,
    pub able: (&'static str, &'static str),
    pub limited: (bool, &'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const IN_RANGE: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

impl Memory {
    /// The first size seen counts as a recommendation: a restart does not shrink anything at once.
    pub(super) fn begin(&mut self, current: i64, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    /// Notes that the size changed.
    pub(super) fn scaled(&mut self, behavior: Option<&Behavior>, from: i64, to: i64, now: Timestamp) {
        let Some(behavior) = behavior else { return };
        let (events, rules) =
            if to > from { (&mut self.ups, &behavior.scale_up) } else { (&mut self.downs, &behavior.scale_down) };
        let longest = rules.policies.iter().map(|policy| policy.period_seconds).max().unwrap_or_default();
        events.retain(|(_, at)| *at >= before(now, longest));
        events.push(((to - from).abs(), now));
    }

    /// The size that may be taken now when `desired` is wanted.
    pub(super) fn decide(
        &mut self,
        behavior: Option<&Behavior>,
        desired: i64,
        bounds: &Bounds,
        now: Timestamp,
    ) -> Decision {
        let (stable, able) = match behavior {
            None => (self.highest(desired, now), DOWN_STABILIZED),
            Some(behavior) => self.stabilize(behavior, desired, bounds.current, now),
        };
        let (replicas, why) = match behavior {
            None => by_default_rate(stable, bounds),
            Some(behavior) => self.by_rules(behavior, stable, bounds, now),
        };
        Decision {
            replicas,
            able: if stable == desired { READY } else { able },
            limited: (replicas != stable, why.0, why.1),
        }
    }

    fn highest(&mut self, desired: i64, now: Timestamp) -> i64 {
        let cutoff = before(now, DOWNSCALE_WINDOW);
        self.recommendations.retain(|(_, at)| *at >= cutoff);
        let highest = self.recommendations.iter().map(|(replicas, _)| *replicas).fold(desired, i64::max);
        self.recommendations.push((desired, now));
        highest
    }

    fn stabilize(
        &mut self,
        behavior: &Behavior,
        desired: i64,
        current: i64,
        now: Timestamp,
    ) -> (i64, (&'static str, &'static str)) {
        let up = before(now, behavior.scale_up.stabilization_window_seconds.unwrap_or_default());
        let down = before(now, behavior.scale_down.stabilization_window_seconds.unwrap_or(DOWNSCALE_WINDOW));
        let since = |cutoff: Timestamp| {
            let recent = self.recommendations.iter().filter(move |(_, at)| *at > cutoff);
            recent.map(|(replicas, _)| *replicas)
        };
        let lowest = since(up).fold(desired, i64::min);
        let highest = since(down).fold(desired, i64::max);
        let stable = current.max(lowest).min(highest);
        self.recommendations.retain(|(_, at)| *at >= up.min(down));
        self.recommendations.push((desired, now));
        (stable, if desired >= current { UP_STABILIZED } else { DOWN_STABILIZED })
    }

    fn by_rules(
        &self,
        behavior: &Behavior,
        desired: i64,
        bounds: &Bounds,
        now: Timestamp,
    ) -> (i64, (&'static str, &'static str)) {
        let current = bounds.current;
        if desired > current {
            let limit = self.limit(&behavior.scale_up, current, now, true).max(current);
            let (most, why) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
            if desired > most {
                return (most, why);
            }
        } else if desired < current {
            let limit = self.limit(&behavior.scale_down, current, now, false).min(current);
            let (least, why) = if bounds.min < limit { (limit, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
            if desired < least {
                return (least, why);
            }
        }
        (desired, IN_RANGE)
    }

    /// The farthest size that the policies allow.
    fn limit(&self, rules: &Rules, current: i64, now: Timestamp, up: bool) -> i64 {
        if rules.select_policy == "Disabled" {
            return current;
        }
        let changed = |events: &[(i64, Timestamp)], policy: &Policy| {
            let cutoff = before(now, policy.period_seconds);
            events.iter().filter(|(_, at)| *at > cutoff).map(|(change, _)| *change).sum::<i64>()
        };
        let proposals = rules.policies.iter().map(|policy| {
            let began = current - changed(&self.ups, policy) + changed(&self.downs, policy);
            match (policy.r#type.as_str(), up) {
                ("Percent", true) => (began as f64 * (1.0 + policy.value as f64 / 100.0)).ceil() as i64,
                ("Percent", false) => (began as f64 * (1.0 - policy.value as f64 / 100.0)) as i64,
                (_, true) => began + policy.value,
                (_, false) => began - policy.value,
            }
        });
        // The largest change up is the highest size, the largest change down the lowest.
        let highest = up != (rules.select_policy == "Min");
        if highest { proposals.max() } else { proposals.min() }.unwrap_or(current)
    }
}

/// Without policies a size at most doubles, or becomes four.
fn by_default_rate(desired: i64, bounds: &Bounds) -> (i64, (&'static str, &'static str)) {
    let limit = (2 * bounds.current).max(4);
    let (most, why) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
    if desired < bounds.min {
        (bounds.min, TOO_FEW)
    } else if desired > most {
        (most, why)
    } else {
        (desired, IN_RANGE)
    }
}

fn before(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn bounds(current: i64) -> Bounds {
        Bounds { min: 1, max: 10, current }
    }

    #[test]
    fn a_shrinking_size_waits_for_five_minutes() {
        let mut memory = Memory::default();
        memory.begin(5, at(0));
        let check = |decision: Decision, replicas: i64, reason: &str| {
            assert_eq!((decision.replicas, decision.able.0), (replicas, reason), "{decision:?}");
        };
        check(memory.decide(None, 2, &bounds(5), at(15)), 5, "ScaleDownStabilized");
        check(memory.decide(None, 2, &bounds(5), at(301)), 2, "ReadyForNewScale");
        check(memory.decide(None, 9, &bounds(2), at(316)), 4, "ReadyForNewScale");
        let limited = memory.decide(None, 20, &bounds(8), at(331));
        assert_eq!((limited.replicas, limited.limited.1), (10, "TooManyReplicas"));
    }

    #[test]
    fn policies_limit_the_rate() {
        let rules = |select: &str, window: i64| Rules {
            stabilization_window_seconds: Some(window),
            select_policy: select.to_owned(),
            policies: vec![
                Policy { r#type: "Pods".to_owned(), value: 2, period_seconds: 60 },
                Policy { r#type: "Percent".to_owned(), value: 100, period_seconds: 60 },
            ],
            ..Rules::default()
        };
        let behavior = |select: &str| Behavior { scale_up: rules(select, 0), scale_down: rules(select, 0) };
        let check = |select: &str, desired: i64, current: i64, expect: i64| {
            let decision = Memory::default().decide(Some(&behavior(select)), desired, &bounds(current), at(0));
            assert_eq!(decision.replicas, expect, "{select} {current} -> {desired}: {decision:?}");
        };
        check("Max", 10, 4, 8);
        check("Min", 10, 4, 6);
        check("Disabled", 10, 4, 4);
        check("Max", 1, 9, 1);
        check("Min", 1, 9, 7);
        check("Disabled", 1, 9, 9);
        // What was added within the period counts.
        let mut memory = Memory::default();
        memory.scaled(Some(&behavior("Min")), 4, 6, at(0));
        assert_eq!(memory.decide(Some(&behavior("Min")), 10, &bounds(6), at(30)).replicas, 6);
        assert_eq!(memory.decide(Some(&behavior("Min")), 10, &bounds(6), at(61)).replicas, 8);
    }

    #[test]
    fn a_window_holds_growth_back() {
        let up =
            Rules { stabilization_window_seconds: Some(60), select_policy: "Disabled".to_owned(), ..Rules::default() };
        let behavior = Behavior { scale_up: up, scale_down: Rules::default() };
        let mut memory = Memory::default();
        memory.begin(3, at(0));
        let decision = memory.decide(Some(&behavior), 8, &bounds(3), at(30));
        assert_eq!((decision.replicas, decision.able.0), (3, "ScaleUpStabilized"));
    }
}
