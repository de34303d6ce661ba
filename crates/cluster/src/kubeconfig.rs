//! The cluster's entry in the user's kubeconfig.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use client::{Before, ClusterEntry, Kubeconfig};

use crate::{Args, Settings};

/// What the entry's files in the data folder are called; the daemon writes them before it is ready.
const CA: &str = "pki/ca.crt";
const ADMIN: &str = "pki/admin.pem";
/// What was in the kubeconfig before, so that `delete` can put it back.
const BEFORE: &str = "kubeconfig-before.json";

/// The files to write to: `--kubeconfig`, else those of `KUBECONFIG`, else the one in the home folder.
pub(crate) fn paths(args: &Args) -> Result<Vec<PathBuf>> {
    let paths = Kubeconfig::locate(args.kubeconfig.as_deref())?;
    paths.iter().map(|path| Ok(std::path::absolute(path)?)).collect()
}

/// Fails where the kubeconfig can't be read: nothing must be started that couldn't be told.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    Kubeconfig::load(&settings.kubeconfig).map(drop).map_err(Into::into)
}

/// The context's name.
pub(crate) fn context(settings: &Settings) -> &str {
    &settings.name
}

/// Writes cluster, user and context, and makes it current.
pub(crate) fn write(settings: &Settings) -> Result<()> {
    let read = |name: &str| {
        let path = settings.data_dir.join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let admin = read(ADMIN)?;
    let entry = ClusterEntry {
        name: settings.name.clone(),
        server: settings.server(),
        ca: read(CA)?,
        client_certificate: section(&admin, "CERTIFICATE"),
        client_key: section(&admin, "PRIVATE KEY"),
    };
    let before = Kubeconfig::edit(&settings.kubeconfig, |config| {
        let again = config.has_context(&entry.name);
        let before = config.upsert(&entry);
        (!again).then_some(before)
    })?;
    // Written once: a second start finds its own entry there.
    match before {
        Some(before) => remember(&settings.data_dir, &before),
        None => Ok(()),
    }
}

/// Takes the entry away again.
pub(crate) fn remove(settings: &Settings) -> Result<()> {
    let before = match fs::read(settings.data_dir.join(BEFORE)) {
        Ok(json) => serde_json::from_slice(&json).context("reading what was in the kubeconfig before")?,
        Err(_) => Before::default(),
    };
    Kubeconfig::edit(&settings.kubeconfig, |config| {
        // Another cluster may have taken the name since.
        if config.cluster_server(&settings.name).is_some_and(|server| server == settings.server()) {
            config.remove(&settings.name, &before);
        }
    })
    .map_err(Into::into)
}

fn remember(data_dir: &Path, before: &Before) -> Result<()> {
    fs::write(data_dir.join(BEFORE), serde_json::to_vec(before)?)
        .context("remembering what was in the kubeconfig before")
}

/// All PEM blocks with this label.
fn section(pem: &[u8], label: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(pem);
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut out = String::new();
    let mut rest = text.as_ref();
    while let Some(at) = rest.find(&begin) {
        rest = &rest[at..];
        let Some(stop) = rest.find(&end) else { break };
        out.push_str(&rest[..stop + end.len()]);
        out.push('\n');
        rest = &rest[stop + end.len()..];
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_blocks_are_taken_by_label() {
        let pem = b"-----BEGIN CERTIFICATE-----\na\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nb\n-----END PRIVATE KEY-----\n";
        assert_eq!(section(pem, "PRIVATE KEY"), b"-----BEGIN PRIVATE KEY-----\nb\n-----END PRIVATE KEY-----\n");
        assert_eq!(section(pem, "NOTHING"), b"");
    }
}
