//! JSONPath as `additionalPrinterColumns` have it. Upstream: client-go util/jsonpath, with missing keys allowed.

use apimachinery::{Number, Value};

/// A compiled path.
#[derive(Debug)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        by: i64,
    },
    /// Several fields or indexes.
    Union(Vec<Step>),
    Index(i64),
    Filter {
        left: Operand,
        operator: String,
        right: Option<Operand>,
    },
}

#[derive(Debug)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

impl JsonPath {
    /// Reads `.status.conditions[?(@.type=="Ready")].status`.
    pub(crate) fn parse(text: &str) -> Option<JsonPath> {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches(['$', '@']);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Recursive);
                rest = after;
                if rest.starts_with('[') {
                    continue;
                }
                rest = field(rest, &mut steps)?;
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.starts_with('[') || after.is_empty() {
                    rest = after;
                    continue;
                }
                rest = field(after, &mut steps)?;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(after[..end].trim())?);
                rest = &after[end + 1..];
            } else {
                rest = field(rest, &mut steps)?;
            }
        }
        Some(JsonPath(steps))
    }

    /// Everything the path leads to.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![value], |found, step| found.into_iter().flat_map(|value| step.follow(value)).collect())
    }
}

/// Reads a name up to the next step; `\.` is a dot in it.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let (mut name, mut escaped, mut end) = (String::new(), false, text.len());
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => return None,
        "*" => steps.push(Step::Wildcard),
        _ => steps.push(Step::Field(name)),
    }
    Some(&text[end..])
}

/// Where the bracket that was opened closes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if let Some(filter) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return condition(filter);
    }
    if text == "*" {
        return Some(Step::Wildcard);
    }
    if text.contains(',') {
        return text.split(',').map(|part| bracket(part.trim())).collect::<Option<_>>().map(Step::Union);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if text.contains(':') {
        let mut parts = text.split(':').map(str::trim);
        let mut next = || match parts.next() {
            None | Some("") => Some(None),
            Some(part) => part.parse().ok().map(Some),
        };
        let (from, to, by): (Option<i64>, Option<i64>, Option<i64>) = (next()?, next()?, next()?);
        return Some(Step::Slice { from, to, by: by.unwrap_or(1).max(1) });
    }
    match text.parse() {
        Ok(index) => Some(Step::Index(index)),
        Err(_) => Some(Step::Field(text.to_owned())),
    }
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

fn condition(text: &str) -> Option<Step> {
    for operator in ["==", "!=", "<=", ">=", "<", ">"] {
        if let Some((left, right)) = text.split_once(operator) {
            let (left, right) = (operand(left.trim())?, operand(right.trim())?);
            return Some(Step::Filter { left, operator: operator.to_owned(), right: Some(right) });
        }
    }
    Some(Step::Filter { left: operand(text.trim())?, operator: String::new(), right: None })
}

fn operand(text: &str) -> Option<Operand> {
    if let Some(literal) = unquoted(text) {
        return Some(Operand::Literal(Value::from(literal)));
    }
    if text.starts_with('@') || text.starts_with('$') || text.starts_with('.') {
        return JsonPath::parse(text).map(Operand::Path);
    }
    Value::parse(text.as_bytes()).ok().map(Operand::Literal)
}

impl Operand {
    fn of<'v>(&'v self, value: &'v Value) -> Option<&'v Value> {
        match self {
            Operand::Literal(literal) => Some(literal),
            Operand::Path(path) => path.find(value).into_iter().next(),
        }
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Step::Field(name), value) => value.get(name).into_iter().collect(),
            (Step::Wildcard, Value::Array(items)) => items.iter().collect(),
            (Step::Wildcard, Value::Object(map)) => map.iter().map(|(_, value)| value).collect(),
            (Step::Recursive, value) => {
                let mut all = vec![value];
                match value {
                    Value::Array(items) => all.extend(items.iter().flat_map(|item| self.follow(item))),
                    Value::Object(map) => all.extend(map.iter().flat_map(|(_, value)| self.follow(value))),
                    _ => {}
                }
                all
            }
            (Step::Union(steps), value) => steps.iter().flat_map(|step| step.follow(value)).collect(),
            (Step::Index(index), Value::Array(items)) => {
                let index = if *index < 0 { items.len() as i64 + index } else { *index };
                usize::try_from(index).ok().and_then(|index| items.get(index)).into_iter().collect()
            }
            (Step::Slice { from, to, by }, Value::Array(items)) => {
                let count = items.len() as i64;
                let at = |index: i64| if index < 0 { (count + index).max(0) } else { index.min(count) };
                let (from, to) = (at(from.unwrap_or(0)), at(to.unwrap_or(count)));
                let inside = items.iter().take(to as usize).skip(from as usize);
                inside.step_by(*by as usize).collect()
            }
            (Step::Filter { left, operator, right }, Value::Array(items)) => items
                .iter()
                .filter(|item| holds(left.of(item), operator, right.as_ref().map(|right| right.of(item))))
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn holds(left: Option<&Value>, operator: &str, right: Option<Option<&Value>>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return left.is_some() && right.is_none() };
    let Some(right) = right else { return false };
    let order = match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.partial_cmp(&right),
        _ => match (left, right) {
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) => (left == right).then_some(std::cmp::Ordering::Equal),
        },
    };
    match (operator, order) {
        ("==", order) => order.is_some_and(std::cmp::Ordering::is_eq),
        ("!=", order) => order.is_none_or(std::cmp::Ordering::is_ne),
        ("<", Some(order)) => order.is_lt(),
        (">", Some(order)) => order.is_gt(),
        ("<=", Some(order)) => order.is_le(),
        (">=", Some(order)) => order.is_ge(),
        _ => false,
    }
}

/// A value as `kubectl get -o jsonpath` prints it.
pub(crate) fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(Number::Float(f)) => f.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let value = Value::parse(
            br#"{"spec":{"a":1,"list":["x","y","z"],"a.b":2},"status":{"conditions":[{"type":"Ready","status":"True"},{"type":"Other","status":"False"}]}}"#,
        )
        .unwrap();
        let check = |path: &str, expect: &[&str]| {
            let found: Vec<String> = JsonPath::parse(path).unwrap().find(&value).into_iter().map(printed).collect();
            assert_eq!(found, expect, "{path}");
        };
        check(".spec.a", &["1"]);
        check(".spec.none", &[]);
        check(".spec.list[1]", &["y"]);
        check(".spec.list[-1]", &["z"]);
        check(".spec.list[0:2]", &["x", "y"]);
        check(".spec.list[*]", &["x", "y", "z"]);
        check(r".spec.a\.b", &["2"]);
        check(".spec['a.b']", &["2"]);
        check(r#".status.conditions[?(@.type=="Ready")].status"#, &["True"]);
        check(".status.conditions[?(@.type=='Other')].status", &["False"]);
        check(".status.conditions[*]..status", &["True", "False"]);
    }
}
