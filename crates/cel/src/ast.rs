//! The syntax tree: what the parser makes, the checker annotates and the evaluator walks.

use std::sync::Arc;

/// An expression. `id` numbers it within its tree, for positions and types.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub id: u32,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Const(Const),
    Ident(Arc<str>),
    Select { operand: Box<Expr>, field: Arc<str>, test: bool },
    Call { function: Arc<str>, target: Option<Box<Expr>>, args: Vec<Expr> },
    List { elements: Vec<Expr>, optional: Vec<usize> },
    Map { entries: Vec<Entry> },
    Struct { name: Arc<str>, fields: Vec<(u32, Arc<str>, Expr)> },
    Comprehension(Box<Comprehension>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

/// What every macro over lists and maps becomes: a fold.
#[derive(Clone, Debug)]
pub(crate) struct Comprehension {
    pub range: Expr,
    pub var: Arc<str>,
    pub var2: Option<Arc<str>>,
    pub accu: Arc<str>,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Const {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// The accumulator of macros; no expression can name it.
pub(crate) const ACCU: &str = "@result";

pub(crate) mod op {
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const ADD: &str = "_+_";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPT_INDEX: &str = "_[?_]";
    pub(crate) const OPT_SELECT: &str = "_?._";
    pub(crate) const IN: &str = "@in";
    pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
}

/// A parsed expression with the place of each of its parts.
#[derive(Clone, Debug)]
pub(crate) struct Ast {
    pub root: Expr,
    /// By id: the offset, in characters.
    pub offsets: Vec<u32>,
}
