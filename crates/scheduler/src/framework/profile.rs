//! The plugins of one profile, and how they are asked together.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::framework::{Cycle, Failed, Finality, NodeFilter, Plugin, PostFiltered, Prepared, Rejection, Scorer};
use crate::node::NodeInfo;
use crate::nominator::Promises;
use crate::pod::PodInfo;

/// Where plugins are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

impl Point {
    /// Every point, by its name in the configuration.
    pub const ALL: [(&'static str, Point); 12] = [
        ("preEnqueue", Point::PreEnqueue),
        ("queueSort", Point::QueueSort),
        ("preFilter", Point::PreFilter),
        ("filter", Point::Filter),
        ("postFilter", Point::PostFilter),
        ("preScore", Point::PreScore),
        ("score", Point::Score),
        ("reserve", Point::Reserve),
        ("permit", Point::Permit),
        ("preBind", Point::PreBind),
        ("bind", Point::Bind),
        ("postBind", Point::PostBind),
    ];
}

/// A plugin of a profile.
#[derive(Clone)]
pub struct Enabled {
    pub plugin: Arc<dyn Plugin>,
    /// How much its scores count.
    pub weight: i64,
}

/// The plugins that decide about the pods that name this profile as their scheduler.
pub struct Profile {
    pub name: String,
    /// By point, in the order in which they are asked.
    points: [Vec<Enabled>; 12],
    /// Those that look at nodes, and whether one by one or only before.
    filtering: Vec<(Arc<dyn Plugin>, bool)>,
    /// Each once, wherever it is asked.
    plugins: Vec<(&'static str, Arc<dyn Plugin>)>,
    /// Overrides the scheduler's own percentage.
    pub percentage: Option<u32>,
}

impl Profile {
    pub fn new(name: String, points: [Vec<Enabled>; 12], percentage: Option<u32>) -> Profile {
        let mut filtering: Vec<(Arc<dyn Plugin>, bool)> = Vec::new();
        let filter = points[Point::Filter as usize].iter().map(|enabled| (enabled, true));
        let before = points[Point::PreFilter as usize].iter().map(|enabled| (enabled, false));
        for (enabled, filters) in filter.chain(before) {
            if !filtering.iter().any(|(known, _)| known.name() == enabled.plugin.name()) {
                filtering.push((enabled.plugin.clone(), filters));
            }
        }
        let mut plugins: Vec<(&'static str, Arc<dyn Plugin>)> = Vec::new();
        for enabled in points.iter().flatten() {
            let name = enabled.plugin.name();
            if !plugins.iter().any(|(known, _)| *known == name) {
                plugins.push((name, enabled.plugin.clone()));
            }
        }
        Profile { name, points, filtering, plugins, percentage }
    }

    pub fn at(&self, point: Point) -> &[Enabled] {
        &self.points[point as usize]
    }

    /// The plugin called so, wherever it is asked.
    pub fn plugin(&self, name: &str) -> Option<&dyn Plugin> {
        self.plugins.iter().find(|(known, _)| *known == name).map(|(_, plugin)| &**plugin)
    }

    fn plugins(&self, point: Point) -> impl Iterator<Item = &dyn Plugin> {
        self.at(point).iter().map(|enabled| &*enabled.plugin)
    }

    /// The plugin that holds the pod back, and why.
    pub fn pre_enqueue(&self, pod: &PodInfo) -> Option<(&'static str, String)> {
        self.plugins(Point::PreEnqueue).find_map(|p| p.pre_enqueue(pod).err().map(|reason| (p.name(), reason)))
    }

    /// Asks everybody about the pod before nodes are looked at.
    pub fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Filters<'a>, (Rejection, BTreeSet<&'static str>)> {
        let mut filters = Filters::default();
        let mut refused = None;
        for (plugin, one_by_one) in &self.filtering {
            let name = plugin.name();
            let filter = match plugin.pre_filter(cycle) {
                Ok(Prepared::Skip) => continue,
                Ok(Prepared::Filter(filter)) => filter,
                Ok(Prepared::Among(nodes, filter)) => {
                    filters.restricting.insert(name);
                    filters.among = Some(match filters.among.take() {
                        Some(among) => among.intersection(&nodes).cloned().collect(),
                        None => nodes,
                    });
                    if filters.among.as_ref().is_some_and(BTreeSet::is_empty) {
                        let names: Vec<&str> = filters.restricting.iter().copied().collect();
                        let reason = match names.as_slice() {
                            [only] => format!("node(s) didn't satisfy plugin {only}"),
                            _ => format!("node(s) didn't satisfy plugin(s) [{}] simultaneously", names.join(" ")),
                        };
                        return Err((Rejection::unresolvable(reason), filters.restricting));
                    }
                    filter
                }
                Err(rejection) => {
                    let rejection = Rejection { plugin: name, ..rejection };
                    match rejection.finality {
                        Finality::Unschedulable => {
                            // The others may know that it is for good.
                            refused = Some(rejection);
                            continue;
                        }
                        Finality::Unresolvable => return Err((rejection, BTreeSet::from([name]))),
                        Finality::Error => {
                            let reason = format!("running PreFilter plugin {name:?}: {}", rejection.message());
                            return Err((
                                Rejection { plugin: name, ..Rejection::error(reason) },
                                BTreeSet::from([name]),
                            ));
                        }
                    }
                }
            };
            filters.filters.push((name, if *one_by_one { filter } else { Box::new(Lenient(filter)) }));
        }
        match refused {
            None => Ok(filters),
            Some(rejection) => {
                let plugins = BTreeSet::from([rejection.plugin]);
                Err((rejection, plugins))
            }
        }
    }

    /// Asks who may help a pod that no node suits, until one does; what the others said is told together.
    pub fn post_filter(&self, failed: &Failed<'_, '_>) -> PostFiltered {
        let mut together = PostFiltered::default();
        let mut messages = Vec::new();
        for plugin in self.plugins(Point::PostFilter) {
            let Some(answer) = plugin.post_filter(failed) else { continue };
            if answer.work.is_some() || answer.last {
                return answer;
            }
            together.nominated = answer.nominated.or(together.nominated);
            messages.extend((!answer.message.is_empty()).then_some(answer.message));
        }
        PostFiltered { message: messages.join(", "), ..together }
    }

    /// The scorers for these nodes, each with its weight.
    pub fn pre_score<'f, 'a: 'f>(
        &'a self,
        cycle: Cycle<'a>,
        nodes: &[&'a NodeInfo],
        filters: &'f Filters<'a>,
    ) -> Vec<(&'static str, i64, Box<dyn Scorer + 'f>)> {
        let prepare = |enabled: &'a Enabled| -> Option<(&'static str, i64, Box<dyn Scorer + 'f>)> {
            let own = || filters.of(enabled.plugin.name())?.scorer();
            let scorer = enabled.plugin.pre_score(cycle, nodes).map(|scorer| scorer as Box<dyn Scorer + 'f>);
            let scorer = scorer.or_else(own)?;
            Some((enabled.plugin.name(), enabled.weight, scorer))
        };
        self.at(Point::Score).iter().filter_map(prepare).collect()
    }
}

/// What several plugins took.
pub type Reservations = Vec<Box<dyn super::Reservation>>;

/// Everybody's filter for one pod.
#[derive(Default)]
pub struct Filters<'a> {
    filters: Vec<(&'static str, Box<dyn NodeFilter + 'a>)>,
    /// Only these nodes can suit.
    pub among: Option<BTreeSet<String>>,
    /// Who restricted nodes to those.
    pub restricting: BTreeSet<&'static str>,
}

impl<'a> Filters<'a> {
    /// The first plugin's rejection of the node.
    pub fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.filters.iter().try_for_each(|(name, filter)| check(name, &**filter, node))
    }

    /// What this plugin found out.
    pub fn of(&self, plugin: &str) -> Option<&(dyn NodeFilter + 'a)> {
        self.filters.iter().find(|(name, _)| *name == plugin).map(|(_, filter)| &**filter)
    }

    /// A copy for suppositions.
    pub fn fork(&self) -> Forked<'_> {
        let fork = |(name, filter): &'_ (&'static str, Box<dyn NodeFilter + 'a>)| (*name, filter.fork());
        Forked { base: self, forks: self.filters.iter().map(fork).collect() }
    }

    /// Like [`Filters::check`], where pods that are to come to the node and aren't less important than this one are
    /// supposed to be there; nor must it depend on them.
    pub fn check_with_nominated(&self, pod: &PodInfo, node: &NodeInfo, promises: &Promises) -> Result<(), Rejection> {
        match promises.outranking(node.name(), pod).as_slice() {
            [] => self.check(node),
            others => self.fork().check_with(others, node, Whom::All),
        }
    }

    /// What is to be done before the pod is bound to the node.
    pub fn reserve(&self, node: &NodeInfo) -> Result<Reservations, (Reservations, Rejection)> {
        let mut reserved = Vec::new();
        for (name, filter) in &self.filters {
            match filter.reserve(node) {
                Ok(reservation) => reserved.extend(reservation),
                Err(rejection) => return Err((reserved, Rejection { plugin: name, ..rejection })),
            }
        }
        Ok(reserved)
    }
}

/// The filter of a plugin that isn't asked about single nodes: it lets them all pass.
struct Lenient<'a>(Box<dyn NodeFilter + 'a>);

impl NodeFilter for Lenient<'_> {
    fn filter(&self, _: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    fn scorer(&self) -> Option<Box<dyn Scorer + '_>> {
        self.0.scorer()
    }

    fn reserve(&self, node: &NodeInfo) -> Result<Option<Box<dyn super::Reservation>>, Rejection> {
        self.0.reserve(node)
    }
}

fn check(name: &'static str, filter: &dyn NodeFilter, node: &NodeInfo) -> Result<(), Rejection> {
    filter.filter(node).map_err(|rejection| named(name, rejection))
}

fn named(name: &'static str, mut rejection: Rejection) -> Rejection {
    if rejection.finality == Finality::Error {
        rejection = Rejection::error(format!("running {name:?} filter plugin: {}", rejection.message()));
    }
    Rejection { plugin: name, ..rejection }
}

/// Filters on which suppositions are tried.
pub struct Forked<'f> {
    base: &'f Filters<'f>,
    forks: Vec<(&'static str, Option<Box<dyn NodeFilter + 'f>>)>,
}

/// Which filters are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    All,
    /// Those that the pods on nodes matter to: the others have let the node pass.
    ByPods,
}

impl Forked<'_> {
    pub fn check(&self, node: &NodeInfo, whom: Whom) -> Result<(), Rejection> {
        for ((name, fork), (_, base)) in self.forks.iter().zip(&self.base.filters) {
            let filter = fork.as_deref().unwrap_or(&**base);
            if whom == Whom::All || filter.by_pods() {
                check(name, filter, node)?;
            }
        }
        Ok(())
    }

    /// The answer if `others` were on the node, where no filter needs such a node to know.
    fn check_beside(&self, others: &[Arc<PodInfo>], node: &NodeInfo, whom: Whom) -> Option<Result<(), Rejection>> {
        if self.forks.iter().any(|(_, fork)| fork.is_some()) {
            return None;
        }
        for (name, filter) in &self.base.filters {
            if (whom == Whom::All || filter.by_pods())
                && let Err(rejection) = filter.filter_beside(node, others)?
            {
                return Some(Err(named(name, rejection)));
            }
        }
        Some(Ok(()))
    }

    pub fn add(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.forks.iter_mut().filter_map(|(_, fork)| fork.as_mut()).for_each(|fork| fork.add(pod, node));
    }

    pub fn remove(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.forks.iter_mut().filter_map(|(_, fork)| fork.as_mut()).for_each(|fork| fork.remove(pod, node));
    }

    /// [`Filters::check_with_nominated`], where `others` are those pods. Suppositions made here are taken back.
    pub fn check_with(&mut self, others: &[Arc<PodInfo>], node: &NodeInfo, whom: Whom) -> Result<(), Rejection> {
        if others.is_empty() {
            return self.check(node, whom);
        }
        if let Some(answer) = self.check_beside(others, node, whom) {
            answer?;
            return self.check(node, Whom::ByPods);
        }
        let mut with = node.clone();
        for other in others {
            with.add(other.clone());
            self.add(other, &with);
        }
        let answer = self.check(&with, whom);
        for other in others.iter().rev() {
            with.remove(&other.uid);
            self.remove(other, &with);
        }
        answer?;
        self.check(node, Whom::ByPods)
    }
}
