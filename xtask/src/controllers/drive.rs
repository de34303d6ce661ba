//! Plays scenarios in one stack.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apimachinery::{Object, ObjectKey, Value as Any};
use client::{Client, DeleteOptions, Informer, PatchKind, Selection, Subscription, WriteOptions, resources};
use env::Env;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit::metrics::Metrics;
use tokio::time::Instant;

use super::mask::{self, Mask};
use super::scenario::{self, DEFINITIONS, KINDS, REQUESTS, Scenario, Step};
use super::stack::{Manager, Stack};
use super::{PAUSE, requests, text};

/// How many scenarios are played at a time.
const PLAYERS: usize = 8;
/// How long a condition may take to come true, and silence.
const LONG: Duration = Duration::from_secs(100);
/// As kubeadm has it.
const CONTROLLERS: &str = "*,bootstrap-signer-controller,token-cleaner-controller";
/// The nodes that pods of scenarios are on.
const NODES: [(&str, &str); 6] = [("n1", "a"), ("n2", "a"), ("n3", "b"), ("n4", "b"), ("n5", "c"), ("n6", "c")];

/// What was seen of a scenario, by look.
pub type Looks = BTreeMap<String, Value>;

pub struct World {
    stack: Stack,
    informers: Vec<(&'static str, Informer)>,
    notes: Arc<Mutex<Notes>>,
    metrics: Metrics,
    quiet: Duration,
    _subscriptions: Vec<Subscription>,
}

#[derive(Default)]
struct Notes {
    /// When something last changed, by namespace.
    changed: BTreeMap<String, Instant>,
    hashes: BTreeMap<String, BTreeMap<String, String>>,
}

impl World {
    pub async fn start(examples: &Path, logs: &Path, manager: Manager, quiet: Duration) -> Result<World> {
        let stack = Stack::start_with(examples, logs, manager, CONTROLLERS).await?;
        for (name, zone) in NODES {
            stack.nodes.add(name, &labels(&[("topology.kubernetes.io/zone", zone)]), &Value::Null).await?;
        }
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let (mut informers, mut subscriptions) = (Vec::new(), Vec::new());
        for definition in scenario::definitions() {
            stack.client.create(&DEFINITIONS, &body(&definition)).await?;
        }
        for (kind, _, resource) in &KINDS {
            let informer = Informer::start(&stack.client, resource.clone(), Selection::all());
            let (notes, env) = (notes.clone(), stack.env.clone());
            subscriptions.push(informer.on_event(move |event| note(&notes, &env, event.object())));
            informers.push((*kind, informer));
        }
        for (_, informer) in &informers {
            informer.synced().await;
        }
        let pods = informers.iter().find(|(kind, _)| *kind == "Pod").map(|(_, informer)| informer.clone());
        let metrics = Metrics::start(&stack.env, pods.context("pods are watched")?).await?;
        metrics.register(&stack.client).await?;
        Ok(World { stack, informers, notes, metrics, quiet, _subscriptions: subscriptions })
    }

    /// Looks by the scenario's name.
    pub async fn play_all(&self, scenarios: &[Scenario]) -> Result<BTreeMap<String, Looks>> {
        let play = async |one: &Scenario| {
            let begun = self.stack.env.monotonic();
            let looks = self.play(one).await;
            eprintln!("{} played in {:.0} s", one.name, (self.stack.env.monotonic() - begun).as_secs_f64());
            (one.name.clone(), looks)
        };
        let (alone, together): (Vec<_>, Vec<_>) = scenarios.iter().partition(|one| one.alone);
        let mut all: BTreeMap<_, _> =
            stream::iter(together.into_iter().map(&play)).buffer_unordered(PLAYERS).collect().await;
        for one in alone {
            let (name, looks) = play(one).await;
            all.insert(name, looks);
        }
        Ok(all)
    }

    /// A step that fails is told in the last look: the other side may fail alike.
    async fn play(&self, scenario: &Scenario) -> Looks {
        let mut looks = Looks::new();
        let mut player = Player {
            world: self,
            scenario,
            ns: &scenario.name,
            missed: Vec::new(),
            nodes: Vec::new(),
            taken: vec![("ns".to_owned(), scenario.name.clone())],
        };
        if let Err(error) = player.play(scenario, &mut looks).await {
            player.missed.push(format!("{error:#}"));
        }
        let looked = scenario.steps.last().is_some_and(|step| step.key == "look");
        if !looked || !player.missed.is_empty() {
            let last = player.look().await;
            looks.insert("end".to_owned(), last);
        }
        player.clear().await;
        looks
    }

    fn client(&self) -> &Client {
        &self.stack.client
    }

    fn informer(&self, kind: &str) -> Result<&Informer> {
        let found = self.informers.iter().find(|(name, _)| *name == kind);
        found.map(|(_, informer)| informer).with_context(|| format!("scenarios know no kind {kind:?}"))
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn note(notes: &Mutex<Notes>, env: &Env, object: &Object) {
    let value: Value = object.to_value().view().unwrap_or_default();
    let ns = namespace(object);
    let mut notes = notes.lock();
    notes.changed.insert(ns.clone(), env.monotonic());
    if ["ReplicaSet", "ControllerRevision"].contains(&text(&value, &["kind"])) {
        mask::note_hash(notes.hashes.entry(ns).or_default(), &value);
    }
}

/// The scenario's namespace: what is elsewhere says by a label whose it is, or by the name of the volume that it attaches.
fn namespace(object: &Object) -> String {
    match (object.namespace(), object.kind()) {
        ("", "Namespace") => object.name().to_owned(),
        ("", "VolumeAttachment") => {
            let volume =
                object.to_value().str_at(&["spec", "source", "persistentVolumeName"]).unwrap_or_default().to_owned();
            volume.rsplit_once('-').map_or(String::new(), |(scenario, _)| scenario.to_owned())
        }
        (ns, _) => object.label("scenario").unwrap_or(ns).to_owned(),
    }
}

/// The objects of a scenario or namespace, in order of their names.
fn objects_of(informer: &Informer, ns: &str) -> Vec<Value> {
    let mut objects = informer.list("");
    objects.retain(|object| namespace(object) == ns);
    objects.sort_by(|a, b| a.name().cmp(b.name()));
    objects.iter().map(|object| object.to_value().view().unwrap_or_default()).collect()
}

struct Player<'a> {
    world: &'a World,
    scenario: &'a Scenario,
    ns: &'a str,
    /// Conditions that did not come true.
    missed: Vec<String>,
    nodes: Vec<String>,
    /// What `$NAME` stands for in the steps to come.
    taken: Vec<(String, String)>,
}

impl Player<'_> {
    async fn play(&mut self, scenario: &Scenario, looks: &mut Looks) -> Result<()> {
        let ns = body(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.ns}}));
        self.world.client().create(&resources::NAMESPACES, &ns).await?;
        let account = ObjectKey::new(self.ns, "default");
        self.wait_for(|| Ok(self.world.informer("ServiceAccount")?.get(&account).is_some())).await?;
        for step in &scenario.steps {
            let now = format!("{:.0}", self.world.stack.env.now());
            let step = step.with("now", &now);
            let step = &self.taken.iter().fold(step, |step, (name, stands_for)| step.with(name, stands_for));
            if step.key == "look" {
                let name = step.value.as_str().context("a look has a name")?.to_owned();
                looks.insert(name, self.look().await);
                continue;
            }
            self.step(step).await.with_context(|| format!("{}: {}", step.key, step.value))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let words: Vec<&str> = step.key.split_whitespace().collect();
        let (client, nodes) = (self.world.client(), &self.world.stack.nodes);
        match *words {
            ["wait"] => {
                let seconds = step.value.as_f64().context("seconds")?;
                self.world.stack.env.sleep(Duration::from_secs_f64(seconds)).await;
            }
            ["until", kind, name] => self.until(kind, name, step.value.as_str().unwrap_or_default()).await?,
            ["count", kind] => self.count(kind, step).await?,
            ["take", kind] => self.take(kind, step).await?,
            ["change", kind, name] => self.patch(kind, name, "", &step.value).await?,
            ["status", kind, name] => self.patch(kind, name, "status", &json!({"status": step.value})).await?,
            ["image", kind, name] => {
                let pod = json!({"containers": [{"name": "c", "image": step.value}]});
                self.patch(kind, name, "", &json!({"spec": {"template": {"spec": pod}}})).await?;
            }
            ["delete", kind, name] => {
                let (resource, key) = self.key(kind, name)?;
                let target = resource.path(&key.namespace, &key.name, "");
                let options = if step.value.is_null() { String::from("{}") } else { step.value.to_string() };
                client.raw(http::Method::DELETE, target, None, options.into()).await?;
            }
            ["evict", "Pod", name] => {
                let key = ObjectKey::new(self.ns, name);
                if let Err(error) = client.evict(&key, &DeleteOptions::default()).await {
                    self.missed.push(format!("{}: {error}", step.key));
                }
            }
            ["node", name] => self.node(name, &step.value).await?,
            ["stop", name] => nodes.stop(name).await?,
            ["resume", name] => nodes.resume(name).await?,
            ["drop", name] => nodes.remove(name).await?,
            ["metrics"] => self.world.metrics.set(self.ns, step.value.clone()),
            ["answer", name] => {
                let key = ObjectKey::cluster(name);
                let mut request = client.get(&REQUESTS, &key).await?.to_value();
                request.set(&["status", "conditions"], body(&step.value));
                client.update_subresource(&REQUESTS, "approval", &request, &WriteOptions::default()).await?;
            }
            ["CertificateSigningRequest", name] => self.request(name, &step.value).await?,
            [kind, name] => {
                let (resource, key) = self.key(kind, name)?;
                let object = scenario::object(kind, &key, self.ns, &step.value)?;
                client.create(&resource, &body(&object)).await?;
            }
            _ => bail!("no such step"),
        }
        Ok(())
    }

    /// Waits for so many objects of the kind.
    async fn count(&mut self, kind: &str, step: &Step) -> Result<()> {
        let wanted = step.value.to_string();
        let (conditions, number) = conditions_and_word(wanted.trim_matches('"'));
        let number: usize = number.parse().context("how many")?;
        let informer = self.world.informer(kind)?;
        let met = || {
            let objects = objects_of(informer, self.ns).into_iter();
            Ok(objects.filter(|value| all_hold(conditions, value)).count() == number)
        };
        if !self.wait_for(met).await? {
            self.missed.push(format!("{}: {}", step.key, step.value));
        }
        Ok(())
    }

    /// Gives an object that it waits for a name, by which later steps know it.
    async fn take(&mut self, kind: &str, step: &Step) -> Result<()> {
        let (conditions, name) = conditions_and_word(step.value.as_str().context("a name")?);
        let (informer, mut found) = (self.world.informer(kind)?, None);
        let met = || {
            found = objects_of(informer, self.ns).into_iter().find(|value| all_hold(conditions, value));
            Ok(found.is_some())
        };
        self.wait_for(met).await?;
        let metadata = &found.context("there is none")?["metadata"];
        self.taken.push((format!("{name}.uid"), text(metadata, &["uid"]).to_owned()));
        self.taken.push((name.to_owned(), text(metadata, &["name"]).to_owned()));
        Ok(())
    }

    /// Patches the object and waits until it is seen. Statuses are merged, as are custom kinds, which know no strategy.
    async fn patch(&self, kind: &str, name: &str, subresource: &str, patch: &Value) -> Result<()> {
        let (resource, key) = self.key(kind, name)?;
        let merged = !subresource.is_empty() || resource.group.contains("example.com");
        let how = if merged { PatchKind::Merge } else { PatchKind::Strategic };
        let (client, options) = (self.world.client(), WriteOptions::default());
        let changed = client.patch_subresource(&resource, &key, subresource, how, &body(patch), &options).await?;
        self.world.informer(kind)?.wait_for(changed.revision()).await;
        Ok(())
    }

    async fn node(&mut self, name: &str, value: &Value) -> Result<()> {
        let mut labels = labels(&[("scenario", self.ns)]);
        let more = value["labels"].as_object().into_iter().flatten();
        labels.extend(more.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())));
        let mut rest = value.clone();
        rest.as_object_mut().into_iter().for_each(|rest| drop(rest.remove("labels")));
        self.world.stack.nodes.add(name, &labels, &rest).await?;
        self.nodes.push(name.to_owned());
        Ok(())
    }

    async fn request(&self, name: &str, value: &Value) -> Result<()> {
        let mut value = value.clone();
        let client = match value.as_object_mut().and_then(|members| members.remove("as")) {
            Some(who) => self.world.stack.client_of(text(&who, &["user"]), text(&who, &["group"]))?,
            None => self.world.client().clone(),
        };
        let spec = json!({"spec": requests::spec(&value)?});
        let object = scenario::object("CertificateSigningRequest", &ObjectKey::cluster(name), self.ns, &spec)?;
        client.create(&REQUESTS, &body(&object)).await?;
        Ok(())
    }

    /// Events about objects in no namespace are in `default`.
    fn is_about_own(&self, event: &Object) -> bool {
        let about = || event.to_value().str_at(&["involvedObject", "name"]).map(str::to_owned).unwrap_or_default();
        let own = |name: &str| name.strip_prefix(self.ns).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        event.kind() == "Event" && event.namespace() == "default" && own(&about())
    }

    fn key(&self, kind: &str, name: &str) -> Result<(client::Resource, ObjectKey)> {
        let (_, _, resource) = scenario::kind(kind)?;
        let key = match name.split_once('/') {
            Some((ns, name)) => ObjectKey::new(ns, name),
            None if resource.namespaced => ObjectKey::new(self.ns, name),
            None => ObjectKey::cluster(name),
        };
        Ok((resource.clone(), key))
    }

    async fn until(&mut self, kind: &str, name: &str, conditions: &str) -> Result<()> {
        let (informer, (_, key)) = (self.world.informer(kind)?, self.key(kind, name)?);
        let met = || {
            let value = informer.get(&key).map(|object| object.to_value().view().unwrap_or_default());
            Ok(match (conditions, value) {
                ("gone", value) => value.is_none(),
                ("there", value) => value.is_some(),
                (_, None) => false,
                (conditions, Some(value)) => is_observed(&value) && all_hold(conditions, &value),
            })
        };
        if !self.wait_for(met).await? {
            self.missed.push(format!("until {kind} {name}: {conditions}"));
        }
        Ok(())
    }

    async fn wait_for(&self, mut met: impl FnMut() -> Result<bool>) -> Result<bool> {
        let env = &self.world.stack.env;
        let deadline = env.monotonic() + LONG;
        while !met()? {
            if env.monotonic() > deadline {
                return Ok(false);
            }
            env.sleep(PAUSE).await;
        }
        Ok(true)
    }

    /// All there is once nothing changes any more.
    async fn look(&self) -> Value {
        let env = &self.world.stack.env;
        let deadline = env.monotonic() + LONG;
        let asked = env.monotonic();
        loop {
            let changed = self.world.notes.lock().changed.get(self.ns).copied().unwrap_or(asked).max(asked);
            let since = env.monotonic() - changed;
            if since >= self.world.quiet || env.monotonic() > deadline {
                break;
            }
            env.sleep(self.world.quiet - since).await;
        }
        let mut objects = Vec::new();
        for (kind, informer) in &self.world.informers {
            for object in informer.list("") {
                if namespace(&object) == self.ns || self.is_about_own(&object) {
                    objects.push((*kind, object.to_value().view().unwrap_or_default()));
                }
            }
        }
        let hashes = self.world.notes.lock().hashes.get(self.ns).cloned().unwrap_or_default();
        let mut look = Mask { hashes: &hashes, scenario: self.scenario }.look(&objects);
        if !self.missed.is_empty() {
            look["missed"] = self.missed.clone().into();
        }
        look
    }

    /// Removes what the scenario made, so that others have the machine for themselves.
    async fn clear(&self) {
        for node in &self.nodes {
            let _ = self.world.stack.nodes.remove(node).await;
        }
        let key = ObjectKey::cluster(self.ns);
        let _ = self.world.client().delete(&resources::NAMESPACES, &key, &DeleteOptions::default()).await;
    }
}

fn body(value: &Value) -> Any {
    Any::from_serialize(value).unwrap_or_default()
}

/// Whether its status is about its spec.
fn is_observed(object: &Value) -> bool {
    let observed = object["status"]["observedGeneration"].as_i64();
    observed.is_none_or(|observed| Some(observed) >= object["metadata"]["generation"].as_i64())
}

/// `path=value, ... WORD`, where there need be no conditions.
fn conditions_and_word(text: &str) -> (&str, &str) {
    text.rsplit_once(' ').unwrap_or(("", text))
}

/// Whether each of `path=value, ...` holds.
fn all_hold(conditions: &str, object: &Value) -> bool {
    conditions.split(',').map(str::trim).filter(|condition| !condition.is_empty()).all(|condition| {
        let (path, wanted) = condition.split_once('=').unwrap_or((condition, ""));
        if let Some(key) = path.strip_prefix("taint ") {
            let mut taints = object["spec"]["taints"].as_array().into_iter().flatten();
            return taints.any(|taint| taint["key"] == key && taint["effect"] == wanted);
        }
        let found = match path.split('.').collect::<Vec<_>>()[..] {
            ["condition", kind] => condition_of(object, kind)["status"].clone(),
            ["condition", kind, member] => condition_of(object, kind)[member].clone(),
            ref path => path.iter().fold(object, |value, key| &value[*key]).clone(),
        };
        match found {
            Value::String(text) => text == wanted,
            Value::Null => wanted.is_empty() || wanted == "0",
            other => *wanted == *other.to_string(),
        }
    })
}

fn condition_of<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}
