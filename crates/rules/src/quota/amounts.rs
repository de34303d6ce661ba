//! Amounts by name, and their arithmetic.

use std::collections::BTreeMap;
use std::fmt;

use apimachinery::{Quantity, Value};

/// Amounts of resources; shown as `cpu=1,pods=2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    /// Reads a map of quantities; what is none is left out.
    pub fn read(list: Option<&Value>) -> Amounts {
        let entries = list.and_then(Value::as_object).into_iter().flat_map(|list| list.iter());
        let amounts = entries.filter_map(|(name, value)| Some((name.to_owned(), Quantity::from_value(value)?.ok()?)));
        Amounts(amounts.collect())
    }

    pub fn to_value(&self) -> Value {
        let mut value = Value::object();
        for (name, amount) in &self.0 {
            value.set(&[name], amount.to_string());
        }
        value
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: impl Into<String>, amount: Quantity) {
        self.0.insert(name.into(), amount);
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn retain(&mut self, keep: impl Fn(&str, Quantity) -> bool) {
        self.0.retain(|name, amount| keep(name, *amount));
    }

    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Amounts {
        let mut kept = self.clone();
        kept.retain(|name, _| keep(name));
        kept
    }

    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in other.iter() {
            self.0.entry(name.to_owned()).and_modify(|mine| *mine += amount).or_insert(amount);
        }
    }

    pub fn plus(&self, other: &Amounts) -> Amounts {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// The larger amount of each.
    pub fn raise_to(&mut self, other: &Amounts) {
        for (name, amount) in other.iter() {
            let mine = self.0.entry(name.to_owned()).or_insert(amount);
            *mine = amount.max(*mine);
        }
    }

    /// By how much each is above `other`, nothing less than 0.
    pub fn more_than(&self, other: &Amounts) -> Amounts {
        let above = |name: &str, amount: Quantity| match other.get(name) {
            Some(less) if amount > less => amount - less,
            Some(_) => Quantity::default(),
            None => amount,
        };
        Amounts(self.0.iter().map(|(name, amount)| (name.clone(), above(name, *amount))).collect())
    }
}

impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, amount)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{name}={amount}")?;
        }
        Ok(())
    }
}
