//! Functions of lists: Kubernetes' own and cel-go's sets.

use std::cmp::Ordering;

use super::standard;
use crate::error::{failed, no_overload};
use crate::eval::Outcome;
use crate::value::{List, Value};

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Option<Outcome<'a>> {
    Some(match (name, args) {
        ("isSorted", [Value::List(list)]) => sorted(list),
        ("sum", [Value::List(list)]) => {
            let mut items = list.iter();
            let Some(mut sum) = items.next() else { return Some(Ok(Value::Int(0))) };
            for item in items {
                match standard::call("_+_", &[sum, item])? {
                    Ok(more) => sum = more,
                    error => return Some(error),
                }
            }
            Ok(sum)
        }
        ("min" | "max", [Value::List(list)]) => extreme(name, list),
        ("indexOf", [Value::List(list), item]) => {
            Ok(Value::Int(list.iter().position(|other| other.equals(item)).map_or(-1, |at| at as i64)))
        }
        ("lastIndexOf", [Value::List(list), item]) => {
            let found = (0..list.len()).rev().find(|at| list.get(*at).is_some_and(|other| other.equals(item)));
            Ok(Value::Int(found.map_or(-1, |at| at as i64)))
        }
        ("sets.contains", [Value::List(list), Value::List(sub)]) => Ok(Value::Bool(contains(list, sub))),
        ("sets.equivalent", [Value::List(a), Value::List(b)]) => Ok(Value::Bool(contains(a, b) && contains(b, a))),
        ("sets.intersects", [Value::List(a), Value::List(b)]) => {
            Ok(Value::Bool(a.iter().any(|item| b.iter().any(|other| other.equals(&item)))))
        }
        _ => return None,
    })
}

fn contains<'a>(list: &List<'a>, sub: &List<'a>) -> bool {
    sub.iter().all(|item| list.iter().any(|other| other.equals(&item)))
}

fn sorted<'a>(list: &List<'a>) -> Outcome<'a> {
    let mut before: Option<Value<'a>> = None;
    for item in list.iter() {
        if let Some(before) = &before {
            match before.compare(&item) {
                Some(Ordering::Greater) => return Ok(Value::Bool(false)),
                Some(_) => {}
                None => return no_overload(),
            }
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn extreme<'a>(name: &str, list: &List<'a>) -> Outcome<'a> {
    let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        best = Some(match best {
            None => item,
            Some(best) => match item.compare(&best) {
                Some(order) if order == wanted => item,
                Some(_) => best,
                None => return no_overload(),
            },
        });
    }
    best.map_or_else(|| failed(format!("{name} called on empty list")), Ok)
}
