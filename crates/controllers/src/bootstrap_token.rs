//! Bootstrap tokens: Secrets by which new nodes join. Those that have expired go, and `cluster-info`, which says where the cluster is, is
//! signed with the others. Upstream: pkg/controller/bootstrap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use client::{
    Controller, DeleteOptions, Informer, ReconcileContext, ReconcileError, Requeue, Selection, Watch, resources,
};
use jiff::Timestamp;

use crate::Setup;
use crate::meta::between;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
/// A key of `cluster-info` is this and the id of the token it is signed with.
const SIGNATURE: &str = "jws-kubeconfig-";

fn tokens() -> Selection {
    Selection::all().namespace("kube-system").fields(format!("type={TYPE}"))
}

/// A member of the Secret's data; what is no text is not there.
fn data(secret: &Value, key: &str) -> String {
    let text = secret.str_at(&["data", key]).and_then(|text| BASE64_STANDARD.decode(text).ok());
    text.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// How long the token is good for; `None`: for ever. What cannot be read has expired.
fn left(secret: &Value, now: Timestamp) -> Option<Duration> {
    let text = data(secret, "expiration");
    if text.is_empty() {
        return None;
    }
    let end: Option<Timestamp> = text.parse().ok();
    Some(end.map(|end| between(now, end)).unwrap_or_default())
}

/// Deletes tokens when they expire.
pub(crate) struct TokenCleaner {
    secrets: Informer,
}

impl TokenCleaner {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        TokenCleaner { secrets: setup.informers.selected(&resources::SECRETS, tokens()) }
    }
}

impl Controller for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.secrets.clone())]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Requeue::No) };
        match left(&secret.to_value(), ctx.env().now()) {
            None => Ok(Requeue::No),
            Some(left) if !left.is_zero() => Ok(Requeue::After(left)),
            Some(_) => match ctx.client().delete(&resources::SECRETS, key, &DeleteOptions::uid(secret.uid())).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
                _ => Ok(Requeue::No),
            },
        }
    }
}

/// Keeps a signature by each token in `cluster-info`.
pub(crate) struct Signer {
    secrets: Informer,
    maps: Informer,
}

impl Signer {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let info = Selection::all().namespace("kube-public").fields("metadata.name=cluster-info");
        Signer {
            secrets: setup.informers.selected(&resources::SECRETS, tokens()),
            maps: setup.informers.selected(&resources::CONFIG_MAPS, info),
        }
    }
}

/// Tokens that sign, by id, and when the first of them no longer does.
fn signing(secrets: &[Arc<Object>], now: Timestamp) -> (BTreeMap<String, String>, Option<Duration>) {
    let mut tokens = BTreeMap::new();
    let mut next: Option<Duration> = None;
    for secret in secrets {
        let value = secret.to_value();
        let (id, password) = (data(&value, "token-id"), data(&value, "token-secret"));
        let named = secret.name().strip_prefix(PREFIX) == Some(&id) && !id.is_empty() && !password.is_empty();
        let left = left(&value, now);
        if !named || left.is_some_and(|left| left.is_zero()) || data(&value, "usage-bootstrap-signing") != "true" {
            continue;
        }
        next = [next, left].into_iter().flatten().min();
        tokens.insert(id, password);
    }
    (tokens, next)
}

impl Controller for Signer {
    fn name(&self) -> &'static str {
        "bootstrap-signer-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let all = |_: &client::Event| vec![ObjectKey::new("kube-public", "cluster-info")];
        vec![Watch::new(self.secrets.clone(), all), Watch::new(self.maps.clone(), all)]
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, ctx: &ReconcileContext, _key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(map) = self.maps.get(&ObjectKey::new("kube-public", "cluster-info")) else { return Ok(Requeue::No) };
        let mut value = map.to_value();
        let Some(kubeconfig) = value.str_at(&["data", "kubeconfig"]).map(str::to_owned) else { return Ok(Requeue::No) };
        let now = ctx.env().now();
        let (tokens, next) = signing(&self.secrets.list("kube-system"), now);
        let present = value.at(&["data"]).and_then(Value::as_object);
        let stale = present.into_iter().flat_map(|data| data.iter().map(|(key, _)| key.to_owned()));
        let stale: Vec<String> =
            stale.filter(|key| key.strip_prefix(SIGNATURE).is_some_and(|id| !tokens.contains_key(id))).collect();
        for key in stale {
            value.remove(&["data", &key]);
        }
        for (id, secret) in &tokens {
            value.set(&["data", &format!("{SIGNATURE}{id}")], pki::sign_detached(&kubeconfig, id, secret));
        }
        if value != map.to_value() {
            ctx.client().update(&resources::CONFIG_MAPS, &value).await?;
        }
        Ok(next.map_or(Requeue::No, Requeue::After))
    }
}
