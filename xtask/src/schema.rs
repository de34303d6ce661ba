//! `cargo xtask schema`: compiles the facts of the built-in kinds' types into `crates/api/tables/types.txt`.
//!
//! The facts are the ones only the Go declarations hold together: field names and order, pointers, `omitempty`, protobuf
//! numbers, patch strategies, list types, constant defaults and enum values. They are read from the modules `k8s.io/api` and
//! `k8s.io/apimachinery`, which the Go tool fetches; no text of theirs (no description) goes into the table.

mod go;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use go::{Declaration, FieldKind, Package};

const VERSION: &str = "v0.35.4";

/// Groups whose kinds a server of this version has on by default, by their folder in `k8s.io/api`.
const GROUPS: &[&str] = &[
    "admissionregistration/v1",
    "apps/v1",
    "authentication/v1",
    "authorization/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "batch/v1",
    "certificates/v1",
    "coordination/v1",
    "core/v1",
    "discovery/v1",
    "events/v1",
    "flowcontrol/v1",
    "networking/v1",
    "node/v1",
    "policy/v1",
    "rbac/v1",
    "resource/v1",
    "scheduling/v1",
    "storage/v1",
];

/// Packages of `k8s.io/apimachinery` that the groups draw from: folder, the name used in the table.
const MACHINERY: &[(&str, &str)] = &[
    ("pkg/apis/meta/v1", "meta"),
    ("pkg/api/resource", "resource"),
    ("pkg/util/intstr", "intstr"),
    ("pkg/runtime", "runtime"),
    ("pkg/types", "types"),
];

/// Types with a form of their own on the wire: the table names them, code knows them.
const SPECIAL: &[&str] = &[
    "meta.Time",
    "meta.MicroTime",
    "meta.FieldsV1",
    "resource.Quantity",
    "intstr.IntOrString",
    "runtime.RawExtension",
];

/// Types that are no kinds by their form but are sent alone.
const EXTRA_ROOTS: &[&str] = &["meta.WatchEvent", "meta.APIGroup", "meta.Table"];

/// Kinds that are not served yet, so that nothing of theirs is needed.
const LEFT_OUT: &[&str] = &["WebhookConfiguration"];

pub fn run(root: &Path) -> Result<()> {
    let sources = download()?;
    let table = compile(&sources)?;
    let path = root.join("crates/api/tables/types.txt");
    std::fs::write(&path, table).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

struct Sources {
    api: PathBuf,
    apimachinery: PathBuf,
}

/// Lets the Go tool fetch both modules and tell where they lie.
fn download() -> Result<Sources> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("go.mod"), "module schema\n")?;
    let fetch = |module: &str| -> Result<PathBuf> {
        let output = Command::new("go")
            .args(["mod", "download", "-json", &format!("{module}@{VERSION}")])
            .current_dir(folder.path())
            .output()
            .context("starting go")?;
        if !output.status.success() {
            bail!("go mod download {module}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let dir = answer["Dir"].as_str().context("go names no Dir")?;
        Ok(PathBuf::from(dir))
    };
    Ok(Sources { api: fetch("k8s.io/api")?, apimachinery: fetch("k8s.io/apimachinery")? })
}

fn compile(sources: &Sources) -> Result<String> {
    let mut world = World::default();
    for (folder, alias) in MACHINERY {
        let full = format!("io.k8s.apimachinery.{}", folder.replace('/', "."));
        world.add(alias, &full, &sources.apimachinery.join(folder))?;
    }
    for folder in GROUPS {
        let full = format!("io.k8s.api.{}", folder.replace('/', "."));
        world.add(&alias_of_group(folder), &full, &sources.api.join(folder))?;
    }
    let mut wanted = BTreeSet::new();
    for root in world.roots() {
        world.reach(&root, &mut wanted)?;
    }
    world.print(&wanted)
}

/// `apps/v1` is `apps.v1` in the table.
fn alias_of_group(folder: &str) -> String {
    folder.replace('/', ".")
}

#[derive(Default)]
struct World {
    /// By alias.
    packages: BTreeMap<String, Package>,
    full_names: BTreeMap<String, String>,
}

impl World {
    fn add(&mut self, alias: &str, full: &str, folder: &Path) -> Result<()> {
        let package = go::read(alias, folder, |import| {
            MACHINERY
                .iter()
                .find(|(folder, _)| import == format!("k8s.io/apimachinery/{folder}"))
                .map(|(_, alias)| (*alias).to_owned())
                .or_else(|| import.strip_prefix("k8s.io/api/").map(alias_of_group))
        })?;
        self.packages.insert(alias.to_owned(), package);
        self.full_names.insert(alias.to_owned(), full.to_owned());
        Ok(())
    }

    /// Every type with an inlined TypeMeta, and a few more.
    fn roots(&self) -> Vec<String> {
        let mut roots: Vec<String> = EXTRA_ROOTS.iter().map(|name| (*name).to_owned()).collect();
        for (alias, package) in &self.packages {
            if matches!(alias.as_str(), "runtime" | "types" | "resource" | "intstr") {
                continue;
            }
            for (name, declaration) in &package.types {
                let Declaration::Struct { fields, .. } = declaration else { continue };
                let is_kind = fields.iter().any(|field| field.kind == FieldKind::Inline && field.ty == "meta.TypeMeta");
                if is_kind && !LEFT_OUT.iter().any(|part| name.contains(part)) {
                    roots.push(format!("{alias}.{name}"));
                }
            }
        }
        roots
    }

    fn find(&self, name: &str) -> Result<&Declaration> {
        let (alias, name) = name.rsplit_once('.').with_context(|| format!("type {name} has no package"))?;
        let package = self.packages.get(alias).with_context(|| format!("package {alias} is not read"))?;
        package.types.get(name).with_context(|| format!("type {alias}.{name} is not declared"))
    }

    fn reach(&self, name: &str, wanted: &mut BTreeSet<String>) -> Result<()> {
        if !wanted.insert(name.to_owned()) || SPECIAL.contains(&name) {
            return Ok(());
        }
        match self.find(name)? {
            Declaration::Struct { fields, .. } => {
                for field in fields {
                    self.reach_expression(&field.ty, wanted)?;
                }
            }
            Declaration::Alias { target } => self.reach_expression(target, wanted)?,
        }
        Ok(())
    }

    fn reach_expression(&self, expression: &str, wanted: &mut BTreeSet<String>) -> Result<()> {
        for name in go::names(expression) {
            self.reach(name, wanted)?;
        }
        Ok(())
    }

    fn print(&self, wanted: &BTreeSet<String>) -> Result<String> {
        let mut out =
            format!("# Facts of k8s.io/api and k8s.io/apimachinery {VERSION}; made by `cargo xtask schema`.\n");
        for (alias, package) in &self.packages {
            let names: Vec<&str> = wanted
                .iter()
                .filter_map(|full| full.rsplit_once('.'))
                .filter(|(a, _)| a == alias)
                .map(|(_, n)| n)
                .collect();
            if names.is_empty() {
                continue;
            }
            writeln!(out, "package {alias} {}", self.full_names[alias])?;
            for name in names {
                self.print_type(&mut out, alias, package, name)?;
            }
        }
        Ok(out)
    }

    fn print_type(&self, out: &mut String, alias: &str, package: &Package, name: &str) -> Result<()> {
        if SPECIAL.contains(&format!("{alias}.{name}").as_str()) {
            writeln!(out, "special {name}")?;
            return Ok(());
        }
        match &package.types[name] {
            Declaration::Alias { target } => {
                write!(out, "alias {name} {}", go::local(target, alias))?;
                if package.enums.contains(name) {
                    let values = package.constants.get(name).map(Vec::as_slice).unwrap_or_default();
                    let values: Vec<&str> =
                        values.iter().map(|value| self.resolve(value)).filter(|value| !value.is_empty()).collect();
                    if !values.is_empty() {
                        write!(out, " {}", values.join("|"))?;
                    }
                }
                out.push('\n');
            }
            Declaration::Struct { fields, atomic } => {
                writeln!(out, "type {name}{}", if *atomic { " atomic" } else { "" })?;
                for field in fields {
                    self.print_field(out, alias, field)?;
                }
            }
        }
        Ok(())
    }

    fn print_field(&self, out: &mut String, alias: &str, field: &go::Field) -> Result<()> {
        let name = if field.kind == FieldKind::Inline { "+" } else { &field.json };
        write!(out, " {name} {} {}", go::local(&field.ty, alias), field.tag.unwrap_or(0))?;
        let named_list = go::names(&field.ty).last().map(|name| self.find(name)).transpose()?;
        let is_items = matches!(named_list, Some(Declaration::Alias { target }) if target.starts_with("[]"));
        if is_items && !field.casttype {
            out.push_str(" items");
        }
        for (flag, set) in [("omitempty", field.omitempty), ("omitzero", field.omitzero), ("optional", field.optional)]
        {
            if set {
                write!(out, " {flag}")?;
            }
        }
        for (key, value) in &field.marks {
            let value = match (key.as_str(), value.strip_prefix("ref(").and_then(|rest| rest.strip_suffix(')'))) {
                ("default", Some(name)) => format!("\"{}\"", self.constant(alias, name)?),
                _ => value.clone(),
            };
            write!(out, " {key}={value}")?;
        }
        out.push('\n');
        Ok(())
    }

    /// A constant's value; `@Name` stands for that of another one.
    fn resolve<'a>(&'a self, value: &'a str) -> &'a str {
        let Some(name) = value.strip_prefix('@') else { return value };
        self.packages.values().find_map(|package| package.values.get(name)).map_or("", String::as_str)
    }

    fn constant(&self, alias: &str, name: &str) -> Result<&str> {
        let value = self.packages[alias].values.get(name);
        value.map(String::as_str).with_context(|| format!("constant {name} is not declared in {alias}"))
    }
}

#[cfg(test)]
mod tests;
