//! Service-account tokens of pods: asked for when first needed, and again long before they end.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::{ObjectKey, Value};
use client::{Answer, Client, resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::volumes::{self, TokenRequest};

/// A token is replaced after this long at the latest (upstream: `maxTTL`).
const OLDEST: Duration = Duration::from_secs(24 * 3600);

/// The tokens of all pods of this node.
pub(crate) struct Tokens {
    client: Client,
    known: Mutex<BTreeMap<(String, TokenRequest), Known>>,
}

#[derive(Clone)]
struct Known {
    token: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of one pod, by volume and path, and when the first of them is due for renewal.
pub(crate) struct OfPod {
    pub(crate) tokens: BTreeMap<(String, String), String>,
    pub(crate) refresh_at: Option<Timestamp>,
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Tokens {
        Tokens { client, known: Mutex::default() }
    }

    /// Every token that the pod's volumes want.
    pub(crate) async fn of(&self, pod: &Pod) -> Result<OfPod, client::Error> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut found = OfPod { tokens: BTreeMap::new(), refresh_at: None };
        for request in volumes::references(pod).tokens {
            let known = self.token(pod, &uid, &request).await?;
            found.refresh_at = Some(found.refresh_at.map_or(known.refresh_at, |at| at.min(known.refresh_at)));
            found.tokens.insert((request.volume, request.path), known.token);
        }
        Ok(found)
    }

    async fn token(&self, pod: &Pod, uid: &str, request: &TokenRequest) -> Result<Known, client::Error> {
        let now = self.client.env().now();
        let key = (uid.to_owned(), request.clone());
        let kept = self.known.lock().get(&key).cloned();
        if let Some(kept) = &kept
            && kept.refresh_at > now
        {
            return Ok(kept.clone());
        }
        match self.ask(pod, uid, request, now).await {
            Ok(fresh) => {
                self.known.lock().insert(key, fresh.clone());
                Ok(fresh)
            }
            // The old one is still good: try again in a minute.
            Err(error) => match kept.filter(|kept| kept.expires_at > now) {
                Some(kept) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a token was not renewed");
                    Ok(Known { refresh_at: now.saturating_add(Duration::from_secs(60)).unwrap_or(now), ..kept })
                }
                None => Err(error),
            },
        }
    }

    async fn ask(&self, pod: &Pod, uid: &str, request: &TokenRequest, now: Timestamp) -> Result<Known, client::Error> {
        let metadata = &pod.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        let account = account.filter(|account| !account.is_empty()).unwrap_or("default");
        let mut body = Value::object();
        body.set(&["apiVersion"], "authentication.k8s.io/v1");
        body.set(&["kind"], "TokenRequest");
        body.set(&["metadata", "name"], account);
        body.set(&["metadata", "namespace"], namespace);
        if request.audience.is_empty() {
            body.set(&["spec", "audiences"], Value::Array(Vec::new()));
        } else {
            body.set(&["spec", "audiences"], Value::Array(vec![Value::from(&*request.audience)]));
        }
        body.set(&["spec", "expirationSeconds"], request.expiration_seconds);
        body.set(&["spec", "boundObjectRef", "apiVersion"], "v1");
        body.set(&["spec", "boundObjectRef", "kind"], "Pod");
        body.set(&["spec", "boundObjectRef", "name"], metadata.name.as_deref().unwrap_or_default());
        body.set(&["spec", "boundObjectRef", "uid"], uid);
        let key = ObjectKey::new(namespace, account);
        let answer = self.client.create_subresource(&resources::SERVICE_ACCOUNTS, &key, "token", &body).await?;
        let answer = match answer {
            Answer::Object(object) => object.to_value(),
            Answer::Status(status) => return Err(status.into()),
        };
        let token = answer.str_at(&["status", "token"]).unwrap_or_default().to_owned();
        let told = answer.str_at(&["status", "expirationTimestamp"]).and_then(apimachinery::parse_time);
        let asked = Duration::from_secs(u64::try_from(request.expiration_seconds).unwrap_or(3600));
        let expires_at = told.unwrap_or_else(|| now.saturating_add(asked).unwrap_or(now));
        let life = Duration::try_from(expires_at.duration_since(now)).unwrap_or_default();
        let refresh_at = now.saturating_add(life.mul_f64(0.8).min(OLDEST)).unwrap_or(now);
        Ok(Known { token, refresh_at, expires_at })
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.known.lock().retain(|(of, _), _| of != uid);
    }
}
