//! The socket on which a running daemon takes commands: one JSON line asks, JSON lines answer, the last one is not `Progress`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// The format of both directions. A daemon refuses a newer one.
const FORMAT: u32 = 1;
/// How long a status may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What a command asks of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "command")]
pub enum Ask {
    /// Whether anybody is there: answered by itself, whatever else goes on.
    Hello,
    Status,
    /// End every container, then the daemon. Answered once the containers have ended.
    Stop,
    ImageList,
    /// Load the archive at this path of the daemon's file system.
    ImageLoad {
        path: PathBuf,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum Answer {
    Hello,
    Status(Box<ClusterStatus>),
    Stopped,
    Images { images: Vec<ImageRow> },
    Loaded { references: Vec<String> },
    Error { message: String },
}

/// What runs, since when, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    pub name: String,
    pub version: String,
    pub daemon: DaemonStatus,
    pub node: NodeStatus,
    pub addresses: Addresses,
    pub folders: Folders,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonStatus {
    /// Absent where no daemon runs.
    pub pid: Option<u32>,
    /// RFC 3339.
    pub since: Option<String>,
    /// Proportional set size of the daemon and all its shims, in bytes.
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub name: String,
    pub ready: bool,
    pub pods: usize,
    pub containers: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Addresses {
    pub server: String,
    pub node: String,
    pub dns: String,
    pub pods: String,
    pub services: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Folders {
    pub data: PathBuf,
    pub run: PathBuf,
    pub log: PathBuf,
    pub kubeconfig: Vec<PathBuf>,
}

/// One image on the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageRow {
    pub id: String,
    pub references: Vec<String>,
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    #[serde(flatten)]
    body: T,
}

/// The daemon's side of the socket.
pub trait Daemon: Send + Sync + 'static {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Answer>;
}

/// Binds the socket, readable by root alone; a stale one of a dead daemon is replaced.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The commands that are being answered. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<tokio::sync::watch::Sender<usize>>);

impl InFlight {
    fn begin(&self) -> Answering {
        self.0.send_modify(|n| *n += 1);
        Answering(self.clone())
    }

    /// Waits until every answer is written: a daemon that ends before leaves its asker without one.
    pub async fn written(&self) {
        let _ = self.0.subscribe().wait_for(|n| *n == 0).await;
    }
}

/// One command, until its answer is written.
struct Answering(InFlight);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n -= 1);
    }
}

/// Answers commands until dropped; what is in flight then goes on.
pub async fn serve(listener: UnixListener, daemon: Arc<dyn Daemon>, env: env::Env, in_flight: InFlight) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (daemon, answering) = (daemon.clone(), in_flight.begin());
                env.spawn(async move {
                    let _answering = answering;
                    if let Err(error) = serve_one(stream, daemon).await {
                        tracing::debug!("control connection: {error}");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!("control socket: {error}");
                env.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_one(mut stream: UnixStream, daemon: Arc<dyn Daemon>) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Envelope<Ask>>(&line) {
        Ok(Envelope { format, .. }) if format > FORMAT => {
            Answer::Error { message: format!("the daemon is older than this command: it knows format {FORMAT}") }
        }
        Ok(Envelope { body: Ask::Hello, .. }) => Answer::Hello,
        Ok(Envelope { body, .. }) => daemon.answer(body).await,
        Err(error) => Answer::Error { message: format!("the daemon does not know this command: {error}") },
    };
    let mut line = serde_json::to_vec(&Envelope { format: FORMAT, body: answer })?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Asks the daemon; `None` where none listens. [`Answer::Error`] becomes an error.
pub async fn ask(socket: &Path, ask: Ask) -> Result<Option<Answer>> {
    match Connection::open(socket).await? {
        Some(connection) => connection.ask(ask).await.map(Some),
        None => Ok(None),
    }
}

/// Like [`ask`] for what a daemon that works answers at once.
pub(crate) async fn ask_soon(socket: &Path, question: Ask, env: &env::Env) -> Result<Option<Answer>> {
    match env.timeout(SOON, ask(socket, question)).await {
        Some(answer) => answer,
        None => bail!("the daemon gave no answer within {} s; oxikube stop ends it", SOON.as_secs()),
    }
}

/// A daemon that listens; it need not answer.
pub(crate) struct Connection {
    stream: UnixStream,
    /// Who began to listen.
    pub(crate) pid: u32,
}

impl Connection {
    /// `None` where none listens.
    pub(crate) async fn open(socket: &Path) -> Result<Option<Connection>> {
        let connecting = || format!("connecting to {}", socket.display());
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(connecting),
        };
        let pid = stream.peer_cred().with_context(connecting)?.pid();
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).context("the daemon has no process id")?;
        Ok(Some(Connection { stream, pid }))
    }

    /// One question; [`Answer::Error`] becomes an error.
    pub(crate) async fn ask(mut self, ask: Ask) -> Result<Answer> {
        let mut line = serde_json::to_vec(&Envelope { format: FORMAT, body: ask })?;
        line.push(b'\n');
        self.stream.write_all(&line).await.context("asking the daemon")?;
        let mut line = String::new();
        BufReader::new(self.stream).read_line(&mut line).await.context("waiting for the daemon")?;
        if line.is_empty() {
            bail!("the daemon ended without an answer");
        }
        match serde_json::from_str::<Envelope<Answer>>(&line).context("reading the daemon's answer")?.body {
            Answer::Error { message } => bail!("{message}"),
            answer => Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Daemon for Fake {
        fn answer(&self, ask: Ask) -> BoxFuture<'_, Answer> {
            Box::pin(async move {
                match ask {
                    Ask::Stop => Answer::Stopped,
                    Ask::Status => Answer::Status(Box::default()),
                    other => Answer::Error { message: format!("{other:?}") },
                }
            })
        }
    }

    #[tokio::test]
    async fn a_command_reaches_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        assert_eq!(ask(&socket, Ask::Stop).await.unwrap(), None);
        let env = env::Env::system();
        let server = env.spawn(serve(bind(&socket).unwrap(), Arc::new(Fake), env.clone(), InFlight::default()));
        assert_eq!(ask(&socket, Ask::Stop).await.unwrap(), Some(Answer::Stopped));
        assert_eq!(ask(&socket, Ask::Hello).await.unwrap(), Some(Answer::Hello));
        assert_eq!(Connection::open(&socket).await.unwrap().unwrap().pid, std::process::id());
        assert_eq!(ask(&socket, Ask::Status).await.unwrap(), Some(Answer::Status(Box::default())));
        assert!(ask(&socket, Ask::ImageList).await.unwrap_err().to_string().contains("ImageList"));
        server.abort();
        let _ = server.await;
        assert_eq!(ask(&socket, Ask::Stop).await.unwrap(), None);
    }
}
