//! What a request may ask for besides its object: query parameters and delete options.

use std::fmt::Write;
use std::time::Duration;

use apimachinery::Value;

/// How a patch's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902: a list of operations.
    Json,
    /// RFC 7386.
    Merge,
    /// Upstream's strategic merge, by merge keys.
    Strategic,
    /// All that a field manager says of the object.
    Apply,
}

impl PatchKind {
    pub fn content_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }
}

/// Which objects a list or a watch is about. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selection {
    /// Empty: every namespace.
    pub namespace: String,
    /// As on the wire: `app=web,tier!=db`.
    pub labels: String,
    /// As on the wire: `spec.nodeName=n1`.
    pub fields: String,
}

impl Selection {
    pub fn all() -> Selection {
        Selection::default()
    }

    pub fn namespace(mut self, namespace: impl Into<String>) -> Selection {
        self.namespace = namespace.into();
        self
    }

    pub fn labels(mut self, selector: impl Into<String>) -> Selection {
        self.labels = selector.into();
        self
    }

    pub fn fields(mut self, selector: impl Into<String>) -> Selection {
        self.fields = selector.into();
        self
    }

    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.text("labelSelector", &self.labels).text("fieldSelector", &self.fields);
        query
    }
}

/// What else a list asks for.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Items on a page; 0: all.
    pub limit: u32,
    /// From the previous page's `continue_token`.
    pub continue_token: String,
    /// Empty: the newest state. `0`: any. Else by `resource_version_match`.
    pub resource_version: String,
    /// `Exact`, `NotOlderThan` or empty.
    pub resource_version_match: String,
}

impl ListOptions {
    /// Pages of `limit` items.
    pub fn limit(limit: u32) -> ListOptions {
        ListOptions { limit, ..ListOptions::default() }
    }

    pub(crate) fn query(&self, query: &mut Query) {
        if self.limit > 0 {
            query.text("limit", &self.limit.to_string());
        }
        query
            .text("continue", &self.continue_token)
            .text("resourceVersion", &self.resource_version)
            .text("resourceVersionMatch", &self.resource_version_match);
    }
}

/// What else a watch asks for. Bookmarks always.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// The revision after which to begin; 0: begin with the current objects as `Added`.
    pub revision: u64,
    /// The current objects first, then a bookmark with `initial_events_end`.
    pub send_initial_events: bool,
    /// When the server shall end the watch.
    pub timeout: Option<Duration>,
}

impl WatchOptions {
    pub(crate) fn query(&self, query: &mut Query) {
        query.text("watch", "true").text("allowWatchBookmarks", "true");
        if self.send_initial_events {
            query.text("sendInitialEvents", "true").text("resourceVersionMatch", "NotOlderThan");
        }
        if self.revision > 0 {
            query.text("resourceVersion", &self.revision.to_string());
        }
        if let Some(timeout) = self.timeout {
            query.text("timeoutSeconds", &timeout.as_secs().max(1).to_string());
        }
    }
}

/// What else a write asks for.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Empty: the user agent's first part.
    pub field_manager: String,
    /// `Strict`, `Warn`, `Ignore` or empty.
    pub field_validation: String,
    /// Whether what is applied takes fields from other managers.
    pub force: bool,
}

impl WriteOptions {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        if self.dry_run {
            query.text("dryRun", "All");
        }
        query.text("fieldManager", &self.field_manager).text("fieldValidation", &self.field_validation);
        if self.force {
            query.text("force", "true");
        }
        query
    }
}

/// What happens to the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `None`: the object's own; 0: at once.
    pub grace_period_seconds: Option<i64>,
    /// `None`: the kind's default.
    pub propagation: Option<Propagation>,
    /// Only this incarnation; empty: any.
    pub uid: String,
    /// Only at this revision.
    pub revision: Option<u64>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Only the incarnation with this uid.
    pub fn uid(uid: impl Into<String>) -> DeleteOptions {
        DeleteOptions { uid: uid.into(), ..DeleteOptions::default() }
    }

    pub fn grace(mut self, seconds: i64) -> DeleteOptions {
        self.grace_period_seconds = Some(seconds);
        self
    }

    pub fn propagation(mut self, propagation: Propagation) -> DeleteOptions {
        self.propagation = Some(propagation);
        self
    }

    /// The `DeleteOptions` object.
    pub fn to_value(&self) -> Value {
        let mut value = Value::object();
        value.set(&["apiVersion"], "v1");
        value.set(&["kind"], "DeleteOptions");
        if let Some(seconds) = self.grace_period_seconds {
            value.set(&["gracePeriodSeconds"], seconds);
        }
        if let Some(propagation) = self.propagation {
            value.set(&["propagationPolicy"], format!("{propagation:?}"));
        }
        if !self.uid.is_empty() {
            value.set(&["preconditions", "uid"], &self.uid);
        }
        if let Some(revision) = self.revision {
            value.set(&["preconditions", "resourceVersion"], revision.to_string());
        }
        if self.dry_run {
            value.set(&["dryRun"], vec!["All"]);
        }
        value
    }
}

/// A query string under construction.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    /// Adds a parameter unless its value is empty.
    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Query {
        if !value.is_empty() {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            escape(value, &mut self.0);
        }
        self
    }

    /// `path` with the query behind it.
    pub(crate) fn behind(&self, mut path: String) -> String {
        path.push_str(&self.0);
        path
    }
}

fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let mut query = Selection::all().labels("app in (a, b),c=d").query();
        ListOptions { limit: 5, resource_version: "0".into(), ..ListOptions::default() }.query(&mut query);
        assert_eq!(
            query.behind("/x".into()),
            "/x?labelSelector=app%20in%20%28a%2C%20b%29%2Cc%3Dd&limit=5&resourceVersion=0"
        );
        assert_eq!(Selection::all().query().behind("/x".into()), "/x");
    }

    #[test]
    fn delete_options_are_upstreams() {
        let options = DeleteOptions::uid("u").grace(0).propagation(Propagation::Background);
        assert_eq!(
            options.to_value().to_string(),
            r#"{"apiVersion":"v1","gracePeriodSeconds":0,"kind":"DeleteOptions","preconditions":{"uid":"u"},"propagationPolicy":"Background"}"#
        );
    }
}
