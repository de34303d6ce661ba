//! Two samples of everything, and the rate between them. Upstream: metrics-server pkg/storage.

use std::collections::BTreeMap;

use super::parse::{Point, Scrape};

/// The time between samples that upstream's server takes by default, in seconds.
const RESOLUTION: f64 = 15.0;
/// A container that has run for less than this is told from its second sample on.
const YOUNG: f64 = 10.0;

#[derive(Default)]
pub(super) struct Samples {
    node: Pair,
    pods: BTreeMap<(String, String), BTreeMap<String, Pair>>,
    /// When the newest sample was taken.
    at: f64,
}

#[derive(Clone, Copy, Default)]
struct Pair {
    last: Option<Point>,
    before: Option<Point>,
}

/// What something used in the time before `at`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub at: f64,
    pub window: f64,
    /// By container; a node is one without a name.
    pub used: Vec<(String, Used)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub nanocores: u64,
    pub bytes: u64,
}

impl Samples {
    /// Takes the newest sample; what it does not have is gone.
    pub(super) fn add(&mut self, scrape: Scrape) {
        let newest = scrape.containers.values().flat_map(BTreeMap::values).chain(&scrape.node).map(|point| point.at);
        let newest = newest.fold(self.at, f64::max);
        let since = if self.at == 0.0 { RESOLUTION } else { RESOLUTION.max(newest - self.at) };
        if let Some(node) = scrape.node {
            self.node = self.node.then(node, 0.0);
        }
        let mut pods = std::mem::take(&mut self.pods);
        for (pod, containers) in scrape.containers {
            // Of what has used nothing yet too little is known.
            if containers.values().any(|point| point.cpu == 0.0 || point.memory == 0) {
                continue;
            }
            let mut old = pods.remove(&pod).unwrap_or_default();
            let pair = |(name, point): (String, Point)| {
                let pair = old.remove(&name).unwrap_or_default().then(point, since);
                (name, pair)
            };
            self.pods.insert(pod, containers.into_iter().map(pair).collect());
        }
        self.at = newest;
    }

    /// Whether something that is no longer young has one sample only.
    pub(super) fn need_more(&self) -> bool {
        let lacks = |pair: &Pair| pair.last.is_some_and(|last| pair.before.is_none() && last.at - last.since >= YOUNG);
        lacks(&self.node) || self.pods.values().flat_map(BTreeMap::values).any(lacks)
    }

    pub(super) fn node(&self) -> Option<Figures> {
        let (at, window, used) = self.node.rate()?;
        Some(Figures { at, window, used: vec![(String::new(), used)] })
    }

    /// `None` unless every container of the pod has two samples.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<Figures> {
        let containers = self.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        let mut figures: Option<Figures> = None;
        for (name, pair) in containers {
            let (at, window, used) = pair.rate()?;
            let figures = figures.get_or_insert_with(|| Figures { at, window, used: Vec::new() });
            // The earliest sample speaks for all.
            if at < figures.at {
                (figures.at, figures.window) = (at, window);
            }
            figures.used.push((name.clone(), used));
        }
        figures
    }
}

impl Pair {
    /// What is known after another sample; something new whose age is at most `fresh` is counted from its beginning.
    fn then(self, point: Point, fresh: f64) -> Pair {
        let known = self.last.filter(|last| point.since <= last.at && point.cpu >= last.cpu);
        let before = match known {
            Some(last) if point.at > last.at => Some(last),
            Some(_) => self.before,
            None => {
                let age = point.at - point.since;
                let counts = point.since > 0.0 && age >= YOUNG && age <= fresh;
                counts.then_some(Point { at: point.since, cpu: 0.0, ..point })
            }
        };
        Pair { last: Some(point), before }
    }

    fn rate(&self) -> Option<(f64, f64, Used)> {
        let (last, before) = (self.last?, self.before?);
        let window = last.at - before.at;
        let nanocores = ((last.cpu - before.cpu) / window * 1e9).round().max(0.0) as u64;
        (window > 0.0).then_some((last.at, window, Used { nanocores, bytes: last.memory }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(at: f64, containers: &[(&str, f64, f64)]) -> Scrape {
        let node = Some(Point { at, since: 0.0, cpu: at, memory: 7 });
        let mut scrape = Scrape { node, ..Scrape::default() };
        let pod = scrape.containers.entry(("ns".to_owned(), "p".to_owned())).or_default();
        for (name, since, cpu) in containers {
            pod.insert((*name).to_owned(), Point { at, since: *since, cpu: *cpu, memory: 5 });
        }
        scrape
    }

    #[test]
    fn rates_are_between_two_samples() {
        let mut samples = Samples::default();
        samples.add(scrape(1000.0, &[("a", 100.0, 50.0)]));
        assert!(samples.need_more() && samples.node().is_none() && samples.pod("ns", "p").is_none());
        samples.add(scrape(1002.0, &[("a", 100.0, 51.0)]));
        assert!(!samples.need_more());
        let used = Used { nanocores: 500_000_000, bytes: 5 };
        let expect = Figures { at: 1002.0, window: 2.0, used: vec![("a".to_owned(), used)] };
        assert_eq!(samples.pod("ns", "p"), Some(expect.clone()));
        assert_eq!(samples.node().unwrap().used[0].1.nanocores, 1_000_000_000);
        // The same sample again says nothing new.
        samples.add(scrape(1002.0, &[("a", 100.0, 51.0)]));
        assert_eq!(samples.pod("ns", "p"), Some(expect));
        // Gone is gone.
        samples.add(Scrape::default());
        assert_eq!(samples.pod("ns", "p"), None);
    }

    #[test]
    fn the_young_wait_and_the_new_count_from_their_beginning() {
        let mut samples = Samples::default();
        samples.add(scrape(1000.0, &[("a", 988.0, 6.0)]));
        assert_eq!(samples.pod("ns", "p").unwrap().used[0].1.nanocores, 500_000_000);
        // A second container is too young, so the pod is left out; nobody waits for it.
        samples.add(scrape(1015.0, &[("a", 988.0, 7.0), ("b", 1010.0, 1.0)]));
        assert!(samples.pod("ns", "p").is_none() && !samples.need_more());
        samples.add(scrape(1030.0, &[("a", 988.0, 8.0), ("b", 1010.0, 2.0)]));
        assert_eq!(samples.pod("ns", "p").unwrap().used.len(), 2);
        // Restarted: the count begins again.
        samples.add(scrape(1060.0, &[("a", 1040.0, 10.0), ("b", 1010.0, 3.0)]));
        let used: Vec<u64> = samples.pod("ns", "p").unwrap().used.iter().map(|(_, used)| used.nanocores).collect();
        assert_eq!(used, [500_000_000, 33_333_333]);
    }
}
