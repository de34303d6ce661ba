//! Values that only their own functions look into: quantities, addresses, URLs, versions, formats, and questions to the authoriser.

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use apimachinery::{Format as Notation, Quantity};

use super::formats::NamedFormat;
use super::semver::Version;
use super::url::Url;
use crate::authorizer::{Authorizer, Decision, Query};
use crate::error::failed;
use crate::eval::Outcome;
use crate::value::Value;

/// A value of an opaque type.
#[derive(Clone)]
pub enum Opaque<'a> {
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    #[doc(hidden)]
    Url(Arc<Url>),
    #[doc(hidden)]
    Semver(Arc<Version>),
    #[doc(hidden)]
    Format(&'static NamedFormat),
    /// The authoriser for a user, and the question so far.
    Authorizer(Rc<dyn Authorizer + 'a>, Arc<Query>),
    #[doc(hidden)]
    Check(Rc<dyn Authorizer + 'a>, Arc<Query>, CheckKind),
    #[doc(hidden)]
    Decision(Arc<Decision>),
    /// An accumulator whose turn failed.
    #[doc(hidden)]
    Failure(Arc<str>),
}

#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    Path,
    Group,
    Resource,
}

impl fmt::Debug for Opaque<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{}({text})", self.type_name()),
            None => f.write_str(self.type_name()),
        }
    }
}

impl<'a> Opaque<'a> {
    /// The value of `authorizer`.
    pub fn authorizer(authorizer: Rc<dyn Authorizer + 'a>) -> Opaque<'a> {
        Opaque::Authorizer(authorizer, Arc::default())
    }

    /// The value of `authorizer.requestResource`: questions about this resource.
    pub fn resource_check(authorizer: Rc<dyn Authorizer + 'a>, about: Query) -> Opaque<'a> {
        Opaque::Check(authorizer, Arc::new(about), CheckKind::Resource)
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(..) => "net.CIDR",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Opaque::Check(_, _, CheckKind::Path) => "kubernetes.authorization.PathCheck",
            Opaque::Check(_, _, CheckKind::Group) => "kubernetes.authorization.GroupCheck",
            Opaque::Check(_, _, CheckKind::Resource) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
            Opaque::Failure(_) => "error",
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Opaque::Ip(IpAddr::V4(_)) => 4,
            Opaque::Ip(IpAddr::V6(_)) => 16,
            Opaque::Cidr(_, length) => u64::from(*length).div_ceil(8),
            _ => 1,
        }
    }

    pub(crate) fn text(&self) -> Option<String> {
        Some(match self {
            Opaque::Ip(address) => address.to_string(),
            Opaque::Cidr(address, length) => format!("{address}/{length}"),
            Opaque::Quantity(quantity) => quantity.to_string(),
            _ => return None,
        })
    }

    pub(crate) fn equals(&self, other: &Opaque<'_>) -> bool {
        match (self, other) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a, n), Opaque::Cidr(b, m)) => (a, n) == (b, m),
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.cmp(b).is_eq(),
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            (Opaque::Decision(a), Opaque::Decision(b)) => a == b,
            (Opaque::Check(_, a, k1), Opaque::Check(_, b, k2)) => k1 == k2 && a == b,
            _ => false,
        }
    }
}

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Option<Outcome<'a>> {
    Some(match args {
        [Value::String(text)] => match name {
            "quantity" => match text.parse::<Quantity>() {
                Ok(quantity) => Ok(Value::Opaque(Opaque::Quantity(quantity))),
                Err(error) => failed(error.to_string()),
            },
            "isQuantity" => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
            "url" => match Url::parse(text) {
                Ok(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
                Err(why) => failed(why),
            },
            "isURL" => Ok(Value::Bool(Url::parse(text).is_ok())),
            "semver" => version(text, false),
            "isSemver" => Ok(Value::Bool(Version::parse(text, false).is_ok())),
            _ => return None,
        },
        [Value::String(text), Value::Bool(normalize)] => match name {
            "semver" => version(text, *normalize),
            "isSemver" => Ok(Value::Bool(Version::parse(text, *normalize).is_ok())),
            _ => return None,
        },
        [Value::Opaque(Opaque::Quantity(quantity)), rest @ ..] => quantities(name, *quantity, rest)?,
        [Value::Opaque(Opaque::Url(url))] => url.get(name)?,
        [Value::Opaque(Opaque::Semver(version)), rest @ ..] => {
            let number = |n: u64| Ok(Value::Int(n as i64));
            match (name, rest) {
                ("major", []) => number(version.major),
                ("minor", []) => number(version.minor),
                ("patch", []) => number(version.patch),
                (_, [Value::Opaque(Opaque::Semver(other))]) => compared(name, version.cmp(other))?,
                _ => return None,
            }
        }
        [Value::Opaque(Opaque::Format(format)), Value::String(text)] if name == "validate" => {
            let problems = format.problems(text);
            Ok(Value::Optional(if problems.is_empty() {
                None
            } else {
                Some(Rc::new(Value::list(problems.into_iter().map(Value::string).collect())))
            }))
        }
        [Value::Opaque(opaque), rest @ ..] => asked(name, opaque, rest)?,
        _ => return None,
    })
}

fn version<'a>(text: &str, normalize: bool) -> Outcome<'a> {
    match Version::parse(text, normalize) {
        Ok(version) => Ok(Value::Opaque(Opaque::Semver(Arc::new(version)))),
        Err(why) => failed(why),
    }
}

fn compared<'a>(name: &str, order: std::cmp::Ordering) -> Option<Outcome<'a>> {
    Some(Ok(match name {
        "isGreaterThan" => Value::Bool(order.is_gt()),
        "isLessThan" => Value::Bool(order.is_lt()),
        "compareTo" => Value::Int(order as i64),
        _ => return None,
    }))
}

fn quantities<'a>(name: &str, quantity: Quantity, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    let other = match rest {
        [Value::Opaque(Opaque::Quantity(other))] => Some(*other),
        [Value::Int(n)] => Some(Quantity::new(*n, Notation::DecimalSi)),
        _ => None,
    };
    Some(Ok(match (name, other) {
        ("sign", None) => Value::Int(quantity.sign().into()),
        ("isInteger", None) => Value::Bool(quantity.as_i64().is_some()),
        ("asInteger", None) => match quantity.as_i64() {
            Some(n) => Value::Int(n),
            None => return Some(failed("cannot convert value to integer")),
        },
        ("asApproximateFloat", None) => Value::Double(quantity.as_f64()),
        ("add", Some(other)) => Value::Opaque(Opaque::Quantity(quantity + other)),
        ("sub", Some(other)) => Value::Opaque(Opaque::Quantity(quantity - other)),
        (_, Some(other)) => return compared(name, quantity.cmp(&other)),
        _ => return None,
    }))
}

/// The authoriser's functions: each adds to the question, `check` asks it.
fn asked<'a>(name: &str, opaque: &Opaque<'a>, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    let texts: Vec<&str> = rest.iter().map(Value::as_str).collect::<Option<_>>()?;
    let (authorizer, query, kind) = match opaque {
        Opaque::Decision(decision) => {
            return Some(Ok(match name {
                "allowed" => Value::Bool(decision.allowed),
                "reason" => Value::string(decision.reason.as_str()),
                "error" => Value::string(decision.error.as_str()),
                "errored" => Value::Bool(!decision.error.is_empty()),
                _ => return None,
            }));
        }
        Opaque::Authorizer(authorizer, query) => (authorizer, query, None),
        Opaque::Check(authorizer, query, kind) => (authorizer, query, Some(*kind)),
        _ => return None,
    };
    let check = |query: Query, kind| Ok(Value::Opaque(Opaque::Check(authorizer.clone(), Arc::new(query), kind)));
    let fresh = || Query { service_account: query.service_account.clone(), ..Query::default() };
    let same = || query.as_ref().clone();
    Some(match (name, kind, texts.as_slice()) {
        ("path", None, [path]) if !path.is_empty() => {
            check(Query { path: (*path).to_owned(), ..fresh() }, CheckKind::Path)
        }
        ("path", None, [_]) => failed("path must not be empty"),
        ("group", None, [group]) => check(Query { group: (*group).to_owned(), ..fresh() }, CheckKind::Group),
        ("serviceAccount", None, [namespace, name]) => {
            let problems = account_problems(namespace, name);
            if !problems.is_empty() {
                return Some(failed(problems));
            }
            let account = Some(((*namespace).to_owned(), (*name).to_owned()));
            Ok(Value::Opaque(Opaque::Authorizer(
                authorizer.clone(),
                Arc::new(Query { service_account: account, ..fresh() }),
            )))
        }
        ("resource", Some(CheckKind::Group), [resource]) if !resource.is_empty() => {
            check(Query { resource: (*resource).to_owned(), ..same() }, CheckKind::Resource)
        }
        ("resource", Some(CheckKind::Group), [_]) => failed("resource must not be empty"),
        ("subresource", Some(CheckKind::Resource), [text]) => {
            check(Query { subresource: (*text).to_owned(), ..same() }, CheckKind::Resource)
        }
        ("namespace", Some(CheckKind::Resource), [text]) => {
            check(Query { namespace: (*text).to_owned(), ..same() }, CheckKind::Resource)
        }
        ("name", Some(CheckKind::Resource), [text]) => {
            check(Query { name: (*text).to_owned(), ..same() }, CheckKind::Resource)
        }
        ("fieldSelector", Some(CheckKind::Resource), [text]) => {
            check(Query { field_selector: (*text).to_owned(), ..same() }, CheckKind::Resource)
        }
        ("labelSelector", Some(CheckKind::Resource), [text]) => {
            check(Query { label_selector: (*text).to_owned(), ..same() }, CheckKind::Resource)
        }
        ("check", Some(_), [verb]) => {
            let query = Query { verb: (*verb).to_owned(), ..same() };
            Ok(Value::Opaque(Opaque::Decision(Arc::new(authorizer.authorize(&query)))))
        }
        _ => return None,
    })
}

fn account_problems(namespace: &str, name: &str) -> String {
    use apimachinery::validation::{dns1123_label, dns1123_subdomain};
    let named = |what: &str, problems: Vec<String>| -> Option<String> {
        (!problems.is_empty()).then(|| format!("Invalid service account {what}: {}", problems.join(", ")))
    };
    named("namespace", dns1123_label(namespace)).or_else(|| named("name", dns1123_subdomain(name))).unwrap_or_default()
}
