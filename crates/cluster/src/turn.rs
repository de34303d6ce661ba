//! One command at a time starts, stops or deletes a cluster.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use env::Env;
use rustix::fs::{FlockOperation, flock};

use crate::Settings;

/// A start takes seconds; whoever takes so long will not come to an end.
const LIMIT: Duration = Duration::from_secs(120);

/// The turn of one command, until it is dropped. A daemon that is being started holds it too, even when its command dies: so nobody
/// takes a cluster for stopped that is about to run.
pub(crate) struct Turn(File);

impl Turn {
    /// Waits until nobody else has it. Makes the run folder.
    pub(crate) async fn take(settings: &Settings, env: &Env) -> Result<Turn> {
        loop {
            let path = settings.run_dir.join("lock");
            fs::create_dir_all(&settings.run_dir).with_context(|| format!("making {}", settings.run_dir.display()))?;
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("opening {}", path.display()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => wait(&file, settings, env).await?,
                Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
            }
            // A folder that was removed meanwhile has a lock that nobody else will meet.
            let (here, there) = (file.metadata().context("looking at the lock")?, fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())) {
                return Ok(Turn(file));
            }
        }
    }

    /// Passes it on to a process as its standard input, which it lets go of in its own time.
    pub(crate) fn share(&self) -> Result<Stdio> {
        Ok(self.0.try_clone().context("sharing the lock")?.into())
    }
}

async fn wait(file: &File, settings: &Settings, env: &Env) -> Result<()> {
    eprintln!("another command is at work on cluster {}: waiting for it", settings.name);
    let file = file.try_clone().context("sharing the lock")?;
    let (tx, rx) = tokio::sync::oneshot::channel();
    // A thread of its own: it can't be called back, and must hold up nobody who gives up.
    std::thread::spawn(move || {
        // Nobody may wait any more.
        let _ = tx.send(flock(file, FlockOperation::LockExclusive));
    });
    match env.timeout(LIMIT, rx).await {
        Some(taken) => taken.context("waiting for the lock")?.context("waiting for the lock"),
        None => bail!("another command was at work on cluster {} for {} s", settings.name, LIMIT.as_secs()),
    }
}
