//! A strategy's whole way through a write, without the registry: decode, default, prepare, validate.

mod others;
mod storage;
mod workloads;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::{FieldError, Object, ObjectKey, Value};
use env::Env;
use jiff::Timestamp;
use store::{Embedded, Store};

use super::{Context, Objects, Strategy, keep};
use crate::UserInfo;
use crate::config::Settings;

/// What strategies are given in tests.
pub(super) struct World {
    pub env: Env,
    pub user: UserInfo,
    pub store: Arc<dyn Store>,
    /// Objects by group, resource, `namespace/name`.
    pub objects: HashMap<(String, String, String), Arc<Object>>,
}

impl Objects for World {
    fn get(&self, group: &str, resource: &str, key: &ObjectKey) -> Option<Arc<Object>> {
        let key = (group.to_owned(), resource.to_owned(), format!("{}/{}", key.namespace, key.name));
        self.objects.get(&key).cloned()
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let of = |(key, _): &(&(String, String, String), &Arc<Object>)| {
            key.0 == group && key.1 == resource && (namespace.is_empty() || key.2.starts_with(&format!("{namespace}/")))
        };
        self.objects.iter().filter(of).map(|(_, object)| object.clone()).collect()
    }
}

impl World {
    pub(super) fn new() -> World {
        let env = Env::seeded(7, Timestamp::UNIX_EPOCH);
        let store = Embedded::in_memory(&env).unwrap();
        World { env, store, user: UserInfo::authenticated("alice", &[]), objects: HashMap::new() }
    }

    pub(super) fn context<'a>(&'a self, subresource: &'a str) -> Context<'a> {
        Context {
            env: &self.env,
            user: &self.user,
            namespace: "default",
            version: "v1",
            group: "",
            subresource,
            dry_run: false,
            objects: self,
            store: &*self.store,
        }
    }
}

fn all() -> Vec<Box<dyn Strategy>> {
    super::all(&Settings::new([192, 0, 2, 1].into()))
}

/// A kind under test.
pub(super) struct Kind {
    row: &'static api::Kind,
    strategy: Box<dyn Strategy>,
}

impl Kind {
    pub(super) fn of(group: &str, version: &str, kind: &str) -> Kind {
        let row = api::kind(group, version, kind).unwrap();
        let strategy = all().into_iter().find(|strategy| strategy.resource() == (group, row.resource)).unwrap();
        Kind { row, strategy }
    }

    /// Decoded and defaulted, with the name and the types that every object has.
    pub(super) fn defaulted(&self, yaml: &str) -> Value {
        let json: serde_json::Value = serde_yaml_ng::from_str(yaml).unwrap();
        let mut value = Value::from(json);
        value.set(&["apiVersion"], self.row.api_version());
        value.set(&["kind"], self.row.kind);
        if value.str_at(&["metadata", "name"]).is_none() {
            value.set(&["metadata", "name"], "a");
        }
        if self.row.namespaced {
            value.set(&["metadata", "namespace"], "default");
        }
        let decoded = self.row.ty().canonical(value).unwrap();
        assert!(decoded.problems.is_empty(), "{:?}", decoded.problems);
        let mut value = decoded.value;
        self.row.ty().default_value(&mut value);
        self.strategy.default(&mut value);
        let mut again = value.clone();
        self.strategy.default(&mut again);
        assert_eq!(again, value, "defaulting is not settled");
        value
    }

    /// As it would be stored.
    pub(super) fn created(&self, yaml: &str) -> Value {
        let world = World::new();
        let mut value = self.defaulted(yaml);
        self.strategy.prepare_create(&world.context(""), &mut value);
        value
    }

    /// Compares members of the object as stored, each given by a dotted path (`spec.containers.0.image`), with JSON.
    pub(super) fn check_created(&self, yaml: &str, expect: &[(&str, &str)]) {
        let value = self.created(yaml);
        for (path, json) in expect {
            let found = at(&value, path).map_or("absent".to_owned(), Value::to_string);
            let expect = Value::parse(json.as_bytes()).map_or_else(|_| (*json).to_owned(), |value| value.to_string());
            assert_eq!(found, expect, "{path} of {value}");
        }
    }

    /// Compares the errors of a creation, each `field: message`.
    pub(super) fn check_invalid(&self, yaml: &str, expect: &[&str]) {
        let world = World::new();
        let ctx = world.context("");
        let mut value = self.defaulted(yaml);
        self.strategy.prepare_create(&ctx, &mut value);
        let mut errors = Vec::new();
        self.strategy.validate(&ctx, &value, &mut errors);
        compare(&errors, expect, yaml);
    }

    /// Compares the errors of an update of the object or of a subresource; returns the new object as stored.
    pub(super) fn check_update(&self, old: &str, new: &str, subresource: &str, expect: &[&str]) -> Value {
        let world = World::new();
        let ctx = world.context(subresource);
        let mut old_value = self.created(old);
        let given = self.defaulted(old);
        if let Some(status) = given.get("status").filter(|status| status.as_object().is_some_and(|map| !map.is_empty()))
        {
            old_value.set(&["status"], status);
        }
        old_value.set(&["metadata", "resourceVersion"], "1");
        let mut value = self.defaulted(new);
        value.set(&["metadata", "resourceVersion"], "1");
        keep(&mut value, &old_value, &["metadata", "generation"]);
        if subresource.is_empty() {
            if self.row.subresource("status").is_some() {
                keep(&mut value, &old_value, &["status"]);
            }
            self.strategy.prepare_update(&ctx, &mut value, &old_value);
        } else {
            self.strategy.prepare_subresource(&ctx, &mut value, &old_value);
        }
        let mut errors = Vec::new();
        self.strategy.validate_update(&ctx, &value, &old_value, &mut errors);
        compare(&errors, expect, new);
        value
    }

    pub(super) fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }
}

/// What is under a dotted path; numbers enter lists.
pub(super) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, part| match (value, part.parse::<usize>()) {
        (Value::Array(items), Ok(index)) => items.get(index),
        _ => value.get(part),
    })
}

fn compare(errors: &[FieldError], expect: &[&str], input: &str) {
    let found: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    assert_eq!(found, expect, "{input}");
}

#[test]
fn every_strategy_is_for_a_kind() {
    let mut seen = Vec::new();
    for strategy in all() {
        let (group, resource) = strategy.resource();
        let known = api::kinds().iter().any(|kind| kind.group == group && kind.resource == resource);
        assert!(known, "{group}/{resource}");
        assert!(!seen.contains(&(group, resource)), "{group}/{resource} twice");
        seen.push((group, resource));
    }
}
