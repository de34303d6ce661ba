//! Keeps containers' logs from growing without end. Upstream: pkg/kubelet/logs/container_log_manager.go.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::v1::ReopenContainerLogRequest;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::context::Context;

/// Sizes are looked at this often (upstream: `containerLogMonitorInterval`). The runtime, not the kubelet, writes them.
const LOOK: Duration = Duration::from_secs(10);
/// Upstream: `containerLogMaxSize`, `containerLogMaxFiles`.
const MAX_SIZE: u64 = 10 << 20;
const MAX_FILES: usize = 5;

/// Rotates logs for ever.
pub(crate) async fn run(ctx: Arc<Context>) {
    loop {
        ctx.env.sleep(LOOK).await;
        let folder = ctx.config.logs.clone();
        let large = tokio::task::spawn_blocking(move || larger_than(&folder, MAX_SIZE)).await.unwrap_or_default();
        for log in large {
            if let Err(error) = rotate(&ctx, &log).await {
                tracing::warn!(log = %log.display(), error, "a log can't be rotated");
            }
        }
    }
}

/// The current logs, `<pod>/<container>/<n>.log`, that are too large.
fn larger_than(folder: &Path, size: u64) -> Vec<PathBuf> {
    let entries = |folder: &Path| {
        let read = fs::read_dir(folder).into_iter().flatten();
        read.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect::<Vec<_>>()
    };
    let containers = entries(folder).into_iter().flat_map(|pod| entries(&pod));
    let logs = containers.flat_map(|container| entries(&container));
    logs.filter(|log| log.extension().is_some_and(|extension| extension == "log"))
        .filter(|log| fs::metadata(log).is_ok_and(|metadata| metadata.len() > size))
        .collect()
}

async fn rotate(ctx: &Context, log: &Path) -> Result<(), String> {
    let Some(id) = writer(ctx, log).await? else { return Ok(()) };
    let stamp = ctx.env.now().strftime("%Y%m%d-%H%M%S").to_string();
    let (path, old) = (log.to_owned(), log.with_extension(format!("log.{stamp}")));
    let moved = old.clone();
    let work = move || {
        tidy(&path, MAX_FILES)?;
        fs::rename(&path, &moved)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let reopened = ctx.runtime.reopen_container_log(ReopenContainerLogRequest { container_id: id }).await;
    if let Err(status) = reopened {
        // Nobody may have it open: then it is the container's log still.
        let _ = fs::rename(&old, log);
        return Err(crate::error::rpc_text(&status));
    }
    Ok(())
}

/// The running container that writes this log.
async fn writer(ctx: &Context, log: &Path) -> Result<Option<String>, String> {
    let pod = log.ancestors().nth(2).and_then(|folder| folder.file_name()?.to_str()?.rsplit('_').next());
    let state = ctx.runtime.pod(pod.unwrap_or_default()).await.map_err(|status| crate::error::rpc_text(&status))?;
    let found = state.running().find(|container| Path::new(&container.status.log_path) == log);
    Ok(found.map(|container| container.id().to_owned()))
}

/// Makes room for one more rotated log of `log`: compresses those before the newest, removes the oldest.
fn tidy(log: &Path, max_files: usize) -> io::Result<()> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else { return Ok(()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut rotated: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.strip_prefix(&prefix) {
            // Left by a kubelet that died meanwhile.
            Some(rest) if rest.ends_with(".tmp") => fs::remove_file(&path)?,
            Some(_) => rotated.push(path),
            None => {}
        }
    }
    rotated.sort();
    // The current log and the one that comes now count too.
    while rotated.len() + 2 > max_files {
        fs::remove_file(rotated.remove(0))?;
    }
    for old in rotated.iter().filter(|path| path.extension().is_none_or(|extension| extension != "gz")) {
        compress(old)?;
    }
    Ok(())
}

fn compress(log: &Path) -> io::Result<()> {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let temporary = log.with_file_name(format!("{name}.tmp"));
    let mut encoder = GzEncoder::new(File::create(&temporary)?, Compression::default());
    io::copy(&mut File::open(log)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&temporary, log.with_file_name(format!("{name}.gz")))?;
    fs::remove_file(log)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn old_logs_are_compressed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["0.log", "0.log.20260101-000001.gz", "0.log.20260101-000002", "0.log.x.tmp", "1.log"] {
            fs::write(path(name), name).unwrap();
        }
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        tidy(&path("0.log"), 5).unwrap();
        let compressed = "0.log.20260101-000002.gz";
        assert_eq!(names(), ["0.log", "0.log.20260101-000001.gz", compressed, "1.log"]);
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path(compressed)).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "0.log.20260101-000002");
        tidy(&path("0.log"), 3).unwrap();
        assert_eq!(names(), ["0.log", compressed, "1.log"]);
    }

    #[test]
    fn large_logs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let container = folder.path().join("ns_p_uid/web");
        fs::create_dir_all(&container).unwrap();
        for (name, size) in [("0.log", 11), ("1.log", 10), ("0.log.20260101-000001", 20)] {
            fs::write(container.join(name), vec![0; size]).unwrap();
        }
        assert_eq!(larger_than(folder.path(), 10), [container.join("0.log")]);
    }
}
