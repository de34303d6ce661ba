//! The gate at work in a server: fed from the registry's caches, asked by every request.

mod feed;

use std::sync::Arc;

use apimachinery::{Status, Value};
use env::Env;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use pki::{ClusterPki, PkiError};

use super::admission::Chain;
use super::{Attributes, Authenticator, Gate, Reviewer, TokenIssuer, impersonate, review};
use crate::UserInfo;
use crate::registry::{Admission, Registry};
use crate::request::RequestInfo;
use crate::server::{self, Credentials};
use feed::Feed;

/// Implements what the server asks of its gate.
pub(crate) struct Guard {
    env: Env,
    registry: Arc<Registry>,
    gate: Arc<Gate>,
    feed: Feed,
    authenticator: Authenticator,
    tokens: TokenIssuer,
    admission: Chain,
}

impl Guard {
    /// `registry` has been loaded. `issuer` is what service-account tokens name.
    pub(crate) fn new(pki: Arc<ClusterPki>, issuer: &str, registry: Arc<Registry>) -> Result<Guard, PkiError> {
        let gate = Arc::new(Gate::default());
        Ok(Guard {
            env: registry.env.clone(),
            feed: Feed::new(registry.clone(), gate.clone()),
            authenticator: Authenticator::new(pki.clone(), issuer)?,
            tokens: TokenIssuer::new(pki, issuer),
            admission: Chain::new(gate.clone()),
            gate,
            registry,
        })
    }

    fn identified(&self, credentials: &Credentials, headers: &HeaderMap) -> Result<UserInfo, Status> {
        let user = match credentials {
            Credentials::Local(user) => (**user).clone(),
            Credentials::Wire(peer) => {
                self.authenticator.authenticate(headers, &peer.certificates, &*self.registry, self.env.now())?
            }
        };
        let other = impersonate(&self.gate, &user, headers)?;
        Ok(other.unwrap_or(user))
    }

    fn issued(&self, user: &UserInfo, namespace: &str, name: &str, mut request: Value) -> Result<Value, Status> {
        let account = (namespace, name);
        self.admission.admit_token(&*self.registry, &self.env, user, account, &mut request)?;
        self.tokens.issue(&*self.registry, &self.env, namespace, name, request)
    }
}

impl server::Gate for Guard {
    fn identify<'a>(
        &'a self,
        credentials: &'a Credentials,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<UserInfo, Status>> {
        async move {
            self.feed.catch_up();
            self.identified(credentials, headers)
        }
        .boxed()
    }

    fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        self.feed.catch_up();
        self.gate.check(&Attributes {
            user,
            verb: &info.verb,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            resource_request: info.is_resource,
            path: &info.path,
            field_selector: Some(&info.field_selector),
        })
    }

    fn review<'a>(
        &'a self,
        user: &'a UserInfo,
        kind: &'a str,
        namespace: &'a str,
        request: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        async move {
            self.feed.catch_up();
            let reviewer = Reviewer {
                gate: &self.gate,
                authenticator: &self.authenticator,
                objects: &*self.registry,
                user,
                now: self.env.now(),
            };
            review(&reviewer, kind, namespace, request)
        }
        .boxed()
    }

    fn token<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
        name: &'a str,
        request: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        async move {
            self.feed.catch_up();
            self.issued(user, namespace, name, request)
        }
        .boxed()
    }

    fn admission(&self) -> &dyn Admission {
        &self.admission
    }
}

#[cfg(test)]
mod tests;
