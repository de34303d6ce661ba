//! `Environment`: the names an expression may use.

use std::collections::BTreeMap;

use crate::check::check;
use crate::decl::Decl;
use crate::error::CompileError;
use crate::parser::parse;
use crate::program::Program;
use crate::types::Type;
use crate::validate;

/// Declared variables. Functions and macros are those of Kubernetes 1.35's base environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, Decl>,
    binds: bool,
}

impl Environment {
    pub fn new() -> Environment {
        Environment::default()
    }

    /// With the macro `cel.bind`, which the base environment doesn't have.
    pub fn with_bindings(mut self) -> Environment {
        self.binds = true;
        self
    }

    /// Declares a variable whose JSON follows a schema.
    pub fn with_decl(mut self, name: impl Into<String>, decl: Decl) -> Environment {
        self.variables.insert(name.into(), decl);
        self
    }

    /// Declares a variable of a type.
    pub fn with(self, name: impl Into<String>, ty: Type) -> Environment {
        self.with_decl(name, Decl::scalar(ty))
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.get(name).map(Decl::ty)
    }

    pub(crate) fn decl(&self, name: &str) -> Option<&Decl> {
        self.variables.get(name)
    }

    /// Parses and checks an expression. Its type must be exactly one of `outputs` (a dynamic result is no bool); no outputs,
    /// and any will do.
    pub fn compile(&self, expression: &str, outputs: &[Type]) -> Result<Program, CompileError> {
        let ast = parse(expression, self.binds).map_err(|issues| CompileError::syntax(expression, issues))?;
        let checked = check(self, &ast).map_err(|issues| CompileError::syntax(expression, issues))?;
        let invalid = validate::literals(&ast);
        if !invalid.is_empty() {
            return Err(CompileError::syntax(expression, invalid));
        }
        let output = checked.types[ast.root.id as usize].clone();
        if !outputs.is_empty() && !outputs.contains(&output) {
            let names: Vec<String> = outputs.iter().map(output_name).collect();
            let text = match names.as_slice() {
                [one] => format!("must evaluate to {one} but got {}", output_name(&output)),
                many => format!("must evaluate to one of [{}] but got {}", many.join(" "), output_name(&output)),
            };
            return Err(CompileError::output(text));
        }
        Program::new(expression, ast, checked, output)
    }
}

/// As Go prints a type, which is not as messages of the checker show it.
fn output_name(ty: &Type) -> String {
    if *ty == Type::Null { "null_type".to_owned() } else { ty.to_string() }
}
