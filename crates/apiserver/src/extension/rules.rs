//! `x-kubernetes-validations`: rules of a schema in CEL.

use apimachinery::{FieldError, Value};

use super::schema::Node;

/// The compiled rules of a version.
#[derive(Debug, Default)]
pub(crate) struct Rules;

impl Rules {
    /// Compiles the rules of a schema; `raw` is its JSONSchemaProps.
    pub(crate) fn compile(_raw: &Value, _schema: &Node) -> Rules {
        Rules
    }

    /// Names the rules of a schema that can't be used.
    pub(crate) fn check_schema(_raw: &Value, _path: &str, _errors: &mut Vec<FieldError>) {}

    /// Names every rule that `new` breaks.
    pub(crate) fn check(&self, _schema: &Node, _new: &Value, _old: Option<&Value>, _errors: &mut Vec<FieldError>) {}
}
