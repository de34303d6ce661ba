//! Joins the server to its gate: authentication, impersonation, authorisation, reviews, tokens, admission.

use std::sync::Arc;

use apimachinery::{FieldSelector, Status, Value};
use env::Env;
use http::HeaderMap;

use crate::config::Config;
use crate::gate::{Attributes, Authenticator, Gate, Reviewer, TokenIssuer, Uses, admission, impersonate, review};
use crate::identity::UserInfo;
use crate::registry::Registry;
use crate::request::{Query, RequestInfo};
use crate::server::Credentials;

/// Who asks, and what they may do.
pub(crate) struct Access {
    env: Env,
    registry: Arc<Registry>,
    authenticator: Authenticator,
    gate: Arc<Gate>,
    tokens: TokenIssuer,
    admission: admission::Chain,
}

impl Access {
    /// Must be made before the registry is loaded, so that the gate sees every object.
    pub(crate) fn new(config: &Config, registry: Arc<Registry>) -> Result<Access, pki::PkiError> {
        let gate = Arc::new(Gate::default());
        let observing = gate.clone();
        registry.observe(Gate::OBSERVED, move |kind, key, object| {
            observing.observe(kind.group, kind.resource, key, object)
        });
        let issuer = &config.settings.issuer;
        Ok(Access {
            env: config.env.clone(),
            registry,
            authenticator: Authenticator::new(config.pki.clone(), issuer)?,
            admission: admission::Chain::new(gate.clone()),
            gate,
            tokens: TokenIssuer::new(config.pki.clone(), issuer),
        })
    }

    /// Which tokens out of Secrets are used.
    pub(crate) fn uses(&self) -> &Uses {
        self.authenticator.uses()
    }

    /// Who sends the request, after impersonation.
    pub(crate) fn identify(&self, credentials: &Credentials, headers: &HeaderMap) -> Result<UserInfo, Status> {
        let user = match credentials {
            Credentials::Local(user) => UserInfo::clone(user),
            Credentials::Wire(peer) => {
                self.authenticator.authenticate(headers, &peer.certificates, &*self.registry, self.env.now())?
            }
        };
        Ok(impersonate(&self.gate, &user, headers)?.unwrap_or(user))
    }

    /// Refuses with a 403.
    pub(crate) fn authorize(&self, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<(), Status> {
        if !info.is_resource {
            return self.gate.check(&Attributes::path(user, &info.verb, &info.path));
        }
        let selector = match info.verb.as_str() {
            "list" | "watch" | "deletecollection" => FieldSelector::parse(query.get("fieldSelector")).ok(),
            _ => None,
        };
        let attributes = Attributes {
            version: &info.version,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: selector.as_ref(),
            ..Attributes::resource(user, &info.verb, &info.group, &info.resource)
        };
        self.gate.check(&attributes)?;
        // Whoever may only read must not open a shell by a WebSocket, which is a GET.
        let opens = matches!(&*info.subresource, "exec" | "attach" | "portforward") && info.resource == "pods";
        if opens && info.verb == "get" {
            self.gate.check(&Attributes { verb: "create", ..attributes })?;
        }
        Ok(())
    }

    /// Answers a review: the request with its `status`.
    pub(crate) fn review(&self, user: &UserInfo, kind: &str, namespace: &str, request: Value) -> Result<Value, Status> {
        let (gate, authenticator, objects) = (&*self.gate, &self.authenticator, &*self.registry);
        review(&Reviewer { gate, authenticator, objects, user, now: self.env.now() }, kind, namespace, request)
    }

    /// A token for a service account, as `TokenRequest` wants it.
    pub(crate) fn token(
        &self,
        user: &UserInfo,
        namespace: &str,
        name: &str,
        mut request: Value,
    ) -> Result<Value, Status> {
        let objects = &*self.registry;
        self.admission.admit_token(objects, &self.env, user, (namespace, name), &mut request)?;
        self.tokens.issue(objects, &self.env, namespace, name, request)
    }

    pub(crate) fn admission(&self) -> &admission::Chain {
        &self.admission
    }
}
