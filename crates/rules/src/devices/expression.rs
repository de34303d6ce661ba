//! Device selectors in CEL. Upstream: dynamic-resource-allocation cel.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;

use cel::{Activation, Decl, Environment, EvalError, Fields, Key, Map, Opaque, PER_CALL_LIMIT, Program, Type, Value};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};

use crate::resources::parse_quantity;

/// The most attributes and capacities of a device, together.
const MAX_ATTRIBUTES: u64 = 32;
const MAX_DRIVER: u64 = 63;
const MAX_VALUE: u64 = 64;

/// What expressions may name: `device`.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let by_domain = |value: Decl| Decl::map(Decl::map(value, Some(MAX_ATTRIBUTES)), Some(MAX_ATTRIBUTES));
    let device = Decl::object(
        "kubernetes.DRADevice",
        [
            ("driver", Decl::string(Some(MAX_DRIVER))),
            ("attributes", by_domain(Decl::any_of(MAX_VALUE))),
            ("capacity", by_domain(Decl::scalar(Type::Opaque("kubernetes.Quantity")))),
        ],
    );
    Environment::new().with_bindings().with_decl("device", device)
});

/// Versions are made by their own function.
static VERSION: LazyLock<Program> = LazyLock::new(|| {
    let env = Environment::new().with("text", Type::String);
    env.compile("semver(text)", &[]).expect("it is a function of the library")
});

/// A compiled selector.
#[derive(Debug)]
pub struct Expression {
    program: Program,
}

impl Expression {
    /// Compiles it, or says what is wrong in upstream's words.
    pub fn compile(text: &str) -> Result<Expression, String> {
        let program = ENVIRONMENT.compile(text, &[]).map_err(|error| format!("compilation failed: {error}"))?;
        match program.output() {
            Type::Bool | Type::Dyn => Ok(Expression { program }),
            other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
        }
    }

    /// Whether it may cost more, at worst, than an evaluation is allowed to.
    pub fn is_too_complex(&self) -> bool {
        self.program.estimate(&ENVIRONMENT).max > PER_CALL_LIMIT
    }

    /// Whether the device, of this driver, satisfies it; else why that can't be said.
    pub fn matches(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let mut attributes = Domains::default();
        for (name, attribute) in device.attributes.iter().flatten() {
            let value = value_of(attribute).map_err(|error| format!("attribute {name}: {error}"))?;
            put(&mut attributes, driver, name, value);
        }
        let mut capacity = Domains::default();
        for (name, amount) in device.capacity.iter().flatten() {
            let quantity = Opaque::Quantity(parse_quantity(&amount.value));
            put(&mut capacity, driver, name, Value::Opaque(quantity));
        }
        match self.run(driver, whole(&attributes), whole(&capacity)) {
            // A domain of which there is nothing counts as empty.
            Err(EvalError::Failed(_)) => {
                self.run(driver, open(attributes), open(capacity)).map_err(|error| error.to_string())
            }
            answer => answer.map_err(|error| error.to_string()),
        }
    }

    fn run<'v>(&self, driver: &str, attributes: Value<'v>, capacity: Value<'v>) -> Result<bool, EvalError> {
        let entry = |key: &str, value| (Key::String(key.into()), value);
        let driver = entry("driver", Value::string(driver));
        let fields = [driver, entry("attributes", attributes), entry("capacity", capacity)];
        let device = Value::Map(Map::Values(Rc::new(fields.into())));
        self.program.evaluate_counted(&Activation::new().with("device", device)).0.and_then(bool_of)
    }
}

fn bool_of(value: Value<'_>) -> Result<bool, EvalError> {
    value.as_bool().ok_or_else(|| {
        let of = value.type_of();
        let why = format!("type conversion error from '{of}' to 'bool'");
        EvalError::Failed(format!("CEL result of type {of} could not be converted to bool: {why}"))
    })
}

/// Values by domain and name.
type Domains<'a> = BTreeMap<String, BTreeMap<Key, Value<'a>>>;

/// Names without a domain are the driver's own.
fn put<'a>(domains: &mut Domains<'a>, driver: &str, name: &str, value: Value<'a>) {
    let (domain, id) = name.split_once('/').unwrap_or((driver, name));
    domains.entry(domain.to_owned()).or_default().insert(Key::String(id.into()), value);
}

fn value_of(attribute: &DeviceAttribute) -> Result<Value<'_>, String> {
    match (&attribute.int, &attribute.bool, &attribute.string, &attribute.version) {
        (Some(int), ..) => Ok(Value::Int(*int)),
        (_, Some(bool), ..) => Ok(Value::Bool(*bool)),
        (_, _, Some(text), _) => Ok(Value::borrowed(text)),
        (_, _, _, Some(version)) => {
            let activation = Activation::new().with("text", Value::borrowed(version));
            let parsed = VERSION.evaluate_counted(&activation).0;
            parsed.map_err(|error| format!("parse semantic version: {error}"))
        }
        _ => Err("unsupported attribute value".to_owned()),
    }
}

fn whole<'a>(domains: &Domains<'a>) -> Value<'a> {
    let domain = |(name, values): (&String, &BTreeMap<Key, Value<'a>>)| {
        (Key::String(name.as_str().into()), Value::Map(Map::Values(Rc::new(values.clone()))))
    };
    Value::Map(Map::Values(Rc::new(domains.iter().map(domain).collect())))
}

fn open<'a>(domains: Domains<'a>) -> Value<'a> {
    Value::Map(Map::Lazy(Rc::new(Open(domains))))
}

/// Has every domain; those that aren't known are empty.
struct Open<'a>(Domains<'a>);

impl<'a> Fields<'a> for Open<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        let values = self.0.get(name).cloned().unwrap_or_default();
        Some(Ok(Value::Map(Map::Values(Rc::new(values)))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(text: &str) -> Result<bool, String> {
        let device = json!({
            "name": "gpu0",
            "attributes": {
                "model": {"string": "a100"}, "index": {"int": 3}, "other.io/fast": {"bool": true}, "firmware": {"version": "1.10.0"},
            },
            "capacity": {"memory": {"value": "40Gi"}},
        });
        Expression::compile(text)?.matches("gpu.io", &serde_json::from_value(device).unwrap())
    }

    #[test]
    fn expressions_say_whether_devices_suit() {
        let check = |text: &str, expect: bool| assert_eq!(answer(text), Ok(expect), "{text}");
        check(r#"device.driver == "gpu.io""#, true);
        check(r#"device.attributes["gpu.io"].model == "a100""#, true);
        check(r#"device.attributes["gpu.io"].index > 3"#, false);
        check(r#"device.attributes["other.io"].fast"#, true);
        check(r#"device.attributes["gpu.io"].firmware.isGreaterThan(semver("1.9.0"))"#, true);
        check(r#"device.capacity["gpu.io"].memory.compareTo(quantity("20Gi")) >= 0"#, true);
        check(r#"has(device.attributes["absent.io"].x)"#, false);
        check(r#""model" in device.attributes["gpu.io"]"#, true);
        check(r#""absent.io" in device.attributes"#, false);
        check(r#"cel.bind(own, device.attributes["gpu.io"], own.index == 3 && own.model == "a100")"#, true);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, expect: &str| {
            let error = answer(text).unwrap_err();
            assert!(error.starts_with(expect), "{text}: {error}");
        };
        check("device.foo == 1", "compilation failed: ERROR: <input>:1:7: undefined field 'foo'");
        check("1", "must evaluate to bool or the unknown type, not int");
        check(r#"device.attributes["absent.io"].x == 1"#, "no such key: x");
        check(r#"device.attributes["gpu.io"].index"#, "CEL result of type int could not be converted to bool");
    }

    #[test]
    fn the_worst_cost_is_known() {
        let check = |text: &str, expect: bool| {
            assert_eq!(Expression::compile(text).unwrap().is_too_complex(), expect, "{text}");
        };
        check(r#"device.attributes["gpu.io"].model.startsWith("x")"#, false);
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == d))))";
        check(nested, true);
    }
}
