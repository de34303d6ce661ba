//! From declarations to nodes. Structs come first, in the table's order; anonymous types follow and are shared.
//!
//! What is emitted holds no pointers: words and one text, from which the crate makes its schema when it is first used. So
//! processes of the same binary that never ask for it pay nothing, not even for relocations.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use crate::table::{Declaration, Field, Table};

pub struct Arena<'t> {
    table: &'t Table,
    /// Per node its words: shape, name, and what the shape needs.
    nodes: Vec<Vec<usize>>,
    /// Seven words each.
    fields: Vec<[usize; 7]>,
    /// Per node: its range in `wires`.
    wire_ranges: Vec<(usize, usize)>,
    wires: Vec<String>,
    structs: HashMap<&'t str, usize>,
    shared: HashMap<Vec<usize>, usize>,
    names: BTreeMap<String, usize>,
    texts: Texts,
}

/// Texts by number; 0 is the empty one.
struct Texts {
    numbers: HashMap<String, usize>,
    all: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.numbers.insert(text.to_owned(), self.all.len());
        self.all.push(text.to_owned());
        self.all.len() - 1
    }
}

/// The first word of a node; `tables.rs` reads them.
mod shape {
    pub const OBJECT: usize = 0;
    pub const MAP: usize = 1;
    pub const ARRAY: usize = 2;
    pub const STRING: usize = 3;
    pub const BYTES: usize = 4;
    pub const INT32: usize = 5;
    pub const INT64: usize = 6;
    pub const NUMBER: usize = 7;
    pub const BOOLEAN: usize = 8;
    pub const INT_OR_STRING: usize = 9;
    pub const QUANTITY: usize = 10;
    pub const TIME: usize = 11;
    pub const MICRO_TIME: usize = 12;
    pub const RAW: usize = 13;
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
        nodes: vec![Vec::new(); structs.len()],
        fields: Vec::new(),
        wire_ranges: vec![(0, 0); structs.len()],
        wires: Vec::new(),
        structs: structs.iter().enumerate().map(|(id, name)| (*name, id)).collect(),
        shared: HashMap::new(),
        names: BTreeMap::new(),
        texts: Texts { numbers: HashMap::new(), all: Vec::new() },
    };
    arena.texts.number("");
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
        let fields: Vec<[usize; 7]> = flat.values().map(|field| self.field_words(field)).collect();
        let (first, len) = (self.fields.len(), fields.len());
        self.fields.extend(fields);
        let full = self.table.full_name(name);
        let atomic = self.declared(name).1;
        self.nodes[id] = vec![shape::OBJECT, self.texts.number(&full), first, len, usize::from(atomic)];
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

    fn field_words(&mut self, field: &Field) -> [usize; 7] {
        let resolved = self.resolve(&field.ty, field);
        let presence = match resolved {
            Resolved { pointer: true, .. } if field.omitempty || field.omitzero => 0, // Given
            Resolved { pointer: true, .. } => 4,                                      // AlwaysNull
            Resolved { class: Class::Nilable, .. } if field.omitempty || field.omitzero => 1, // NonEmpty
            Resolved { class: Class::Nilable, .. } => 4,                              // AlwaysNull
            Resolved { class: Class::Struct, .. } if field.omitzero => 2,             // NonZero
            Resolved { class: Class::Scalar, .. } if field.omitempty || field.omitzero => 1, // NonEmpty
            Resolved { .. } => 3,                                                     // Always
        };
        let required = !(field.omitempty || field.omitzero || field.optional);
        let mark = |key: &str| field.marks.get(key).map(String::as_str);
        let patch = match mark("merge") {
            None => 0,
            Some("merge") => 1,
            Some("replace") => 2,
            Some("retainKeys") => 3,
            Some("merge,retainKeys") => 4,
            Some(other) => panic!("unknown patch strategy {other}"),
        };
        let name = self.texts.number(&field.name);
        // 0, the empty text, stands for none.
        let mut optional = |value: Option<&str>| value.map_or(0, |text| self.texts.number(text));
        [name, resolved.node, usize::from(required), presence, patch, optional(mark("by")), optional(mark("default"))]
    }

    fn share(&mut self, node: Vec<usize>) -> usize {
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
            return plain(self.share(vec![shape::BYTES, 0]), Class::Nilable);
        }
        if let Some(item) = expression.strip_prefix("[]") {
            let item = self.resolve(item, field).node;
            let list = match mark("list") {
                None | Some("atomic") => 0,
                Some("set") => 1,
                Some("map") => 2,
                Some(other) => panic!("unknown list type {other}"),
            };
            let mut node = vec![shape::ARRAY, self.texts.number(name), item, list];
            let keys = mark("keys").into_iter().flat_map(|keys| keys.split(','));
            node.extend(keys.map(|key| self.texts.number(key)));
            return plain(self.share(node), Class::Nilable);
        }
        if let Some((_, value)) = expression.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            let value = self.resolve(value, field).node;
            let atomic = mark("map") == Some("atomic");
            let node = vec![shape::MAP, self.texts.number(name), value, usize::from(atomic)];
            return plain(self.share(node), Class::Nilable);
        }
        let scalar = match expression {
            "string" => shape::STRING,
            "bool" => shape::BOOLEAN,
            "int32" => shape::INT32,
            "int64" | "int" => shape::INT64,
            "float64" => shape::NUMBER,
            "interface{}" => return plain(self.share(vec![shape::RAW, 0]), Class::Struct),
            _ => return self.resolve_declared(expression, field),
        };
        plain(self.share(vec![scalar, 0]), Class::Scalar)
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
                    Some("Time") => shape::TIME,
                    Some("MicroTime") => shape::MICRO_TIME,
                    Some("Quantity") => shape::QUANTITY,
                    Some("IntOrString") => shape::INT_OR_STRING,
                    _ => shape::RAW,
                };
                let node = vec![shape, self.texts.number(&full)];
                let id = self.share(node);
                self.names.insert(full, id);
                plain(id, Class::Struct)
            }
            Some(Declaration::Alias { target, values }) if target == "string" => {
                let mut node = vec![shape::STRING, self.texts.number(&full)];
                node.extend(values.iter().map(|value| self.texts.number(value)));
                plain(self.share(node), Class::Scalar)
            }
            Some(Declaration::Alias { target, .. }) => self.resolve_named(target, &full, field),
            None => panic!("{name} is not in the table"),
        }
    }

    /// The same object with another way to merge it. Its words after the name are the base's, filled in when all are known.
    fn variant(&mut self, name: &str, atomic: bool) -> usize {
        let full = self.texts.number(&self.table.full_name(name));
        self.share(vec![shape::OBJECT, full, self.structs[name], VARIANT, usize::from(atomic)])
    }

    /// The arrays as Rust source.
    pub fn emit(mut self) -> String {
        for id in 0..self.nodes.len() {
            if self.nodes[id].get(3) == Some(&VARIANT) && self.nodes[id][0] == shape::OBJECT {
                let base = self.nodes[id][2];
                let (first, len) = (self.nodes[base][2], self.nodes[base][3]);
                self.nodes[id][2..4].copy_from_slice(&[first, len]);
                self.wire_ranges[id] = self.wire_ranges[base];
            }
        }
        let names: Vec<usize> =
            self.names.iter().flat_map(|(name, id)| [self.texts.numbers[name.as_str()], *id]).collect();
        let mut ends = Vec::new();
        let mut end = 0;
        for text in &self.texts.all {
            end += text.len();
            ends.push(end);
        }
        let mut out = format!("static TEXT: &str = {:?};\n", self.texts.all.concat());
        let mut array = |name: &str, ty: &str, items: Vec<String>| {
            writeln!(out, "static {name}: [{ty}; {}] = [{}];", items.len(), items.join(","))
                .expect("writing to memory");
        };
        let words = |words: &mut dyn Iterator<Item = usize>| words.map(|word| word.to_string()).collect::<Vec<_>>();
        // Each node's words come after their count.
        let nodes = self.nodes.iter().flat_map(|node| std::iter::once(node.len()).chain(node.iter().copied()));
        array("TEXT_ENDS", "u32", words(&mut ends.into_iter()));
        array("NODE_WORDS", "u32", words(&mut { nodes }));
        array("FIELD_WORDS", "u32", words(&mut self.fields.iter().flatten().copied()));
        array("NAME_WORDS", "u32", words(&mut names.into_iter()));
        array("WIRES", "Wire", self.wires);
        array(
            "WIRE_RANGES",
            "(u32, u32)",
            self.wire_ranges.iter().map(|(first, len)| format!("({first}, {len})")).collect(),
        );
        out
    }
}

/// Marks an object's words that wait for those of their base.
const VARIANT: usize = u32::MAX as usize;
