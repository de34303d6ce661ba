//! Whether the servers behind APIServices are there. Upstream: kube-aggregator pkg/controllers/status, autoregister.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{Client, DeleteOptions, Event, Informer, Informers, Resource, Subscription};
use futures_util::future;
use serde_json::Value as Json;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::route::{Route, Trust};
use super::{Routes, discovery, priorities, resolve};
use crate::bootstrap::own_user;
use crate::local::Local;
use crate::registry::timestamp;
use crate::server::{Inner, Server};
use crate::strategy::api_service::local_condition;

const SERVICES: Resource = Resource::cluster(super::GROUP, "v1", super::RESOURCE);
/// A server that answered is asked again after this long.
const RESYNC: Duration = Duration::from_secs(30);
/// One that did not is asked again sooner, then less often.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of one server between looks.
struct Known {
    route: Route,
    due: Instant,
    failures: u32,
}

/// Follows services and their endpoints, while any of them matters.
struct Followed {
    _informers: [Informer; 2],
    _subscriptions: [Subscription; 2],
}

/// Keeps routes, conditions and the APIServices of custom resources; does not end.
pub(crate) async fn run(server: &Server) {
    let inner = server.inner().clone();
    let local = Local::new(server.clone(), own_user());
    let client = Client::new(inner.env.clone(), Arc::new(local), "kube-aggregator");
    let informers = Informers::new(client.clone());
    let services = informers.of(&SERVICES);
    let poking = inner.clone();
    let _subscription = services.on_event(move |_| poking.aggregation.poked.notify_one());
    services.synced().await;
    let mut known: BTreeMap<(String, String), Known> = BTreeMap::new();
    let mut followed: Option<Followed> = None;
    loop {
        let objects = services.list("");
        let routes = take(&inner, &objects, &mut known);
        keep_custom(&client, &inner, &objects).await;
        keep_local(&client, &inner, &objects).await;
        match (routes.is_empty(), &followed) {
            (true, _) => followed = None,
            (false, None) => followed = Some(follow(&inner, &client)),
            (false, Some(_)) => {}
        }
        look(&inner, &client, &services, &mut known).await;
        let next = known.values().map(|known| known.due).min();
        let due = async {
            match next {
                Some(due) => inner.env.sleep_until(due).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = inner.aggregation.poked.notified() => {}
            () = inner.registry.redefined.notified() => {}
            () = due => {}
        }
    }
}

/// Takes over what the APIServices say; what has changed is looked at at once.
fn take(inner: &Inner, objects: &[Arc<Object>], known: &mut BTreeMap<(String, String), Known>) -> Arc<Routes> {
    let aggregation = &inner.aggregation;
    let routes = objects.iter().filter_map(|object| Route::of(object));
    let routes: Arc<Routes> = Arc::new(routes.map(|route| (route.key(), Arc::new(route))).collect());
    known.retain(|key, _| routes.contains_key(key));
    aggregation.discovered.write().retain(|key, _| routes.contains_key(key));
    let now = inner.env.monotonic();
    for (key, route) in routes.iter() {
        let fresh = || Known { route: Route::clone(route), due: now, failures: 0 };
        let entry = known.entry(key.clone()).or_insert_with(fresh);
        if !entry.route.leads_as(route) {
            *entry = fresh();
        }
    }
    // Services and endpoints have been looked at again if they changed: see `follow`.
    if **aggregation.routes.read() != *routes {
        *aggregation.routes.write() = routes.clone();
    }
    routes
}

/// Has the task look again when a service or its endpoints change that a route leads to.
fn follow(inner: &Arc<Inner>, client: &Client) -> Followed {
    let of = |resource: &Resource, service: fn(&Object) -> Option<&str>| {
        let informer = Informer::start(client, resource.clone(), client::Selection::all());
        let inner = inner.clone();
        let subscription = informer.on_event(move |event: &Event| {
            let object = event.object();
            let Some(name) = service(object) else { return };
            let routes = inner.aggregation.routes();
            if routes.values().any(|route| route.service == name && route.namespace == object.namespace()) {
                inner.aggregation.touched.lock().insert((object.namespace().to_owned(), name.to_owned()));
                inner.aggregation.poked.notify_one();
            }
        });
        (informer, subscription)
    };
    let (services, on_services) = of(&client::resources::SERVICES, |service| Some(service.name()));
    let (slices, on_slices) =
        of(&client::resources::ENDPOINT_SLICES, |slice| slice.label("kubernetes.io/service-name"));
    Followed { _informers: [services, slices], _subscriptions: [on_services, on_slices] }
}

/// Looks at every server whose time has come.
async fn look(inner: &Inner, client: &Client, services: &Informer, known: &mut BTreeMap<(String, String), Known>) {
    let touched = std::mem::take(&mut *inner.aggregation.touched.lock());
    let now = inner.env.monotonic();
    let is_due = |known: &&mut Known| {
        let service = (known.route.namespace.clone(), known.route.service.clone());
        known.due <= now || touched.contains(&service)
    };
    let due: Vec<&mut Known> = known.values_mut().filter(is_due).collect();
    future::join_all(due.into_iter().map(|known| look_at(inner, client, services, known))).await;
}

async fn look_at(inner: &Inner, client: &Client, services: &Informer, known: &mut Known) {
    let found = check(inner, &known.route).await;
    let (status, reason, message) = match &found {
        Ok(()) => ("True", "Passed", "all checks passed".to_owned()),
        Err((reason, message)) => ("False", *reason, message.clone()),
    };
    known.failures = if found.is_ok() { 0 } else { known.failures + 1 };
    let pause = match known.failures {
        0 => RESYNC,
        failures => (FIRST_RETRY * 2u32.saturating_pow(failures.min(16) - 1)).min(RESYNC),
    };
    known.due = inner.env.monotonic() + pause;
    let Some(object) = services.get(&ObjectKey::cluster(known.route.name())) else { return };
    let mut condition = Value::object();
    for (name, value) in [("type", "Available"), ("status", status), ("reason", reason), ("message", &*message)] {
        condition.set(&[name], value);
    }
    tell(inner, client, &object, condition).await;
}

/// Asks the server what it serves, and keeps the answer for discovery.
async fn check(inner: &Inner, route: &Route) -> Result<(), (&'static str, String)> {
    let aggregation = &inner.aggregation;
    let result = async {
        resolve::endpoints(&*inner.registry, route).map_err(|nowhere| (nowhere.reason, nowhere.message))?;
        let url = format!("https://{}:{}{}", route.host(), route.port, route.path());
        let failed = |why: String| ("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"));
        // What matters here is that somebody answers: requests check the certificate.
        let anybody = Route { trust: Trust::Anything, ..route.clone() };
        let path = route.path();
        let read = aggregation.read(&*inner.registry, &anybody, &path, "application/json");
        let document = match inner.env.timeout(CHECK_TIMEOUT, read).await {
            Some(Ok(document)) => document,
            Some(Err(error)) => return Err(failed(format!("Get {url:?}: {error}"))),
            None => return Err(failed(format!("Get {url:?}: context deadline exceeded"))),
        };
        if !(200..300).contains(&document.code) {
            return Err(failed(format!("bad status from {url}: {}", document.code)));
        }
        Ok(serde_json::from_slice::<Json>(&document.body).unwrap_or_default())
    };
    match result.await {
        Ok(list) => {
            let version = discovery::aggregated(route, &list);
            aggregation.discovered.write().insert(route.key(), version);
            Ok(())
        }
        Err(why) => {
            let mut discovered = aggregation.discovered.write();
            let entry = discovered.entry(route.key()).or_insert_with(|| discovery::aggregated(route, &Json::Null));
            entry["freshness"] = "Stale".into();
            Err(why)
        }
    }
}

/// Writes the condition if it says something new.
async fn tell(inner: &Inner, client: &Client, object: &Object, mut condition: Value) {
    let mut value = object.to_value();
    let mut conditions = value.items_at(&["status", "conditions"]).to_vec();
    let old = conditions.iter().position(|old| old.str_at(&["type"]) == Some("Available"));
    let same = |name: &str| old.is_some_and(|at| conditions[at].get(name) == condition.get(name));
    if same("status") && same("reason") && same("message") {
        return;
    }
    let since = match old.filter(|_| same("status")).and_then(|at| conditions[at].get("lastTransitionTime")) {
        Some(since) => since.clone(),
        None => timestamp(inner.env.now()).into(),
    };
    condition.set(&["lastTransitionTime"], since);
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    value.set(&["status", "conditions"], conditions);
    if let Err(error) = client.update_status(&SERVICES, &value).await {
        debug!(service = object.name(), %error, "the condition of an APIService is not written; it will be");
        inner.aggregation.poked.notify_one();
    }
}

/// What leads to no service any more is answered here, and always available.
async fn keep_local(client: &Client, inner: &Inner, objects: &[Arc<Object>]) {
    for object in objects.iter().filter(|object| Route::of(object).is_none()) {
        let mut condition = local_condition("");
        condition.remove(&["lastTransitionTime"]);
        tell(inner, client, object, condition).await;
    }
}

/// APIServices of custom resources come and go with what they are for: each group version that a definition serves has one.
async fn keep_custom(client: &Client, inner: &Inner, objects: &[Arc<Object>]) {
    let customs = inner.registry.customs();
    let versions = customs.all().flat_map(|custom| {
        let served = custom.definition.versions.iter().filter(|version| version.served);
        served.map(|version| (custom.definition.group.clone(), version.name.clone()))
    });
    let wanted: BTreeSet<(String, String)> = versions.collect();
    for (group, version) in &wanted {
        if !objects.iter().any(|object| object.name() == format!("{version}.{group}")) {
            let service = Value::from(priorities::custom_service(group, version));
            match client.create(&SERVICES, &service).await {
                Err(error) if !error.is_already_exists() => warn!(group, version, %error, "no APIService was made"),
                _ => {}
            }
        }
    }
    for object in objects.iter().filter(|object| object.label(priorities::MANAGED) == Some("true")) {
        let (version, group) = object.name().split_once('.').unwrap_or_default();
        if !wanted.contains(&(group.to_owned(), version.to_owned()))
            && let Err(error) = client.delete(&SERVICES, object.key(), &DeleteOptions::uid(object.uid())).await
            && !error.is_not_found()
            && !error.is_conflict()
        {
            warn!(service = object.name(), %error, "an APIService is not deleted");
        }
    }
}
