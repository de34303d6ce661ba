//! What types and fields are for, as `explain` shows it: taken at build time from the JSON schemas in the sources of
//! `k8s-openapi`, which upstream's documents were generated into.
//!
//! The text has a line `=TYPE<tab>DESCRIPTION` for each type and below it `FIELD<tab>DESCRIPTION`; the descriptions are
//! escaped as in JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The types that have descriptions in the sources, of those in `wanted`.
pub fn collect(wanted: &BTreeSet<String>) -> Result<String, String> {
    let folder = sources()?.join("src/v1_35");
    let mut types = BTreeMap::new();
    read_folder(&folder, wanted, &mut types)?;
    Ok(types.into_values().collect())
}

/// Asks cargo where the package lies.
fn sources() -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").map_err(|error| error.to_string())?;
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--frozen"])
        .output()
        .map_err(|error| format!("starting cargo metadata: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let package = text.split_once(r#"{"name":"k8s-openapi","version":"#).ok_or("cargo names no k8s-openapi")?.1;
    let manifest = package.split_once(r#""manifest_path":""#).ok_or("cargo names no manifest")?.1;
    let manifest = manifest.split('"').next().unwrap_or_default();
    Path::new(manifest).parent().map(Path::to_owned).ok_or_else(|| "the manifest has no folder".to_owned())
}

fn read_folder(folder: &Path, wanted: &BTreeSet<String>, types: &mut BTreeMap<String, String>) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.is_dir() {
            read_folder(&path, wanted, types)?;
        } else if let Some((name, text)) = read_schema(&std::fs::read_to_string(&path).map_err(told)?)
            && wanted.contains(&name)
        {
            types.insert(name, text);
        }
    }
    Ok(())
}

/// The schema of a file's type. Its layout is generated: a property's name is indented by 16, what it says by 20.
fn read_schema(source: &str) -> Option<(String, String)> {
    let schema = source.split_once("impl crate::schemars::JsonSchema for ")?.1;
    let name = schema.split_once("schema_name()")?.1.split('"').nth(1)?.to_owned();
    let mut text = format!("={name}\t\n");
    let mut property = "";
    for line in schema.lines() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        let described = bare
            .strip_prefix("\"description\": \"")
            .and_then(|rest| rest.strip_suffix("\","))
            .or_else(|| bare.split_once(r#"insert("description".into(), ""#)?.1.strip_suffix(r#"".into());"#));
        match (indent, described) {
            (12, Some(description)) => text = format!("={name}\t{description}\n"),
            (16, None) => property = bare.strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap_or(property),
            (20, Some(description)) => text.push_str(&format!("{property}\t{description}\n")),
            _ => {}
        }
    }
    Some((name, text))
}
