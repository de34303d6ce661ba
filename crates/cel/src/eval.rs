//! The evaluator: walks the tree, counts what it costs as cel-go's tracker does, and stops at the limit.

use std::rc::Rc;

use crate::ast::{ACCU, Comprehension, Const, Entry, Expr, Kind, op};
use crate::error::{EvalError, failed, no_overload};
use crate::functions;
use crate::program::{Activation, PER_CALL_LIMIT, Program};
use crate::value::{Key, List, Map, Value};

pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) struct Evaluator<'p, 'a> {
    program: &'p Program,
    activation: &'p Activation<'a>,
    /// Variables of folds, innermost last.
    locals: Vec<(&'p str, Value<'a>)>,
    cost: u64,
}

impl<'p, 'a> Evaluator<'p, 'a> {
    pub(crate) fn new(program: &'p Program, activation: &'p Activation<'a>) -> Self {
        Evaluator { program, activation, locals: Vec::new(), cost: 0 }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > PER_CALL_LIMIT { Err(EvalError::CallLimit) } else { Ok(()) }
    }

    pub(crate) fn eval(&mut self, expr: &'p Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::Const(constant) => Ok(const_value(constant)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test } => {
                if let Some(name) = self.program.checked.qualified.get(&expr.id) {
                    return self.ident(name);
                }
                let operand = self.eval(operand)?;
                if *test {
                    return present(&operand, field).map(Value::Bool);
                }
                self.charge(1)?;
                select(&operand, field)
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements, optional } => self.list(expr, elements, optional),
            Kind::Map { entries } => self.map(expr, entries),
            Kind::Struct { name, .. } => failed(format!("unknown type: {name}")),
            Kind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &str) -> Outcome<'a> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            let value = value.clone();
            self.charge(1)?;
            return match value {
                Value::Opaque(functions::opaque::Opaque::Failure(why)) => failed(why.as_ref()),
                value => Ok(value),
            };
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(value) = self.activation.get(name) {
            let value = value.clone();
            self.charge(1)?;
            return Ok(value);
        }
        match crate::library::type_named(name) {
            Some(ty) => Ok(Value::Type(ty)),
            None => failed(format!("no such attribute(s): {name}")),
        }
    }

    fn list(&mut self, expr: &Expr, elements: &'p [Expr], optional: &[usize]) -> Outcome<'a> {
        let mut items = Vec::with_capacity(elements.len());
        for (i, element) in elements.iter().enumerate() {
            let value = self.eval(element)?;
            match (optional.contains(&i), value) {
                (false, value) => items.push(value),
                (true, Value::Optional(inner)) => items.extend(inner.map(|inner| inner.as_ref().clone())),
                (true, _) => return failed("cannot initialize optional list element from non-optional value"),
            }
        }
        if !is_constant(expr) {
            self.charge(10)?;
        }
        Ok(Value::list(items))
    }

    fn map(&mut self, expr: &Expr, entries: &'p [Entry]) -> Outcome<'a> {
        let mut map = std::collections::BTreeMap::new();
        for entry in entries {
            let key = self.eval(&entry.key)?;
            let Some(key) = Key::of(&key) else { return failed(format!("unsupported key type: {}", key.type_of())) };
            let mut value = self.eval(&entry.value)?;
            if entry.optional {
                match value {
                    Value::Optional(Some(inner)) => value = inner.as_ref().clone(),
                    Value::Optional(None) => continue,
                    _ => return failed("cannot initialize optional entry from non-optional value"),
                }
            }
            if map.contains_key(&key) {
                return failed(format!("Failed with repeated key: {key}"));
            }
            map.insert(key, value);
        }
        if !is_constant(expr) {
            self.charge(30)?;
        }
        Ok(Value::Map(Map::Values(Rc::new(map))))
    }

    fn call(&mut self, expr: &Expr, function: &'p str, target: Option<&'p Expr>, args: &'p [Expr]) -> Outcome<'a> {
        match (function, args) {
            (op::AND, [left, right]) => return self.logical(left, right, false),
            (op::OR, [left, right]) => return self.logical(left, right, true),
            (op::CONDITIONAL, [condition, then, otherwise]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(then),
                    Value::Bool(false) => self.eval(otherwise),
                    _ => no_overload(),
                };
            }
            (op::NOT_STRICTLY_FALSE, [operand]) => {
                let value = self.eval(operand);
                self.charge(1)?;
                return match value {
                    Err(limit) if limit.is_limit() => Err(limit),
                    Ok(Value::Bool(b)) => Ok(Value::Bool(b)),
                    _ => Ok(Value::Bool(true)),
                };
            }
            (op::INDEX, [operand, index]) => {
                let operand = self.eval(operand)?;
                let index = self.eval(index)?;
                self.charge(1)?;
                return functions::index(&operand, &index);
            }
            (op::OPT_INDEX, [operand, index]) => {
                let operand = self.eval(operand)?;
                let index = self.eval(index)?;
                self.charge(1)?;
                return functions::optional_index(&operand, &index);
            }
            (op::OPT_SELECT, [operand, Expr { kind: Kind::Const(Const::String(field)), .. }]) => {
                let operand = self.eval(operand)?;
                self.charge(1)?;
                return optional_select(&operand, field);
            }
            (op::ADD, [Expr { kind: Kind::Ident(accu), .. }, Expr { kind: Kind::List { elements, .. }, .. }])
                if accu.as_ref() == ACCU && elements.len() == 1 =>
            {
                return self.append(&elements[0]);
            }
            (op::IN, [operand, list]) if is_set(list) => {
                let operand = self.eval(operand)?;
                return functions::contained(&operand, &self.eval(list)?);
            }
            _ => {}
        }
        let qualified = self.program.checked.qualified.get(&expr.id);
        let name = qualified.map_or(function, |name| name.as_ref());
        let mut values = Vec::with_capacity(args.len() + 1);
        if let (Some(target), None) = (target, qualified) {
            values.push(self.eval(target)?);
        }
        for arg in args {
            values.push(self.eval(arg)?);
        }
        let overload = match self.program.checked.overloads.get(&expr.id).map(Vec::as_slice) {
            Some([only]) => only,
            _ => "",
        };
        // A conversion of a constant is made once, when the program is.
        let folded = target.is_none()
            && matches!(args, [arg] if matches!(arg.kind, Kind::Const(_)))
            && functions::is_conversion(name);
        let result = functions::call(self.program, name, &values);
        if !folded && let Ok(result) = &result {
            self.charge(functions::cost::of_call(name, overload, &values, result))?;
        } else if !folded {
            self.charge(functions::cost::of_call(name, overload, &values, &Value::Null))?;
        }
        result
    }

    /// `@result + [x]`, the step of folds that make lists: in place, as nobody else holds the list.
    fn append(&mut self, element: &'p Expr) -> Outcome<'a> {
        let item = self.eval(element)?;
        // The accumulator, the list around the item, and the sum.
        self.charge(1 + 10 + 1)?;
        let Some((_, accu)) = self.locals.iter_mut().rev().find(|(local, _)| *local == ACCU) else {
            return no_overload();
        };
        let Value::List(List::Values(mut items)) = std::mem::replace(accu, Value::Null) else { return no_overload() };
        Rc::make_mut(&mut items).push(item);
        Ok(Value::List(List::Values(items)))
    }

    /// `&&` and `||`: one operand that decides makes up for a failure of the other.
    fn logical(&mut self, left: &'p Expr, right: &'p Expr, decides: bool) -> Outcome<'a> {
        let left = self.eval(left);
        match &left {
            Ok(Value::Bool(b)) if *b == decides => return left,
            Err(limit) if limit.is_limit() => return left,
            _ => {}
        }
        let right = self.eval(right);
        match (left, right) {
            (_, Err(limit)) if limit.is_limit() => Err(limit),
            (_, Ok(Value::Bool(b))) if b == decides => Ok(Value::Bool(b)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Value::Bool(_)), Ok(Value::Bool(b))) => Ok(Value::Bool(b)),
            _ => no_overload(),
        }
    }

    fn fold(&mut self, fold: &'p Comprehension) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let accu = self.eval(&fold.init)?;
        let before = self.locals.len();
        self.locals.push((&fold.accu, accu));
        let result = self.turns(fold, &range).and_then(|()| {
            self.locals.truncate(before + 1);
            self.eval(&fold.result)
        });
        self.locals.truncate(before);
        result
    }

    fn turns(&mut self, fold: &'p Comprehension, range: &Value<'a>) -> Result<(), EvalError> {
        match range {
            Value::List(list) => {
                for i in 0..list.len() {
                    let Some(item) = list.get(i) else { break };
                    let (first, second) = match fold.var2 {
                        Some(_) => (Value::Int(i as i64), item),
                        None => (item, Value::Null),
                    };
                    if !self.turn(fold, first, second)? {
                        break;
                    }
                }
                Ok(())
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = match fold.var2 {
                        Some(_) => map.get(&key).unwrap_or(Ok(Value::Null))?,
                        None => Value::Null,
                    };
                    if !self.turn(fold, key.value(), value)? {
                        break;
                    }
                }
                Ok(())
            }
            other => failed(format!("got '{}', expected iterable type", other.type_of())),
        }
    }

    /// One turn of a fold; whether another may follow.
    fn turn(&mut self, fold: &'p Comprehension, first: Value<'a>, second: Value<'a>) -> Result<bool, EvalError> {
        let before = self.locals.len();
        self.locals.push((&fold.var, first));
        if let Some(var2) = &fold.var2 {
            self.locals.push((var2, second));
        }
        let goes_on = self.eval(&fold.condition).map(|goes_on| goes_on.as_bool() != Some(false));
        let step = match goes_on {
            Ok(true) => self.eval(&fold.step).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        self.locals.truncate(before);
        match step {
            Ok(Some(value)) => {
                self.locals[before - 1].1 = value;
                Ok(true)
            }
            Ok(None) => Ok(false),
            // `all` and `exists` go on after a failure: a later turn may decide.
            Err(EvalError::Failed(why)) if matches!(fold.condition.kind, Kind::Call { .. }) => {
                self.locals[before - 1].1 = Value::Opaque(crate::functions::opaque::Opaque::Failure(why.into()));
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

/// The conversion of a constant, made when its program is; `None` for anything else.
pub(crate) fn fold_conversion<'a>(expr: &Expr) -> Result<Option<Value<'a>>, EvalError> {
    let Kind::Call { function, target: None, args } = &expr.kind else { return Ok(None) };
    let [Expr { kind: Kind::Const(constant), .. }] = args.as_slice() else { return Ok(None) };
    if !functions::is_conversion(function) {
        return Ok(None);
    }
    functions::standard::convert(function, &const_value(constant)).map(Some)
}

fn const_value<'a>(constant: &Const) -> Value<'a> {
    match constant {
        Const::Null => Value::Null,
        Const::Bool(b) => Value::Bool(*b),
        Const::Int(n) => Value::Int(*n),
        Const::Uint(n) => Value::Uint(*n),
        Const::Double(f) => Value::Double(*f),
        Const::String(text) => Value::string(text.clone()),
        Const::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

/// Lists and maps of constants are made once, and cost nothing.
fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Const(_) => true,
        Kind::List { elements, optional } => optional.is_empty() && elements.iter().all(is_constant),
        Kind::Map { entries } => {
            entries.iter().all(|entry| !entry.optional && is_constant(&entry.key) && is_constant(&entry.value))
        }
        _ => false,
    }
}

/// A list of constants of one scalar type: looking something up there is free.
fn is_set(expr: &Expr) -> bool {
    let Kind::List { elements, .. } = &expr.kind else { return false };
    elements.iter().all(|element| matches!(element.kind, Kind::Const(_))) && is_constant(expr)
}

/// `operand.field`.
pub(crate) fn select<'a>(operand: &Value<'a>, field: &str) -> Outcome<'a> {
    match operand {
        Value::Map(map) => map.field(field).unwrap_or_else(|| failed(format!("no such key: {field}"))),
        Value::Optional(_) => optional_select(operand, field),
        _ => no_overload(),
    }
}

/// `has(operand.field)`.
fn present(operand: &Value<'_>, field: &str) -> Result<bool, EvalError> {
    match operand {
        Value::Map(Map::Lazy(fields)) => Ok(fields.get(field).is_some()),
        Value::Map(map) => Ok(map.field(field).is_some()),
        Value::Optional(Some(inner)) => present(inner, field),
        Value::Optional(None) => Ok(false),
        _ => no_overload(),
    }
}

/// `operand.?field`.
fn optional_select<'a>(operand: &Value<'a>, field: &str) -> Outcome<'a> {
    match operand {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => optional_select(inner, field),
        Value::Map(map) => match map.field(field) {
            Some(Ok(Value::Optional(inner))) => Ok(Value::Optional(inner)),
            Some(value) => value.map(Value::some),
            None => Ok(Value::Optional(None)),
        },
        _ => no_overload(),
    }
}
