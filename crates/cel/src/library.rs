//! Which functions there are, and for which types: cel-go's standard ones, its extensions, and Kubernetes' own, as the base
//! environment of 1.35 has them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::types::Type;

/// One signature of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub id: &'static str,
    /// Called as `target.f(...)`; the target is the first of `params`.
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
    /// How many type parameters it has: `Type::Var(0..vars)`.
    pub vars: u32,
}

/// All signatures by name.
pub(crate) fn functions() -> &'static HashMap<&'static str, Vec<Overload>> {
    static FUNCTIONS: OnceLock<HashMap<&'static str, Vec<Overload>>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut all: HashMap<&'static str, Vec<Overload>> = HashMap::new();
        for line in include_str!("library/functions.txt").lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, overload) = signature(line).unwrap_or_else(|| panic!("a signature cannot be read: {line}"));
            all.entry(name).or_default().push(overload);
        }
        all
    })
}

/// Names of types, as values.
pub(crate) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "dyn" => Type::Dyn,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(None),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "net.IP" => Type::Opaque("net.IP"),
        "net.CIDR" => Type::Opaque("net.CIDR"),
        "kubernetes.URL" => Type::Opaque("kubernetes.URL"),
        "kubernetes.Quantity" => Type::Opaque("kubernetes.Quantity"),
        _ => return None,
    })
}

/// Reads `name id target.(a, b) result`, or without the target.
fn signature(line: &'static str) -> Option<(&'static str, Overload)> {
    let (name, rest) = line.split_once(' ')?;
    let (id, rest) = rest.split_once(' ')?;
    let mut reader = Reader { rest, vars: Vec::new() };
    let mut params = Vec::new();
    let member = !reader.rest.starts_with('(');
    if member {
        params.push(reader.ty()?);
        reader.eat('.')?;
    }
    reader.eat('(')?;
    while reader.eat(')').is_none() {
        params.push(reader.ty()?);
        let _ = reader.eat(',');
    }
    let result = reader.ty()?;
    let vars = reader.vars.len() as u32;
    reader.rest.is_empty().then_some((name, Overload { id, member, params, result, vars }))
}

struct Reader {
    rest: &'static str,
    vars: Vec<char>,
}

impl Reader {
    fn eat(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(c)?;
        Some(())
    }

    fn ty(&mut self) -> Option<Type> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != ':').unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        let mut parameters = Vec::new();
        if self.eat('<').is_some() {
            while self.eat('>').is_none() {
                parameters.push(Arc::new(self.ty()?));
                let _ = self.eat(',');
            }
        }
        let mut parameters = parameters.into_iter();
        Some(match name {
            "list" => Type::List(parameters.next()?),
            "map" => Type::Map(parameters.next()?, parameters.next()?),
            "optional" => Type::Optional(parameters.next()?),
            "type" => Type::Type(parameters.next()),
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null" => Type::Null,
            "dyn" => Type::Dyn,
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "IP" => Type::Opaque("net.IP"),
            "CIDR" => Type::Opaque("net.CIDR"),
            "URL" => Type::Opaque("kubernetes.URL"),
            "Quantity" => Type::Opaque("kubernetes.Quantity"),
            "Semver" => Type::Opaque("kubernetes.Semver"),
            "Image" => Type::Opaque("kubernetes.Image"),
            "Format" => Type::Opaque("kubernetes.NamedFormat"),
            "Authorizer" => Type::Opaque("kubernetes.authorization.Authorizer"),
            "PathCheck" => Type::Opaque("kubernetes.authorization.PathCheck"),
            "GroupCheck" => Type::Opaque("kubernetes.authorization.GroupCheck"),
            "ResourceCheck" => Type::Opaque("kubernetes.authorization.ResourceCheck"),
            "Decision" => Type::Opaque("kubernetes.authorization.Decision"),
            _ => {
                let mut chars = name.chars();
                let letter = chars.next().filter(char::is_ascii_uppercase)?;
                if chars.next().is_some() {
                    return None;
                }
                let at = self.vars.iter().position(|known| *known == letter).unwrap_or_else(|| {
                    self.vars.push(letter);
                    self.vars.len() - 1
                });
                Type::Var(at as u32)
            }
        })
    }
}
