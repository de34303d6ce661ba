//! `oxikube delete`.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{Args, Hooks, Settings, kubeconfig, stop, volumes};

pub(crate) async fn run(args: &Args, yes: bool, keep_volumes: bool, env: &env::Env, hooks: &Hooks) -> Result<ExitCode> {
    let settings = Settings::must_find(args)?;
    if !yes && !confirmed(&settings, keep_volumes)? {
        bail!("nothing was deleted");
    }
    let _turn = stop::stop(&settings, env, hooks).await?;
    env.crashpoint("delete.stopped");
    kubeconfig::remove(&settings)?;
    env.crashpoint("delete.kubeconfig");
    // The record last: until everything is gone, the cluster can be found and deleted again.
    let kept = remove_data(&settings.data_dir, keep_volumes)?;
    env.crashpoint("delete.data");
    remove_folder(&settings.run_dir)?;
    env.crashpoint("delete.record");
    for parent in [settings.data_dir.parent(), settings.run_dir.parent()].into_iter().flatten() {
        if parent.ends_with("oxikube") {
            // Not empty while another cluster is there.
            let _ = std::fs::remove_dir(parent);
        }
    }
    match kept {
        true => println!(
            "cluster {} is deleted; its volumes are in {}, by their claims in {}",
            settings.name,
            settings.data_dir.join("volumes").display(),
            settings.data_dir.join("claims").display()
        ),
        false => println!("cluster {} is deleted", settings.name),
    }
    Ok(ExitCode::SUCCESS)
}

/// Data that applications keep is asked about once more.
fn confirmed(settings: &Settings, keep_volumes: bool) -> Result<bool> {
    let data = settings.data_dir.display();
    if keep_volumes {
        return answered(&format!("Delete cluster {} and all its data in {data} but volumes?", settings.name));
    }
    if !answered(&format!("Delete cluster {} and all its data in {data}?", settings.name))? {
        return Ok(false);
    }
    let volumes = volumes::with_data(&settings.data_dir)?;
    let question = match volumes.as_slice() {
        [] => return Ok(true),
        [one] => format!("The volume of {one} holds data. Delete it too (--keep-volumes keeps it)?"),
        many => format!(
            "{} volumes hold data: {}. Delete them too (--keep-volumes keeps them)?",
            many.len(),
            many.join(", ")
        ),
    };
    answered(&question)
}

fn answered(question: &str) -> Result<bool> {
    print!("{question} [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes the data folder; with `keep_volumes` only what is beside volumes, if there is data in any. Says whether some were kept.
pub(crate) fn remove_data(data_dir: &Path, keep_volumes: bool) -> Result<bool> {
    if keep_volumes && !volumes::with_data(data_dir)?.is_empty() {
        return volumes::remove_all_else(data_dir).map(|()| true);
    }
    remove_folder(data_dir).map(|()| false)
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
