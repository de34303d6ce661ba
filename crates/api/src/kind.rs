//! `Kind`: one row of the table of built-in kinds.

use apimachinery::schema::{Shape, Type};
use apimachinery::{GroupResource, GroupVersionKind, GroupVersionResource, Value};

use crate::tables;

/// What the server knows of a kind before any code of it runs. Routes, discovery, OpenAPI and printing follow from it.
#[derive(Debug)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    /// Plural and lower case.
    pub resource: &'static str,
    /// The full name of its schema type, such as `io.k8s.api.core.v1.Pod`.
    pub type_name: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// As discovery lists them.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// `None` for kinds that are answered and not kept, such as TokenReview.
    pub storage: Option<Storage>,
    /// What field selectors may name besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [Selectable],
    /// How `kubectl get` shows it.
    pub columns: &'static [Column],
    /// Something in the cluster acts on it; where nothing does, the server says so in a `Warning:` header.
    pub enforced: bool,
}

/// Where and as what a kind is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The hub: patches, strategies and the stored bytes are in this group and version.
    pub group: &'static str,
    pub version: &'static str,
    /// Below `/registry/`, without slashes around it.
    pub path: &'static str,
}

/// A path below a resource's name.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// The kind of its body, or of its query's options where it streams.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// A field that selectors may name.
#[derive(Clone, Copy, Debug)]
pub struct Selectable {
    pub label: &'static str,
    /// Where its value lies.
    pub path: &'static [&'static str],
    /// Where it lies if there is none; empty: nowhere.
    pub or: &'static [&'static str],
}

/// A column of a Table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub ty: &'static str,
    /// `name` for the column that names the object.
    pub format: &'static str,
    /// Above 0: only in wide output.
    pub priority: i32,
    pub cell: Cell,
}

/// How a cell is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Name,
    /// Time since creation, as `5m` or `<unknown>`.
    Age,
    /// The creation timestamp itself.
    Created,
    /// The value at a path.
    At(&'static [&'static str]),
    /// How many items or members are at a path.
    Count(&'static [&'static str]),
    /// A label map as `a=b,c=d`, or `<none>`.
    Labels(&'static [&'static str]),
    /// A LabelSelector in its text form, or `<none>`.
    Selector(&'static [&'static str]),
    /// The names, or the images, of the containers of the pod spec at a path.
    ContainerNames(&'static [&'static str]),
    ContainerImages(&'static [&'static str]),
    /// By the kind's own printer.
    Computed,
}

pub(crate) const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
pub(crate) const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
pub(crate) const CREATE: &[&str] = &["create"];
pub(crate) const EDIT: &[&str] = &["get", "patch", "update"];
pub(crate) const CONNECT: &[&str] = &["create", "get"];
pub(crate) const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// The columns of kinds that have none of their own.
pub(crate) const DEFAULT_COLUMNS: &[Column] = &[NAME, Column::new("Created At", "date", Cell::Created)];
pub(crate) const NAME: Column = Column { format: "name", ..Column::new("Name", "string", Cell::Name) };
pub(crate) const AGE: Column = Column::new("Age", "string", Cell::Age);

impl Kind {
    /// The name of one, in lower case.
    pub fn singular(&self) -> String {
        self.kind.to_ascii_lowercase()
    }

    /// The prefix of the kind's keys in the store: `/registry/pods/`. `None` for kinds that are not stored.
    pub fn prefix(&self) -> Option<String> {
        self.storage.map(|storage| format!("/registry/{}/", storage.path))
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        self.gvk().api_version()
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group, self.version, self.kind)
    }

    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group, self.version, self.resource)
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.resource)
    }

    /// The schema of its objects.
    pub fn ty(&self) -> Type<'static> {
        tables::type_named(self.type_name).expect("every row names a type of the table")
    }

    /// The schema of its lists; `None` where there are no lists.
    pub fn list_ty(&self) -> Option<Type<'static>> {
        tables::type_named(&format!("{}List", self.type_name))
    }

    /// The row of the version that is stored; this row itself where nothing is converted or stored.
    pub fn hub(&'static self) -> &'static Kind {
        match self.storage {
            Some(storage) if (storage.group, storage.version) != (self.group, self.version) => {
                crate::kind(storage.group, storage.version, self.kind).unwrap_or(self)
            }
            _ => self,
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The values of the selectable fields, for [`apimachinery::Object::with_fields`]. `value` is in this row's version.
    pub fn field_values(&self, value: &Value) -> Vec<(&'static str, String)> {
        let ty = self.ty();
        let at = |path: &[&str]| value.at(path).filter(|value| !value.is_null());
        let read = |field: &Selectable| match at(field.path).or_else(|| at(field.or).filter(|_| !field.or.is_empty())) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => match ty.walk(field.path).map(Type::shape) {
                Some(Shape::Boolean) => "false".to_owned(),
                Some(Shape::Integer { .. }) => "0".to_owned(),
                _ => String::new(),
            },
        };
        self.selectable.iter().map(|field| (field.label, read(field))).collect()
    }

    pub(crate) const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        list_kind: &'static str,
        resource: &'static str,
        type_name: &'static str,
    ) -> Kind {
        Kind {
            group,
            version,
            kind,
            list_kind,
            resource,
            type_name,
            short_names: &[],
            categories: &[],
            namespaced: true,
            verbs: ALL_VERBS,
            subresources: &[],
            storage: Some(Storage { group, version, path: resource }),
            selectable: &[],
            columns: DEFAULT_COLUMNS,
            enforced: true,
        }
    }

    pub(crate) const fn cluster(self) -> Kind {
        Kind { namespaced: false, ..self }
    }

    pub(crate) const fn short(self, short_names: &'static [&'static str]) -> Kind {
        Kind { short_names, ..self }
    }

    pub(crate) const fn categories(self, categories: &'static [&'static str]) -> Kind {
        Kind { categories, ..self }
    }

    pub(crate) const fn verbs(self, verbs: &'static [&'static str]) -> Kind {
        Kind { verbs, ..self }
    }

    /// Subresources besides `status`.
    pub(crate) const fn with(self, subresources: &'static [Subresource]) -> Kind {
        Kind { subresources, ..self }
    }

    /// Stored elsewhere than under the resource's name.
    pub(crate) const fn path(self, path: &'static str) -> Kind {
        Kind { storage: Some(Storage { group: self.group, version: self.version, path }), ..self }
    }

    /// Stored in another group and version.
    pub(crate) const fn stored_as(self, group: &'static str, version: &'static str) -> Kind {
        Kind { storage: Some(Storage { group, version, path: self.resource }), ..self }
    }

    /// Answered at once: only `create`, nothing is kept.
    pub(crate) const fn answered(self) -> Kind {
        Kind { storage: None, verbs: CREATE, list_kind: "", columns: &[], ..self }
    }

    pub(crate) const fn virtual_with(self, verbs: &'static [&'static str]) -> Kind {
        Kind { storage: None, verbs, ..self }
    }

    pub(crate) const fn fields(self, selectable: &'static [Selectable]) -> Kind {
        Kind { selectable, ..self }
    }

    pub(crate) const fn columns(self, columns: &'static [Column]) -> Kind {
        Kind { columns, ..self }
    }

    pub(crate) const fn unenforced(self) -> Kind {
        Kind { enforced: false, ..self }
    }
}

impl Subresource {
    /// The schema of its body or options.
    pub fn ty(&self) -> Option<Type<'static>> {
        crate::type_of(self.group, self.version, self.kind)
    }

    pub(crate) const fn new(
        name: &'static str,
        gvk: (&'static str, &'static str, &'static str),
        verbs: &'static [&'static str],
    ) -> Subresource {
        Subresource { name, group: gvk.0, version: gvk.1, kind: gvk.2, verbs }
    }
}

impl Column {
    pub(crate) const fn new(name: &'static str, ty: &'static str, cell: Cell) -> Column {
        Column { name, ty, format: "", priority: 0, cell }
    }

    /// Only in wide output.
    pub(crate) const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }
}

/// Shorthands for the tables of kinds.
pub(crate) const fn text(name: &'static str, cell: Cell) -> Column {
    Column::new(name, "string", cell)
}

pub(crate) const fn integer(name: &'static str, path: &'static [&'static str]) -> Column {
    Column::new(name, "integer", Cell::At(path))
}

pub(crate) const fn at(name: &'static str, path: &'static [&'static str]) -> Column {
    text(name, Cell::At(path))
}

pub(crate) const fn computed(name: &'static str) -> Column {
    text(name, Cell::Computed)
}

pub(crate) const fn field(label: &'static str, path: &'static [&'static str]) -> Selectable {
    Selectable { label, path, or: &[] }
}

/// A field whose value lies elsewhere in objects that don't have it in its place.
pub(crate) const fn field_or(
    label: &'static str,
    path: &'static [&'static str],
    or: &'static [&'static str],
) -> Selectable {
    Selectable { label, path, or }
}

/// `status`, of the kind itself.
pub(crate) const fn status(gvk: (&'static str, &'static str, &'static str)) -> Subresource {
    Subresource::new("status", gvk, EDIT)
}

pub(crate) const SCALE: Subresource = Subresource::new("scale", ("autoscaling", "v1", "Scale"), EDIT);
