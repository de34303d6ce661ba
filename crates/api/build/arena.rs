//! From declarations to nodes. Structs come first, in the table's order; anonymous types follow and are shared.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use crate::table::{Declaration, Field, Table};

pub struct Arena<'t> {
    table: &'t Table,
    /// Rust expressions.
    nodes: Vec<String>,
    fields: Vec<String>,
    /// Per node: its range in `wires`.
    wire_ranges: Vec<(usize, usize)>,
    wires: Vec<String>,
    structs: HashMap<&'t str, usize>,
    shared: HashMap<String, usize>,
    names: BTreeMap<String, usize>,
}

/// What an expression means: its node and how Go writes its zero value.
#[derive(Clone, Copy)]
struct Resolved {
    node: usize,
    pointer: bool,
    class: Class,
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Scalar,
    /// A list, map or bytes: nil where it was not given.
    Nilable,
    Struct,
}

pub fn build(table: &Table) -> Arena<'_> {
    let structs: Vec<&str> = table
        .declarations
        .iter()
        .filter(|(_, declaration)| matches!(declaration, Declaration::Struct { .. }))
        .map(|(name, _)| name.as_str())
        .collect();
    let mut arena = Arena {
        table,
        nodes: vec![String::new(); structs.len()],
        fields: Vec::new(),
        wire_ranges: vec![(0, 0); structs.len()],
        wires: Vec::new(),
        structs: structs.iter().enumerate().map(|(id, name)| (*name, id)).collect(),
        shared: HashMap::new(),
        names: BTreeMap::new(),
    };
    for name in &structs {
        arena.define_struct(name);
    }
    arena
}

impl<'t> Arena<'t> {
    fn declared(&self, name: &str) -> (&'t [Field], bool) {
        match self.table.declarations.get(name) {
            Some(Declaration::Struct { fields, atomic }) => (fields, *atomic),
            _ => panic!("{name} is no struct"),
        }
    }

    fn define_struct(&mut self, name: &'t str) {
        let id = self.structs[name];
        let mut flat: BTreeMap<&'t str, &'t Field> = BTreeMap::new();
        self.flatten(name, &mut flat);
        let lines: Vec<String> = flat.values().map(|field| self.field_line(field)).collect();
        let (first, len) = (self.fields.len(), lines.len());
        self.fields.extend(lines);
        let full = self.table.full_name(name);
        let atomic = self.declared(name).1;
        self.nodes[id] = format!("object({full:?}, {first}, {len}, {atomic})");
        self.names.insert(full, id);
        self.define_wire(name, id, &flat);
    }

    /// The fields as JSON shows them, with those of inlined types.
    fn flatten(&self, name: &str, flat: &mut BTreeMap<&'t str, &'t Field>) {
        for field in self.declared(name).0 {
            if field.name.is_empty() {
                self.flatten(&field.ty, flat);
            } else {
                flat.insert(&field.name, field);
            }
        }
    }

    fn define_wire(&mut self, name: &str, id: usize, flat: &BTreeMap<&str, &Field>) {
        let mut entries: Vec<(u16, String)> = Vec::new();
        for field in self.declared(name).0.iter().filter(|field| field.tag > 0) {
            let tag = field.tag;
            entries.push(if field.name.is_empty() {
                (tag, format!("w({tag}, INLINE, {})", self.structs[field.ty.as_str()]))
            } else {
                let index = flat.keys().position(|key| *key == field.name).expect("the field was flattened");
                (tag, format!("w({tag}, {index}, 0)"))
            });
        }
        entries.sort();
        self.wire_ranges[id] = (self.wires.len(), entries.len());
        self.wires.extend(entries.into_iter().map(|(_, line)| line));
    }

    fn field_line(&mut self, field: &Field) -> String {
        let resolved = self.resolve(&field.ty, field);
        let presence = match resolved {
            Resolved { pointer: true, .. } if field.omitempty || field.omitzero => "Given",
            Resolved { pointer: true, .. } => "AlwaysNull",
            Resolved { class: Class::Nilable, .. } if field.omitempty || field.omitzero => "NonEmpty",
            Resolved { class: Class::Nilable, .. } => "AlwaysNull",
            Resolved { class: Class::Struct, .. } if field.omitzero => "NonZero",
            Resolved { class: Class::Scalar, .. } if field.omitempty || field.omitzero => "NonEmpty",
            Resolved { .. } => "Always",
        };
        let required = !(field.omitempty || field.omitzero || field.optional);
        let mark = |key: &str| field.marks.get(key).map(String::as_str);
        let patch = match mark("merge") {
            None => "Default",
            Some("merge") => "Merge",
            Some("replace") => "Replace",
            Some("retainKeys") => "RetainKeys",
            Some("merge,retainKeys") => "MergeRetainKeys",
            Some(other) => panic!("unknown patch strategy {other}"),
        };
        let node = resolved.node;
        let optional = |value: Option<&str>| value.map_or("None".to_owned(), |text| format!("Some({text:?})"));
        let (by, default) = (optional(mark("by")), optional(mark("default")));
        format!(
            "f({:?}, {node}, {required}, Presence::{presence}, PatchStrategy::{patch}, {by}, {default})",
            field.name
        )
    }

    fn share(&mut self, node: String) -> usize {
        if let Some(id) = self.shared.get(&node) {
            return *id;
        }
        let id = self.nodes.len();
        self.nodes.push(node.clone());
        self.wire_ranges.push((0, 0));
        self.shared.insert(node, id);
        id
    }

    fn resolve(&mut self, expression: &str, field: &Field) -> Resolved {
        self.resolve_named(expression, "", field)
    }

    /// `name` is the full name the expression was declared under, if any.
    fn resolve_named(&mut self, expression: &str, name: &str, field: &Field) -> Resolved {
        let mark = |key: &str| field.marks.get(key).map(String::as_str);
        if let Some(target) = expression.strip_prefix('*') {
            return Resolved { pointer: true, ..self.resolve(target, field) };
        }
        let plain = |node: usize, class: Class| Resolved { node, pointer: false, class };
        if expression == "[]byte" {
            return plain(self.share("scalar(Shape::Bytes)".to_owned()), Class::Nilable);
        }
        if let Some(item) = expression.strip_prefix("[]") {
            let item = self.resolve(item, field).node;
            let list = match mark("list") {
                None | Some("atomic") => "Atomic",
                Some("set") => "Set",
                Some("map") => "Map",
                Some(other) => panic!("unknown list type {other}"),
            };
            let mut keys = String::new();
            for key in mark("keys").into_iter().flat_map(|keys| keys.split(',')) {
                write!(keys, "Cow::Borrowed({key:?}), ").expect("writing to memory");
            }
            return plain(self.share(format!("array({name:?}, {item}, ListType::{list}, &[{keys}])")), Class::Nilable);
        }
        if let Some((_, value)) = expression.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            let value = self.resolve(value, field).node;
            let atomic = mark("map") == Some("atomic");
            return plain(self.share(format!("map({name:?}, {value}, {atomic})")), Class::Nilable);
        }
        let scalar = match expression {
            "string" => Some("string(\"\", &[])"),
            "bool" => Some("scalar(Shape::Boolean)"),
            "int32" => Some("scalar(Shape::Integer { bits: 32 })"),
            "int64" | "int" => Some("scalar(Shape::Integer { bits: 64 })"),
            "float64" => Some("scalar(Shape::Number)"),
            "interface{}" => return plain(self.share("scalar(Shape::Raw)".to_owned()), Class::Struct),
            _ => None,
        };
        if let Some(scalar) = scalar {
            return plain(self.share(scalar.to_owned()), Class::Scalar);
        }
        self.resolve_declared(expression, field)
    }

    fn resolve_declared(&mut self, name: &str, field: &Field) -> Resolved {
        let plain = |node: usize, class: Class| Resolved { node, pointer: false, class };
        let full = self.table.full_name(name);
        match self.table.declarations.get(name) {
            Some(Declaration::Struct { atomic, .. }) => {
                let id = self.structs[name];
                // A field may say otherwise than the type does.
                match field.marks.get("map").map(|map| map == "atomic") {
                    Some(wanted) if wanted != *atomic => plain(self.variant(name, wanted), Class::Struct),
                    _ => plain(id, Class::Struct),
                }
            }
            Some(Declaration::Special) => {
                let shape = match name.rsplit('.').next() {
                    Some("Time") => "Time",
                    Some("MicroTime") => "MicroTime",
                    Some("Quantity") => "Quantity",
                    Some("IntOrString") => "IntOrString",
                    _ => "Raw",
                };
                let id = self.share(format!("special({full:?}, Shape::{shape})"));
                self.names.insert(full, id);
                plain(id, Class::Struct)
            }
            Some(Declaration::Alias { target, values }) if target == "string" => {
                let mut list = String::new();
                for value in values {
                    write!(list, "Cow::Borrowed({value:?}), ").expect("writing to memory");
                }
                plain(self.share(format!("string({full:?}, &[{list}])")), Class::Scalar)
            }
            Some(Declaration::Alias { target, .. }) => self.resolve_named(target, &full, field),
            None => panic!("{name} is not in the table"),
        }
    }

    /// The same object with another way to merge it.
    fn variant(&mut self, name: &'_ str, atomic: bool) -> usize {
        let full = self.table.full_name(name);
        let node = format!("variant({full:?}, {}, {atomic})", self.structs[name]);
        self.share(node)
    }

    /// The arrays as Rust source.
    pub fn emit(self) -> String {
        let mut out = String::new();
        let mut nodes = self.nodes.clone();
        let mut ranges = self.wire_ranges.clone();
        for (id, node) in nodes.iter_mut().enumerate() {
            // Variants repeat the object they vary, which is complete by now.
            if let Some(rest) = node.strip_prefix("variant(") {
                let parts: Vec<&str> = rest.trim_end_matches(')').split(", ").collect();
                let base: usize = parts[1].parse().expect("a variant names its base");
                let (head, _) = self.nodes[base].rsplit_once(", ").expect("objects have arguments");
                *node = format!("{head}, {})", parts[2]);
                ranges[id] = ranges[base];
            }
        }
        let mut array = |name: &str, ty: &str, items: &[String]| {
            writeln!(out, "static {name}: [{ty}; {}] = [", items.len()).expect("writing to memory");
            for item in items {
                writeln!(out, "    {item},").expect("writing to memory");
            }
            writeln!(out, "];").expect("writing to memory");
        };
        array("NODES", "Node", &nodes);
        array("FIELDS", "Field", &self.fields);
        array("WIRES", "Wire", &self.wires);
        let ranges: Vec<String> = ranges.iter().map(|(first, len)| format!("({first}, {len})")).collect();
        array("WIRE_RANGES", "(u32, u32)", &ranges);
        let names: Vec<String> = self.names.iter().map(|(name, id)| format!("({name:?}, {id})")).collect();
        array("NAMES", "(&str, u32)", &names);
        out
    }
}
