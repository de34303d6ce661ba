//! The DNS process: answers from what a daemon told it, also while there is none.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apimachinery::ObjectKey;
use env::Env;
use hickory_server::server::Server;
use parking_lot::Mutex;
use tokio::net::{TcpListener, UdpSocket, UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::frames::{FORMAT, FromProcess, ToProcess};
use crate::program::{self, Sockets};
use crate::server::Handler;
use crate::wire::Connection;
use crate::zone::Zone;

/// How long a TCP connection may be silent.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that one TCP connection may be waiting for.
const TCP_PENDING: usize = 32;

/// What connections share.
struct State {
    env: Env,
    program: String,
    domain: String,
    handler: Handler,
    sockets: Mutex<Option<Sockets>>,
    answering: AtomicBool,
    /// Why the process must end.
    failed: mpsc::UnboundedSender<io::Error>,
}

/// The whole process, whose arguments are where it shall be found and the cluster's domain, and whose standard input is the connection
/// to the daemon that started it; its exit code. Call it before there is any other thread.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let outcome = (|| {
        let missing = || io::Error::new(io::ErrorKind::InvalidInput, "the DNS process is started by the daemon");
        let socket = PathBuf::from(arguments.next().ok_or_else(missing)?);
        let domain = arguments.next().and_then(|domain| domain.into_string().ok()).ok_or_else(missing)?;
        let first = leave_daemon()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(&socket, domain, first, Env::system()))
    })();
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "cluster DNS ended");
            1
        }
    }
}

/// Becomes a process of its own right and takes over the connection that standard input is.
fn leave_daemon() -> io::Result<OwnedFd> {
    linux::process::set_name("oxikube-dns");
    let first = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    // Already the leader of a session when started by hand.
    let _ = rustix::process::setsid();
    // Many depend on it, and it is small; best effort, as with shims.
    let _ = linux::process::set_oom_score_adj(-997);
    Ok(first)
}

/// Answers, and listens to daemons, until told to retire.
async fn serve(socket: &Path, domain: String, first: OwnedFd, env: Env) -> io::Result<()> {
    let zone = Zone::new(&domain)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{domain:?} is no domain name")))?;
    let (failed, mut failure) = mpsc::unbounded_channel();
    let program = program::identity("/proc/self/exe")?;
    let handler = Handler::new(zone);
    let state = Arc::new(State {
        env,
        program,
        domain,
        handler,
        sockets: Mutex::new(None),
        answering: AtomicBool::new(false),
        failed,
    });
    let listener = take_place(socket)?;
    let (retire_tx, mut retire) = mpsc::channel(1);
    let follow = |stream: UnixStream| {
        let (state, retire) = (state.clone(), retire_tx.clone());
        state.env.clone().spawn(async move {
            match state.follow(Connection::new(stream)).await {
                Ok(true) => drop(retire.send(()).await),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cluster DNS did not understand its daemon"),
            }
        })
    };
    let first = std::os::unix::net::UnixStream::from(first);
    first.set_nonblocking(true)?;
    follow(UnixStream::from_std(first)?);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(follow(stream)),
                // Out of descriptors, most likely: questions go on.
                Err(error) => {
                    tracing::warn!(%error, "cluster DNS can't hear its daemon");
                    state.env.sleep(Duration::from_secs(1)).await;
                }
            },
            Some(error) = failure.recv() => return Err(error),
            _ = retire.recv() => return Ok(()),
        }
    }
}

/// Listens at `path`, where an earlier process may still do so: there is always one.
fn take_place(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    std::fs::rename(new, path)?;
    Ok(listener)
}

impl State {
    /// Does what one daemon says until it is gone; whether the process must end then.
    async fn follow(&self, mut connection: Connection) -> io::Result<bool> {
        let mut snapshot: Option<HashSet<ObjectKey>> = None;
        let mut retire = false;
        while let Some(frame) = connection.receive().await? {
            match frame {
                ToProcess::Hello { .. } => self.greet(&mut connection).await?,
                ToProcess::Listen => {
                    let sockets = Sockets::from_descriptors(connection.descriptors());
                    let missing = || io::Error::new(io::ErrorKind::InvalidData, "no sockets came along");
                    *self.sockets.lock() = Some(sockets.ok_or_else(missing)?);
                }
                ToProcess::Begin { resolv_conf } => {
                    snapshot = Some(HashSet::new());
                    if let Err(error) = self.handler.forward_as(&resolv_conf) {
                        tracing::warn!(%error, "cluster DNS can't forward questions");
                    }
                }
                ToProcess::Set { namespace, name, service, endpoints } => {
                    let key = ObjectKey::new(&namespace, &name);
                    self.handler.zone().write().set(&key, Some(&service), &endpoints);
                    snapshot.iter_mut().for_each(|named| {
                        named.insert(key.clone());
                    });
                }
                ToProcess::Gone { namespace, name } => {
                    self.handler.zone().write().set(&ObjectKey::new(&namespace, &name), None, &[]);
                }
                ToProcess::Complete => {
                    if let Some(named) = snapshot.take() {
                        self.handler.zone().write().retain(&named);
                    }
                    self.answer()?;
                    connection.send(&FromProcess::Complete, &[]).await?;
                }
                ToProcess::Retire => retire = true,
            }
        }
        Ok(retire)
    }

    async fn greet(&self, connection: &mut Connection) -> io::Result<()> {
        let sockets = match &*self.sockets.lock() {
            Some(sockets) => vec![sockets.udp.try_clone()?.into(), sockets.tcp.try_clone()?.into()],
            None => Vec::<OwnedFd>::new(),
        };
        let hello = FromProcess::Hello {
            format: FORMAT,
            program: self.program.clone(),
            domain: self.domain.clone(),
            listening: !sockets.is_empty(),
        };
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        connection.send(&hello, &sockets).await
    }

    /// Begins to answer, unless that was done before. Questions that came meanwhile wait in the sockets.
    fn answer(&self) -> io::Result<()> {
        let sockets = self.sockets.lock();
        let Some(sockets) = sockets.as_ref().filter(|_| !self.answering.swap(true, Ordering::Relaxed)) else {
            return Ok(());
        };
        let mut server = Server::new(self.handler.clone());
        server.register_socket(UdpSocket::from_std(sockets.udp.try_clone()?)?);
        server.register_listener(TcpListener::from_std(sockets.tcp.try_clone()?)?, TCP_TIMEOUT, TCP_PENDING);
        let failed = self.failed.clone();
        self.env.spawn(async move {
            let why = match server.block_until_done().await {
                Ok(()) => io::Error::other("no socket is left"),
                Err(error) => io::Error::other(error),
            };
            // Nobody waits any more when the process ends anyway.
            let _ = failed.send(why);
        });
        Ok(())
    }
}
