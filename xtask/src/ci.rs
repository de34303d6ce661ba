//! All checks, in the order in which they fail fastest.

use anyhow::{Result, bail};

use crate::{call, clients, conformance, peers, powercut, prerequisites, root, tidy};

/// A link that leads nowhere is an error.
const STRICT_DOCS: &str = r#"build.rustdocflags = ["-D", "rustdoc::broken_intra_doc_links"]"#;

pub fn run() -> Result<()> {
    prerequisites::install()?;
    call("cargo", &["fmt", "--all", "--check"])?;
    tidy::run(&root())?;
    call("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    peers::build(&root(), peers::OF_TESTS)?;
    clients::build(&root())?;
    // Whatever fails of these, the others are told too.
    let outcomes = [
        call("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"]),
        call("cargo", &["--config", STRICT_DOCS, "doc", "--workspace", "--no-deps", "--locked", "--quiet"]),
        powercut::run(&["--only", "store", "--cuts", "3"]),
        conformance::run(&root(), "Conformance", &["--sample"]),
    ];
    let failed: Vec<String> = outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}
