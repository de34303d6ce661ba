//! Just enough of Go to read type declarations, as gofmt lays them out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// The declarations of one package.
#[derive(Debug, Default)]
pub struct Package {
    pub types: BTreeMap<String, Declaration>,
    /// Types whose constants are their only values.
    pub enums: BTreeSet<String>,
    /// Constants by their declared type, in order.
    pub constants: BTreeMap<String, Vec<String>>,
    /// Constants by name.
    pub values: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq)]
pub enum Declaration {
    Struct { fields: Vec<Field>, atomic: bool },
    Alias { target: String },
}

#[derive(Debug, PartialEq)]
pub struct Field {
    pub json: String,
    pub kind: FieldKind,
    /// The type, every name in it with its package's alias.
    pub ty: String,
    pub tag: Option<u32>,
    /// The protobuf form is that of the underlying type.
    pub casttype: bool,
    pub omitempty: bool,
    pub omitzero: bool,
    pub optional: bool,
    /// `merge`, `by`, `list`, `keys`, `map`, `default`, in this order.
    pub marks: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldKind {
    Named,
    Inline,
}

/// Reads every file of a package but tests and generated ones. `alias_of` gives the alias of an imported package.
pub fn read(alias: &str, folder: &Path, alias_of: impl Fn(&str) -> Option<String>) -> Result<Package> {
    let mut package = Package::default();
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let skip =
            ["_test.go", "generated.pb.go", "generated.protomessage.pb.go"].iter().any(|end| name.ends_with(end));
        if !name.ends_with(".go") || skip || name.starts_with("zz_generated") || name.contains("_swagger_") {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        parse(alias, &text, &alias_of, &mut package);
    }
    Ok(package)
}

/// Adds one file's declarations.
pub fn parse(alias: &str, text: &str, alias_of: &impl Fn(&str) -> Option<String>, package: &mut Package) {
    let mut imports = BTreeMap::new();
    let mut comments: Vec<&str> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(comment) = line.trim_start().strip_prefix("//") {
            comments.push(comment.trim());
            continue;
        }
        if line.is_empty() {
            // A marker may stand in a block of its own above the comment.
            continue;
        }
        if let Some(path) = line.trim().rsplit('"').nth(1).filter(|path| path.starts_with("k8s.io/")) {
            let short = line.trim().split(' ').next().filter(|word| !word.starts_with('"') && *word != "import");
            let short = short.unwrap_or_else(|| path.rsplit('/').next().unwrap_or_default());
            if let Some(alias) = alias_of(path) {
                imports.insert(short.to_owned(), alias);
            }
        }
        if let Some(rest) = line.strip_prefix("type ") {
            let mut words = rest.split_whitespace();
            let name = words.next().unwrap_or_default();
            let target = words.next().unwrap_or_default();
            if target == "struct" || target == "struct{" {
                let atomic = comments.contains(&"+structType=atomic");
                let fields = parse_fields(alias, &imports, &mut lines);
                package.types.insert(name.to_owned(), Declaration::Struct { fields, atomic });
            } else if target != "interface" && target != "func" && !target.is_empty() {
                let target = if target == "=" { words.next().unwrap_or_default() } else { target };
                if comments.contains(&"+enum") {
                    package.enums.insert(name.to_owned());
                }
                package.types.insert(name.to_owned(), Declaration::Alias { target: qualify(target, alias, &imports) });
            }
        }
        parse_constant(line, package);
        comments.clear();
    }
}

/// `Name Type = "value"` or `Name = Type("value")`, with or without `const` before it. A value that is the name of another
/// constant, as in `Type(v1.Name)`, is kept as `@Name`.
fn parse_constant(line: &str, package: &mut Package) {
    let line = line.trim().trim_start_matches("const ");
    let Some((left, right)) = line.split_once(" = ") else { return };
    let (converted, right) = match right.strip_suffix(')').and_then(|right| right.split_once('(')) {
        Some((ty, value)) => (Some(ty), value),
        None => (None, right),
    };
    let value = match right.strip_prefix('"').and_then(|right| right.split_once('"')) {
        Some((value, _)) => value.to_owned(),
        None if converted.is_some() => format!("@{}", right.rsplit('.').next().unwrap_or_default()),
        None => return,
    };
    let mut words = left.split_whitespace();
    let Some(name) = words.next().filter(|name| name.starts_with(char::is_uppercase)) else { return };
    package.values.insert(name.to_owned(), value.clone());
    if let (Some(ty), None) = (words.next().or(converted), words.next()) {
        let values = package.constants.entry(ty.to_owned()).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }
}

fn parse_fields<'a>(
    alias: &str,
    imports: &BTreeMap<String, String>,
    lines: &mut impl Iterator<Item = &'a str>,
) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut comments = Vec::new();
    for line in lines {
        if line == "}" {
            break;
        }
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("//") {
            comments.push(comment.trim());
        } else if !line.is_empty() {
            fields.extend(parse_field(alias, imports, line, &comments));
            comments.clear();
        }
    }
    fields
}

fn parse_field(alias: &str, imports: &BTreeMap<String, String>, line: &str, comments: &[&str]) -> Option<Field> {
    let (declared, tags) = line.split_once('`')?;
    let tags = tags.split('`').next()?;
    let tag_of = |key: &str| -> Option<&str> { tags.split_once(&format!("{key}:\""))?.1.split('"').next() };
    let mut json = tag_of("json")?.split(',');
    let name = json.next()?;
    let options: Vec<&str> = json.collect();
    if name == "-" {
        return None;
    }
    let kind = if options.contains(&"inline") { FieldKind::Inline } else { FieldKind::Named };
    let protobuf = tag_of("protobuf");
    let mark = |key: &str| comments.iter().find_map(|comment| comment.strip_prefix(&format!("+{key}=")));
    let mut marks = Vec::new();
    if let Some(strategy) = tag_of("patchStrategy") {
        marks.push(("merge".to_owned(), strategy.to_owned()));
    }
    if let Some(key) = tag_of("patchMergeKey") {
        marks.push(("by".to_owned(), key.to_owned()));
    }
    if let Some(list) = mark("listType") {
        marks.push(("list".to_owned(), list.to_owned()));
    }
    let keys: Vec<&str> = comments.iter().filter_map(|comment| comment.strip_prefix("+listMapKey=")).collect();
    if !keys.is_empty() {
        marks.push(("keys".to_owned(), keys.join(",")));
    }
    if let Some(map) = mark("mapType").or_else(|| mark("structType")) {
        marks.push(("map".to_owned(), map.to_owned()));
    }
    if let Some(default) = mark("default") {
        marks.push(("default".to_owned(), default.to_owned()));
    }
    Some(Field {
        json: name.to_owned(),
        kind,
        ty: qualify(declared.split_whitespace().last()?, alias, imports),
        tag: protobuf.and_then(|tag| tag.split(',').nth(1)?.parse().ok()),
        casttype: protobuf.is_some_and(|tag| tag.contains("casttype=")),
        omitempty: options.contains(&"omitempty"),
        omitzero: options.contains(&"omitzero"),
        optional: comments.iter().any(|comment| matches!(*comment, "+optional" | "+k8s:optional")),
        marks,
    })
}

/// Gives every declared name in a type expression its package's alias.
fn qualify(expression: &str, alias: &str, imports: &BTreeMap<String, String>) -> String {
    each_name(expression, |name| match name.split_once('.') {
        _ if BASIC.contains(&name) => name.to_owned(),
        Some((import, name)) => match imports.get(import) {
            Some(alias) => format!("{alias}.{name}"),
            None => format!("{import}.{name}"),
        },
        None => format!("{alias}.{name}"),
    })
}

const BASIC: &[&str] = &[
    "string",
    "bool",
    "int32",
    "int64",
    "int",
    "float64",
    "byte",
    "map",
    "interface",
    "any",
    "struct",
    "func",
    "uint64",
];

/// A type expression as it stands inside package `alias`.
pub fn local(expression: &str, alias: &str) -> String {
    each_name(expression, |name| match name.rsplit_once('.') {
        Some((a, name)) if a == alias => name.to_owned(),
        _ => name.to_owned(),
    })
}

/// The declared types that a qualified expression names.
pub fn names(expression: &str) -> impl DoubleEndedIterator<Item = &str> {
    expression.split(|c: char| !is_name(c)).filter(|name| name.contains('.'))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.' || c == '_'
}

fn each_name(expression: &str, change: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = expression;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if end > 0 {
            out.push_str(&change(&rest[..end]));
        }
        let next = rest[end..].find(is_name).map_or(rest.len(), |at| end + at);
        out.push_str(&rest[end..next]);
        rest = &rest[next..];
    }
    out
}
