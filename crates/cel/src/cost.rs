//! What an expression may cost before it ever runs, from the limits that schemas set on sizes.
//!
//! Upstream: cel-go checker/cost.go with apiserver pkg/cel/library/cost.go.

mod call;

use std::collections::HashMap;

use crate::ast::{ACCU, Comprehension, Const, Entry, Expr, Kind};
use crate::decl::Decl;
use crate::env::Environment;
use crate::program::Program;
use crate::types::Type;

/// The least and the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostEstimate {
    pub min: u64,
    pub max: u64,
}

/// Sizes and costs add up and multiply alike, and end at `u64::MAX`.
type Range = CostEstimate;

impl CostEstimate {
    const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

    pub(crate) fn exactly(n: u64) -> Range {
        Range { min: n, max: n }
    }

    fn plus(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scaled(self, factor: f64) -> Range {
        let scale = |n: u64| (n as f64 * factor).ceil() as u64;
        Range { min: scale(self.min), max: scale(self.max) }
    }

    fn or(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The sizes of what a list or a map holds.
#[derive(Clone, Copy)]
struct Entries {
    list: bool,
    key: Range,
    value: Range,
}

#[derive(Clone)]
struct Local {
    path: Vec<String>,
    size: Option<Range>,
    entries: Option<Entries>,
}

/// A part of an expression as the costs of calls see it.
#[derive(Clone)]
struct Node<'e> {
    expr: &'e Expr,
    path: Vec<String>,
    ty: Type,
    size: Option<Range>,
}

struct Coster<'e> {
    env: &'e Environment,
    program: &'e Program,
    paths: HashMap<u32, Vec<String>>,
    sizes: HashMap<u32, Range>,
    entries: HashMap<u32, Entries>,
    locals: Vec<(&'e str, Local)>,
}

pub(crate) fn estimate(env: &Environment, program: &Program) -> CostEstimate {
    let mut coster = Coster {
        env,
        program,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    coster.cost(&program.root)
}

impl<'e> Coster<'e> {
    fn ty(&self, expr: &Expr) -> &'e Type {
        &self.program.checked.types[expr.id as usize]
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|(local, _)| *local == name).map(|(_, local)| local)
    }

    fn cost(&mut self, expr: &'e Expr) -> Range {
        match &expr.kind {
            Kind::Const(_) => Range::default(),
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.to_string()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                Range::exactly(1)
            }
            Kind::Select { operand, field, test } => {
                let sum = self.cost(operand);
                if *test {
                    return sum;
                }
                let mut path = self.path(operand);
                if !path.is_empty() {
                    path.push(field.to_string());
                    self.paths.insert(expr.id, path);
                }
                let own = matches!(self.ty(operand), Type::Map(..) | Type::Object(_));
                sum.plus(Range::exactly(own.into()))
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements, .. } => self.list(expr, elements),
            Kind::Map { entries } => self.map(expr, entries),
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Range::exactly(40), |sum, (_, _, value)| sum.plus(self.cost(value)))
            }
            Kind::Comprehension(fold) if is_bind(fold) => {
                let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
                let local = self.bound(&fold.init);
                self.locals.push((&fold.accu, local));
                let sum = sum.plus(self.cost(&fold.result));
                self.locals.pop();
                self.copy(expr.id, &fold.result);
                sum
            }
            Kind::Comprehension(fold) => self.fold(expr, fold),
        }
    }

    fn list(&mut self, expr: &'e Expr, elements: &'e [Expr]) -> Range {
        let mut sum = Range::exactly(10);
        let mut item = Range { min: if elements.is_empty() { 0 } else { u64::MAX }, max: 0 };
        for element in elements {
            sum = sum.plus(self.cost(element));
            item = item.or(self.size_or_unknown(element));
        }
        self.entries.insert(expr.id, Entries { list: true, key: Range::exactly(1), value: item });
        sum
    }

    fn map(&mut self, expr: &'e Expr, entries: &'e [Entry]) -> Range {
        let mut sum = Range::exactly(30);
        let start = Range { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
        let (mut key, mut value) = (start, start);
        for entry in entries {
            sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
            key = key.or(self.size_or_unknown(&entry.key));
            value = value.or(self.size_or_unknown(&entry.value));
        }
        self.entries.insert(expr.id, Entries { list: false, key, value });
        sum
    }

    /// What a variable bound to an expression is known by.
    fn bound(&mut self, expr: &'e Expr) -> Local {
        Local { path: self.path(expr), size: self.size(expr), entries: self.entries_of(expr) }
    }

    fn fold(&mut self, expr: &'e Expr, fold: &'e Comprehension) -> Range {
        let before = self.locals.len();
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        let accu = self.bound(&fold.init);
        self.locals.push((&fold.accu, accu));
        let entries = self.entries_of(&fold.range);
        let list = entries.map_or_else(|| matches!(self.ty(&fold.range), Type::List(_)), |entries| entries.list);
        let path = self.path(&fold.range);
        let below = |step: &str| path.iter().cloned().chain([step.to_owned()]).collect::<Vec<_>>();
        let value = Local {
            path: below(if list { "@items" } else { "@values" }),
            size: entries.map(|e| e.value),
            entries: None,
        };
        let key =
            Local { path: below(if list { "@indices" } else { "@keys" }), size: entries.map(|e| e.key), entries: None };
        match &fold.var2 {
            Some(var2) => {
                self.locals.push((&fold.var, key));
                self.locals.push((var2, value));
            }
            None => self.locals.push((&fold.var, if list { value } else { key })),
        }
        let turn = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(before + 1);
        let sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(before);
        let turns = self.size_or_unknown(&fold.range);
        match fold.init.kind {
            Kind::Const(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List { .. } | Kind::Map { .. } => {
                self.sizes.insert(expr.id, turns);
                if let Some(entries) = self.entries_of(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum.plus(turns.times(turn))
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn node(&mut self, expr: &'e Expr) -> Node<'e> {
        let mut path = self.path(expr);
        if path.first().is_some_and(|root| root == ACCU) {
            path.clear();
        }
        Node { expr, path, ty: self.ty(expr).clone(), size: self.size(expr) }
    }

    fn copy(&mut self, to: u32, from: &'e Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to, entries);
        }
    }

    fn size_or_unknown(&mut self, expr: &'e Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, expr: &'e Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let written = match &expr.kind {
            Kind::Const(Const::String(text)) => Some(text.chars().count()),
            Kind::Const(Const::Bytes(bytes)) => Some(bytes.len()),
            Kind::Const(_) => Some(1),
            Kind::List { elements, .. } => Some(elements.len()),
            Kind::Map { entries } => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = written {
            return Some(Range::exactly(size as u64));
        }
        let path = self.path(expr);
        if let Some(size) = self.declared(&path) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.ty(expr)) {
            return Some(Range::exactly(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    /// What the schema of a variable says about the size of what is under a path.
    fn declared(&self, path: &[String]) -> Option<Range> {
        let (root, rest) = path.split_first()?;
        let decl = self.env.decl(root)?;
        if *decl.ty() == Type::Dyn && decl.max_size().is_none() {
            return None;
        }
        let decl: Decl = decl.walk(rest)?;
        let scalar = !matches!(decl.ty(), Type::Dyn | Type::String | Type::Bytes | Type::List(_) | Type::Map(..));
        match decl.max_size() {
            _ if scalar => Some(Range {
                min: 0,
                max: decl.max_size().filter(|_| matches!(decl.ty(), Type::Timestamp | Type::Duration)).unwrap_or(0),
            }),
            Some(max) => Some(Range { min: 0, max }),
            None => None,
        }
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        self.entries.get(&expr.id).copied().or_else(|| match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        })
    }
}

fn is_bind(fold: &Comprehension) -> bool {
    matches!(&fold.range.kind, Kind::List { elements, .. } if elements.is_empty())
        && matches!(fold.condition.kind, Kind::Const(Const::Bool(false)))
        && fold.accu.as_ref() != ACCU
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => is_scalar(of),
        _ => false,
    }
}
