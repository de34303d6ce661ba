//! Deleting everything in a namespace. Upstream: pkg/controller/namespace/deletion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use client::{
    ApiResource, Client, DeleteOptions, Error, ListOptions, Propagation, ReconcileError, Resource, Selection, discover,
    resources,
};
use futures_util::{StreamExt, stream};

use crate::meta::Condition;

/// How long finalizers of others are given, where nothing better is known.
const FINALIZER_ESTIMATE: Duration = Duration::from_secs(15);

/// Resources whose objects are deleted at a time.
const TOGETHER: usize = 8;

/// What is left after an attempt.
#[derive(Default)]
pub(super) struct Remains {
    /// How many objects, by `plural.group`.
    objects: BTreeMap<String, usize>,
    /// How many objects, by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// When to look again; `None`: nothing is left.
    pub estimate: Option<Duration>,
    discovery_failure: Option<String>,
    content_failure: Option<String>,
    pub failure: Option<ReconcileError>,
}

/// Deletes pods first, and everything else once they are gone, so that what they use outlives them. `age`: how long ago the namespace was
/// deleted.
pub(super) async fn delete_all(client: &Client, namespace: &str, age: Duration) -> Remains {
    let mut remains = Remains::default();
    let (found, failed) = match discover(client).await {
        Ok(discovered) => discovered,
        Err(error) => {
            remains.discovery_failure = Some(error.to_string());
            remains.failure = Some(error.into());
            return remains;
        }
    };
    if !failed.is_empty() {
        // In the words of a client that finds these versions marked as stale.
        let stale = |(version, _): &(String, Error)| format!("{version}: stale GroupVersion discovery: {version}");
        let mut texts: Vec<String> = failed.iter().map(stale).collect();
        texts.sort_unstable();
        remains.discovery_failure = Some(format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
            texts.len(),
            texts.join(", ")
        ));
    }
    let deletable = |r: &&ApiResource| r.resource.namespaced && r.can("delete");
    let is_pods = |r: &&ApiResource| r.resource == resources::PODS;
    let mut errors = Vec::new();
    for pods in found.iter().filter(is_pods) {
        let failed = remains.add(delete(client, pods, namespace, age).await);
        let of_pods =
            |error: ContentError| ContentError::Pods { namespace: namespace.to_owned(), source: Box::new(error) };
        errors.extend(failed.map(of_pods));
    }
    if remains.objects.is_empty() {
        let others = found.iter().filter(deletable).filter(|r| !is_pods(r));
        let others: Vec<_> = others.map(|resource| delete(client, resource, namespace, age)).collect();
        // What is told of them comes in the order of discovery.
        let mut deletions = stream::iter(others).buffered(TOGETHER);
        while let Some(left) = deletions.next().await {
            errors.extend(remains.add(left));
        }
    }
    if !errors.is_empty() {
        let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        let (left, texts) = (texts.len(), texts.join(", "));
        remains.content_failure = Some(format!("Failed to delete all resource types, {left} remaining: {texts}"));
    }
    let first_error =
        errors.into_iter().next().or_else(|| remains.discovery_failure.clone().map(ContentError::Discovery));
    remains.failure = first_error.map(Into::into);
    remains
}

#[derive(Debug, thiserror::Error)]
enum ContentError {
    #[error("{0}")]
    Discovery(String),
    #[error(transparent)]
    Request(#[from] Error),
    #[error("failed to delete pods for namespace: {namespace}, err: {source}")]
    Pods { namespace: String, source: Box<ContentError> },
    #[error("unexpected items still remain in namespace: {namespace} for gvr: {resource}")]
    Unexpected { namespace: String, resource: String },
}

/// What is left of a resource after its objects were deleted.
struct Left<'a> {
    resource: &'a Resource,
    objects: Vec<Arc<Object>>,
    /// How long pods may take to end, if that is not over.
    grace: Option<Duration>,
}

async fn delete<'a>(
    client: &Client,
    api: &'a ApiResource,
    namespace: &str,
    age: Duration,
) -> Result<Left<'a>, ContentError> {
    let selection = Selection::all().namespace(namespace);
    let grace = if api.resource == resources::PODS { pod_grace(client, &selection).await? } else { None };
    let grace = grace.filter(|grace| age < *grace);
    let options = DeleteOptions::default().propagation(Propagation::Background);
    match client.delete_collection(&api.resource, &selection, &options).await {
        Err(error) if is_unsupported(&error) => delete_each(client, api, &selection, &options).await?,
        result => result?,
    }
    let mut left = Left { resource: &api.resource, objects: Vec::new(), grace };
    if api.can("list") {
        match client.metadata_only().list(&api.resource, &selection, &ListOptions::default()).await {
            Err(error) if is_unsupported(&error) => {}
            list => left.objects = list?.items,
        }
    }
    Ok(left)
}

impl Remains {
    /// Takes over what is left of one resource.
    fn add(&mut self, left: Result<Left<'_>, ContentError>) -> Option<ContentError> {
        let left = match left {
            Ok(left) if left.objects.is_empty() => return None,
            Ok(left) => left,
            Err(error) => return Some(error),
        };
        let Left { resource, objects, grace } = left;
        self.objects.insert(format!("{}.{}", resource.plural, resource.group), objects.len());
        let mut held = false;
        for object in objects.iter().filter(|object| object.has_finalizers()) {
            held = true;
            for finalizer in crate::meta::metadata(object).items_at(&["finalizers"]) {
                *self.finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        if let Some(estimate) = grace.or(held.then_some(FINALIZER_ESTIMATE)) {
            self.estimate = self.estimate.max(Some(estimate));
            return None;
        }
        let namespace = objects.first().map(|object| object.namespace().to_owned()).unwrap_or_default();
        let gvr = resource.gvr();
        let resource = format!("{}/{}, Resource={}", gvr.group, gvr.version, gvr.resource);
        Some(ContentError::Unexpected { namespace, resource })
    }

    /// What the namespace's status says about this.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let told = |r#type: &str, bad: Option<(&str, String)>, ok: (&str, &str)| match bad {
            Some((reason, message)) => Condition::new(r#type, "True", reason, message),
            None => Condition::new(r#type, "False", ok.0, ok.1),
        };
        let joined = |counts: &BTreeMap<String, usize>, text: &dyn Fn(&str, usize) -> String| {
            counts.iter().map(|(name, n)| text(name, *n)).collect::<Vec<_>>().join(", ")
        };
        let objects = (!self.objects.is_empty()).then(|| {
            let each = joined(&self.objects, &|name, n| format!("{name} has {n} resource instances"));
            ("SomeResourcesRemain", format!("Some resources are remaining: {each}"))
        });
        let finalizers = (!self.finalizers.is_empty()).then(|| {
            let each = joined(&self.finalizers, &|name, n| format!("{name} in {n} resource instances"));
            let message = format!("Some content in the namespace has finalizers remaining: {each}");
            ("SomeFinalizersRemain", message)
        });
        vec![
            told(
                "NamespaceDeletionDiscoveryFailure",
                self.discovery_failure.clone().map(|message| ("DiscoveryFailed", message)),
                ("ResourcesDiscovered", "All resources successfully discovered"),
            ),
            told(
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            told(
                "NamespaceDeletionContentFailure",
                self.content_failure.clone().map(|message| ("ContentDeletionFailed", message)),
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            told("NamespaceContentRemaining", objects, ("ContentRemoved", "All content successfully removed")),
            told(
                "NamespaceFinalizersRemaining",
                finalizers,
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ]
    }
}

/// The longest grace that a running pod there may take.
async fn pod_grace(client: &Client, selection: &Selection) -> Result<Option<Duration>, Error> {
    let pods = client.list(&resources::PODS, selection, &ListOptions::default()).await?;
    let seconds = pods.items.iter().filter_map(|pod| {
        let pod = pod.to_value();
        let phase = pod.str_at(&["status", "phase"]).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            return None;
        }
        pod.i64_at(&["spec", "terminationGracePeriodSeconds"])
    });
    Ok(seconds.max().filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds as u64)))
}

async fn delete_each(
    client: &Client,
    api: &ApiResource,
    selection: &Selection,
    options: &DeleteOptions,
) -> Result<(), Error> {
    let all = match client.list(&api.resource, selection, &ListOptions::default()).await {
        Err(error) if is_unsupported(&error) => return Ok(()),
        list => list?.items,
    };
    for object in all {
        match client.delete(&api.resource, object.key(), options).await {
            Err(error) if !error.is_not_found() && !is_unsupported(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The resource has no such operation, or is not served after all.
fn is_unsupported(error: &Error) -> bool {
    error.status().is_some_and(|status| matches!(status.code, 404 | 405))
}
