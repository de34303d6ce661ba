//! From a connection and its headers to a user. Upstream: apiserver pkg/authentication, pkg/serviceaccount.

mod certificates;
mod secrets;

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Status, parse_time};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use jiff::{SignedDuration, Timestamp};
use pki::{BoundObject, Claims, ClientVerifier, ClusterPki};
use rustls::pki_types::CertificateDer;
use tracing::debug;

use crate::UserInfo;
use crate::aggregation;
use crate::strategy::Objects;

use certificates::Certificates;
pub(crate) use secrets::{LAST_USED, Uses, day};

const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// What is being deleted since less than this may still authenticate, as clocks differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Front proxies, certificates, tokens of service accounts and of nodes that join; whoever brings none is anonymous.
pub(crate) struct Authenticator {
    pki: Arc<ClusterPki>,
    clients: Certificates,
    /// Checks who may speak for others.
    front_proxies: ClientVerifier,
    issuer: String,
    audiences: Vec<String>,
    uses: Uses,
}

impl Authenticator {
    /// `issuer` is what service-account tokens must name, and the audience that this server is.
    pub(crate) fn new(pki: Arc<ClusterPki>, issuer: &str) -> Result<Authenticator, pki::PkiError> {
        let clients = Certificates::new(pki.client_verifier()?);
        let front_proxies = ClientVerifier::new(pki.front_proxy_ca().certificate_pem())?;
        Ok(Authenticator {
            pki,
            clients,
            front_proxies,
            issuer: issuer.to_owned(),
            audiences: vec![issuer.to_owned()],
            uses: Uses::default(),
        })
    }

    /// Which tokens out of Secrets are used.
    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// The audiences that tokens for this server are made out to.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The user of a request: `certificates` is the chain whose key the client owns. 401 for credentials that are shown and
    /// not valid.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        certificates: &[CertificateDer<'_>],
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<UserInfo, Status> {
        let mut failed = false;
        if !certificates.is_empty() {
            if let Some(user) = aggregation::identified(headers)
                && let Ok(proxy) = self.front_proxies.identify(certificates, now)
                && proxy.user == aggregation::FRONT_PROXY
            {
                return Ok(with_authenticated(user));
            }
            match self.clients.identify(certificates, now) {
                Ok(user) => return Ok(user),
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "client certificate refused");
                    failed = true;
                }
            }
        }
        if let Some(token) = bearer_token(headers) {
            match self.token(&token, &self.audiences, objects, now) {
                Ok((user, _)) => return Ok(user),
                Err(error) => {
                    debug!(error, "bearer token refused");
                    failed = true;
                }
            }
        }
        if failed { Err(Status::unauthorized()) } else { Ok(UserInfo::anonymous()) }
    }

    /// The user of a token that is for one of `audiences`, and which of those; or why there is none.
    pub(crate) fn token(
        &self,
        token: &str,
        audiences: &[String],
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<(UserInfo, Vec<String>), String> {
        let told = |why: &str| format!("[invalid bearer token, {why}]");
        let bootstrap = secrets::bootstrap_parts(token);
        if let Some((id, secret)) = bootstrap {
            let user = secrets::bootstrap(id, secret, objects, now).ok_or("invalid bearer token")?;
            return Ok((with_authenticated(user), audiences.to_vec()));
        }
        if let Some(claims) = self.pki.token_key().verify_legacy(token) {
            let matching: Vec<String> = audiences.iter().filter(|own| self.audiences.contains(own)).cloned().collect();
            if matching.is_empty() {
                return Err(told(&pki::TokenError::Audience.to_string()));
            }
            let user = secrets::legacy(&claims, token, objects, &self.uses, now).map_err(|why| told(&why))?;
            return Ok((with_authenticated(user), matching));
        }
        let verified = self.pki.token_key().verify(token, &self.issuer, audiences, now);
        let (claims, audiences) = verified.map_err(|error| match error {
            // Of what is no token at all there is nothing more to say.
            pki::TokenError::Malformed => "invalid bearer token".to_owned(),
            other => told(&other.to_string()),
        })?;
        let user = service_account(&claims, objects, now).map_err(|why| told(&why))?;
        Ok((with_authenticated(user), audiences))
    }
}

/// The token of an `Authorization` header, or of the subprotocol that browsers, which can set no headers, use instead.
fn bearer_token(headers: &HeaderMap) -> Option<String> {
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    if let Some(text) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        let (scheme, token) = text.trim().split_once(' ')?;
        let token = token.trim_start();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let token = protocols.flat_map(|list| list.split(',')).find_map(|protocol| protocol.trim().strip_prefix(PREFIX))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

/// The account a token speaks for, if everything it is bound to still exists.
fn service_account(claims: &Claims, objects: &dyn Objects, now: Timestamp) -> Result<UserInfo, String> {
    let bound = &claims.kubernetes;
    let namespace = bound.namespace.as_str();
    let account = &bound.serviceaccount;
    let invalidated = || "service account token has been invalidated".to_owned();
    let gone = |object: &Object| {
        let deleted = object.deletion_timestamp().and_then(parse_time);
        deleted.is_some_and(|at| at < now.saturating_sub(LEEWAY).unwrap_or(Timestamp::MIN))
    };
    let exists = |resource: &str, namespace: &str, reference: &BoundObject, what: &str, claim: &str| {
        let object = objects.get("", resource, &ObjectKey::new(namespace, &reference.name)).ok_or_else(invalidated)?;
        if object.uid() != reference.uid {
            return Err(format!("{what} UID ({}) does not match {claim} ({})", object.uid(), reference.uid));
        }
        if gone(&object) { Err(invalidated()) } else { Ok(()) }
    };

    let found = objects.get("", "serviceaccounts", &ObjectKey::new(namespace, &account.name));
    let found = found.ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
    if found.uid() != account.uid {
        return Err(format!("service account UID ({}) does not match claim ({})", found.uid(), account.uid));
    }
    if gone(&found) {
        return Err(format!("service account {namespace}/{} has been deleted", account.name));
    }
    if let Some(secret) = &bound.secret {
        exists("secrets", namespace, secret, "secret", "service account secret ref claim")?;
    }
    let mut user = UserInfo {
        name: format!("system:serviceaccount:{namespace}:{}", account.name),
        uid: account.uid.clone(),
        groups: service_account_groups(namespace),
        ..UserInfo::default()
    };
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &bound.pod {
        exists("pods", namespace, pod, "pod", "service account pod ref claim")?;
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        if bound.pod.is_none() {
            exists("nodes", "", node, "node", "service account node ref claim")?;
        }
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    Ok(user)
}

/// The groups of every service account of `namespace`.
pub(super) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

fn with_authenticated(mut user: UserInfo) -> UserInfo {
    if !user.is_in("system:authenticated") && !user.is_in("system:unauthenticated") {
        user.groups.push("system:authenticated".to_owned());
    }
    user
}

#[cfg(test)]
mod tests;
