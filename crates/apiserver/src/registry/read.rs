//! Get and list.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{FieldRequirement, FieldSelector, Object, Selector, Status};
use client::ObjectList;
use serde_json::json;
use store::RangeQuery;

use super::cache::{NODE_FIELD, Range, TooOld};
use super::options::{ListOptions, Match};
use super::token::ContinueToken;
use super::{Registry, Resource, convert, store_failure};

/// How long a read waits for a resourceVersion that has not happened yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);
/// How long a read waits for the events of what was already written: they are on their way.
const FRESH_WAIT: Duration = Duration::from_secs(30);

/// Which objects a list or a watch is about.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Empty for all namespaces.
    pub namespace: String,
    pub labels: Selector,
    pub fields: FieldSelector,
}

/// A page of a list, or the failure whose status carries a token to go on with.
pub(crate) enum ListError {
    Status(Status),
    /// The consistent list is gone: the status and a token for an inconsistent rest.
    Expired(Status, String),
}

impl From<Status> for ListError {
    fn from(status: Status) -> ListError {
        ListError::Status(status)
    }
}

impl Filter {
    /// Checks that the kind has the fields selected by.
    pub(crate) fn new(resource: &Resource, namespace: &str, options: &ListOptions) -> Result<Filter, Status> {
        let mut fields = FieldSelector::default();
        for requirement in options.field_selector.requirements() {
            let field = requirement.field.as_str();
            if resource.is_selectable(field) {
                fields.push(FieldRequirement {
                    field: convert::stored_field(resource.kind, field),
                    ..requirement.clone()
                });
            } else {
                let why = match resource.as_custom().is_some() || !resource.kind.selectable.is_empty() {
                    true if resource.kind.group == "resource.k8s.io" => {
                        let kind = resource.kind;
                        let (group, version, kind) = (kind.group, kind.version, kind.kind);
                        format!("field label not supported for {group}/{version}, Kind={kind}: {field}")
                    }
                    true => format!("field label not supported: {field}"),
                    false => format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    ),
                };
                return Err(Status::bad_request(why));
            }
        }
        Ok(Filter { namespace: namespace.to_owned(), labels: options.label_selector.clone(), fields })
    }

    /// Selects all objects of all namespaces.
    pub(crate) fn everything() -> Filter {
        Filter { namespace: String::new(), labels: Selector::default(), fields: FieldSelector::default() }
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || self.namespace == object.namespace())
            && self.labels.matches(object)
            && self.fields.matches(object)
    }

    /// The smallest part of the cache that holds all matches.
    pub(crate) fn range(&self, namespaced: bool) -> Range {
        match (self.fields.exact("metadata.name"), self.fields.exact(NODE_FIELD)) {
            (Some(name), _) if !namespaced => Range::Key(name.to_owned()),
            (Some(name), _) if !self.namespace.is_empty() => Range::Key(format!("{}/{name}", self.namespace)),
            (_, Some(node)) if !node.is_empty() => Range::Node(node.to_owned()),
            _ if self.namespace.is_empty() => Range::All,
            _ => Range::Namespace(self.namespace.clone()),
        }
    }

    fn selects_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

impl Registry {
    /// The newest object, as new as every acknowledged write.
    pub(crate) async fn current(&self, resource: &Resource, key: &str) -> Result<Option<Arc<Object>>, Status> {
        self.fresh().await?;
        Ok(resource.storage.cache.get(key))
    }

    /// Waits until the cache holds every acknowledged write and returns its revision.
    pub(crate) async fn fresh(&self) -> Result<u64, Status> {
        let revision = self.store.read_barrier().await.map_err(store_failure)?;
        self.wait_for(revision, FRESH_WAIT).await?;
        Ok(self.through())
    }

    async fn wait_through(&self, revision: u64) -> Result<(), Status> {
        self.wait_for(revision, FUTURE_WAIT).await
    }

    async fn wait_for(&self, revision: u64, limit: Duration) -> Result<(), Status> {
        if self.through() >= revision {
            return Ok(());
        }
        let mut through = self.through.subscribe();
        match self.env.timeout(limit, through.wait_for(|through| *through >= revision)).await {
            Some(_) => Ok(()),
            None => {
                let message = format!("Too large resource version: {revision}, current: {}", self.through());
                let mut status =
                    Status::timeout(message).with_cause("ResourceVersionTooLarge", "Too large resource version", "");
                if let Some(details) = &mut status.details {
                    details.retry_after_seconds = 1;
                }
                Err(status)
            }
        }
    }

    /// One object, at least as new as `resource_version` (empty: the newest).
    pub(crate) async fn get(
        &self,
        resource: &Resource,
        key: &str,
        name: &str,
        resource_version: &str,
    ) -> Result<Arc<Object>, Status> {
        match resource_version {
            "" => drop(self.fresh().await?),
            "0" => {}
            text => {
                let revision = text.parse().map_err(|_| invalid_revision(text))?;
                self.wait_through(revision).await?;
            }
        }
        let found = resource.storage.cache.get(key);
        found.map(|object| resource.present(&object)).ok_or_else(|| Status::not_found(&resource.group_resource(), name))
    }

    /// A page of a list.
    pub(crate) async fn list(
        &self,
        resource: &Resource,
        filter: &Filter,
        options: &ListOptions,
    ) -> Result<ObjectList, ListError> {
        if !options.continue_token.is_empty() {
            return self.list_on(resource, filter, options).await;
        }
        match (options.revision(), options.resource_version_match) {
            (None, _) => drop(self.fresh().await?),
            (Some(0), _) => {}
            (Some(revision), Match::Exact) => {
                self.wait_through(revision).await?;
                return self.list_at(resource, filter, options.limit, "", revision).await;
            }
            (Some(revision), Match::Unset) if options.limit > 0 => {
                // Upstream serves a page at exactly the revision asked for.
                self.wait_through(revision).await?;
                return self.list_at(resource, filter, options.limit, "", revision).await;
            }
            (Some(revision), _) => self.wait_through(revision).await?,
        }
        // Upstream's cache ignores the limit of a list of any age.
        let limit = if options.revision() == Some(0) { 0 } else { options.limit };
        Ok(self.list_now(resource, filter, limit, ""))
    }

    async fn list_on(
        &self,
        resource: &Resource,
        filter: &Filter,
        options: &ListOptions,
    ) -> Result<ObjectList, ListError> {
        let token = ContinueToken::decode(&options.continue_token)?;
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue").into());
        }
        let start = match filter.namespace.as_str() {
            "" => token.start,
            namespace => match token.start.split_once('/') {
                Some((of, _)) if of == namespace => token.start,
                _ => {
                    return Err(
                        Status::bad_request(format!("invalid continue token {:?}", options.continue_token)).into()
                    );
                }
            },
        };
        if token.revision <= 0 {
            self.fresh().await?;
            return Ok(self.list_now(resource, filter, options.limit, &start));
        }
        let revision = token.revision as u64;
        self.wait_through(revision).await?;
        match self.list_at(resource, filter, options.limit, &start, revision).await {
            Err(ListError::Status(status)) if status.code == 410 => {
                let status = Status::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
                     the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
                     Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
                     deleted between the time the first chunk was returned and now may show up in the list.",
                );
                Err(ListError::Expired(status, ContinueToken { revision: -1, start }.encode()))
            }
            other => other,
        }
    }

    fn list_now(&self, resource: &Resource, filter: &Filter, limit: usize, start: &str) -> ObjectList {
        let mut page = Page::new(filter, limit);
        let range = filter.range(resource.namespaced());
        let through = self.through();
        let revision = resource.storage.cache.scan(&range, start, through, |key, object| page.visit(key, object));
        page.finish(resource, revision)
    }

    async fn list_at(
        &self,
        resource: &Resource,
        filter: &Filter,
        limit: usize,
        start: &str,
        revision: u64,
    ) -> Result<ObjectList, ListError> {
        // What the store has given up is gone, also where the cache remembers it still: a client learns it in time.
        if revision < self.store.compacted() {
            return self.list_stored(resource, filter, limit, start, revision).await;
        }
        let mut page = Page::new(filter, limit);
        let range = filter.range(resource.namespaced());
        match resource.storage.cache.scan_at(&range, start, revision, |key, object| page.visit(key, object)) {
            Ok(()) => Ok(page.finish(resource, revision)),
            Err(TooOld { .. }) => self.list_stored(resource, filter, limit, start, revision).await,
        }
    }

    /// Reads a past that only the store still knows.
    async fn list_stored(
        &self,
        resource: &Resource,
        filter: &Filter,
        limit: usize,
        start: &str,
        revision: u64,
    ) -> Result<ObjectList, ListError> {
        let storage = &resource.storage;
        let mut prefix = storage.prefix.clone();
        if !filter.namespace.is_empty() {
            prefix = format!("{prefix}{}/", filter.namespace);
        }
        let mut query = RangeQuery::prefix(prefix).at(revision);
        let first = format!("{}{start}", storage.prefix);
        if first.as_bytes() > &query.start[..] {
            query = query.starting_at(first);
        }
        let range = self.store.range(query).await.map_err(|failure| match failure {
            store::Error::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
            other => store_failure(other),
        })?;
        let mut page = Page::new(filter, limit);
        for item in range.items {
            let Some(key) = storage.key_of(&item.key) else { continue };
            let Ok(object) = storage.decode(&item.value, item.mod_revision) else { continue };
            if !page.visit(&key, &Arc::new(object)) {
                break;
            }
        }
        Ok(page.finish(resource, revision))
    }
}

/// Collects the matches of one page.
struct Page<'a> {
    filter: &'a Filter,
    limit: usize,
    items: Vec<Arc<Object>>,
    last: Option<Arc<str>>,
    /// Matches after the page; counted only when everything is selected, as upstream does.
    remaining: u64,
}

impl<'a> Page<'a> {
    fn new(filter: &'a Filter, limit: usize) -> Page<'a> {
        Page { filter, limit, items: Vec::new(), last: None, remaining: 0 }
    }

    fn visit(&mut self, key: &Arc<str>, object: &Arc<Object>) -> bool {
        if !self.filter.matches(object) {
            return true;
        }
        if self.limit > 0 && self.items.len() == self.limit {
            self.remaining += 1;
            return self.filter.selects_everything();
        }
        self.last = Some(key.clone());
        self.items.push(object.clone());
        true
    }

    fn finish(self, resource: &Resource, revision: u64) -> ObjectList {
        let more = self.remaining > 0;
        let continue_token = match self.last.filter(|_| more) {
            Some(last) => ContinueToken { revision: revision as i64, start: format!("{last}\0") }.encode(),
            None => String::new(),
        };
        let items = match resource.is_stored_form() {
            true => self.items,
            false => self.items.iter().map(|object| resource.present(object)).collect(),
        };
        let remaining = (more && self.filter.selects_everything()).then_some(self.remaining);
        ObjectList { revision, items, continue_token, remaining }
    }
}

/// The JSON of a `Status` whose metadata carries a continue token.
pub(crate) fn expired_json(status: &Status, token: &str) -> Vec<u8> {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    value["metadata"] = json!({ "continue": token });
    value.to_string().into_bytes()
}

fn invalid_revision(text: &str) -> Status {
    let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
    let error = apimachinery::FieldError::invalid("resourceVersion", text, why);
    Status::new(500, apimachinery::Reason::Unknown, error.to_string())
}
