//! `serviceaccounts/token`: tokens for service accounts, bound to what they are for.
//! Upstream: pkg/registry/core/serviceaccount/storage token.go, pkg/serviceaccount/claims.go.

use std::sync::Arc;

use apimachinery::{FieldError, GroupKind, GroupResource, Object, ObjectKey, Status, Value, format_time};
use env::Env;
use jiff::SignedDuration;
use pki::{BoundObject, Claims, ClusterPki, KubernetesClaims};

use crate::strategy::Objects;

/// What the kubelet asks for by default: such a token lives on for a year, as old clients don't read it again.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Makes service-account tokens.
pub(crate) struct TokenIssuer {
    pki: Arc<ClusterPki>,
    issuer: String,
}

impl TokenIssuer {
    pub(crate) fn new(pki: Arc<ClusterPki>, issuer: &str) -> TokenIssuer {
        TokenIssuer { pki, issuer: issuer.to_owned() }
    }

    /// Answers a TokenRequest for the account `namespace`/`name`.
    pub(crate) fn issue(
        &self,
        objects: &dyn Objects,
        env: &Env,
        namespace: &str,
        name: &str,
        mut request: Value,
    ) -> Result<Value, Status> {
        let find = |resource: &str, namespace: &str, name: &str| {
            let found = objects.get("", resource, &ObjectKey::new(namespace, name));
            found.ok_or_else(|| Status::not_found(&GroupResource::new("", resource), name))
        };
        let metadata = |key: &str| request.str_at(&["metadata", key]).unwrap_or_default();
        let kind = GroupKind { group: "authentication.k8s.io".into(), kind: "TokenRequest".into() };
        for (key, own, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
            let given = metadata(key);
            if !given.is_empty() && given != own {
                let detail = format!("must match the service account {what} if specified");
                return Err(Status::invalid(
                    &kind,
                    name,
                    &[FieldError::invalid(format!("metadata.{key}"), given, detail)],
                ));
            }
        }
        let account = find("serviceaccounts", namespace, name)?;
        let requested = metadata("uid");
        let resource = GroupResource::new("authentication.k8s.io", "TokenRequest");
        if !requested.is_empty() && requested != account.uid() {
            let why = format!(
                "the UID in the token request ({requested}) does not match the UID of the service account ({})",
                account.uid()
            );
            return Err(Status::conflict(&resource, name, &why));
        }
        if request.items_at(&["spec", "audiences"]).is_empty() {
            request.set(&["spec", "audiences"], vec![self.issuer.as_str()]);
        }
        let seconds = request.i64_at(&["spec", "expirationSeconds"]).unwrap_or(3600);
        let detail = match seconds {
            ..600 => "may not specify a duration less than 10 minutes",
            4_294_967_297.. => "may not specify a duration larger than 2^32 seconds",
            _ => "",
        };
        if !detail.is_empty() {
            let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
            return Err(Status::invalid(&kind, "", &[error]));
        }

        let mut bound = KubernetesClaims {
            namespace: namespace.to_owned(),
            serviceaccount: reference(&account),
            ..KubernetesClaims::default()
        };
        if let Some(wanted) = request.at(&["spec", "boundObjectRef"]).filter(|wanted| !wanted.is_null()) {
            bind(&mut bound, wanted, name, &find)?;
        }
        let audiences: Vec<String> =
            request.items_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let now = env.now();
        let mut lifetime = seconds;
        let for_us = audiences.iter().all(|audience| *audience == self.issuer);
        if bound.pod.is_some() && seconds == WARN_ONLY_SECONDS && for_us {
            bound.warnafter = Some(now.as_second() + seconds);
            lifetime = EXTENDED_SECONDS;
        }
        let claims = Claims {
            aud: audiences,
            exp: now.as_second().saturating_add(lifetime),
            iat: now.as_second(),
            iss: self.issuer.clone(),
            jti: env.uuid(),
            kubernetes: bound,
            nbf: now.as_second(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        };
        let token = self
            .pki
            .token_key()
            .sign(&claims)
            .map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
        let expires = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX);
        request.set(&["apiVersion"], "authentication.k8s.io/v1");
        request.set(&["kind"], "TokenRequest");
        request.set(&["metadata", "name"], name);
        request.set(&["metadata", "namespace"], namespace);
        request.set(&["metadata", "uid"], account.uid());
        request.set(&["metadata", "creationTimestamp"], format_time(now));
        request.set(&["spec", "expirationSeconds"], seconds);
        request.set(&["status"], Value::object());
        request.set(&["status", "token"], token);
        request.set(&["status", "expirationTimestamp"], format_time(expires));
        Ok(request)
    }
}

/// Looks up resource, namespace and name in the core group.
type Find<'a> = dyn Fn(&str, &str, &str) -> Result<Arc<Object>, Status> + 'a;

/// Enters the object that `wanted` names into the claims, if the account's tokens may be bound to it.
fn bind(bound: &mut KubernetesClaims, wanted: &Value, account: &str, find: &Find<'_>) -> Result<(), Status> {
    let text = |key: &str| wanted.str_at(&[key]).unwrap_or_default();
    let (name, kind) = (text("name"), text("kind"));
    let core = !text("apiVersion").contains('/');
    let object = match kind {
        "Pod" if core => {
            let pod = find("pods", &bound.namespace, name)?;
            let value = pod.to_value();
            let spec = |key: &str| value.str_at(&["spec", key]).unwrap_or_default();
            if spec("serviceAccountName") != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let node = spec("nodeName");
            if !node.is_empty() {
                // A node that is gone is named all the same.
                let uid = find("nodes", "", node).map(|node| node.uid().to_owned()).unwrap_or_default();
                bound.node = Some(BoundObject { name: node.to_owned(), uid });
            }
            bound.pod = Some(reference(&pod));
            pod
        }
        "Node" if core => {
            let node = find("nodes", "", name)?;
            bound.node = Some(reference(&node));
            node
        }
        "Secret" if core => {
            let secret = find("secrets", &bound.namespace, name)?;
            bound.secret = Some(reference(&secret));
            secret
        }
        _ => {
            let version = text("apiVersion");
            let shown = if core { format!("/{version}") } else { version.to_owned() };
            return Err(Status::bad_request(format!("cannot bind token to object of type {shown}, Kind={kind}")));
        }
    };
    let uid = text("uid");
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted \
             and then recreated"
        );
        return Err(Status::conflict(&GroupResource::new("", kind), name, &why));
    }
    Ok(())
}

fn reference(object: &Object) -> BoundObject {
    BoundObject { name: object.name().to_owned(), uid: object.uid().to_owned() }
}
