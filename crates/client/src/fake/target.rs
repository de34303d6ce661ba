//! From a URL to what it names.

use std::borrow::Cow;

use apimachinery::ObjectKey;

use crate::Resource;

/// A resource path taken apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub plural: String,
    pub name: String,
    pub subresource: String,
    pub query: Vec<(String, String)>,
}

impl Target {
    pub(super) fn parse(target: &str) -> Option<Target> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parts = path.trim_start_matches('/').split('/');
        let mut found = Target::default();
        if parts.next()? == "apis" {
            found.group = parts.next()?.to_owned();
        }
        found.version = parts.next()?.to_owned();
        let mut rest: Vec<&str> = parts.collect();
        if rest.len() > 2 && rest[0] == "namespaces" && !matches!(rest[2], "status" | "finalize") {
            found.namespace = rest[1].to_owned();
            rest.drain(..2);
        }
        let mut rest = rest.into_iter().map(str::to_owned);
        found.plural = rest.next()?;
        found.name = rest.next().unwrap_or_default();
        found.subresource = rest.next().unwrap_or_default();
        found.query = query.split('&').filter_map(|pair| pair.split_once('=')).map(decode).collect();
        Some(found)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey::new(&*self.namespace, &*self.name)
    }

    pub(super) fn resource(&self) -> Resource {
        Resource {
            group: Cow::Owned(self.group.clone()),
            version: Cow::Owned(self.version.clone()),
            plural: Cow::Owned(self.plural.clone()),
            namespaced: !self.namespace.is_empty(),
        }
    }
}

fn decode((key, value): (&str, &str)) -> (String, String) {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    (key.to_owned(), String::from_utf8_lossy(&bytes).into_owned())
}
