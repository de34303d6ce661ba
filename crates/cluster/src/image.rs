//! `oxikube image`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::args::Image;
use crate::control::{Answer, Ask, ImageRow, ask};
use crate::{Args, Settings};

pub(crate) async fn run(args: &Args, command: &Image) -> Result<ExitCode> {
    let settings = Settings::must_find(args)?;
    match command {
        Image::Load { files } => {
            for file in files {
                let path = std::path::absolute(file).with_context(|| format!("finding {}", file.display()))?;
                let Answer::Loaded { references } = must_ask(&settings, Ask::ImageLoad { path }).await? else {
                    bail!("the daemon answered something else than what it loaded");
                };
                for reference in references {
                    println!("loaded {reference}");
                }
            }
        }
        Image::Ls => {
            let Answer::Images { images } = must_ask(&settings, Ask::ImageList).await? else {
                bail!("the daemon answered something else than its images");
            };
            print!("{}", table(&images));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn must_ask(settings: &Settings, question: Ask) -> Result<Answer> {
    let answer = ask(&settings.control_socket(), question).await?;
    answer.with_context(|| format!("cluster {} is not running; start it first", settings.name))
}

fn table(images: &[ImageRow]) -> String {
    let mut rows = vec![("REFERENCE".to_owned(), "ID".to_owned(), "SIZE".to_owned())];
    for image in images {
        let id = image.id.trim_start_matches("sha256:");
        let id = id[..id.len().min(12)].to_owned();
        let size = format!("{:.1} MiB", image.bytes as f64 / (1 << 20) as f64);
        match image.references.as_slice() {
            [] => rows.push(("<none>".into(), id, size)),
            references => rows.extend(references.iter().map(|r| (r.clone(), id.clone(), size.clone()))),
        }
    }
    let width = rows.iter().map(|(reference, ..)| reference.len()).max().unwrap_or(0);
    rows.into_iter().map(|(reference, id, size)| format!("{reference:width$}  {id:12}  {size}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_listed_by_reference() {
        let image = |references: &[&str]| ImageRow {
            id: "sha256:0123456789abcdef".into(),
            references: references.iter().map(|r| r.to_string()).collect(),
            bytes: 3 << 20,
        };
        let shown = table(&[image(&["a:1", "b:2"]), image(&[])]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], "a:1        0123456789ab  3.0 MiB");
        assert!(lines[3].starts_with("<none>"));
    }
}
