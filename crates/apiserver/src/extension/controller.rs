//! Conditions of definitions, and the end of their objects. Upstream: apiextensions pkg/controller status, establish, apiapproval
//! and finalizer.
//!
//! It reads the registry's own cache and is woken by it: nothing runs while no definition changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Status, Value};
use futures_util::StreamExt;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{debug, warn};

use super::DEFINITIONS;
use super::check::{Approval, approval, is_protected};
use super::definition::is_true;
use crate::identity::UserInfo;
use crate::registry::{
    Admission, Call, Change, Custom, DeleteOptions, Filter, Operation, Range, Registry, Seen, timestamp,
};
use crate::strategy::custom_resource_definition::CLEANUP;

/// How long the objects of a definition may take to go before it says so.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(5);

/// Follows definitions for ever.
pub(crate) async fn run(registry: Arc<Registry>) {
    let Some(definitions) = registry.resource(DEFINITIONS.0, "v1", DEFINITIONS.1) else { return };
    let cache = definitions.storage.cache.clone();
    let mut clearing: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
    let mut cleared = BTreeSet::new();
    loop {
        let mut names = BTreeSet::new();
        let (_, mut cursor) = cache.list_and_watch(&Range::All, Range::All, registry.through(), |key, _| {
            names.insert(key.to_string());
        });
        loop {
            for name in std::mem::take(&mut names) {
                if sync(&registry, &name).await && cleared.insert(name.clone()) {
                    clearing.push(Box::pin(clear(registry.clone(), name)));
                }
            }
            tokio::select! {
                () = cursor.wait() => {}
                Some(name) = clearing.next() => {
                    cleared.remove(&name);
                    names.insert(name);
                    continue;
                }
            }
            let mut given_up = BTreeSet::new();
            let read = cursor.read(256, registry.through(), |entry| {
                names.insert(entry.key.to_string());
                if entry.new.is_none() {
                    given_up.extend(group_of(&entry.key).map(str::to_owned));
                }
            });
            // A name that is given up may be another's now.
            if !given_up.is_empty() {
                cache.scan(&Range::All, "", 0, |key, _| {
                    if group_of(key).is_some_and(|group| given_up.contains(group)) {
                        names.insert(key.to_string());
                    }
                    true
                });
            }
            if read.is_err() {
                break;
            }
        }
    }
}

/// `example.com` of `widgets.example.com`.
fn group_of(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, group)| group)
}

/// Sets a condition; its time changes with its status.
fn set_condition(object: &mut Value, (kind, status): (&str, &str), reason: &str, message: &str, now: Timestamp) {
    let mut conditions = object.items_at(&["status", "conditions"]).to_vec();
    let mut new = Value::object();
    for (key, text) in [("type", kind), ("status", status), ("reason", reason), ("message", message)] {
        new.set(&[key], text);
    }
    new.set(&["lastTransitionTime"], timestamp(now));
    match conditions.iter_mut().find(|known| known.str_at(&["type"]) == Some(kind)) {
        Some(known) => {
            if known.str_at(&["status"]) == Some(status)
                && let Some(time) = known.get("lastTransitionTime").cloned()
            {
                new.set(&["lastTransitionTime"], time);
            }
            *known = new;
        }
        None => conditions.push(new),
    }
    object.set(&["status", "conditions"], conditions);
}

/// Says that a definition is being deleted, and holds it until that is done.
pub(crate) fn mark_for_deletion(object: &mut Value, finalizer: &str, now: Timestamp) {
    let mut finalizers = object.items_at(&["metadata", "finalizers"]).to_vec();
    if !finalizers.iter().any(|known| known.as_str() == Some(finalizer)) {
        finalizers.push(finalizer.into());
        object.set(&["metadata", "finalizers"], finalizers);
    }
    let conditions = object.items_at(&["status", "conditions"]);
    if !conditions.iter().any(|known| known.str_at(&["type"]) == Some("Terminating")) {
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(object, ("Terminating", "True"), "InstanceDeletionPending", message, now);
    }
}

/// Brings a definition's status up to date; true where its objects must go.
async fn sync(registry: &Registry, name: &str) -> bool {
    if registry.fresh().await.is_err() {
        return false;
    }
    let Some(object) = definition(registry, name) else { return false };
    if object.is_deleting() {
        let finalizers = object.to_value();
        return finalizers.items_at(&["metadata", "finalizers"]).iter().any(|held| held.as_str() == Some(CLEANUP));
    }
    let others: Vec<Value> =
        all(registry).iter().filter(|other| other.name() != name).map(|other| other.to_value()).collect();
    let now = registry.env.now();
    let result = edit(registry, name, &|definition| {
        accept_names(definition, &others, now);
        judge_approval(definition, now);
        Ok(())
    })
    .await;
    if let Err(status) = result
        && !status.is_not_found()
    {
        warn!(%name, error = %status, "the conditions of a definition are not written");
    }
    false
}

fn definition(registry: &Registry, name: &str) -> Option<Arc<Object>> {
    registry.storage(DEFINITIONS.0, DEFINITIONS.1)?.cache.get(name)
}

fn all(registry: &Registry) -> Vec<Arc<Object>> {
    crate::strategy::Objects::list(registry, DEFINITIONS.0, DEFINITIONS.1, "")
}

/// Upstream: NamingConditionController and EstablishingController.
fn accept_names(definition: &mut Value, others: &[Value], now: Timestamp) {
    let group = definition.str_at(&["spec", "group"]).unwrap_or_default().to_owned();
    let wanted = definition.at(&["spec", "names"]).cloned().unwrap_or_default();
    let mut accepted = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_else(Value::object);
    let (mut resources, mut kinds): (Vec<String>, Vec<String>) = Default::default();
    for other in others.iter().filter(|other| other.str_at(&["spec", "group"]) == Some(&group)) {
        let Some(names) = other.at(&["status", "acceptedNames"]) else { continue };
        let text = |key: &str| names.str_at(&[key]).map(str::to_owned);
        resources.extend([text("plural"), text("singular")].into_iter().flatten());
        resources.extend(names.items_at(&["shortNames"]).iter().filter_map(Value::as_str).map(str::to_owned));
        kinds.extend([text("kind"), text("listKind")].into_iter().flatten());
    }
    let mut conflict: Option<(&str, String)> = None;
    for (key, used, reason) in [
        ("plural", &resources, "PluralConflict"),
        ("singular", &resources, "SingularConflict"),
        ("kind", &kinds, "KindConflict"),
        ("listKind", &kinds, "ListKindConflict"),
    ] {
        let name = wanted.str_at(&[key]).unwrap_or_default();
        if accepted.str_at(&[key]).unwrap_or_default() != name && used.iter().any(|used| used == name) {
            conflict = Some((reason, format!("{name:?} is already in use")));
        } else {
            accepted.set(&[key], name);
        }
        // Upstream looks at short names between the singular and the kind.
        if key == "singular" {
            let known = accepted.items_at(&["shortNames"]).to_vec();
            let new = wanted.items_at(&["shortNames"]).iter().filter(|name| !known.contains(name));
            let taken: Vec<String> = new
                .filter_map(Value::as_str)
                .filter(|name| resources.iter().any(|used| used == name))
                .map(|name| format!("{name:?} is already in use"))
                .collect();
            match taken.as_slice() {
                [] => copy(&wanted, &mut accepted, "shortNames"),
                [one] => conflict = Some(("ShortNamesConflict", one.clone())),
                many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
            }
        }
    }
    copy(&wanted, &mut accepted, "categories");
    definition.set(&["status", "acceptedNames"], accepted);
    let established = is_true(definition, "Established");
    match conflict {
        None => {
            set_condition(definition, ("NamesAccepted", "True"), "NoConflicts", "no conflicts found", now);
            if !established {
                let message = "the initial names have been accepted";
                set_condition(definition, ("Established", "True"), "InitialNamesAccepted", message, now);
            }
        }
        Some((reason, message)) => {
            set_condition(definition, ("NamesAccepted", "False"), reason, &message, now);
            if !established {
                set_condition(definition, ("Established", "False"), "NotAccepted", "not all names are accepted", now);
            }
        }
    }
}

fn copy(from: &Value, to: &mut Value, key: &str) {
    match from.get(key) {
        Some(value) => to.set(&[key], value),
        None => drop(to.remove(&[key])),
    }
}

/// Upstream: KubernetesAPIApprovalPolicyConformantConditionController.
fn judge_approval(definition: &mut Value, now: Timestamp) {
    if !is_protected(definition.str_at(&["spec", "group"]).unwrap_or_default()) {
        return;
    }
    let (state, message) = approval(definition);
    let (status, reason) = match state {
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
    };
    set_condition(definition, ("KubernetesAPIApprovalPolicyConformant", status), reason, &message, now);
}

/// Deletes a definition's objects, then lets it go. Upstream: crd_finalizer.go.
async fn clear(registry: Arc<Registry>, name: String) -> String {
    if let Err(status) = cleared(&registry, &name).await
        && !status.is_not_found()
    {
        debug!(%name, error = %status, "a definition is not cleared yet");
        registry.env.sleep(RETRY).await;
    }
    name
}

async fn cleared(registry: &Registry, name: &str) -> Result<(), Status> {
    let tell = async |status: &str, reason: &str, message: &str| {
        let now = registry.env.now();
        edit(registry, name, &|definition| {
            set_condition(definition, ("Terminating", status), reason, message, now);
            Ok(())
        })
        .await
    };
    tell("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress").await?;
    registry.fresh().await?;
    let Some((plural, group)) = name.split_once('.') else { return Ok(()) };
    let custom = registry.customs().get(group, plural).cloned();
    let (reason, message) = match &custom {
        None => ("NeverEstablished", "resource was never established"),
        Some(custom) => {
            if let Err(status) = delete_all(registry, custom).await {
                tell("True", "InstanceDeletionFailed", &format!("could not list instances: {status}")).await?;
                return Err(status);
            }
            let gone = emptied(registry, custom);
            futures_util::pin_mut!(gone);
            if registry.env.timeout(PATIENCE, &mut gone).await.is_none() {
                let why = "could not confirm zero CustomResources remaining: timed out waiting for the condition";
                tell("True", "InstanceDeletionCheck", why).await?;
                gone.await;
            }
            ("InstanceDeletionCompleted", "removed all instances")
        }
    };
    let now = registry.env.now();
    edit(registry, name, &|definition| {
        set_condition(definition, ("Terminating", "False"), reason, message, now);
        let mut finalizers = definition.items_at(&["metadata", "finalizers"]).to_vec();
        finalizers.retain(|held| held.as_str() != Some(CLEANUP));
        definition.set(&["metadata", "finalizers"], finalizers);
        Ok(())
    })
    .await
}

async fn delete_all(registry: &Registry, custom: &Custom) -> Result<(), Status> {
    let warnings = Mutex::default();
    let user = crate::bootstrap::own_user();
    let call = call(registry, &custom.stored, &user, &warnings, "");
    let everything = Filter::everything();
    call.delete_collection(&everything, &DeleteOptions::default(), 0).await.map(drop)
}

/// Waits until the definition has no objects.
async fn emptied(registry: &Registry, custom: &Custom) {
    let cache = &custom.storage.cache;
    loop {
        let mut left = BTreeSet::new();
        let (_, mut cursor) = cache.list_and_watch(&Range::All, Range::All, registry.through(), |key, _| {
            left.insert(key.clone());
        });
        while !left.is_empty() {
            cursor.wait().await;
            let read = cursor.read(256, registry.through(), |entry| {
                match entry.new {
                    Some(_) => left.insert(entry.key.clone()),
                    None => left.remove(&entry.key),
                };
            });
            if read.is_err() {
                break;
            }
        }
        if left.is_empty() {
            return;
        }
    }
}

type Edit<'a> = &'a (dyn Fn(&mut Value) -> Result<(), Status> + Send + Sync);

/// Writes the status (and finalizers) of a definition as the server itself.
async fn edit(registry: &Registry, name: &str, edit: Edit<'_>) -> Result<(), Status> {
    let Some(resource) = registry.resource(DEFINITIONS.0, "v1", DEFINITIONS.1) else { return Ok(()) };
    let warnings = Mutex::default();
    let user = crate::bootstrap::own_user();
    let call = Call { subresource: "status", ..call(registry, &resource, &user, &warnings, name) };
    call.update(&Change::Edit(edit)).await.map(drop)
}

fn call<'a>(
    registry: &'a Registry,
    resource: &'a crate::registry::Resource,
    user: &'a UserInfo,
    warnings: &'a Mutex<Vec<String>>,
    name: &'a str,
) -> Call<'a> {
    Call {
        registry,
        resource,
        user,
        namespace: "",
        name,
        subresource: "",
        manager: "kube-apiserver",
        dry_run: false,
        admission: &Anything,
        warnings,
    }
}

/// The server's own writes are asked nothing.
struct Anything;

impl Admission for Anything {
    fn mutate<'a>(
        &'a self,
        _call: &'a Call<'_>,
        _operation: Operation,
        _new: &'a mut Value,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(future::ready(Ok(())))
    }

    fn validate<'a>(
        &'a self,
        _call: &'a Call<'_>,
        _operation: Operation,
        _new: Option<Seen<'a>>,
        _old: Option<Seen<'a>>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(future::ready(Ok(())))
    }
}
