//! Content negotiation: which form of an answer a client wants. Upstream: apiserver endpoints/handlers/negotiation.

use apimachinery::Status;
use http::HeaderMap;
use http::header::ACCEPT;

/// One accepted media type with its parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Clause {
    pub media: String,
    pub params: Vec<(String, String)>,
    quality: f32,
}

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// What is encoded of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Whole,
    /// `as=PartialObjectMetadata`
    Metadata,
    /// `as=PartialObjectMetadataList`
    MetadataList,
    /// `as=Table`, in this version of `meta.k8s.io`.
    Table(&'static str),
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub encoding: Encoding,
    pub shape: Shape,
}

impl Clause {
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// Whether the client wants plain JSON and nothing else, as most do.
fn wants_json(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(ACCEPT).iter();
    all.next().is_none_or(|first| first == "application/json") && all.next().is_none()
}

/// The clauses of `Accept`, best first; `*/*` when there is none.
pub(crate) fn clauses(headers: &HeaderMap) -> Vec<Clause> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut clauses: Vec<Clause> = texts.flat_map(|text| text.split(',')).filter_map(clause).collect();
    if clauses.is_empty() {
        clauses.push(Clause { media: "*/*".into(), params: Vec::new(), quality: 1.0 });
    }
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn clause(text: &str) -> Option<Clause> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().filter(|media| !media.is_empty())?.to_ascii_lowercase();
    let mut clause = Clause { media, params: Vec::new(), quality: 1.0 };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "q" => clause.quality = value.parse().unwrap_or(1.0),
            _ => clause.params.push((key.to_owned(), value.trim_matches('"').to_owned())),
        }
    }
    Some(clause)
}

/// What routes of objects can answer with.
pub(crate) const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// The same, and streams of them.
pub(crate) const OBJECTS_AND_STREAMS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

/// Refuses clients who name no type that a route has, before anybody looks closer. Upstream: go-restful's router.
pub(crate) fn route(headers: &HeaderMap, available: &[&str]) -> Result<(), Status> {
    let mut texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    let none = texts.peek().is_none();
    let mut named = texts.flat_map(|text| text.split(',')).map(|one| one.split(';').next().unwrap_or_default().trim());
    match none || named.any(|media| media == "*/*" || available.contains(&media)) {
        true => Ok(()),
        false => Err(Status::no_representation(&available.join(", "))),
    }
}

/// Picks the form of an answer that holds objects; `watch` answers are streams, and not every kind has `tables`.
pub(crate) fn negotiate(headers: &HeaderMap, watch: bool, tables: bool) -> Result<Form, Status> {
    if wants_json(headers) {
        return Ok(Form::default());
    }
    let fits = |form: &Form| tables || !matches!(form.shape, Shape::Table(_));
    let form = clauses(headers).iter().find_map(|clause| form(clause, watch).filter(fits));
    form.ok_or_else(|| if watch { no_such_stream() } else { not_acceptable() })
}

/// Picks the encoding of an answer that has no other shape, such as a `Status`.
pub(crate) fn encoding(headers: &HeaderMap) -> Encoding {
    if wants_json(headers) {
        return Encoding::default();
    }
    clauses(headers).iter().find_map(|clause| encoding_of(clause, false)).unwrap_or_default()
}

pub(crate) fn not_acceptable() -> Status {
    Status::not_acceptable(
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

fn no_such_stream() -> Status {
    Status::not_acceptable(
        "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
    )
}

fn form(clause: &Clause, watch: bool) -> Option<Form> {
    let encoding = encoding_of(clause, watch)?;
    let shape = match (clause.param("as"), clause.param("g"), clause.param("v")) {
        ("", ..) => Shape::Whole,
        ("Table", "meta.k8s.io", "v1") => Shape::Table("v1"),
        ("Table", "meta.k8s.io", "v1beta1") => Shape::Table("v1beta1"),
        ("PartialObjectMetadata", "meta.k8s.io", "v1") => Shape::Metadata,
        ("PartialObjectMetadataList", "meta.k8s.io", "v1") => Shape::MetadataList,
        _ => return None,
    };
    // Tables and metadata have no protobuf form here; the client's next choice serves.
    (encoding != Encoding::Protobuf || shape == Shape::Whole).then_some(Form { encoding, shape })
}

fn encoding_of(clause: &Clause, watch: bool) -> Option<Encoding> {
    match clause.media.as_str() {
        "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
        "application/yaml" if !watch => Some(Encoding::Yaml),
        // Watches and lists stay JSON: every client of ours that asks for protobuf also takes JSON.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_known_clause_wins() {
        let check = |accept: &str, expect: Option<Form>| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(negotiate(&headers, false, true).ok(), expect, "{accept}");
            let without = expect.filter(|form| !matches!(form.shape, Shape::Table(_)));
            let found = negotiate(&headers, false, false).ok();
            assert!(found == without || found == Some(Form::default()), "{accept} without tables: {found:?}");
        };
        let json = |shape| Some(Form { encoding: Encoding::Json, shape });
        check("application/json", json(Shape::Whole));
        check("application/vnd.kubernetes.protobuf,application/json", json(Shape::Whole));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", json(Shape::Table("v1")));
        check("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", json(Shape::Whole));
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", json(Shape::MetadataList));
        check("text/html;q=0.9,application/yaml", Some(Form { encoding: Encoding::Yaml, shape: Shape::Whole }));
        check("application/json;q=0.5, */*;q=0.8", json(Shape::Whole));
        check("text/html", None);
        check("application/json;as=Nonsense;g=meta.k8s.io;v=v1", None);
    }
}
