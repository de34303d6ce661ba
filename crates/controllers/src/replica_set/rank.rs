//! Which pods go first when there are too many. Upstream: pkg/controller ActivePodsWithRanks.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::Member;
use crate::pod_view::Restarts;

/// What decides, in order of weight; the least goes first.
struct Candidate<'a> {
    member: &'a Member,
    assigned: bool,
    phase: u8,
    ready: Option<Timestamp>,
    cost: i32,
    /// How many pods of the same owner run on the same node.
    crowd: usize,
    restarts: Restarts,
    created: Option<Timestamp>,
}

/// The `n` of `members` to delete; `crowd` says how many related pods run on a node.
pub(super) fn to_delete(members: &[Member], n: usize, crowd: impl Fn(&str) -> usize, now: Timestamp) -> Vec<&Member> {
    let mut candidates: Vec<_> = members.iter().map(|member| Candidate::new(member, &crowd)).collect();
    if n < candidates.len() {
        candidates.sort_by(|a, b| a.compare(b, now));
    }
    candidates.into_iter().take(n).map(|candidate| candidate.member).collect()
}

impl<'a> Candidate<'a> {
    fn new(member: &'a Member, crowd: impl Fn(&str) -> usize) -> Candidate<'a> {
        let view = &member.view;
        Candidate {
            member,
            assigned: view.node.is_some(),
            phase: match view.phase.as_str() {
                "Unknown" => 1,
                "Running" => 2,
                _ => 0,
            },
            ready: view.ready_since,
            cost: view.deletion_cost,
            crowd: crowd(view.node.as_deref().unwrap_or_default()),
            restarts: view.restarts,
            created: view.created,
        }
    }

    fn compare(&self, other: &Candidate<'_>, now: Timestamp) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.is_some().cmp(&other.ready.is_some()))
            .then(self.cost.cmp(&other.cost))
            .then(other.crowd.cmp(&self.crowd))
            .then(age_class(self.ready, now).cmp(&age_class(other.ready, now)))
            .then(other.restarts.cmp(&self.restarts))
            .then(age_class(self.created, now).cmp(&age_class(other.created, now)))
            // Upstream asks chance as soon as two differ within a class, which is no order that can be sorted by.
            .then_with(|| self.uid().cmp(other.uid()))
    }

    fn uid(&self) -> &str {
        self.member.object.uid()
    }
}

/// The logarithm of the age in nanoseconds: of about the same age is the same. The younger go first, and what never was before them.
fn age_class(since: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    let age = now.duration_since(since?).as_nanos();
    Some(if age > 0 { i64::from(age.ilog2()) } else { -1 })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::Object;

    use super::*;
    use crate::pod_view::PodView;

    fn member(json: &str) -> Member {
        let object = Arc::new(Object::parse(json.as_bytes()).unwrap());
        Member { view: Arc::new(PodView::of(&object)), object }
    }

    /// A pod called `name`: on `node`, ready since, restarts, deletion cost.
    fn pod(name: &str, node: &str, phase: &str, ready: &str, restarts: i32, cost: &str) -> Member {
        let condition = match ready {
            "" => String::new(),
            since => format!(r#"{{"type":"Ready","status":"True","lastTransitionTime":"{since}"}}"#),
        };
        member(&format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","uid":"{name}","creationTimestamp":"2025-12-01T00:00:00Z",
                "annotations":{{"controller.kubernetes.io/pod-deletion-cost":"{cost}"}}}},"spec":{{"nodeName":"{node}","containers":[]}},
                "status":{{"phase":"{phase}","conditions":[{condition}],"containerStatuses":
                [{{"name":"c","image":"i","imageID":"","ready":true,"restartCount":{restarts}}}]}}}}"#
        ))
    }

    #[test]
    fn the_least_useful_goes_first() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (old, young) = ("2025-12-01T00:00:00Z", "2025-12-31T23:59:00Z");
        let check = |first: Member, second: Member| {
            let first_uid = first.object.uid().to_owned();
            let crowd = |node: &str| if node == "crowded" { 2 } else { 1 };
            let members = vec![first, second];
            assert_eq!(to_delete(&members, 1, crowd, now)[0].object.uid(), first_uid);
            let swapped: Vec<Member> = members.into_iter().rev().collect();
            assert_eq!(to_delete(&swapped, 1, crowd, now)[0].object.uid(), first_uid);
        };
        check(pod("a", "", "Pending", "", 0, "9"), pod("b", "n", "Pending", "", 0, "0"));
        check(pod("a", "n", "Pending", "", 0, "0"), pod("b", "n", "Running", "", 0, "0"));
        check(pod("a", "n", "Running", "", 0, "9"), pod("b", "n", "Running", old, 9, "0"));
        check(pod("a", "n", "Running", old, 0, "-1"), pod("b", "crowded", "Running", old, 9, "0"));
        check(pod("a", "crowded", "Running", old, 0, ""), pod("b", "n", "Running", young, 0, ""));
        check(pod("a", "n", "Running", young, 0, ""), pod("b", "n", "Running", old, 9, ""));
        check(pod("a", "n", "Running", old, 5, ""), pod("b", "n", "Running", old, 1, ""));
    }

    #[test]
    fn the_ranking_of_many_is_an_order() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let member = |i: i64| {
            let since = now - jiff::SignedDuration::from_secs(i * 37 % 250);
            pod(&format!("p{i}"), "n", "Running", &since.to_string(), 0, "")
        };
        let members: Vec<Member> = (0..250).map(member).collect();
        let ranked = to_delete(&members, 249, |_| 1, now);
        let ranked: Vec<_> = ranked.into_iter().map(|member| Candidate::new(member, |_| 1)).collect();
        for (i, one) in ranked.iter().enumerate() {
            assert!(ranked[i..].iter().all(|later| one.compare(later, now).is_le()));
        }
    }
}
