//! `oxikube delete`.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{Args, Hooks, Settings, kubeconfig, stop};

pub(crate) async fn run(args: &Args, yes: bool, env: &env::Env, hooks: &Hooks) -> Result<ExitCode> {
    let settings = Settings::must_find(args)?;
    if !yes && !confirmed(&settings)? {
        bail!("nothing was deleted");
    }
    stop::stop(&settings, env, hooks).await?;
    kubeconfig::remove(&settings)?;
    // The record last: until everything is gone, the cluster can be found and deleted again.
    remove_folder(&settings.data_dir)?;
    remove_folder(&settings.run_dir)?;
    for parent in [settings.data_dir.parent(), settings.run_dir.parent()].into_iter().flatten() {
        if parent.ends_with("oxikube") {
            // Not empty while another cluster is there.
            let _ = std::fs::remove_dir(parent);
        }
    }
    println!("cluster {} is deleted", settings.name);
    Ok(ExitCode::SUCCESS)
}

fn confirmed(settings: &Settings) -> Result<bool> {
    print!("Delete cluster {} and all its data in {}? [y/N] ", settings.name, settings.data_dir.display());
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes a folder with all in it; an absent one is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
