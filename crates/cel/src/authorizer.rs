//! What the variable `authorizer` asks.

/// Answers whether the user of a request, or a service account, may do something.
pub trait Authorizer {
    fn authorize(&self, query: &Query) -> Decision;
}

/// One question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Namespace and name; `None` for the user of the request.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    /// Empty for questions about resources.
    pub path: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// As text; empty for none.
    pub field_selector: String,
    pub label_selector: String,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why there is no answer; empty for none.
    pub error: String,
}
