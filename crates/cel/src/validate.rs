//! Literals that can be checked before anything runs: durations, times and patterns. Upstream: cel-go's `ASTValidators`.

use crate::ast::{Ast, Const, Expr, Kind};
use crate::error::Issue;
use crate::functions::{pattern, time};

/// Calls `visit` with every part of an expression.
pub(crate) fn walk<'e>(expr: &'e Expr, visit: &mut impl FnMut(&'e Expr)) {
    visit(expr);
    match &expr.kind {
        Kind::Const(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => walk(operand, visit),
        Kind::Call { target, args, .. } => {
            if let Some(target) = target {
                walk(target, visit);
            }
            args.iter().for_each(|arg| walk(arg, visit));
        }
        Kind::List { elements, .. } => elements.iter().for_each(|element| walk(element, visit)),
        Kind::Map { entries } => entries.iter().for_each(|entry| {
            walk(&entry.key, visit);
            walk(&entry.value, visit);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|(_, _, value)| walk(value, visit)),
        Kind::Comprehension(fold) => {
            for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                walk(part, visit);
            }
        }
    }
}

pub(crate) fn literals(ast: &Ast) -> Vec<Issue> {
    let mut issues = Vec::new();
    walk(&ast.root, &mut |expr| {
        let Kind::Call { function, target, args } = &expr.kind else { return };
        if let (
            "format",
            Some(Expr { kind: Kind::Const(Const::String(pattern)), .. }),
            [Expr { kind: Kind::List { .. }, .. }],
        ) = (function.as_ref(), target.as_deref(), args.as_slice())
            && let Some(verb) = crate::functions::strings::unknown_clause(pattern)
        {
            let message = format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\"");
            issues.push(Issue { at: ast.offsets[expr.id as usize], message });
        }
        let argument = match (function.as_ref(), target.is_some(), args.as_slice()) {
            ("duration" | "timestamp", false, [argument])
            | ("matches", true, [argument])
            | ("matches", false, [_, argument]) => argument,
            _ => return,
        };
        let Kind::Const(Const::String(text)) = &argument.kind else { return };
        let sound = match function.as_ref() {
            "duration" => time::parse_duration(text).is_some(),
            "timestamp" => apimachinery::parse_time(text).is_some(),
            _ => pattern::compile(text).is_some(),
        };
        if !sound {
            let at = ast.offsets[argument.id as usize];
            issues.push(Issue { at, message: format!("invalid {function} argument") });
        }
    });
    issues
}
