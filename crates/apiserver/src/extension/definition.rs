//! A CustomResourceDefinition, compiled.

use std::sync::Arc;

use apimachinery::{Object, Value};
use sha2::{Digest, Sha256};

use super::jsonpath::JsonPath;
use super::rules::Rules;
use super::schema::{Arena, Node};
use super::simple_path::steps;

/// What is known of a definition that is served.
#[derive(Debug)]
pub(crate) struct Definition {
    /// `widgets.example.com`
    pub name: String,
    pub uid: String,
    pub group: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// In the order of the definition.
    pub versions: Vec<Arc<Version>>,
    /// Index of the version that is stored.
    pub storage: usize,
    /// Other versions are made by a webhook.
    pub webhook: bool,
    /// No new objects: the definition is being deleted.
    pub terminating: bool,
    /// Of everything that objects are read and written by.
    pub digest: [u8; 32],
}

/// One version of a definition.
#[derive(Debug)]
pub(crate) struct Version {
    pub name: String,
    pub served: bool,
    /// What whoever uses it is told.
    pub deprecation: Option<String>,
    pub schema: Node,
    pub merge: Arena,
    pub rules: Rules,
    pub status: bool,
    pub scale: Option<Scale>,
    pub columns: Vec<Column>,
    /// Label and path of the fields that selectors may name.
    pub fields: Vec<(String, Vec<String>)>,
}

/// Where the `scale` subresource finds its numbers.
#[derive(Debug)]
pub(crate) struct Scale {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    pub selector: Option<Vec<String>>,
}

/// What the field behind the column of ages is described as.
const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
    guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in \
    RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// An additional printer column.
#[derive(Debug)]
pub(crate) struct Column {
    pub name: String,
    pub ty: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub path: JsonPath,
}

impl Definition {
    /// `None` where the definition isn't served, or is unreadable.
    pub(crate) fn read(object: &Object) -> Option<Definition> {
        let value = object.to_value();
        let is = |condition: &str| is_true(&value, condition);
        if !is("Established") && !is("NamesAccepted") {
            return None;
        }
        let spec = value.get("spec")?;
        let names = value.at(&["status", "acceptedNames"])?;
        let text = |key: &str| names.str_at(&[key]).unwrap_or_default().to_owned();
        let texts =
            |key: &str| names.items_at(&[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
        let mut hash = Sha256::new();
        hash.update(spec.to_json());
        hash.update(names.to_json());
        let group = spec.str_at(&["group"])?.to_owned();
        let kind = text("kind");
        let versions = spec.items_at(&["versions"]);
        let storage = versions.iter().position(|version| version.bool_at(&["storage"]) == Some(true))?;
        Some(Definition {
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            plural: text("plural"),
            singular: text("singular"),
            list_kind: text("listKind"),
            short_names: texts("shortNames"),
            categories: texts("categories"),
            namespaced: spec.str_at(&["scope"]) == Some("Namespaced"),
            versions: versions.iter().map(|version| Arc::new(Version::read(version, &group, &kind))).collect(),
            storage,
            webhook: spec.str_at(&["conversion", "strategy"]) == Some("Webhook"),
            terminating: is("Terminating"),
            digest: hash.finalize().into(),
            group,
            kind,
        })
        .filter(|definition| !definition.plural.is_empty() && !definition.kind.is_empty())
    }

    pub(crate) fn version(&self, name: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The version that objects are stored in.
    pub(crate) fn stored(&self) -> &Arc<Version> {
        &self.versions[self.storage]
    }

    /// `example.com/v1`
    pub(crate) fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.group)
    }

    /// What OpenAPI calls a version of the kind: `com.example.v1.Widget`.
    pub(crate) fn model_name(&self, version: &str) -> String {
        let parts: Vec<&str> = self.group.rsplit('.').collect();
        format!("{}.{version}.{}", parts.join("."), self.kind)
    }

    /// Every field that any version selects by.
    pub(crate) fn fields(&self) -> Vec<&(String, Vec<String>)> {
        let mut all: Vec<&(String, Vec<String>)> = Vec::new();
        for field in self.versions.iter().flat_map(|version| &version.fields) {
            if !all.contains(&field) {
                all.push(field);
            }
        }
        all
    }
}

impl Version {
    fn read(version: &Value, group: &str, kind: &str) -> Version {
        let name = version.str_at(&["name"]).unwrap_or_default().to_owned();
        let empty = Value::object();
        let raw = version.at(&["schema", "openAPIV3Schema"]).unwrap_or(&empty);
        let schema = Node::read(raw);
        let merge = Arena::new(&format!("{group}.{name}.{kind}"), &schema);
        let deprecation = (version.bool_at(&["deprecated"]) == Some(true)).then(|| {
            let told = version.str_at(&["deprecationWarning"]).map(str::to_owned);
            told.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated"))
        });
        let scale = version.at(&["subresources", "scale"]).map(|scale| {
            let path = |key: &str| scale.str_at(&[key]).filter(|path| !path.is_empty()).map(steps);
            Scale {
                spec_replicas: path("specReplicasPath").unwrap_or_default(),
                status_replicas: path("statusReplicasPath").unwrap_or_default(),
                selector: path("labelSelectorPath"),
            }
        });
        let fields = version.items_at(&["selectableFields"]).iter().filter_map(|field| field.str_at(&["jsonPath"]));
        Version {
            served: version.bool_at(&["served"]).unwrap_or_default(),
            deprecation,
            rules: Rules::compile(raw, &schema),
            merge,
            status: version.at(&["subresources", "status"]).is_some(),
            scale,
            columns: match version.items_at(&["additionalPrinterColumns"]) {
                [] => Column::age().into_iter().collect(),
                columns => columns.iter().filter_map(Column::read).collect(),
            },
            fields: fields.map(|path| (path.trim_start_matches('.').to_owned(), steps(path))).collect(),
            schema,
            name,
        }
    }
}

impl Column {
    /// The column of versions that name none.
    fn age() -> Option<Column> {
        Some(Column {
            name: "Age".to_owned(),
            ty: "date".to_owned(),
            format: String::new(),
            description: AGE.to_owned(),
            priority: 0,
            path: JsonPath::parse(".metadata.creationTimestamp")?,
        })
    }

    fn read(column: &Value) -> Option<Column> {
        let text = |key: &str| column.str_at(&[key]).unwrap_or_default().to_owned();
        let path = text("jsonPath");
        let description = match text("description") {
            own if own.is_empty() => format!("Custom resource definition column (in JSONPath format): {path}"),
            own => own,
        };
        Some(Column {
            name: text("name"),
            ty: text("type"),
            format: text("format"),
            description,
            priority: column.i64_at(&["priority"]).unwrap_or_default(),
            path: JsonPath::parse(&path)?,
        })
    }

    /// The cell of an object. `None` where there is nothing to show.
    pub(crate) fn cell(&self, object: &Value, since: impl Fn(&str) -> String) -> Option<Value> {
        let found = self.path.find(object);
        let value = *found.first()?;
        match (self.ty.as_str(), value) {
            ("string", value) => Some(Value::from(super::jsonpath::printed(value))),
            ("integer", Value::Number(_)) => value.as_f64().map(|number| Value::from(number as i64)),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => Some(value.clone()),
            ("date", Value::String(text)) => Some(Value::from(since(text))),
            _ => None,
        }
    }
}

/// Whether a condition of a definition holds.
pub(super) fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition.items_at(&["status", "conditions"]).iter();
    let mut named = conditions.filter(|known| known.str_at(&["type"]) == Some(condition));
    named.next().is_some_and(|known| known.str_at(&["status"]) == Some("True"))
}
