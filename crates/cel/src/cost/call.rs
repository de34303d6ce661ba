//! The estimates of calls.

use super::{Coster, Node, Range};
use crate::ast::{Const, Expr, Kind, op};
use crate::functions::cost::{PATTERN, TRAVERSAL};
use crate::types::Type;

/// A call's cost without its arguments', and the size of its result.
type Estimate = (Range, Option<Range>);

impl<'e> Coster<'e> {
    pub(super) fn call(
        &mut self,
        expr: &'e Expr,
        function: &'e str,
        target: Option<&'e Expr>,
        args: &'e [Expr],
    ) -> Range {
        if let ("dyn", [arg]) = (function, args) {
            let cost = self.cost(arg);
            self.copy(expr.id, arg);
            return cost.plus(Range::exactly(1));
        }
        if let (op::OPT_SELECT, [operand, field]) = (function, args) {
            let cost = self.cost(operand);
            let mut path = self.path(operand);
            if let (Kind::Const(Const::String(field)), false) = (&field.kind, path.is_empty()) {
                path.push(field.to_string());
                self.paths.insert(expr.id, path);
            }
            return cost.plus(Range::exactly(1));
        }
        let qualified = self.program.checked.qualified.get(&expr.id);
        let name: &str = qualified.map_or(function, |name| name.as_ref());
        let target = target.filter(|_| qualified.is_none());
        let costs: Vec<Range> = args.iter().map(|arg| self.cost(arg)).collect();
        let nodes: Vec<Node<'e>> = args.iter().map(|arg| self.node(arg)).collect();
        let Some(overloads) = self.program.checked.overloads.get(&expr.id) else { return Range::default() };
        let mut sum = Range::default();
        let target = target.map(|target| {
            sum = self.cost(target);
            self.node(target)
        });
        let of_args = costs.iter().fold(Range::default(), |sum, cost| sum.plus(*cost));
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        for overload in overloads {
            let (own, result) = match (name, costs.as_slice()) {
                (op::AND | op::OR, [left, right]) => (Range { min: left.min, max: left.plus(*right).max }, None),
                (op::CONDITIONAL, [condition, then, otherwise]) => {
                    let size = self.size_or_unknown(&args[1]).or(self.size_or_unknown(&args[2]));
                    if let (Some(a), Some(b)) = (self.entries_of(&args[1]), self.entries_of(&args[2])) {
                        let both = super::Entries { list: a.list, key: a.key.or(b.key), value: a.value.or(b.value) };
                        self.entries.insert(expr.id, both);
                    }
                    (condition.plus(then.or(*otherwise)), Some(size))
                }
                _ => {
                    let (own, result) = match self.library(name, overload, target.as_ref(), &nodes) {
                        Some(estimate) => estimate,
                        None => self.standard(expr, overload, target.as_ref(), args, &nodes),
                    };
                    (own.plus(of_args), result)
                }
            };
            cost = cost.or(own);
            if let Some(result) = result {
                size = Some(size.map_or(result, |size| size.or(result)));
            }
            if let ("index_list" | "index_map", [container, _]) = (*overload, args) {
                size = self.entries_of(container).map(|entries| entries.value);
                let mut path = self.path(container);
                if !path.is_empty() {
                    path.push(if *overload == "index_list" { "@items" } else { "@values" }.to_owned());
                    self.paths.insert(expr.id, path);
                }
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        sum.plus(cost)
    }

    fn standard(
        &mut self,
        expr: &'e Expr,
        overload: &str,
        target: Option<&Node<'e>>,
        args: &'e [Expr],
        nodes: &[Node<'e>],
    ) -> Estimate {
        let unknown = Range::UNKNOWN;
        let size = |at: usize| nodes.get(at).and_then(|node| node.size).unwrap_or(unknown);
        let of_target = target.and_then(|target| target.size).unwrap_or(unknown);
        match overload {
            "string_format" => (of_target.scaled(TRAVERSAL), Some(of_target.plus(size(0)))),
            "string_to_bytes" => {
                let sz = size(0);
                (sz.scaled(TRAVERSAL), Some(Range { min: sz.min, max: sz.max.saturating_mul(4) }))
            }
            "bytes_to_string" => {
                let sz = size(0);
                (sz.scaled(TRAVERSAL), Some(Range { min: sz.min / 4, max: sz.max }))
            }
            "strings_quote" => {
                let sz = size(0);
                let max = sz.max.saturating_mul(2).saturating_add(2);
                (sz.scaled(TRAVERSAL), Some(Range { min: sz.min.saturating_add(2), max }))
            }
            "starts_with_string" | "ends_with_string" => (size(0).scaled(TRAVERSAL), None),
            "in_list" => (size(1), None),
            "matches_string" => {
                (of_target.plus(Range::exactly(1)).scaled(TRAVERSAL).times(size(0).scaled(PATTERN)), None)
            }
            "contains_string" => (of_target.scaled(TRAVERSAL).times(size(0).scaled(TRAVERSAL)), None),
            "add_string" | "add_bytes" | "add_list" => {
                let result = size(0).plus(size(1));
                if let (Some(a), Some(b)) = (self.entries_of(&args[0]), self.entries_of(&args[1])) {
                    let both = super::Entries { list: a.list, key: a.key.or(b.key), value: a.value.or(b.value) };
                    self.entries.insert(expr.id, both);
                }
                let cost = if overload == "add_list" { Range::exactly(1) } else { result.scaled(TRAVERSAL) };
                (cost, Some(result))
            }
            "equals"
            | "not_equals"
            | "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes" => {
                let max = size(0).max.min(size(1).max);
                (Range { min: u64::from(max > 0), max }.scaled(TRAVERSAL), None)
            }
            _ => (Range::exactly(1), None),
        }
    }

    /// The node of a list's items.
    fn item_size(&self, list: &Node<'e>) -> Option<(Type, Range)> {
        let Type::List(item) = &list.ty else { return None };
        let mut path = list.path.clone();
        let declared = if path.is_empty() {
            None
        } else {
            path.push("@items".to_owned());
            self.declared(&path)
        };
        Some((item.as_ref().clone(), declared.unwrap_or(Range::UNKNOWN)))
    }

    fn library(&self, name: &str, overload: &str, target: Option<&Node<'e>>, args: &[Node<'e>]) -> Option<Estimate> {
        let one = Some((Range::exactly(1), None));
        let size = |node: Option<&Node<'e>>| node.map_or(Range::UNKNOWN, |node| node.size.unwrap_or(Range::UNKNOWN));
        let own = size(target);
        match name {
            "check" => Some((Range::exactly(350_000), None)),
            "serviceAccount"
            | "path"
            | "group"
            | "resource"
            | "subresource"
            | "namespace"
            | "name"
            | "allowed"
            | "reason"
            | "error"
            | "errored"
            | "fieldSelector"
            | "labelSelector"
            | "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub" => one,
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                let target = target?;
                Some(match self.item_size(target) {
                    Some((item, of_item)) => {
                        let text = matches!(item, Type::String | Type::Bytes);
                        let each =
                            if text { Range::exactly(1).plus(of_item.scaled(TRAVERSAL)) } else { Range::exactly(1) };
                        (own.times(each), None)
                    }
                    None => (own.scaled(TRAVERSAL), None),
                })
            }
            "url" => Some((size(args.first()).scaled(TRAVERSAL), None)),
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                target?;
                Some((own.scaled(TRAVERSAL), Some(own)))
            }
            "replace" => {
                target?;
                let (from, to) = (size(args.first()), size(args.get(1)));
                Some((own.scaled(2.0 * TRAVERSAL), Some(replaced(own, from, to))))
            }
            "split" => {
                target?;
                let limit = args.get(1).and_then(|limit| match limit.expr.kind {
                    Kind::Const(Const::Int(n)) => u64::try_from(n).ok(),
                    _ => None,
                });
                Some((own.scaled(2.0 * TRAVERSAL), Some(Range { min: 0, max: limit.unwrap_or(own.max) })))
            }
            "join" => {
                let mut sum = self.item_size(target?).map_or(Range::default(), |(_, item)| own.times(item));
                if let Some(separator) = args.first() {
                    let times = Range { min: own.min.saturating_sub(1), max: own.max.saturating_sub(1) };
                    sum = sum.plus(size(Some(separator)).times(times));
                }
                Some((sum.scaled(TRAVERSAL), Some(sum)))
            }
            "find" | "findAll" => {
                target?;
                let text = own.plus(Range::exactly(1)).scaled(TRAVERSAL);
                Some((text.times(size(args.first()).scaled(PATTERN)), Some(Range { min: 0, max: own.max })))
            }
            "ip" if overload == "cidr_ip" => one,
            "containsIP" | "containsCIDR" => {
                let bytes = Range { min: 4, max: 16 };
                let mut sum = bytes.plus(bytes).scaled(TRAVERSAL);
                if name == "containsCIDR" {
                    sum = sum.plus(bytes.scaled(TRAVERSAL)).plus(Range::exactly(1));
                }
                if overload.ends_with("string") {
                    sum = sum.plus(size(args.first()).scaled(TRAVERSAL));
                }
                Some((sum, None))
            }
            "validate" => Some((size(args.first()).scaled(TRAVERSAL).plus(Range::exactly(1)), None)),
            "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                let times = if name == "sets.equivalent" { 2 } else { 1 };
                let product = size(args.first()).times(size(args.get(1))).times(Range::exactly(times));
                Some((product.plus(Range::exactly(1)), None))
            }
            _ => None,
        }
    }
}

/// How long a text may be after replacing.
fn replaced(size: Range, from: Range, to: Range) -> Range {
    let times = |size: u64, by: u64| (size as f64 / by as f64).ceil() as u64;
    let (max_count, max_kept) = if from.min == 0 {
        (size.max.saturating_add(1), size.max)
    } else if to.max <= from.min {
        (0, size.max)
    } else {
        (times(size.max, from.min), 0)
    };
    let (min_count, min_kept) = if from.max == 0 {
        (size.min.saturating_add(1), size.min)
    } else if from.max <= to.min {
        (0, size.min)
    } else {
        (times(size.min, from.max), 0)
    };
    Range { min: min_count, max: max_count }.times(to).plus(Range { min: min_kept, max: max_kept })
}
