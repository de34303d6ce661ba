//! `x-kubernetes-validations`: rules of a schema in CEL. Upstream: apiextensions pkg/apiserver/schema/cel.

use std::collections::BTreeMap;

use apimachinery::{FieldError, FieldErrorKind, Value};
use cel::{Activation, Budget, CompileErrorKind, Decl, Environment, EvalError, PER_OBJECT_LIMIT, Program, Type};

use super::schema::Node;

/// The largest request, in bytes: how often something of a smallest size may be in it.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// The compiled rules of a version.
#[derive(Debug, Default)]
pub(crate) struct Rules(Option<Box<Place>>);

/// The rules of one node, and those below it.
#[derive(Debug, Default)]
struct Place {
    decl: Option<Decl>,
    rules: Vec<Rule>,
    properties: BTreeMap<String, Place>,
    items: Option<Box<Place>>,
    values: Option<Box<Place>>,
}

#[derive(Debug)]
struct Rule {
    program: Result<Program, String>,
    source: String,
    message: String,
    message_program: Option<Program>,
    reason: String,
    field: String,
    uses_old: bool,
    optional_old: bool,
}

impl Rules {
    /// Compiles the rules of a schema; `raw` is its JSONSchemaProps.
    pub(crate) fn compile(raw: &Value, schema: &Node) -> Rules {
        if !schema.has_rules() {
            return Rules::default();
        }
        Rules(place(raw, true).map(Box::new))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Names every rule that `new` breaks. Rules about what was before are asked where that is known.
    pub(crate) fn check(&self, schema: &Node, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        if let Some(place) = &self.0 {
            let budget = Budget::new(PER_OBJECT_LIMIT);
            // What was let in before is no reason to go on once the budget is spent.
            let _ = place.check(schema, new, old, "", &budget, errors);
        }
    }

    /// Names the rules of a schema that can't be used, or cost too much.
    pub(crate) fn check_schema(raw: &Value, path: &str, errors: &mut Vec<FieldError>) {
        if !Node::read(raw).has_rules() {
            return;
        }
        let mut costs = Costs::default();
        check_place(raw, path, &Above { root: true, count: Some(1), uncorrelated: None }, &mut costs, errors);
        let total = costs.total;
        if total > cel::STATIC_CRD_LIMIT {
            for path in costs.most_expensive() {
                let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
                errors.push(FieldError::forbidden(path, why));
            }
            let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
            errors.push(FieldError::forbidden(path, too_expensive(what, total, cel::STATIC_CRD_LIMIT)));
        }
    }
}

fn schema_at<'v>(raw: &'v Value, key: &str) -> Option<&'v Value> {
    raw.get(key).filter(|inner| inner.as_object().is_some())
}

fn environment(decl: &Decl, optional_old: bool) -> Environment {
    let env = Environment::new().with_decl("self", decl.clone());
    match optional_old {
        true => env.with("oldSelf", Type::optional(decl.ty().clone())),
        false => env.with_decl("oldSelf", decl.clone()),
    }
}

fn place(raw: &Value, resource: bool) -> Option<Place> {
    let embedded = raw.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true);
    let given = raw.items_at(&["x-kubernetes-validations"]);
    let decl = if given.is_empty() { None } else { Decl::from_structural(raw, "self", resource || embedded) };
    let rules = given.iter().filter_map(|rule| Some(compile(rule, decl.as_ref()?)));
    let properties = raw.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.iter());
    let found = Place {
        rules: rules.collect(),
        properties: properties.filter_map(|(name, inner)| Some((name.to_owned(), place(inner, false)?))).collect(),
        items: schema_at(raw, "items").and_then(|inner| place(inner, false)).map(Box::new),
        values: schema_at(raw, "additionalProperties").and_then(|inner| place(inner, false)).map(Box::new),
        decl,
    };
    let empty =
        found.rules.is_empty() && found.properties.is_empty() && found.items.is_none() && found.values.is_none();
    (!empty).then_some(found)
}

fn compile(rule: &Value, decl: &Decl) -> Rule {
    let text = |key: &str| rule.str_at(&[key]).unwrap_or_default().to_owned();
    let optional_old = rule.bool_at(&["optionalOldSelf"]) == Some(true);
    let env = environment(decl, optional_old);
    let source = text("rule");
    let program = env.compile(&source, &[Type::Bool]).map_err(|error| error.to_string());
    let expression = text("messageExpression");
    Rule {
        uses_old: program.as_ref().is_ok_and(|program| program.uses("oldSelf")),
        program,
        message: text("message").trim().to_owned(),
        message_program: (!expression.is_empty()).then(|| env.compile(&expression, &[Type::String]).ok()).flatten(),
        reason: text("reason"),
        field: text("fieldPath"),
        optional_old,
        source,
    }
}

/// The budget is spent, or something else forbids to go on.
struct Enough;

impl Place {
    fn check(
        &self,
        schema: &Node,
        new: &Value,
        old: Option<&Value>,
        path: &str,
        budget: &Budget,
        errors: &mut Vec<FieldError>,
    ) -> Result<(), Enough> {
        if new.is_null() {
            return Ok(());
        }
        for rule in &self.rules {
            self.ask(rule, schema, (new, old), path, budget, errors)?;
        }
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match new {
            Value::Object(map) => {
                for (name, member) in map.iter() {
                    let Some(inner) = schema.member(name) else { continue };
                    let before = old.and_then(|old| old.get(name));
                    if let Some(place) = self.properties.get(name) {
                        place.check(inner, member, before, &below(name), budget, errors)?;
                    } else if let Some(place) = self.values.as_deref().filter(|_| !schema.properties.contains_key(name))
                    {
                        place.check(inner, member, before, &format!("{path}[{name}]"), budget, errors)?;
                    }
                }
            }
            Value::Array(items) => {
                if let (Some(place), Some(inner)) = (&self.items, schema.items.as_deref()) {
                    for (index, item) in items.iter().enumerate() {
                        let before = if schema.list_type == "map" { schema.item_before(item, old) } else { None };
                        place.check(inner, item, before, &format!("{path}[{index}]"), budget, errors)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ask(
        &self,
        rule: &Rule,
        schema: &Node,
        (new, old): (&Value, Option<&Value>),
        path: &str,
        budget: &Budget,
        errors: &mut Vec<FieldError>,
    ) -> Result<(), Enough> {
        let decl = self.decl.as_ref();
        let program = match &rule.program {
            // Nothing is said of what was not there before.
            Ok(_) if rule.uses_old && old.is_none() && !rule.optional_old => return Ok(()),
            Ok(program) => program,
            Err(why) => {
                errors.push(FieldError::invalid(field(path), kind_of(schema), format!("rule compile error: {why}")));
                return Ok(());
            }
        };
        let mut activation = Activation::new().with("self", cel::Value::json(new, decl));
        let before = old.map(|old| cel::Value::json(old, decl));
        if rule.optional_old {
            activation = activation.with("oldSelf", cel::Value::Optional(before.map(std::rc::Rc::new)));
        } else if let Some(before) = before {
            activation = activation.with("oldSelf", before);
        }
        let named = if rule.message.is_empty() { rule.source.trim() } else { &rule.message };
        let mut refuse = |why: String| errors.push(FieldError::invalid(field(path), kind_of(schema), why));
        match program.evaluate(&activation, budget) {
            Ok(result) if result.as_bool() == Some(true) => return Ok(()),
            Ok(_) => {}
            Err(error @ EvalError::Budget) => {
                refuse(error.to_string());
                return Err(Enough);
            }
            Err(error @ EvalError::CallLimit) => {
                refuse(format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {named}"
                ));
                return Err(Enough);
            }
            Err(error) if error.to_string().starts_with("no such overload") => {
                refuse(format!(
                    "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {named}"
                ));
                return Ok(());
            }
            Err(error) => {
                refuse(format!("{error} evaluating rule: {named}"));
                return Ok(());
            }
        }
        // What was let in before may stay, unless the rule is about changes.
        if !rule.uses_old && old == Some(new) {
            return Ok(());
        }
        let told = rule.message_program.as_ref().and_then(|program| {
            let message = program.evaluate(&activation, budget).ok()?;
            let message = message.as_str()?.trim().to_owned();
            (!message.is_empty() && !message.contains('\n') && message.len() <= 5 * 1024).then_some(message)
        });
        let detail = told.unwrap_or_else(|| match rule.message.is_empty() {
            true => format!("failed rule: {}", rule.source.trim()),
            false => rule.message.clone(),
        });
        let at = match rule.field.is_empty() {
            true => field(path),
            false if path.is_empty() => rule.field.trim_start_matches('.').to_owned(),
            false => format!("{path}{}", rule.field),
        };
        let shown = match new {
            Value::Object(_) | Value::Array(_) => String::new(),
            scalar => scalar.shown(),
        };
        errors.push(match rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(at, detail),
            "FieldValueRequired" => FieldError::required(at, detail),
            "FieldValueDuplicate" => {
                FieldError { kind: FieldErrorKind::Duplicate, field: at, shown, detail: String::new() }
            }
            _ => FieldError { kind: FieldErrorKind::Invalid, field: at, shown, detail },
        });
        Ok(())
    }
}

/// The root has no name.
fn field(path: &str) -> String {
    if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() }
}

fn kind_of(schema: &Node) -> &str {
    &schema.ty
}

/// What stands above a schema.
struct Above {
    root: bool,
    /// How many of it there may be in one object; `None` where nothing bounds them.
    count: Option<u64>,
    /// The nearest list or map whose items have no identity.
    uncorrelated: Option<String>,
}

/// What the rules of a definition's version are estimated at.
#[derive(Default)]
struct Costs {
    total: u64,
    each: Vec<(u64, String)>,
}

impl Costs {
    fn add(&mut self, cost: u64, path: String) {
        self.total = self.total.saturating_add(cost);
        // Upstream names those of more than a hundredth of the limit.
        if cost > cel::STATIC_CRD_LIMIT / 100 {
            self.each.push((cost, path));
        }
    }

    fn most_expensive(mut self) -> Vec<String> {
        self.each.sort_by_key(|rule| std::cmp::Reverse(rule.0));
        self.each.into_iter().take(4).map(|(_, path)| path).collect()
    }
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let shown = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength \
         where arrays, maps, and strings are declared)"
    )
}

fn check_place(raw: &Value, path: &str, above: &Above, costs: &mut Costs, errors: &mut Vec<FieldError>) {
    let given = raw.items_at(&["x-kubernetes-validations"]);
    if !given.is_empty() {
        let embedded = raw.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true);
        if let Some(decl) = Decl::from_structural(raw, "self", above.root || embedded) {
            for (index, rule) in given.iter().enumerate() {
                let at = format!("{path}.x-kubernetes-validations[{index}]");
                check_rule(rule, raw, &decl, &at, above, costs, errors);
            }
        }
    }
    let below = |bound: &str, correlated: bool| Above {
        root: false,
        count: above.count.zip(limit(raw, bound)).map(|(count, more)| count.saturating_mul(more)),
        uncorrelated: above.uncorrelated.clone().or_else(|| (!correlated).then(|| path.to_owned())),
    };
    let map_correlates = raw.str_at(&["x-kubernetes-map-type"]) != Some("atomic");
    for (name, inner) in raw.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.iter()) {
        let own = Above { count: above.count, ..below("", map_correlates) };
        check_place(inner, &format!("{path}.properties[{name}]"), &own, costs, errors);
    }
    if let Some(inner) = schema_at(raw, "items") {
        let is_map = raw.str_at(&["x-kubernetes-list-type"]) == Some("map");
        check_place(inner, &format!("{path}.items"), &below("maxItems", is_map), costs, errors);
    }
    if let Some(inner) = schema_at(raw, "additionalProperties") {
        let own = below("maxProperties", map_correlates);
        check_place(inner, &format!("{path}.additionalProperties"), &own, costs, errors);
    }
}

fn limit(raw: &Value, key: &str) -> Option<u64> {
    raw.i64_at(&[key]).and_then(|limit| u64::try_from(limit).ok())
}

fn check_rule(
    rule: &Value,
    raw: &Value,
    decl: &Decl,
    at: &str,
    above: &Above,
    costs: &mut Costs,
    errors: &mut Vec<FieldError>,
) {
    let text = |key: &str| rule.str_at(&[key]).unwrap_or_default();
    let optional_old = rule.bool_at(&["optionalOldSelf"]);
    let env = environment(decl, optional_old == Some(true));
    let count = above.count.unwrap_or_else(|| MAX_REQUEST / (smallest(raw) + 1));
    let mut judge = |program: &Program, what: &str, key: &str, errors: &mut Vec<FieldError>| {
        let cost = program.estimate(&env).max.saturating_mul(count);
        if cost > cel::STATIC_LIMIT {
            errors.push(FieldError::forbidden(format!("{at}.{key}"), too_expensive(what, cost, cel::STATIC_LIMIT)));
        }
        costs.add(cost, format!("{at}.{key}"));
    };
    match env.compile(text("rule"), &[Type::Bool]) {
        Ok(program) => {
            judge(&program, "estimated rule cost", "rule", errors);
            if program.uses("oldSelf") {
                if let Some(path) = &above.uncorrelated {
                    let why =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}");
                    errors.push(FieldError::invalid(format!("{at}.rule"), text("rule"), why));
                }
            } else if let Some(optional) = optional_old {
                let why = "may not be set if oldSelf is not used in rule";
                errors.push(FieldError::invalid(format!("{at}.optionalOldSelf"), optional, why));
            }
        }
        Err(error) => {
            let why = match error.kind {
                CompileErrorKind::Syntax => format!("compilation failed: {error}"),
                CompileErrorKind::Output => "cel expression must evaluate to a bool".to_owned(),
            };
            errors.push(FieldError::invalid(format!("{at}.rule"), rule, why));
            return;
        }
    }
    let expression = text("messageExpression");
    if expression.trim().is_empty() {
        return;
    }
    match env.compile(expression, &[Type::String]) {
        Ok(program) => judge(&program, "estimated messageExpression cost", "messageExpression", errors),
        Err(error) => {
            let why = match error.kind {
                CompileErrorKind::Syntax => format!("messageExpression compilation failed: {error}"),
                CompileErrorKind::Output => "messageExpression must evaluate to a string".to_owned(),
            };
            errors.push(FieldError::invalid(format!("{at}.messageExpression"), rule, why));
        }
    }
}

/// The fewest bytes a value takes in a request.
fn smallest(raw: &Value) -> u64 {
    let required = raw.items_at(&["required"]);
    match raw.str_at(&["type"]).unwrap_or_default() {
        "boolean" => 4,
        "integer" | "number" => 1,
        "object" => {
            let members = raw.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.iter());
            let needed = members.filter(|(name, inner)| {
                required.iter().any(|wanted| wanted.as_str() == Some(name)) && inner.get("default").is_none()
            });
            // Quotes, a colon and a comma.
            2 + needed.map(|(name, inner)| name.len() as u64 + smallest(inner) + 4).sum::<u64>()
        }
        _ => 2,
    }
}
