//! The variables of admission policies: `object`, `oldObject`, `request`, `namespaceObject`, `params`, `variables`, `authorizer`.
//! Whoever checks, admits or reports on policies builds the same environment here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::OnceLock;

use crate::decl::Decl;
use crate::env::Environment;
use crate::error::EvalError;
use crate::program::{Activation, Budget, Program};
use crate::types::Type;
use crate::value::{Fields, Map, Value};

/// What an expression of a policy may use besides `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Debug, Default)]
pub struct Declarations {
    /// The type of `object` and `oldObject`; `None` where it isn't known.
    pub object: Option<Decl>,
    /// The policy has a `paramKind`; with the type of `params` where it is known.
    pub params: Option<Option<Decl>>,
    pub authorizer: bool,
    /// The variables so far, and their types.
    pub variables: Vec<(String, Type)>,
}

const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

impl Declarations {
    pub fn environment(&self) -> Environment {
        let object = || self.object.clone().unwrap_or_else(Decl::any);
        let mut env = Environment::new()
            .with_decl("object", object())
            .with_decl("oldObject", object())
            .with_decl("request", request().clone())
            .with_decl("namespaceObject", namespace().clone());
        if let Some(params) = &self.params {
            env = env.with_decl("params", params.clone().unwrap_or_else(Decl::any));
        }
        if self.authorizer {
            env = env
                .with("authorizer", Type::Opaque(AUTHORIZER))
                .with("authorizer.requestResource", Type::Opaque(RESOURCE_CHECK));
        }
        if self.variables.is_empty() {
            return env;
        }
        env.with("variables", Type::object("kubernetes.variables", self.variables.iter().cloned()))
    }
}

/// Upstream: `BuildRequestType`.
fn request() -> &'static Decl {
    static REQUEST: OnceLock<Decl> = OnceLock::new();
    REQUEST.get_or_init(|| {
        let text = || Decl::string(None);
        let texts = || Decl::list_of(text(), None);
        let kind =
            || Decl::object("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
        let resource = || {
            Decl::object(
                "kubernetes.GroupVersionResource",
                [("group", text()), ("version", text()), ("resource", text())],
            )
        };
        let user = Decl::object(
            "kubernetes.UserInfo",
            [("username", text()), ("uid", text()), ("groups", texts()), ("extra", Decl::map(texts(), None))],
        );
        Decl::object(
            "kubernetes.AdmissionRequest",
            [
                ("kind", kind()),
                ("resource", resource()),
                ("subResource", text()),
                ("requestKind", kind()),
                ("requestResource", resource()),
                ("requestSubResource", text()),
                ("name", text()),
                ("namespace", text()),
                ("operation", text()),
                ("userInfo", user),
                ("dryRun", Decl::scalar(Type::Bool)),
                ("options", Decl::any()),
            ],
        )
    })
}

/// Upstream: `BuildNamespaceType`.
fn namespace() -> &'static Decl {
    static NAMESPACE: OnceLock<Decl> = OnceLock::new();
    NAMESPACE.get_or_init(|| {
        let text = || Decl::string(None);
        let texts = || Decl::map(text(), None);
        let metadata = Decl::object(
            "kubernetes.NamespaceMetadata",
            [
                ("name", text()),
                ("generateName", text()),
                ("namespace", text()),
                ("labels", texts()),
                ("annotations", texts()),
                ("UID", text()),
                ("creationTimestamp", Decl::scalar(Type::Timestamp)),
                ("deletionGracePeriodSeconds", Decl::scalar(Type::Int)),
                ("deletionTimestamp", Decl::scalar(Type::Timestamp)),
                ("generation", Decl::scalar(Type::Int)),
                ("resourceVersion", text()),
                ("finalizers", Decl::list_of(text(), None)),
            ],
        );
        let spec = Decl::object("kubernetes.NamespaceSpec", [("finalizers", Decl::list_of(text(), None))]);
        let status = Decl::object("kubernetes.NamespaceStatus", [("phase", text())]);
        Decl::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
    })
}

/// A policy's variables: each is evaluated when it is first asked for, and once.
pub struct Variables<'a>(Rc<Shared<'a>>);

struct Shared<'a> {
    base: Activation<'a>,
    programs: &'a [(String, Result<Program, String>)],
    budget: &'a Budget,
    known: RefCell<HashMap<String, Result<Value<'a>, EvalError>>>,
}

impl<'a> Variables<'a> {
    pub fn new(
        base: Activation<'a>,
        programs: &'a [(String, Result<Program, String>)],
        budget: &'a Budget,
    ) -> Variables<'a> {
        Variables(Rc::new(Shared { base, programs, budget, known: RefCell::default() }))
    }

    /// The base with `variables`.
    pub fn activation(&self) -> Activation<'a> {
        let handle = Handle(self.0.clone());
        self.0.base.clone().with("variables", Value::Map(Map::Lazy(Rc::new(handle))))
    }
}

impl Drop for Variables<'_> {
    /// Values may hold on to the variables themselves.
    fn drop(&mut self) {
        self.0.known.borrow_mut().clear();
    }
}

struct Handle<'a>(Rc<Shared<'a>>);

impl<'a> Fields<'a> for Handle<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        if let Some(known) = self.0.known.borrow().get(name) {
            return Some(known.clone());
        }
        let (_, program) = self.0.programs.iter().find(|(variable, _)| variable == name)?;
        let handle = Handle(self.0.clone());
        let activation = self.0.base.clone().with("variables", Value::Map(Map::Lazy(Rc::new(handle))));
        let result = match program {
            Ok(program) => program.evaluate(&activation, self.0.budget),
            Err(why) => Err(EvalError::Failed(format!("composited variable {name:?} fails to compile: {why}"))),
        };
        let result = result.map_err(|error| match error {
            EvalError::Failed(why) => {
                EvalError::Failed(format!("composited variable {name:?} fails to evaluate: {why}"))
            }
            limit => limit,
        });
        self.0.known.borrow_mut().insert(name.to_owned(), result.clone());
        Some(result)
    }
}
