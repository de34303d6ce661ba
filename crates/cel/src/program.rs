//! `Program`: a compiled expression; and what it needs to run.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use crate::ast::{Ast, Const, Expr, Kind};
use crate::check::Checked;
use crate::cost::{CostEstimate, estimate};
use crate::env::Environment;
use crate::error::{CompileError, EvalError};
use crate::eval::Evaluator;
use crate::types::Type;
use crate::value::Value;

/// The most that one evaluation may cost. Upstream: `celconfig.PerCallLimit`.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// The most that all expressions about one object may cost. Upstream: `celconfig.RuntimeCELCostBudget`.
pub const PER_OBJECT_LIMIT: u64 = 10_000_000;
/// The most that the match conditions of one object may cost. Upstream: `celconfig.RuntimeCELCostBudgetMatchConditions`.
pub const MATCH_CONDITIONS_LIMIT: u64 = 2_500_000;
/// The most that one rule of a CustomResourceDefinition may be estimated at. Upstream: `StaticEstimatedCostLimit`.
pub const STATIC_LIMIT: u64 = 10_000_000;
/// The most that all rules of a CustomResourceDefinition may be estimated at. Upstream: `StaticEstimatedCRDCostLimit`.
pub const STATIC_CRD_LIMIT: u64 = 100_000_000;

/// A checked expression, ready to run, from any thread.
#[derive(Debug)]
pub struct Program {
    source: String,
    pub(crate) root: Expr,
    pub(crate) checked: Checked,
    output: Type,
    /// Constant patterns, compiled once.
    pub(crate) patterns: HashMap<String, regex::Regex>,
}

/// What an expression's variables are.
#[derive(Clone, Debug, Default)]
pub struct Activation<'a> {
    values: BTreeMap<&'a str, Value<'a>>,
}

/// What several evaluations may cost together.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Budget {
    pub fn new(cost: u64) -> Budget {
        Budget(Cell::new(cost))
    }

    pub fn remaining(&self) -> u64 {
        self.0.get()
    }

    fn spend(&self, cost: u64) -> Result<(), EvalError> {
        let left = self.0.get().checked_sub(cost);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(EvalError::Budget)
    }
}

impl<'a> Activation<'a> {
    pub fn new() -> Activation<'a> {
        Activation::default()
    }

    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Activation<'a> {
        self.values.insert(name, value);
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.values.get(name)
    }
}

impl Program {
    pub(crate) fn new(source: &str, ast: Ast, checked: Checked, output: Type) -> Result<Program, CompileError> {
        let mut patterns = HashMap::new();
        let mut impossible = None;
        crate::validate::walk(&ast.root, &mut |expr| {
            if let Kind::Call { function, target, args } = &expr.kind
                && let Some(Expr { kind: Kind::Const(Const::String(pattern)), .. }) = match function.as_ref() {
                    "matches" if target.is_none() => args.get(1),
                    "matches" | "find" | "findAll" => args.first(),
                    _ => None,
                }
            {
                match crate::functions::pattern::compile(pattern) {
                    Some(regex) => drop(patterns.insert(pattern.to_string(), regex)),
                    None => impossible = impossible.take().or(Some(crate::functions::pattern::mistake(pattern))),
                }
            }
            if let Err(error) = crate::eval::fold_conversion(expr) {
                impossible = impossible.take().or(Some(error.to_string()));
            }
        });
        if let Some(why) = impossible {
            return Err(CompileError::program(why));
        }
        Ok(Program { source: source.to_owned(), root: ast.root, checked, output, patterns })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of its result.
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// Runs it. What it costs is taken from `budget`; beyond [`PER_CALL_LIMIT`] it ends.
    pub fn evaluate<'a>(&self, activation: &Activation<'a>, budget: &Budget) -> Result<Value<'a>, EvalError> {
        let (result, cost) = self.evaluate_counted(activation);
        budget.spend(cost)?;
        result
    }

    /// Runs it and tells what it cost.
    pub fn evaluate_counted<'a>(&self, activation: &Activation<'a>) -> (Result<Value<'a>, EvalError>, u64) {
        let mut evaluator = Evaluator::new(self, activation);
        let result = evaluator.eval(&self.root);
        (result, evaluator.cost())
    }

    /// The least and the most it may cost, as far as the schemas of its variables bound their sizes.
    pub fn estimate(&self, env: &Environment) -> CostEstimate {
        estimate(env, self)
    }

    /// Whether the expression names this variable (`oldSelf` makes a transition rule).
    pub fn uses(&self, variable: &str) -> bool {
        let mut found = false;
        crate::validate::walk(&self.root, &mut |expr| {
            found |= matches!(&expr.kind, Kind::Ident(name) if name.as_ref() == variable);
        });
        found
    }
}
