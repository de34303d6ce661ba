//! A policy, compiled.

use apimachinery::Value;
use cel::admission::Declarations;
use cel::{CompileError, CompileErrorKind, Program, Type};

/// An expression that compiled, or what upstream says of one that didn't.
pub(crate) type Compiled = Result<Program, String>;

pub(super) struct Policy {
    pub name: String,
    /// `spec.matchConstraints`
    pub constraints: Value,
    pub ignores_failures: bool,
    pub has_params: bool,
    /// `apiVersion` and `kind` of params.
    pub param_kind: Option<(String, String)>,
    pub conditions: Vec<(String, Compiled)>,
    pub variables: Vec<(String, Compiled)>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Compiled)>,
}

pub(super) struct Validation {
    pub expression: String,
    pub program: Compiled,
    pub message: String,
    pub message_program: Option<Compiled>,
    pub reason: String,
}

impl Policy {
    pub(super) fn compile(policy: Value) -> Policy {
        let null = Value::Null;
        let spec = policy.get("spec").unwrap_or(&null);
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let param_kind = spec.get("paramKind").filter(|kind| !kind.is_null());
        let mut declared =
            Declarations { params: param_kind.map(|_| None), authorizer: true, ..Declarations::default() };
        let mut variables = Vec::new();
        for variable in spec.items_at(&["variables"]) {
            let (name, expression) = (text(variable, "name"), text(variable, "expression"));
            let program = compile(&declared, &expression, &[]);
            let ty = program.as_ref().map_or(Type::Dyn, |program| program.output().clone());
            declared.variables.push((name.clone(), ty));
            variables.push((name, program));
        }
        let each = |list: &str, name: &str, expression: &str, types: &[Type]| -> Vec<(String, Compiled)> {
            let items = spec.items_at(&[list]).iter();
            items.map(|item| (text(item, name), compile(&declared, &text(item, expression), types))).collect()
        };
        let conditions = each("matchConditions", "name", "expression", &[Type::Bool]);
        let annotations = each("auditAnnotations", "key", "valueExpression", &[Type::String, Type::Null]);
        let of_messages = Declarations { authorizer: false, ..declared.clone() };
        let validations = spec.items_at(&["validations"]).iter().map(|validation| {
            let expression = text(validation, "expression");
            let message = Some(text(validation, "messageExpression")).filter(|message| !message.is_empty());
            Validation {
                program: compile(&declared, &expression, &[Type::Bool]),
                expression,
                message: text(validation, "message"),
                message_program: message.map(|message| compile(&of_messages, &message, &[Type::String])),
                reason: text(validation, "reason"),
            }
        });
        Policy {
            name: super::name_of(&policy),
            constraints: spec.get("matchConstraints").cloned().unwrap_or_default(),
            ignores_failures: spec.str_at(&["failurePolicy"]) == Some("Ignore"),
            has_params: param_kind.is_some(),
            param_kind: param_kind.map(|kind| (text(kind, "apiVersion"), text(kind, "kind"))),
            conditions,
            validations: validations.collect(),
            variables,
            annotations,
        }
    }
}

/// Compiles an expression; a mistake is worded as field errors word it.
fn compile(declared: &Declarations, expression: &str, outputs: &[Type]) -> Compiled {
    declared.environment().compile(expression, outputs).map_err(|error| worded(&error))
}

/// A mistake as field errors word it.
pub(crate) fn worded(error: &CompileError) -> String {
    match error.kind {
        _ if error.is_program() => format!("program instantiation failed: {error}"),
        CompileErrorKind::Syntax => format!("compilation failed: {error}"),
        CompileErrorKind::Output => error.to_string(),
    }
}
