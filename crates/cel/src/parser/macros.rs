//! The macros: calls that the parser turns into folds and presence tests.

use std::sync::Arc;

use super::{Parsed, Parser, Stop};
use crate::ast::{ACCU, Comprehension, Const, Entry, Expr, Kind, op};
use crate::error::Issue;

/// Macros that repeat their target may not grow an expression beyond this many nodes.
const MAX_COPIED: usize = 100_000;

/// How many nodes an expression has.
fn nodes(expr: &Expr) -> usize {
    1 + match &expr.kind {
        Kind::Const(_) | Kind::Ident(_) => 0,
        Kind::Select { operand, .. } => nodes(operand),
        Kind::Call { target, args, .. } => {
            target.iter().map(|target| nodes(target)).chain(args.iter().map(nodes)).sum()
        }
        Kind::List { elements, .. } => elements.iter().map(nodes).sum(),
        Kind::Map { entries } => entries.iter().map(|entry| nodes(&entry.key) + nodes(&entry.value)).sum(),
        Kind::Struct { fields, .. } => fields.iter().map(|(_, _, value)| nodes(value)).sum(),
        Kind::Comprehension(fold) => {
            [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter().map(nodes).sum()
        }
    }
}

impl Parser {
    pub(super) fn global_call(&mut self, at: u32, name: &str, mut args: Vec<Expr>) -> Parsed {
        if name == "has" && args.len() == 1 {
            let argument = args.remove(0);
            let place = self.offsets[argument.id as usize];
            return match argument.kind {
                Kind::Select { operand, field, test: false } => {
                    Ok(self.node(at, Kind::Select { operand, field, test: true }))
                }
                _ => self.issue(place, "invalid argument to has() macro"),
            };
        }
        Ok(self.call(at, name, args))
    }

    pub(super) fn member_call(&mut self, at: u32, name: &str, target: Expr, mut args: Vec<Expr>) -> Parsed {
        let in_cel = matches!(&target.kind, Kind::Ident(namespace) if namespace.as_ref() == "cel");
        if self.binds && in_cel && name == "bind" && args.len() == 3 {
            return self.bind(at, args);
        }
        let expands = matches!(
            (name, args.len()),
            ("all" | "exists" | "exists_one" | "existsOne" | "filter" | "map" | "optMap" | "optFlatMap", 2)
                | ("all" | "exists" | "exists_one" | "existsOne" | "map", 3)
                | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4)
        );
        if !expands {
            return Ok(self.node(at, Kind::Call { function: name.into(), target: Some(Box::new(target)), args }));
        }
        let body = args.pop().ok_or(Stop)?;
        let first = if args.is_empty() { return Err(Stop) } else { args.remove(0) };
        let simple = if matches!(name, "map" | "filter") {
            "argument is not an identifier"
        } else {
            "argument must be a simple name"
        };
        let var = self.variable(&first, simple)?;
        if name.starts_with("opt") {
            return self.opt_map(at, name, target, var, body);
        }
        let two = !matches!(name, "map" | "filter") && !args.is_empty();
        let var2 = if two { Some(self.second_variable(&var, &args.remove(0))?) } else { None };
        let filter = args.pop();
        Ok(self.folded(at, name, target, (var, var2), body, filter))
    }

    /// `cel.bind(v, init, e)`: `e`, where `v` is the value of `init`.
    fn bind(&mut self, at: u32, args: Vec<Expr>) -> Parsed {
        let [name, init, body] = <[Expr; 3]>::try_from(args).map_err(|_| Stop)?;
        let Kind::Ident(var) = &name.kind else {
            let place = self.offsets[name.id as usize];
            return self.issue(place, "cel.bind() variable names must be simple identifiers");
        };
        Ok(self.bound(at, var.clone(), init, body))
    }

    fn bound(&mut self, at: u32, var: Arc<str>, init: Expr, result: Expr) -> Expr {
        let fold = Comprehension {
            range: self.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() }),
            var: "#unused".into(),
            var2: None,
            accu: var.clone(),
            init,
            condition: self.constant(at, Const::Bool(false)),
            step: self.ident(at, &var),
            result,
        };
        self.fold(at, fold)
    }

    fn ident(&mut self, at: u32, name: &str) -> Expr {
        self.node(at, Kind::Ident(name.into()))
    }

    fn constant(&mut self, at: u32, constant: Const) -> Expr {
        self.node(at, Kind::Const(constant))
    }

    /// The name of a macro's variable.
    fn variable(&mut self, expr: &Expr, otherwise: &str) -> Parsed<Arc<str>> {
        let at = self.offsets[expr.id as usize];
        match &expr.kind {
            Kind::Ident(name) if !name.starts_with('.') => {
                if matches!(name.as_ref(), ACCU | "__result__") {
                    return self.issue(at, "iteration variable overwrites accumulator variable");
                }
                Ok(name.clone())
            }
            _ => self.issue(at, otherwise),
        }
    }

    fn second_variable(&mut self, first: &str, expr: &Expr) -> Parsed<Arc<str>> {
        let second = self.variable(expr, "argument must be a simple name")?;
        if first == second.as_ref() {
            let at = self.offsets[expr.id as usize];
            self.issues.push(Issue { at, message: format!("duplicate variable name: {second}") });
        }
        Ok(second)
    }

    fn folded(
        &mut self,
        at: u32,
        name: &str,
        target: Expr,
        (var, var2): (Arc<str>, Option<Arc<str>>),
        body: Expr,
        filter: Option<Expr>,
    ) -> Expr {
        let accu = self.ident(at, ACCU);
        let mut condition = self.constant(at, Const::Bool(true));
        let mut result = self.ident(at, ACCU);
        let (init, step) = match name {
            "all" => {
                let accu_again = self.ident(at, ACCU);
                condition = self.call(at, op::NOT_STRICTLY_FALSE, vec![accu_again]);
                (self.constant(at, Const::Bool(true)), self.call(at, op::AND, vec![accu, body]))
            }
            "exists" => {
                let accu_again = self.ident(at, ACCU);
                let not = self.call(at, op::NOT, vec![accu_again]);
                condition = self.call(at, op::NOT_STRICTLY_FALSE, vec![not]);
                (self.constant(at, Const::Bool(false)), self.call(at, op::OR, vec![accu, body]))
            }
            "exists_one" | "existsOne" => {
                let one = self.constant(at, Const::Int(1));
                let more = self.call(at, op::ADD, vec![accu, one]);
                let same = self.ident(at, ACCU);
                let one = self.constant(at, Const::Int(1));
                result = self.call(at, op::EQUALS, vec![result, one]);
                (self.constant(at, Const::Int(0)), self.call(at, op::CONDITIONAL, vec![body, more, same]))
            }
            "transformMap" | "transformMapEntry" => {
                let mut args = vec![accu];
                if name == "transformMap" {
                    args.push(self.ident(at, &var));
                }
                args.push(body);
                let inserted = self.call(at, op::MAP_INSERT, args);
                let step = self.filtered(at, filter, inserted);
                (self.node(at, Kind::Map { entries: Vec::<Entry>::new() }), step)
            }
            _ => {
                let (item, filter) = match name {
                    "filter" => (self.ident(at, &var), Some(body)),
                    _ => (body, filter),
                };
                let list = self.node(at, Kind::List { elements: vec![item], optional: Vec::new() });
                let appended = self.call(at, op::ADD, vec![accu, list]);
                let step = self.filtered(at, filter, appended);
                (self.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() }), step)
            }
        };
        let fold = Comprehension { range: target, var, var2, accu: ACCU.into(), init, condition, step, result };
        self.fold(at, fold)
    }

    fn filtered(&mut self, at: u32, filter: Option<Expr>, step: Expr) -> Expr {
        match filter {
            Some(filter) => {
                let same = self.ident(at, ACCU);
                self.call(at, op::CONDITIONAL, vec![filter, step, same])
            }
            None => step,
        }
    }

    /// `target.optMap(v, e)`: `target.hasValue() ? optional.of(bind v = target.value() in e) : optional.none()`.
    fn opt_map(&mut self, at: u32, name: &str, target: Expr, var: Arc<str>, body: Expr) -> Parsed {
        self.copied += nodes(&target);
        if self.copied > MAX_COPIED {
            return self.issue(
                at,
                format!("expression code point size exceeds limit: size: {}, limit {MAX_COPIED}", self.copied),
            );
        }
        let member = |parser: &mut Self, function: &str| {
            let target = Some(Box::new(target.clone()));
            parser.node(at, Kind::Call { function: function.into(), target, args: Vec::new() })
        };
        let has = member(self, "hasValue");
        let value = member(self, "value");
        let mapped = self.bound(at, var, value, body);
        let then = if name == "optMap" { self.call(at, "optional.of", vec![mapped]) } else { mapped };
        let none = self.call(at, "optional.none", Vec::new());
        Ok(self.call(at, op::CONDITIONAL, vec![has, then, none]))
    }
}
