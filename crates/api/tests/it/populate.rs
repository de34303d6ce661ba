//! Objects with every field set.

use apimachinery::schema::{Field, Shape, Type};
use apimachinery::{Map, Value};

/// An object of `ty` with every field set to something that isn't its zero value; no two numbers or texts nearby are equal.
pub fn populated(ty: Type<'static>, api_version: &str, kind: &str) -> Value {
    let mut value = Populate { count: 0, above: Vec::new() }.value(ty, "");
    if ty.field("apiVersion").is_some() {
        value.set(&["apiVersion"], api_version);
        value.set(&["kind"], kind);
    }
    value
}

/// An object of `ty` in which everything is there and nothing is set: objects hold their fields, lists and maps one zero.
pub fn hollow(ty: Type<'static>, api_version: &str, kind: &str) -> Value {
    let mut value = hollow_value(ty, &mut Vec::new());
    if ty.field("apiVersion").is_some() {
        value.set(&["apiVersion"], api_version);
        value.set(&["kind"], kind);
    }
    value
}

fn hollow_value(ty: Type<'static>, above: &mut Vec<u32>) -> Value {
    match ty.shape() {
        Shape::Object { .. } if above.contains(&ty.id().0) => Value::object(),
        Shape::Object { .. } => {
            above.push(ty.id().0);
            let fields = named_fields(ty).map(|field| (field.name.clone(), hollow_value(ty.of(field), above)));
            let map: Map = fields.collect();
            above.pop();
            Value::Object(map)
        }
        Shape::Array { .. } => Value::Array(vec![hollow_value(ty.item().unwrap(), above)]),
        Shape::Map { .. } => [("key", hollow_value(ty.values().unwrap(), above))].into_iter().collect::<Map>().into(),
        Shape::Time | Shape::MicroTime | Shape::Raw => Value::Null,
        _ => ty.zero(),
    }
}

/// Without the kind of an object within another, for which protobuf has no place.
fn named_fields(ty: Type<'static>) -> impl Iterator<Item = &'static Field> {
    let is_kind = ty.field("metadata").is_some() || ty.name().ends_with("Options");
    ty.fields().iter().filter(move |field| !(is_kind && ["apiVersion", "kind"].contains(&&*field.name)))
}

struct Populate {
    count: i64,
    above: Vec<u32>,
}

impl Populate {
    fn value(&mut self, ty: Type<'static>, name: &str) -> Value {
        self.count += 1;
        let n = self.count;
        match ty.shape() {
            Shape::Object { .. } => {
                if self.above.iter().filter(|id| **id == ty.id().0).count() > 1 {
                    return ty.zero();
                }
                self.above.push(ty.id().0);
                let map: Map =
                    named_fields(ty).map(|field| (field.name.clone(), self.value(ty.of(field), &field.name))).collect();
                self.above.pop();
                Value::Object(map)
            }
            Shape::Map { .. } => {
                let values = ty.values().unwrap();
                let map: Map = ["example.com/a", "b"].into_iter().map(|key| (key, self.value(values, name))).collect();
                Value::Object(map)
            }
            Shape::Array { .. } => {
                let item = ty.item().unwrap();
                Value::Array((0..2).map(|_| self.value(item, name)).collect())
            }
            Shape::String { values } => match values.last() {
                Some(value) => Value::from(value.as_ref()),
                None => Value::from(format!("{name} {n} \"ü\"")),
            },
            Shape::Bytes => Value::from("AP8Q"),
            Shape::Integer { bits: 64 } => Value::from(n + (1 << 40)),
            Shape::Integer { .. } => Value::from(-n),
            Shape::Number => Value::from(n as f64 + 0.5),
            Shape::Boolean => Value::from(true),
            Shape::IntOrString if n % 2 == 0 => Value::from("50%"),
            Shape::IntOrString => Value::from(n),
            Shape::Quantity => Value::from(format!("{}Mi", 2 * n + 1)),
            Shape::Time => Value::from(format!("2024-05-01T10:00:{:02}Z", n % 60)),
            Shape::MicroTime => Value::from(format!("2024-05-01T10:00:{:02}.123456Z", n % 60)),
            // A schema within a schema.
            Shape::Raw if ty.name().ends_with("OrBool") => Value::from(true),
            Shape::Raw if ty.name().contains("JSONSchemaPropsOr") => Value::Array(vec![]),
            Shape::Raw => Value::parse(format!(r#"{{"raw":[{n},"x"]}}"#).as_bytes()).unwrap(),
        }
    }
}

/// Every kind that is sent alone: apiVersion, kind and type.
pub fn every_kind() -> Vec<(String, String, Type<'static>)> {
    let mut all = Vec::new();
    for group in api::groups() {
        for version in group.versions {
            let api_version = if group.name.is_empty() {
                version.name.to_owned()
            } else {
                format!("{}/{}", group.name, version.name)
            };
            for (name, ty) in api::named_types() {
                let Some(kind) = name.strip_prefix(version.package).and_then(|rest| rest.strip_prefix('.')) else {
                    continue;
                };
                if ty.field("apiVersion").is_some() && ty.field("kind").is_some() && !kind.contains('.') {
                    all.push((api_version.clone(), kind.to_owned(), ty));
                }
            }
        }
    }
    for kind in ["DeleteOptions", "Status", "PatchOptions", "PartialObjectMetadataList", "WatchEvent", "List"] {
        all.push(("v1".to_owned(), kind.to_owned(), api::type_of("", "v1", kind).unwrap()));
    }
    all
}

/// Fails with the first path at which two values differ.
pub fn assert_same(found: &Value, expect: &Value, about: &str) {
    if let Some(difference) = difference(found, expect, "") {
        panic!("{about}: {difference}");
    }
}

/// The first path at which two values differ, and how.
pub fn difference(found: &Value, expect: &Value, path: &str) -> Option<String> {
    match (found, expect) {
        (Value::Object(a), Value::Object(b)) => {
            let missing = b.keys().find(|key| !a.contains_key(key)).map(|key| format!("{path}.{key} is missing"));
            missing.or_else(|| {
                a.iter().find_map(|(key, value)| match b.get(key) {
                    Some(expect) => difference(value, expect, &format!("{path}.{key}")),
                    None => Some(format!("{path}.{key} should not be there: {value}")),
                })
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(a, b, &format!("{path}[{i}]")))
        }
        _ if found == expect => None,
        _ => Some(format!("{path} is {found}, not {expect}")),
    }
}
