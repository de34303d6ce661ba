//! A pod as plugins see it: what they ask for, read out of the object once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Operator, Requirement, Selector};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    NodeAffinity, Pod, PodAffinityTerm, PodCondition, PodSpec, Toleration, TopologySpreadConstraint, Volume,
};
use rules::{HostPort, Resources};

/// A pod with everything that plugins ask for, and nothing else: many thousands are kept.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: String,
    pub revision: u64,
    pub generation: i64,
    /// `spec.nodeName`; empty until bound.
    pub node: String,
    /// `status.nominatedNodeName`.
    pub nominated: String,
    pub priority: i32,
    /// False: it waits, whatever its priority.
    pub preempts: bool,
    pub volumes: Vec<PodVolume>,
    /// Entries of `spec.resourceClaims`: the pod's name of each claim.
    pub resource_claims: Vec<ResourceClaimSource>,
    pub terminating: bool,
    /// It ends because the scheduler made room for another.
    pub preempted: bool,
    pub started: Option<Timestamp>,
    /// Its phase is `Running`.
    pub running: bool,
    /// Its status tells of a resize, or of room that it makes for another pod.
    pub stirring: bool,
    /// Of one without a node.
    pub scheduled: Option<Box<Scheduled>>,
    /// As the API tells it, if somebody asks.
    pub whole: Option<Arc<Object>>,
    pub template: Arc<Template>,
}

/// The `PodScheduled` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub status: String,
    pub message: String,
    /// When the status changed last.
    pub since: Option<Timestamp>,
}

/// What pods made alike have in common, kept once for many of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    pub scheduler: String,
    pub labels: BTreeMap<String, String>,
    pub requests: Resources,
    /// Like `requests`, with least amounts where nothing is requested.
    pub scored_requests: Resources,
    pub ports: Vec<HostPort>,
    pub node_selector: BTreeMap<String, String>,
    pub node_affinity: Option<Arc<NodeAffinity>>,
    pub affinity: PodAffinities,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<TopologySpreadConstraint>,
    /// One for each container and init container, with a tag.
    pub images: Vec<String>,
    pub gates: Vec<String>,
    /// API version, kind and name of the controlling owner.
    pub controller: Option<(String, String, String)>,
}

impl Deref for PodInfo {
    type Target = Template;

    fn deref(&self) -> &Template {
        &self.template
    }
}

/// The templates seen last. Pods of one kind come one after the other, so that few are enough.
#[derive(Debug, Default)]
pub struct Templates(VecDeque<Arc<Template>>);

/// How many are compared with that of a pod that comes.
const TEMPLATES: usize = 32;

impl Templates {
    /// The pod, with an equal pod's template if there was one lately.
    pub fn share(&mut self, mut pod: PodInfo) -> PodInfo {
        match self.0.iter().position(|known| *known == pod.template) {
            Some(at) => {
                let known = self.0.remove(at).expect("it was found there");
                pod.template = known.clone();
                self.0.push_front(known);
            }
            None => {
                self.0.truncate(TEMPLATES - 1);
                self.0.push_front(pod.template.clone());
            }
        }
        pod
    }
}

/// The object that an entry of `spec.resourceClaims` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimName {
    /// The user's.
    Named(String),
    /// Made for the pod from a template.
    Made(String),
    /// It isn't made yet.
    Unknown,
    /// It was found that none is needed.
    Needless,
}

/// A claim that an entry of `spec.resourceClaims` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceClaimSource {
    pub name: String,
    pub claim: ClaimName,
}

/// A volume that may matter for placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodVolume {
    /// `ephemeral`: the claim is made for this pod and must belong to it.
    Claim { name: String, ephemeral: bool },
    /// A disk that two pods of a node may share only in certain ways.
    Disk(Disk),
}

/// Upstream: volumerestrictions isVolumeConflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    Gce { name: String, read_only: bool },
    Aws { id: String },
    Iscsi { iqn: String, read_only: bool },
    Rbd { monitors: Vec<String>, pool: String, image: String, read_only: bool },
}

/// `spec.affinity.podAffinity` and `podAntiAffinity`, parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodAffinities {
    pub required: Vec<Arc<Term>>,
    pub required_anti: Vec<Arc<Term>>,
    pub preferred: Vec<(i64, Arc<Term>)>,
    pub preferred_anti: Vec<(i64, Arc<Term>)>,
}

/// Which pods a term of pod affinity is about, and what counts as one place.
#[derive(Debug)]
pub struct Term {
    pub namespaces: BTreeSet<String>,
    pub namespace_selector: Selector,
    pub selector: Selector,
    pub topology_key: String,
    /// All of the above as text: what terms compare by.
    identity: String,
}

impl PartialEq for Term {
    fn eq(&self, other: &Term) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Term {}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity.hash(state);
    }
}

impl Term {
    /// A term of a pod in `namespace` with these labels.
    pub fn new(term: &PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> Term {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let namespace_selector = rules::label_selector(term.namespace_selector.as_ref());
        let selector = like_the_pod(rules::label_selector(term.label_selector.as_ref()), term, labels);
        let topology_key = term.topology_key.clone();
        let identity = format!("{namespaces:?} {namespace_selector:?} {selector:?} {topology_key}");
        Term { namespaces, namespace_selector, selector, topology_key, identity }
    }

    /// Whether it is about the pod, whose namespace has these labels.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &BTreeMap<String, String>) -> bool {
        (self.namespaces.contains(&pod.key.namespace) || rules::selects(&self.namespace_selector, namespace_labels))
            && rules::selects(&self.selector, &pod.labels)
    }
}

/// The selector, and that pods have the same values of some labels as the term's own pod, and others of others. Upstream's API server writes these
/// into the selector, which does no harm here.
fn like_the_pod(selector: Selector, term: &PodAffinityTerm, labels: &BTreeMap<String, String>) -> Selector {
    if term.label_selector.is_none() {
        return selector;
    }
    let keys = |keys: &Option<Vec<String>>, operator| {
        let known = keys.iter().flatten().filter_map(|key| Some((key.clone(), labels.get(key)?.clone())));
        known.map(|(key, value)| Requirement { key, operator, values: vec![value] }).collect::<Vec<_>>()
    };
    let same = keys(&term.match_label_keys, Operator::In);
    let other = keys(&term.mismatch_label_keys, Operator::NotIn);
    if same.is_empty() && other.is_empty() {
        return selector;
    }
    Selector::new(selector.requirements().iter().cloned().chain(same).chain(other).collect())
}

impl PodInfo {
    pub fn new(pod: &Pod) -> PodInfo {
        let meta = &pod.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let controller = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let affinity = spec.affinity.as_ref();
        let name = meta.name.clone().unwrap_or_default();
        let init = spec.init_containers.iter().flatten();
        let node = spec.node_name.clone().unwrap_or_default();
        let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && node.is_empty());
        let yields =
            |c: &PodCondition| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("PreemptionByScheduler");
        let template = Template {
            scheduler: spec.scheduler_name.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            requests: rules::placed_pod_requests(pod),
            scored_requests: rules::placed_scored_pod_requests(pod),
            ports: rules::host_ports(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_affinity: affinity.and_then(|affinity| affinity.node_affinity.clone()).map(Arc::new),
            affinity: affinities(spec, &namespace, meta.labels.as_ref().unwrap_or(&BTreeMap::new())),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
            images: init.chain(&spec.containers).map(|c| tagged(c.image.as_deref().unwrap_or_default())).collect(),
            gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
            controller: controller.map(|o| (o.api_version.clone(), o.kind.clone(), o.name.clone())),
        };
        PodInfo {
            uid: meta.uid.clone().unwrap_or_default(),
            revision: meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            node,
            nominated: status.and_then(|status| status.nominated_node_name.clone()).unwrap_or_default(),
            priority: spec.priority.unwrap_or_default(),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            volumes: spec.volumes.iter().flatten().filter_map(|volume| pod_volume(&name, volume)).collect(),
            resource_claims: resource_claims(pod, spec),
            terminating: meta.deletion_timestamp.is_some(),
            preempted: conditions.iter().any(|condition| yields(condition) && condition.status == "True"),
            running: status.and_then(|status| status.phase.as_deref()) == Some("Running"),
            stirring: conditions.iter().any(|c| yields(c) || c.type_.starts_with("PodResize")),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            scheduled: scheduled.map(|condition| {
                Box::new(Scheduled {
                    status: condition.status.clone(),
                    message: condition.message.clone().unwrap_or_default(),
                    since: condition.last_transition_time.as_ref().map(|time| time.0),
                })
            }),
            template: Arc::new(template),
            key: ObjectKey::new(namespace, name),
            whole: None,
        }
    }

    /// What events about the pod refer to.
    pub fn reference(&self) -> client::ObjectReference {
        client::ObjectReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            resource_version: if self.revision == 0 { String::new() } else { self.revision.to_string() },
            field_path: String::new(),
        }
    }

    /// The names of the claims that its volumes are, those made for it among them.
    pub fn claims(&self) -> impl Iterator<Item = (&str, bool)> {
        self.volumes.iter().filter_map(|volume| match volume {
            PodVolume::Claim { name, ephemeral } => Some((name.as_str(), *ephemeral)),
            PodVolume::Disk(_) => None,
        })
    }

    /// The names of the claims it names itself.
    pub fn named_claims(&self) -> impl Iterator<Item = &str> {
        self.claims().filter(|(_, ephemeral)| !ephemeral).map(|(name, _)| name)
    }

    /// Whether another pod yields to it last: by priority, then by age.
    pub fn outranks(&self, other: &PodInfo) -> bool {
        match self.priority.cmp(&other.priority) {
            std::cmp::Ordering::Equal => {
                // One that hasn't started is as if it started now.
                self.started.unwrap_or(Timestamp::MAX) < other.started.unwrap_or(Timestamp::MAX)
            }
            order => order.is_gt(),
        }
    }
}

fn affinities(spec: &PodSpec, namespace: &str, labels: &BTreeMap<String, String>) -> PodAffinities {
    let Some(affinity) = &spec.affinity else { return PodAffinities::default() };
    let term = |term: &PodAffinityTerm| Arc::new(Term::new(term, namespace, labels));
    let mut parsed = PodAffinities::default();
    if let Some(pods) = &affinity.pod_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
        parsed.required = required.map(term).collect();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        parsed.preferred = preferred.map(|p| (i64::from(p.weight), term(&p.pod_affinity_term))).collect();
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
        parsed.required_anti = required.map(term).collect();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        parsed.preferred_anti = preferred.map(|p| (i64::from(p.weight), term(&p.pod_affinity_term))).collect();
    }
    parsed
}

fn pod_volume(pod: &str, volume: &Volume) -> Option<PodVolume> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(PodVolume::Claim { name: claim.claim_name.clone(), ephemeral: false });
    }
    if volume.ephemeral.is_some() {
        return Some(PodVolume::Claim { name: format!("{pod}-{}", volume.name), ephemeral: true });
    }
    let disk = if let Some(disk) = &volume.gce_persistent_disk {
        Disk::Gce { name: disk.pd_name.clone(), read_only: disk.read_only.unwrap_or_default() }
    } else if let Some(disk) = &volume.aws_elastic_block_store {
        Disk::Aws { id: disk.volume_id.clone() }
    } else if let Some(disk) = &volume.iscsi {
        Disk::Iscsi { iqn: disk.iqn.clone(), read_only: disk.read_only.unwrap_or_default() }
    } else {
        let disk = volume.rbd.as_ref()?;
        Disk::Rbd {
            monitors: disk.monitors.clone(),
            pool: disk.pool.clone().unwrap_or_else(|| "rbd".into()),
            image: disk.image.clone(),
            read_only: disk.read_only.unwrap_or_default(),
        }
    };
    Some(PodVolume::Disk(disk))
}

fn resource_claims(pod: &Pod, spec: &PodSpec) -> Vec<ResourceClaimSource> {
    let made = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default();
    let entries = spec.resource_claims.iter().flatten();
    entries
        .map(|entry| ResourceClaimSource {
            name: entry.name.clone(),
            claim: match &entry.resource_claim_name {
                Some(name) => ClaimName::Named(name.clone()),
                None => match made.iter().find(|made| made.name == entry.name) {
                    None => ClaimName::Unknown,
                    Some(made) => made.resource_claim_name.clone().map_or(ClaimName::Needless, ClaimName::Made),
                },
            },
        })
        .collect()
}

/// The image's name with `:latest` unless it has a tag or digest. Upstream: imagelocality normalizedImageName.
fn tagged(image: &str) -> String {
    if image.rfind(':') <= image.rfind('/') { format!("{image}:latest") } else { image.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_have_tags() {
        let check = |image: &str, expect: &str| assert_eq!(tagged(image), expect);
        check("busybox", "busybox:latest");
        check("r:5000/busybox", "r:5000/busybox:latest");
        check("r:5000/busybox:1", "r:5000/busybox:1");
        check("a@sha256:0", "a@sha256:0");
    }

    #[test]
    fn terms_are_about_pods_like_their_own() {
        let labels = |track: &str| BTreeMap::from([("track".to_owned(), track.to_owned())]);
        let check = |keys: &str, track: &str, expect: bool| {
            let term = json!({"topologyKey": "zone", "labelSelector": {}, keys: ["track", "absent"]});
            let term = Term::new(&serde_json::from_value(term).unwrap(), "ns", &labels("stable"));
            let template = Arc::new(Template { labels: labels(track), ..Template::default() });
            let pod = PodInfo { key: ObjectKey::new("ns", "p"), template, ..PodInfo::default() };
            assert_eq!(term.matches(&pod, &BTreeMap::new()), expect, "{keys} {track}");
        };
        check("matchLabelKeys", "stable", true);
        check("matchLabelKeys", "canary", false);
        check("mismatchLabelKeys", "stable", false);
        check("mismatchLabelKeys", "canary", true);
    }

    #[test]
    fn terms_are_about_namespaces() {
        let term = |mut term: serde_json::Value| {
            term["topologyKey"] = json!("zone");
            term["labelSelector"] = json!({});
            let labels = BTreeMap::from([("track".to_owned(), "stable".to_owned())]);
            Term::new(&serde_json::from_value(term).unwrap(), "mine", &labels)
        };
        let check = |spec: serde_json::Value, namespace: &str, expect: bool| {
            let pod = PodInfo { key: ObjectKey::new(namespace, "p"), ..PodInfo::default() };
            let labels = BTreeMap::from([("team".to_owned(), namespace.to_owned())]);
            assert_eq!(term(spec.clone()).matches(&pod, &labels), expect, "{spec} {namespace}");
        };
        check(json!({}), "mine", true);
        check(json!({}), "other", false);
        check(json!({"namespaces": ["other"]}), "mine", false);
        check(json!({"namespaceSelector": {}}), "other", true);
        check(json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}), "a", true);
        check(json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}), "mine", false);
        check(json!({"namespaces": ["b"], "namespaceSelector": {"matchLabels": {"team": "a"}}}), "b", true);
    }

    #[test]
    fn pods_made_alike_share_their_template() {
        let pod = |name: &str, image: &str| {
            let pod = json!({"metadata": {"name": name, "uid": name}, "spec": {"containers": [{"name": "c", "image": image}]}});
            PodInfo::new(&serde_json::from_value(pod).unwrap())
        };
        let mut templates = Templates::default();
        let [first, second, other] = [("a", "x"), ("b", "x"), ("c", "y")].map(|(n, i)| templates.share(pod(n, i)));
        assert!(Arc::ptr_eq(&first.template, &second.template));
        assert_eq!(
            (second.uid.as_str(), &second.images[..], &other.images[..]),
            ("b", &["x:latest".into()][..], &["y:latest".into()][..])
        );
        (0..100).for_each(|i| drop(templates.share(pod("p", &i.to_string()))));
        assert_eq!(templates.0.len(), TEMPLATES);
        assert!(!Arc::ptr_eq(&first.template, &templates.share(pod("d", "x")).template));
    }
}
