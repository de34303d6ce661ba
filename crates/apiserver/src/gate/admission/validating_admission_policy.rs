//! Policies that users write in CEL. Upstream: apiserver pkg/admission/plugin/policy/validating.
//!
//! A policy and its bindings are read and compiled once for each change of them; without bindings nothing is done at all.

mod authorizer;
mod decide;
mod matching;
mod params;
pub(crate) mod policy;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use apimachinery::{Cause, Object, ObjectKey, Reason, Status, Value};
use cel::{Activation, Opaque};
use parking_lot::Mutex;

use super::Write;
use crate::registry::{Call, Operation, Seen};
use crate::strategy::Objects;
use decide::{Budgets, Decision};
use matching::{Matched, Request};
use policy::Policy;

const GROUP: &str = "admissionregistration.k8s.io";
const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";

/// Compiled policies and read bindings, by name, as of a revision.
#[derive(Default)]
pub(super) struct ValidatingAdmissionPolicy {
    policies: Known<Policy>,
    bindings: Known<Value>,
}

/// What was made of objects, until they change.
struct Known<T>(Mutex<HashMap<String, (u64, Arc<T>)>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known(Mutex::default())
    }
}

impl<T> Known<T> {
    fn of(&self, object: &Object, make: impl FnOnce(Value) -> T) -> Arc<T> {
        let mut known = self.0.lock();
        match known.get(object.name()) {
            Some((revision, made)) if *revision == object.revision() => made.clone(),
            _ => {
                let made = Arc::new(make(object.to_value()));
                known.insert(object.name().to_owned(), (object.revision(), made.clone()));
                made
            }
        }
    }

    /// Forgets what is there no more.
    fn keep(&self, objects: &[Arc<Object>]) {
        let mut known = self.0.lock();
        if known.len() > objects.len() {
            known.retain(|name, _| objects.iter().any(|object| object.name() == name));
        }
    }
}

impl ValidatingAdmissionPolicy {
    /// Refuses what a bound policy denies; adds its warnings to the call.
    pub(super) fn validate(
        &self,
        call: &Call<'_>,
        write: &Write<'_>,
        new: Option<Seen<'_>>,
        old: Option<Seen<'_>>,
    ) -> Result<(), Status> {
        if write.group == GROUP {
            return Ok(());
        }
        let bindings = write.objects.list(GROUP, BINDINGS, "");
        if bindings.is_empty() {
            return Ok(());
        }
        let policies = write.objects.list(GROUP, POLICIES, "");
        self.policies.keep(&policies);
        self.bindings.keep(&bindings);
        let bindings: Vec<Arc<Value>> =
            bindings.iter().map(|binding| self.bindings.of(binding, |binding| binding)).collect();
        // Expressions see whole objects.
        let (new, old) = (new.map(Seen::whole), old.map(Seen::whole));
        let (new, old) = (new.as_ref(), old.as_ref());
        let request = Request::new(call, write, new, old);
        let mut denied = Vec::new();
        for object in &policies {
            let own: Vec<&Value> = bindings
                .iter()
                .filter(|binding| binding.str_at(&["spec", "policyName"]) == Some(object.name()))
                .map(Arc::as_ref)
                .collect();
            if !own.is_empty() {
                let policy = self.policies.of(object, Policy::compile);
                self.apply(&policy, &own, &request, &mut denied);
            }
        }
        match denied.into_iter().next() {
            Some(first) => Err(refusal(write, new.or(old), first)),
            None => Ok(()),
        }
    }

    /// Whether any policy applies to anything.
    pub(super) fn are_bound(&self, objects: &dyn Objects) -> bool {
        !objects.list(GROUP, BINDINGS, "").is_empty()
    }

    fn apply(&self, policy: &Policy, bindings: &[&Value], request: &Request<'_>, denied: &mut Vec<Denied>) {
        let broken = |binding: Option<&Value>, why: String| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            Denied {
                policy: policy.name.clone(),
                binding: binding.map(name_of),
                message: format!("failed to configure {what}: {why}"),
                reason: String::new(),
            }
        };
        let matched = match matching::matches(request, &policy.constraints) {
            Ok(None) => return,
            Ok(Some(matched)) => matched,
            Err(_) if policy.ignores_failures => return,
            Err(why) => return denied.push(broken(None, why)),
        };
        for &binding in bindings {
            let applies = match binding.at(&["spec", "matchResources"]) {
                Some(resources) => matching::matches(request, resources).map(|matched| matched.is_some()),
                None => Ok(true),
            };
            let params = match applies {
                Ok(false) => continue,
                Ok(true) => params::collect(request, policy, binding),
                Err(why) => Err(why),
            };
            match params {
                Err(_) if policy.ignores_failures => {}
                Err(why) => denied.push(broken(Some(binding), why)),
                Ok(params) => {
                    for params in &params {
                        self.decide(policy, binding, request, &matched, params.as_ref(), denied);
                    }
                }
            }
        }
    }

    fn decide(
        &self,
        policy: &Policy,
        binding: &Value,
        request: &Request<'_>,
        matched: &Matched,
        params: Option<&Value>,
        denied: &mut Vec<Denied>,
    ) {
        let null = Value::Null;
        let budgets = Budgets::default();
        let admission_request = request.describe(matched);
        let namespace = request.namespace_object();
        let authorizer: Rc<dyn cel::Authorizer + '_> =
            Rc::new(authorizer::GateAuthorizer { gate: request.write.gate, user: request.write.user });
        let mut plain = Activation::new()
            .with("object", cel::Value::json(matched.object(request).unwrap_or(&null), None))
            .with("oldObject", cel::Value::json(matched.old_object(request).unwrap_or(&null), None))
            .with("request", cel::Value::json(&admission_request, None))
            .with("namespaceObject", cel::Value::json(namespace.as_ref().unwrap_or(&null), None));
        if policy.has_params {
            plain = plain.with("params", cel::Value::json(params.unwrap_or(&null), None));
        }
        let about = authorizer::about(request);
        let full = plain
            .clone()
            .with("authorizer", cel::Value::Opaque(Opaque::authorizer(authorizer.clone())))
            .with("authorizer.requestResource", cel::Value::Opaque(Opaque::resource_check(authorizer, about)));
        let decisions = decide::decide(policy, &full, &budgets);
        let actions = binding.items_at(&["spec", "validationActions"]);
        for Decision { message, reason } in decisions {
            for action in actions.iter().filter_map(Value::as_str) {
                match action {
                    "Deny" => denied.push(Denied {
                        policy: policy.name.clone(),
                        binding: Some(name_of(binding)),
                        message: message.clone(),
                        reason: reason.clone(),
                    }),
                    "Warn" => request.call.warnings.lock().push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                        policy.name,
                        name_of(binding)
                    )),
                    _ => {}
                }
            }
        }
    }
}

/// One denial.
struct Denied {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

fn name_of(object: &Value) -> String {
    object.str_at(&["metadata", "name"]).unwrap_or_default().to_owned()
}

/// The answer, of which clients match the message.
fn refusal(write: &Write<'_>, object: Option<&Value>, denied: Denied) -> Status {
    let with = denied.binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {}", denied.policy, denied.message);
    let mut status = write.forbidden(object, &message);
    (status.reason, status.code) = match denied.reason.as_str() {
        "Forbidden" => (Reason::Forbidden, 403),
        "Unauthorized" => (Reason::Unauthorized, 401),
        "RequestEntityTooLarge" => (Reason::RequestEntityTooLarge, 413),
        _ => (Reason::Invalid, 422),
    };
    status.details.get_or_insert_default().causes.push(Cause { message, ..Cause::default() });
    status
}

/// A namespace from the cache.
fn namespace(objects: &dyn Objects, name: &str) -> Option<Value> {
    objects.get("", "namespaces", &ObjectKey::cluster(name)).map(|namespace| namespace.to_value())
}

fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    }
}
