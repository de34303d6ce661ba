//! The Common Expression Language as Kubernetes 1.35 speaks it: parser, type checker, cost model and evaluator.
//!
//! It knows types, schemas and values, not who asks: admission policies and the rules of CustomResourceDefinitions live elsewhere.
//! The main path: an [`Environment`] declares variables; [`Environment::compile`] parses, expands macros, checks types and gives a
//! [`Program`]; [`Program::evaluate`] runs it over an [`Activation`] and takes what that costs from a [`Budget`].
//!
//! JSON is looked into where it lies ([`Value::json`]). A [`Decl`] says what a schema knows of it: [`Decl::from_structural`] for the
//! schemas of CustomResourceDefinitions, [`Decl::from_schema`] for compiled ones; undeclared JSON is of type [`Type::Dyn`]. Compile errors and
//! runtime errors are worded, and pictured, as cel-go words them, since clients match on them; costs are counted as cel-go
//! and Kubernetes' libraries count them.
//!
//! ```
//! use cel::{Activation, Budget, Decl, Environment, PER_OBJECT_LIMIT, Type, Value};
//! let schema = apimachinery::Value::parse(br#"{"type":"object","properties":{"replicas":{"type":"integer"},"max":{"type":"integer"}}}"#).unwrap();
//! let decl = Decl::from_structural(&schema, "self", false).unwrap();
//! let env = Environment::new().with_decl("self", decl.clone());
//! let rule = env.compile("self.replicas <= self.max", &[Type::Bool]).unwrap();
//! assert!(rule.estimate(&env).max < cel::STATIC_LIMIT);
//!
//! let object = apimachinery::Value::parse(br#"{"replicas":3,"max":5}"#).unwrap();
//! let activation = Activation::new().with("self", Value::json(&object, Some(&decl)));
//! let budget = Budget::new(PER_OBJECT_LIMIT);
//! assert_eq!(rule.evaluate(&activation, &budget).unwrap().as_bool(), Some(true));
//!
//! let error = env.compile("self.foo > 1", &[Type::Bool]).unwrap_err();
//! assert_eq!(error.to_string(), "ERROR: <input>:1:5: undefined field 'foo'\n | self.foo > 1\n | ....^");
//! ```

pub mod admission;
mod ast;
mod authorizer;
mod check;
mod cost;
mod decl;
mod env;
mod error;
mod eval;
mod functions;
mod lexer;
mod library;
mod parser;
mod program;
mod types;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use authorizer::{Authorizer, Decision, Query};
pub use cost::CostEstimate;
pub use decl::{Decl, escape, is_identifier, unescape};
pub use env::Environment;
pub use error::{CompileError, CompileErrorKind, EvalError, Issue};
pub use functions::opaque::Opaque;
pub use program::{
    Activation, Budget, MATCH_CONDITIONS_LIMIT, PER_CALL_LIMIT, PER_OBJECT_LIMIT, Program, STATIC_CRD_LIMIT,
    STATIC_LIMIT,
};
pub use types::{ObjectType, Type};
pub use value::{Fields, Key, List, Map, Str, Value};
