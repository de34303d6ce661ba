//! The query parameters of reads and writes, checked as upstream checks them.

use apimachinery::validation::validate_field_manager;
use apimachinery::{FieldError, FieldSelector, GroupKind, Reason, Selector, Status};

use crate::request::Query;

/// Parameters of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub label_selector: Selector,
    pub field_selector: FieldSelector,
    pub resource_version: String,
    pub resource_version_match: Match,
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u64>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Match {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

/// Parameters of create, update and patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
    /// An apply may take fields from other managers.
    pub force: bool,
}

/// What becomes of unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let label_selector =
            Selector::parse(query.get("labelSelector")).map_err(|error| Status::bad_request(error.to_string()))?;
        let field_selector =
            FieldSelector::parse(query.get("fieldSelector")).map_err(|error| Status::bad_request(error.to_string()))?;
        let options = ListOptions {
            label_selector,
            field_selector,
            resource_version: query.get("resourceVersion").to_owned(),
            resource_version_match: Match::Unset,
            limit: query.number("limit")?.unwrap_or(0).max(0) as usize,
            continue_token: query.get("continue").to_owned(),
            timeout_seconds: query.number("timeoutSeconds")?.map(|seconds| seconds.max(0) as u64),
            allow_watch_bookmarks: query.flag("allowWatchBookmarks")?,
            send_initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")).transpose()?,
        };
        options.checked(query.get("resourceVersionMatch"), watch)
    }

    fn checked(mut self, match_text: &str, watch: bool) -> Result<ListOptions, Status> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let revision = self.resource_version.as_str();
        let unreadable = !revision.is_empty() && revision.parse::<u64>().is_err();
        self.resource_version_match = match match_text {
            "" => Match::Unset,
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlderThan,
            other => {
                errors.push(FieldError::not_supported(MATCH, other, &["Exact", "NotOlderThan", ""]));
                Match::Unset
            }
        };
        if watch {
            self.check_watch(match_text, &mut errors);
        } else {
            if self.send_initial_events.is_some() {
                errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
            }
            if !match_text.is_empty() {
                if revision.is_empty() {
                    errors.push(FieldError::forbidden(
                        MATCH,
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    ));
                }
                if !self.continue_token.is_empty() {
                    errors.push(FieldError::forbidden(
                        MATCH,
                        "resourceVersionMatch is forbidden when continue is provided",
                    ));
                }
            }
            if self.resource_version_match == Match::Exact && revision == "0" {
                errors.push(FieldError::forbidden(
                    MATCH,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if errors.is_empty() && unreadable {
            let why = format!("strconv.ParseUint: parsing {revision:?}: invalid syntax");
            let error = FieldError::invalid("resourceVersion", revision, why);
            return Err(match watch {
                true => Status::new(500, Reason::Unknown, error.to_string()),
                false => Status::bad_request(format!("invalid resource version: {error}")),
            });
        }
        if errors.is_empty() {
            return Ok(self);
        }
        let kind = GroupKind { group: "meta.k8s.io".into(), kind: "ListOptions".into() };
        Err(Status::invalid(&kind, "", &errors))
    }

    fn check_watch(&self, match_text: &str, errors: &mut Vec<FieldError>) {
        const MATCH: &str = "resourceVersionMatch";
        match self.send_initial_events {
            None if !match_text.is_empty() => {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(MATCH, why));
            }
            None => {}
            Some(_) if match_text != "NotOlderThan" => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(FieldError::forbidden(MATCH, why));
                if !match_text.is_empty() {
                    errors.push(FieldError::not_supported(MATCH, match_text, &["NotOlderThan"]));
                }
            }
            Some(true) if !self.allow_watch_bookmarks => {
                let why = "sendInitialEvents requires allowWatchBookmarks to be set";
                errors.push(FieldError::forbidden("sendInitialEvents", why));
            }
            Some(_) => {}
        }
        if !self.continue_token.is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(MATCH, why));
        }
    }

    /// The resource version asked for; `None` for the newest, 0 for any.
    pub(crate) fn revision(&self) -> Option<u64> {
        self.resource_version.parse().ok()
    }
}

impl WriteOptions {
    /// `kind` is what upstream calls the options: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        if kind == "PatchOptions" && query.has("force") {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        WriteOptions::checked(query, kind, errors)
    }

    /// The options of a server-side apply.
    pub(crate) fn parse_apply(query: &Query) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        let force = query.has("force") && query.flag("force")?;
        if query.get("fieldManager").is_empty() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
        Ok(WriteOptions { force, ..WriteOptions::checked(query, "PatchOptions", errors)? })
    }

    fn checked(query: &Query, kind: &str, mut errors: Vec<FieldError>) -> Result<WriteOptions, Status> {
        let dry_run = dry_run(&query.all("dryRun"), &mut errors);
        errors.extend(validate_field_manager(query.get("fieldManager"), "fieldManager"));
        let validation = match query.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if errors.is_empty() {
            return Ok(WriteOptions { dry_run, validation, force: false });
        }
        Err(Status::invalid(&GroupKind { group: "meta.k8s.io".into(), kind: kind.into() }, "", &errors))
    }
}

/// Reads `dryRun`, whose only value is `All`.
pub(crate) fn dry_run(values: &[&str], errors: &mut Vec<FieldError>) -> bool {
    if values.iter().any(|value| *value != "All") {
        let shown: Vec<apimachinery::Value> = values.iter().map(|value| (*value).into()).collect();
        errors.push(FieldError::not_supported("dryRun", shown, &["All"]));
    }
    !values.is_empty()
}
