//! The type checker: what each part of an expression is, which overloads a call may mean, and what fits nowhere.
//!
//! Upstream: cel-go checker/checker.go.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Ast, Const, Entry, Expr, Kind, op};
use crate::env::Environment;
use crate::error::Issue;
use crate::library::{self, Overload};
use crate::parser::type_name;
use crate::types::Type;

/// What the checker found out, by expression id.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub types: Vec<Type>,
    /// Of calls: the overloads that fit.
    pub overloads: HashMap<u32, Vec<&'static str>>,
    /// Calls that look like members of a value but are functions with dotted names; and dotted names of types.
    pub qualified: HashMap<u32, Arc<str>>,
}

pub(crate) fn check(env: &Environment, ast: &Ast) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        env,
        ast,
        out: Checked { types: vec![Type::Dyn; ast.offsets.len()], ..Checked::default() },
        vars: Mapping::default(),
        next_var: 0,
        locals: Vec::new(),
        issues: Vec::new(),
    };
    checker.expr(&ast.root);
    for at in 0..checker.out.types.len() {
        let ty = std::mem::take(&mut checker.out.types[at]);
        checker.out.types[at] = checker.vars.resolved(&ty, true);
    }
    if checker.issues.is_empty() { Ok(checker.out) } else { Err(checker.issues) }
}

struct Checker<'a> {
    env: &'a Environment,
    ast: &'a Ast,
    out: Checked,
    vars: Mapping,
    next_var: u32,
    /// Variables of folds, innermost last.
    locals: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
}

/// What type variables stand for.
#[derive(Clone, Default)]
struct Mapping(HashMap<u32, Type>);

impl Mapping {
    /// The type with its variables replaced; unknown ones become dynamic when `settle`.
    fn resolved(&self, ty: &Type, settle: bool) -> Type {
        match ty {
            Type::Var(n) => match self.0.get(n) {
                Some(found) => self.resolved(found, settle),
                None if settle => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(item) => Type::list(self.resolved(item, settle)),
            Type::Map(key, value) => Type::map(self.resolved(key, settle), self.resolved(value, settle)),
            Type::Optional(of) => Type::optional(self.resolved(of, settle)),
            Type::Type(Some(of)) => Type::type_of(self.resolved(of, settle)),
            other => other.clone(),
        }
    }

    fn mentions(&self, ty: &Type, var: u32) -> bool {
        match ty {
            Type::Var(n) => *n == var || self.0.get(n).is_some_and(|found| self.mentions(found, var)),
            Type::List(of) | Type::Optional(of) | Type::Type(Some(of)) => self.mentions(of, var),
            Type::Map(key, value) => self.mentions(key, var) || self.mentions(value, var),
            _ => false,
        }
    }

    /// Whether `ty` may stand for the variable, and whether that stood for something before.
    fn substitutes(&mut self, ty: &Type, var: u32) -> (bool, bool) {
        if *ty == Type::Var(var) {
            return (true, true);
        }
        let Some(known) = self.0.get(&var).cloned() else {
            if self.mentions(ty, var) {
                return (false, false);
            }
            self.0.insert(var, ty.clone());
            return (true, false);
        };
        if *ty == known {
            return (true, true);
        }
        if !self.assignable(ty, &known) {
            return (false, true);
        }
        let general = self.most_general(ty, &known);
        if !self.mentions(&general, var) {
            self.0.insert(var, general);
        }
        (true, true)
    }

    /// Whether a value of one type may be used where the other is asked for.
    fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        if let Type::Var(var) = to {
            let (fits, known) = self.substitutes(from, *var);
            if fits || known {
                return fits;
            }
        }
        if let Type::Var(var) = from {
            return self.substitutes(to, *var).0;
        }
        if from.is_dyn_or_error() || to.is_dyn_or_error() {
            return true;
        }
        match (from, to) {
            (Type::Null, other) | (other, Type::Null) => other.is_nullable(),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.assignable(a, b),
            (Type::Type(Some(a)), Type::Type(Some(b))) => self.assignable(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Map(k1, v1), Type::Map(k2, v2)) => self.assignable(k1, k2) && self.assignable(v1, v2),
            (a, b) => a == b,
        }
    }

    fn all_assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        if from.len() != to.len() {
            return false;
        }
        let mut attempt = self.clone();
        let fits = from.iter().zip(to).all(|(from, to)| attempt.assignable(from, to));
        if fits {
            *self = attempt;
        }
        fits
    }

    fn most_general(&self, a: &Type, b: &Type) -> Type {
        if self.as_general(a, b) { a.clone() } else { b.clone() }
    }

    /// Whether `a` is the same as `b` or says less.
    fn as_general(&self, a: &Type, b: &Type) -> bool {
        match (a, b) {
            (Type::Dyn | Type::Error | Type::Var(_), _) => true,
            (_, Type::Dyn | Type::Error | Type::Var(_)) => false,
            (Type::Null, other) => !other.is_nullable() || *other == Type::Null,
            (other, Type::Null) => other.is_nullable(),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.as_general(a, b),
            (Type::Map(k1, v1), Type::Map(k2, v2)) => self.as_general(k1, k2) && self.as_general(v1, v2),
            (a, b) => a == b,
        }
    }
}

/// A type with its own variables replaced by fresh ones.
fn instantiated(ty: &Type, first: u32) -> Type {
    match ty {
        Type::Var(n) => Type::Var(first + n),
        Type::List(item) => Type::list(instantiated(item, first)),
        Type::Map(key, value) => Type::map(instantiated(key, first), instantiated(value, first)),
        Type::Optional(of) => Type::optional(instantiated(of, first)),
        Type::Type(Some(of)) => Type::type_of(instantiated(of, first)),
        other => other.clone(),
    }
}

impl Checker<'_> {
    fn issue(&mut self, id: u32, message: String) {
        self.issues.push(Issue { at: self.ast.offsets[id as usize], message });
    }

    fn fresh(&mut self) -> Type {
        self.next_var += 1;
        Type::Var(self.next_var - 1)
    }

    fn set(&mut self, id: u32, ty: Type) -> Type {
        self.out.types[id as usize] = ty.clone();
        ty
    }

    fn expr(&mut self, expr: &Expr) -> Type {
        let ty = match &expr.kind {
            Kind::Const(constant) => const_type(constant),
            Kind::Ident(name) => self.ident(expr.id, name),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { function, target, args } => self.call(expr.id, function, target.as_deref(), args),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map { entries } => self.map(entries),
            Kind::Struct { name, fields } => {
                for (_, _, value) in fields {
                    self.expr(value);
                }
                self.issue(expr.id, format!("undeclared reference to '{name}' (in container '')"));
                Type::Error
            }
            Kind::Comprehension(_) => self.fold(expr),
        };
        self.set(expr.id, ty)
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let local = self.locals.iter().rev().find(|(local, _)| local.as_ref() == name).map(|(_, ty)| ty.clone());
        local.or_else(|| self.env.variable(plain).cloned()).or_else(|| library::type_named(plain).map(Type::type_of))
    }

    fn ident(&mut self, id: u32, name: &str) -> Type {
        self.lookup(name).unwrap_or_else(|| {
            let name = name.strip_prefix('.').unwrap_or(name);
            self.issue(id, format!("undeclared reference to '{name}' (in container '')"));
            Type::Error
        })
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &Arc<str>, test: bool) -> Type {
        if let Some(name) = type_name(expr).filter(|_| !test)
            && !self.is_local_root(operand)
            && let Some(ty) =
                self.env.variable(&name).cloned().or_else(|| library::type_named(&name).map(Type::type_of))
        {
            self.out.qualified.insert(expr.id, name.into());
            return ty;
        }
        let operand = self.expr(operand);
        let ty = self.field(expr.id, &operand, field);
        if test { Type::Bool } else { ty }
    }

    /// Whether a dotted name begins with a variable of a fold.
    fn is_local_root(&self, expr: &Expr) -> bool {
        match &expr.kind {
            Kind::Ident(name) => self.locals.iter().any(|(local, _)| local == name),
            Kind::Select { operand, .. } => self.is_local_root(operand),
            _ => false,
        }
    }

    fn field(&mut self, id: u32, operand: &Type, field: &str) -> Type {
        match self.vars.resolved(operand, false) {
            Type::Map(_, value) => value.as_ref().clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(ty) => ty.clone(),
                None => {
                    self.issue(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Optional(of) => match self.field(id, &of, field) {
                already @ Type::Optional(_) => already,
                ty => Type::optional(ty),
            },
            Type::Var(var) => {
                self.vars.assignable(&Type::Dyn, &Type::Var(var));
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.issue(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        }
    }

    fn call(&mut self, id: u32, function: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        if function == op::OPT_SELECT {
            return self.opt_select(id, args);
        }
        let plain = function.strip_prefix('.').unwrap_or(function);
        if let (op::AND | op::OR, [left, right]) = (function, args) {
            for operand in [left, right] {
                let ty = self.expr(operand);
                self.assert(operand.id, &ty, &Type::Bool);
            }
            self.out.overloads.insert(id, vec![if function == op::AND { "logical_and" } else { "logical_or" }]);
            return Type::Bool;
        }
        let Some(target) = target else {
            let types: Vec<Type> = args.iter().map(|arg| self.expr(arg)).collect();
            return self.resolve(id, plain, types, false);
        };
        if let Some(prefix) = type_name(target).filter(|_| !self.is_local_root(target)) {
            let qualified = format!("{}.{function}", prefix.strip_prefix('.').unwrap_or(&prefix));
            if library::functions().contains_key(qualified.as_str()) {
                let types: Vec<Type> = args.iter().map(|arg| self.expr(arg)).collect();
                self.out.qualified.insert(id, qualified.as_str().into());
                return self.resolve(id, &qualified, types, false);
            }
        }
        let mut types = vec![self.expr(target)];
        types.extend(args.iter().map(|arg| self.expr(arg)));
        self.resolve(id, plain, types, true)
    }

    /// Which overloads fit; the first one's result, unless they differ.
    fn resolve(&mut self, id: u32, function: &str, types: Vec<Type>, member: bool) -> Type {
        let Some(overloads) = library::functions().get(function) else {
            self.issue(id, format!("undeclared reference to '{function}' (in container '')"));
            return Type::Error;
        };
        let mut result: Option<Type> = None;
        let mut ids = Vec::new();
        for overload in overloads.iter().filter(|overload| overload.member == member) {
            let Some(ty) = self.fits(overload, &types) else { continue };
            ids.push(overload.id);
            result = Some(match result {
                Some(known) if known != Type::Dyn && known != ty => Type::Dyn,
                Some(known) => known,
                None => ty,
            });
        }
        let Some(result) = result else {
            let shown: Vec<String> = types.iter().map(|ty| self.vars.resolved(ty, true).to_string()).collect();
            let shown = match shown.split_first() {
                Some((target, args)) if member => format!("{target}.({})", args.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            self.issue(id, format!("found no matching overload for '{function}' applied to '{shown}'"));
            return Type::Error;
        };
        self.out.overloads.insert(id, ids);
        result
    }

    fn fits(&mut self, overload: &Overload, types: &[Type]) -> Option<Type> {
        let first = self.next_var;
        self.next_var += overload.vars;
        let params: Vec<Type> = overload.params.iter().map(|param| instantiated(param, first)).collect();
        self.vars
            .all_assignable(types, &params)
            .then(|| self.vars.resolved(&instantiated(&overload.result, first), false))
    }

    fn opt_select(&mut self, id: u32, args: &[Expr]) -> Type {
        let [operand, Expr { id: field_id, kind: Kind::Const(Const::String(field)) }] = args else {
            return Type::Error;
        };
        let operand = self.expr(operand);
        self.set(*field_id, Type::String);
        let ty = self.field(id, &operand, field);
        self.out.overloads.insert(id, vec!["select_optional_field"]);
        match ty {
            already @ Type::Optional(_) => already,
            ty => Type::optional(ty),
        }
    }

    /// The type that both may be, or a complaint.
    fn join(&mut self, id: u32, known: Option<Type>, ty: Type) -> Type {
        let Some(known) = known else { return ty };
        if self.vars.assignable(&known, &ty) {
            return self.vars.most_general(&known, &ty);
        }
        let (expected, found) = (self.vars.resolved(&known, true), self.vars.resolved(&ty, true));
        self.issue(id, format!("expected type '{expected}' but found '{found}'"));
        known
    }

    /// What an optional entry adds.
    fn unwrapped(&mut self, id: u32, ty: Type) -> Type {
        match self.vars.resolved(&ty, false) {
            Type::Optional(of) => of.as_ref().clone(),
            Type::Dyn | Type::Error => ty,
            other => {
                self.issue(id, format!("expected type 'optional_type({other})' but found '{other}'"));
                ty
            }
        }
    }

    fn list(&mut self, elements: &[Expr], optional: &[usize]) -> Type {
        let mut item = None;
        for (i, element) in elements.iter().enumerate() {
            let mut ty = self.expr(element);
            if optional.contains(&i) {
                ty = self.unwrapped(element.id, ty);
            }
            item = Some(self.join(element.id, item, ty));
        }
        Type::list(item.unwrap_or_else(|| self.fresh()))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut key, mut value) = (None, None);
        for entry in entries {
            let ty = self.expr(&entry.key);
            key = Some(self.join(entry.key.id, key, ty));
            let mut ty = self.expr(&entry.value);
            if entry.optional {
                ty = self.unwrapped(entry.value.id, ty);
            }
            value = Some(self.join(entry.value.id, value, ty));
        }
        let (key, value) = (key.unwrap_or_else(|| self.fresh()), value.unwrap_or_else(|| self.fresh()));
        Type::map(key, value)
    }

    fn fold(&mut self, expr: &Expr) -> Type {
        let Kind::Comprehension(fold) = &expr.kind else { return Type::Error };
        let range = self.expr(&fold.range);
        let init = self.expr(&fold.init);
        let (first, second) = match self.vars.resolved(&range, false) {
            Type::List(item) if fold.var2.is_some() => (Type::Int, item.as_ref().clone()),
            Type::List(item) => (item.as_ref().clone(), Type::Error),
            Type::Map(key, value) => (key.as_ref().clone(), value.as_ref().clone()),
            Type::Var(var) => {
                self.vars.assignable(&Type::Dyn, &Type::Var(var));
                self.set(fold.range.id, Type::Dyn);
                (Type::Dyn, Type::Dyn)
            }
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        let before = self.locals.len();
        self.locals.push((fold.accu.clone(), init.clone()));
        self.locals.push((fold.var.clone(), first));
        if let Some(var) = &fold.var2 {
            self.locals.push((var.clone(), second));
        }
        let condition = self.expr(&fold.condition);
        self.assert(fold.condition.id, &condition, &Type::Bool);
        let step = self.expr(&fold.step);
        self.assert(fold.step.id, &step, &init);
        self.locals.truncate(before + 1);
        let result = self.expr(&fold.result);
        self.locals.truncate(before);
        self.vars.resolved(&result, false)
    }

    fn assert(&mut self, id: u32, ty: &Type, expected: &Type) {
        if !self.vars.assignable(ty, expected) {
            let (expected, found) = (self.vars.resolved(expected, true), self.vars.resolved(ty, true));
            self.issue(id, format!("expected type '{expected}' but found '{found}'"));
        }
    }
}

fn const_type(constant: &Const) -> Type {
    match constant {
        Const::Null => Type::Null,
        Const::Bool(_) => Type::Bool,
        Const::Int(_) => Type::Int,
        Const::Uint(_) => Type::Uint,
        Const::Double(_) => Type::Double,
        Const::String(_) => Type::String,
        Const::Bytes(_) => Type::Bytes,
    }
}
