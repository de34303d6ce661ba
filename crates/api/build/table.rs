//! The text table. A line is one of: `package ALIAS FULL`, `special NAME`, `alias NAME TARGET [VALUE|VALUE...]`,
//! `type NAME [atomic]`, or, below a type and indented, `FIELD TYPE TAG [flag | key=value]...` where `+` stands for an
//! inlined type and tag 0 for none.

use std::collections::BTreeMap;

/// All declarations, by `alias.Name`.
#[derive(Default)]
pub struct Table {
    pub declarations: BTreeMap<String, Declaration>,
    /// From a package's alias to its full name.
    pub packages: BTreeMap<String, String>,
}

pub enum Declaration {
    Special,
    Alias { target: String, values: Vec<String> },
    Struct { fields: Vec<Field>, atomic: bool },
}

pub struct Field {
    /// Empty for an inlined type.
    pub name: String,
    pub ty: String,
    pub tag: u16,
    pub omitempty: bool,
    pub omitzero: bool,
    pub optional: bool,
    pub marks: BTreeMap<String, String>,
}

impl Table {
    /// `io.k8s.api.core.v1.Pod` of `core.v1.Pod`.
    pub fn full_name(&self, name: &str) -> String {
        let (alias, short) = name.rsplit_once('.').expect("declared names have a package");
        format!("{}.{short}", self.packages[alias])
    }
}

pub fn parse(text: &str) -> Table {
    let mut table = Table::default();
    let mut alias = "";
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(line) = line.strip_prefix(' ') {
            let field = parse_field(line, alias);
            if let Some(Declaration::Struct { fields, .. }) = table.declarations.get_mut(&current) {
                fields.push(field);
            }
            continue;
        }
        let mut words = line.splitn(4, ' ');
        let (keyword, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (third, rest) = (words.next().unwrap_or_default(), words.next());
        current = format!("{alias}.{name}");
        let declaration = match keyword {
            "package" => {
                alias = name;
                table.packages.insert(name.to_owned(), third.to_owned());
                continue;
            }
            "special" => Declaration::Special,
            "alias" => {
                let values = rest.map(|rest| rest.split('|').map(str::to_owned).collect()).unwrap_or_default();
                Declaration::Alias { target: qualify(third, alias), values }
            }
            "type" => Declaration::Struct { fields: Vec::new(), atomic: third == "atomic" },
            other => panic!("the table has an unknown keyword {other:?}"),
        };
        table.declarations.insert(current.clone(), declaration);
    }
    table
}

fn parse_field(line: &str, alias: &str) -> Field {
    let mut words = line.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (name, ty, tag) = (next(), next(), next());
    let mut field = Field {
        name: if name == "+" { String::new() } else { name.to_owned() },
        ty: qualify(ty, alias),
        tag: tag.parse().expect("tags are numbers"),
        omitempty: false,
        omitzero: false,
        optional: false,
        marks: BTreeMap::new(),
    };
    for word in words {
        match (word, word.split_once('=')) {
            (_, Some((key, value))) => drop(field.marks.insert(key.to_owned(), value.to_owned())),
            ("omitempty", _) => field.omitempty = true,
            ("omitzero", _) => field.omitzero = true,
            ("optional", _) => field.optional = true,
            // A list with a message of its own is known by its name.
            ("items", _) => {}
            (other, _) => panic!("the table has an unknown mark {other:?}"),
        }
    }
    field
}

const BASIC: &[&str] = &["string", "bool", "int32", "int64", "int", "float64", "byte", "interface"];

/// Gives the names in a type expression that have no package the one they stand in.
fn qualify(expression: &str, alias: &str) -> String {
    let prefix_end = expression.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'));
    let (prefix, name) = expression.split_at(prefix_end.map_or(0, |at| at + 1));
    // A map's key is a string whatever it is called.
    match name.contains('.') || BASIC.contains(&name) || name.is_empty() {
        true => expression.to_owned(),
        false => format!("{prefix}{alias}.{name}"),
    }
}
