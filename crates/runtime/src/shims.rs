//! The daemon's side of a shim: starting one, finding one again, calling it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use env::Env;
use parking_lot::Mutex;
use shim::protocol::{Answer, Call, FORMAT, Hello, Message, Request, Started};
use shim::wire;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::{Context, Error};

/// The socket's name in the sandbox's folder.
const SOCKET: &str = "shim.sock";

/// What a shim says by itself.
#[derive(Debug)]
pub(crate) enum Event {
    /// One of its messages.
    Message(Message),
    /// It is gone.
    Gone,
}

/// A connection to a shim.
pub(crate) struct Shim {
    socket: Arc<AsyncFd<OwnedFd>>,
    next: AtomicU64,
    waiting: Arc<Mutex<Waiting>>,
    reader: JoinHandle<()>,
    pub(crate) pid: i32,
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, oneshot::Sender<(Answer, Vec<OwnedFd>)>>,
    execs: HashMap<String, oneshot::Sender<i32>>,
    gone: bool,
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The program that shims are started from.
pub(crate) struct Program {
    command: Vec<OsString>,
    /// Keeps the sealed copy open that `command` may name.
    sealed: Option<File>,
}

impl Program {
    /// `command`, or this program itself with the argument `shim`, from a file nobody can overwrite.
    pub(crate) fn new(command: Option<Vec<OsString>>) -> io::Result<Program> {
        if let Some(command) = command {
            return Ok(Program { command, sealed: None });
        }
        let sealed = linux::mount::own_program_sealed()?;
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        Ok(Program { command: vec![path.into(), "shim".into()], sealed: Some(sealed) })
    }

    /// Starts a shim that listens in `folder`. It need not have begun to: connections wait for it.
    pub(crate) fn start(&self, folder: &Path) -> Result<(), Error> {
        let failed = || "start the shim".to_owned();
        let listener = wire::listen(&folder.join(SOCKET)).context(failed)?;
        let log = OpenOptions::new().create(true).append(true).open(folder.join("shim.log")).context(failed)?;
        let (program, args) = self.command.split_first().ok_or_else(|| Error::Invalid("empty shim command".into()))?;
        let mut command = Command::new(program);
        if self.sealed.is_some() {
            // As people know it, not as the descriptor it is started from.
            command.arg0("oxikube");
        }
        // The folder is for people who look at processes; the shim has no use for it.
        command.args(args).arg(folder).env_clear().current_dir("/").stdin(listener).stderr(log).stdout(Stdio::null());
        // A dropped child goes on; tokio reaps it should it end while this daemon lives.
        drop(command.spawn().context(failed)?);
        Ok(())
    }
}

impl Shim {
    /// Connects to the shim that listens in `folder` and asks what runs. Its events go to `events`, marked with `sandbox`.
    pub(crate) async fn connect(
        env: &Env,
        folder: &Path,
        sandbox: &str,
        events: mpsc::UnboundedSender<(String, Event)>,
    ) -> Result<(Shim, Hello), Error> {
        let failed = || "connect to the shim".to_owned();
        let socket = wire::connect(&folder.join(SOCKET)).context(failed)?;
        let socket = Arc::new(linux::ready::register(socket).context(failed)?);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = env.spawn(read(socket.clone(), waiting.clone(), sandbox.to_owned(), events));
        let mut shim = Shim { socket, next: AtomicU64::new(1), waiting, reader, pid: 0 };
        let (answer, _) = shim.call(Request::Hello { format: FORMAT }, &[]).await?;
        match answer {
            Answer::Hello(hello) => {
                shim.pid = hello.pid;
                Ok((shim, hello))
            }
            other => {
                Err(Error::Shim { context: "greet the shim".into(), message: format!("unexpected answer {other:?}") })
            }
        }
    }

    /// Sends a request and waits for its answer. An error that the shim answers with is an answer.
    async fn call(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Answer, Vec<OwnedFd>), Error> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let packet = serde_json::to_vec(&Call { seq, request }).context(|| "encode a request".to_owned())?;
        let (tx, rx) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.gone {
                return Err(Error::ShimGone);
            }
            waiting.calls.insert(seq, tx);
        }
        loop {
            let mut ready = self.socket.writable().await.map_err(|_| Error::ShimGone)?;
            match ready.try_io(|socket| wire::send(socket.get_ref(), &packet, descriptors)) {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return Err(Error::ShimGone),
                Err(_would_block) => {}
            }
        }
        rx.await.map_err(|_| Error::ShimGone)
    }

    /// Asks for something that is done or not.
    pub(crate) async fn ask(&self, context: &str, request: Request) -> Result<(), Error> {
        match self.call(request, &[]).await?.0 {
            Answer::Error(message) => Err(Error::Shim { context: context.to_owned(), message }),
            _ => Ok(()),
        }
    }

    /// Asks for a process; the terminal's other side comes along when it has one.
    pub(crate) async fn launch(
        &self,
        context: &str,
        request: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Started, Option<OwnedFd>), Error> {
        match self.call(request, descriptors).await? {
            (Answer::Started(started), received) => Ok((started, received.into_iter().next())),
            (Answer::Error(message), _) => Err(Error::Shim { context: context.to_owned(), message }),
            (other, _) => {
                Err(Error::Shim { context: context.to_owned(), message: format!("unexpected answer {other:?}") })
            }
        }
    }

    /// Asks to copy a container's output; what its input can be written to, if anything.
    pub(crate) async fn attach(
        &self,
        container: &str,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Option<OwnedFd>, Error> {
        match self.call(Request::Attach { container: container.to_owned() }, descriptors).await? {
            (Answer::Error(message), _) => Err(Error::Shim { context: "attach".to_owned(), message }),
            (_, received) => Ok(received.into_iter().next()),
        }
    }

    /// Resolves to the exit code of the process that is about to be started under this name.
    pub(crate) fn expect_exec(&self, exec: &str) -> oneshot::Receiver<i32> {
        let (tx, rx) = oneshot::channel();
        self.waiting.lock().execs.insert(exec.to_owned(), tx);
        rx
    }

    /// Forgets about a process that was not started.
    pub(crate) fn forget_exec(&self, exec: &str) {
        self.waiting.lock().execs.remove(exec);
    }
}

async fn read(
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
    sandbox: String,
    events: mpsc::UnboundedSender<(String, Event)>,
) {
    loop {
        let Ok(mut ready) = socket.readable().await else { break };
        let received = match ready.try_io(|socket| wire::receive(socket.get_ref())) {
            Ok(Ok(Some(received))) => received,
            Ok(Ok(None) | Err(_)) => break,
            Err(_would_block) => continue,
        };
        let (packet, descriptors) = received;
        match serde_json::from_slice::<Message>(&packet) {
            Ok(Message::Answer { seq, answer }) => {
                if let Some(caller) = waiting.lock().calls.remove(&seq) {
                    let _ = caller.send((answer, descriptors));
                }
            }
            Ok(Message::ExecExited { exec, code }) => {
                if let Some(waiter) = waiting.lock().execs.remove(&exec) {
                    let _ = waiter.send(code);
                }
            }
            Ok(message) => {
                let _ = events.send((sandbox.clone(), Event::Message(message)));
            }
            // A later shim's news; it concerns nothing this daemon knows.
            Err(error) => tracing::warn!(%sandbox, %error, "unknown message from a shim"),
        }
    }
    let mut waiting = waiting.lock();
    waiting.gone = true;
    waiting.calls.clear();
    waiting.execs.clear();
    drop(waiting);
    let _ = events.send((sandbox, Event::Gone));
}
