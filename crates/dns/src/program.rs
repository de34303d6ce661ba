//! The DNS process as the daemon sees it: starting one, finding one again, ending it.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use env::Env;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::frames::{FORMAT, FromProcess, ToProcess};
use crate::wire::Connection;

/// A process that works greets within this.
const GREETING: Duration = Duration::from_secs(5);
/// A process that was killed is gone within this.
const END: Duration = Duration::from_secs(5);

/// How the process is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Program and first arguments; socket and domain follow.
    pub command: Vec<OsString>,
    /// Where a later daemon finds it.
    pub socket: PathBuf,
}

/// The sockets that questions come to; the daemon holds them too, so that they outlive the process.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: std::net::UdpSocket,
    pub(crate) tcp: std::net::TcpListener,
}

/// A running process and a connection to it.
pub(crate) struct Process {
    pub(crate) life: Life,
    pub(crate) connection: Connection,
}

/// This very process, whoever gets its number later.
pub(crate) struct Life {
    pub(crate) pid: i32,
    /// Readable once it has ended.
    handle: AsyncFd<OwnedFd>,
}

/// A process that was there already.
pub(crate) struct Found {
    pub(crate) process: Process,
    /// `None` if it did not say what it is: good for nothing but to be ended.
    pub(crate) greeting: Option<Greeting>,
}

/// What a process says of itself.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) format: u32,
    pub(crate) program: String,
    pub(crate) domain: String,
    pub(crate) sockets: Option<Sockets>,
}

impl Sockets {
    /// The same free port for both protocols: the second one may be taken, then another is tried.
    pub(crate) fn bind(listen: SocketAddr) -> io::Result<Sockets> {
        let mut tries = 0;
        loop {
            let udp = std::net::UdpSocket::bind(listen)?;
            match std::net::TcpListener::bind(udp.local_addr()?) {
                Ok(tcp) => {
                    udp.set_nonblocking(true)?;
                    tcp.set_nonblocking(true)?;
                    return Ok(Sockets { udp, tcp });
                }
                Err(error) if listen.port() != 0 || tries == 20 => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }

    pub(crate) fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Sockets> {
        let [udp, tcp]: [OwnedFd; 2] = descriptors.try_into().ok()?;
        Some(Sockets { udp: udp.into(), tcp: tcp.into() })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Whether they are what `listen` asks for.
    pub(crate) fn fit(&self, listen: SocketAddr) -> bool {
        let port = |address: SocketAddr| listen.port() == 0 || address.port() == listen.port();
        self.address().is_ok_and(|address| address.ip() == listen.ip() && port(address))
    }
}

/// Which file a program runs from: another build of the same version is another program.
pub(crate) fn identity(program: impl AsRef<Path>) -> io::Result<String> {
    let file = std::fs::metadata(program)?;
    Ok(format!("{}:{}", file.dev(), file.ino()))
}

impl Program {
    pub(crate) fn identity(&self) -> io::Result<String> {
        identity(self.command.first().ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Starts a process that answers on `sockets` once it was told everything.
    pub(crate) async fn start(&self, env: &Env, domain: &str, sockets: &Sockets) -> io::Result<Process> {
        let (program, args) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut command = Command::new(program);
        command.args(args).arg(&self.socket).arg(domain).current_dir("/");
        // Its log is ours.
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        // A dropped child goes on; tokio reaps it should it end while this daemon lives.
        let child = command.spawn()?;
        // The command holds its end of the pair.
        drop(command);
        ours.set_nonblocking(true)?;
        // The number can't be another's yet: the child has not been reaped.
        let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32)).ok_or(io::ErrorKind::NotFound)?;
        let mut process = Process::new(pid, UnixStream::from_std(ours)?)?;
        drop(child);
        let started = async {
            process.greet(env).await?;
            process.connection.send(&ToProcess::Listen, &[sockets.udp.as_fd(), sockets.tcp.as_fd()]).await
        };
        match started.await {
            Ok(()) => Ok(process),
            Err(error) => {
                process.kill(env).await?;
                Err(error)
            }
        }
    }

    /// The process that an earlier daemon started, if it lives.
    pub(crate) async fn find(&self, env: &Env) -> io::Result<Option<Found>> {
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(pid) = stream.peer_cred()?.pid().and_then(Pid::from_raw) else { return Ok(None) };
        let mut process = match Process::new(pid, stream) {
            Ok(process) => process,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Whoever answers now lived when its handle was opened: so the handle is of the process that listens.
        match process.greet(env).await {
            Ok(greeting) => Ok(Some(Found { process, greeting: Some(greeting) })),
            Err(error) if process.is_connected() => {
                tracing::warn!(pid = process.life.pid, %error, "the DNS process does not say what it is");
                Ok(Some(Found { process, greeting: None }))
            }
            Err(_) => Ok(None),
        }
    }
}

impl Process {
    fn new(pid: Pid, stream: UnixStream) -> io::Result<Process> {
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let handle = linux::descriptor::readable(handle)?;
        let life = Life { pid: pid.as_raw_nonzero().get(), handle };
        Ok(Process { life, connection: Connection::new(stream) })
    }

    async fn greet(&mut self, env: &Env) -> io::Result<Greeting> {
        let talk = async {
            self.connection.send(&ToProcess::Hello { format: FORMAT }, &[]).await?;
            match self.connection.receive().await? {
                Some(FromProcess::Hello { format, program, domain, listening }) => {
                    let sockets = listening.then(|| Sockets::from_descriptors(self.connection.descriptors())).flatten();
                    Ok(Greeting { format, program, domain, sockets })
                }
                Some(other) => Err(io::Error::other(format!("instead of a greeting it said {other:?}"))),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        env.timeout(GREETING, talk).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether the other side still has its end, which a process that ended has not.
    fn is_connected(&self) -> bool {
        self.connection.is_open()
    }

    /// It goes on until it is killed or this daemon is gone: what answers then is only its successor.
    pub(crate) async fn retire(&mut self) -> io::Result<()> {
        self.connection.send(&ToProcess::Retire, &[]).await
    }

    /// Ends it, which may be the case already.
    pub(crate) async fn kill(&self, env: &Env) -> io::Result<()> {
        self.life.kill(env).await
    }
}

impl Life {
    /// Resolves when it has ended.
    pub(crate) async fn ended(&self) {
        // An error would mean that the runtime ends.
        let _ = self.handle.readable().await;
    }

    async fn kill(&self, env: &Env) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(self.handle.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = env.timeout(END, self.ended()).await;
        gone.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "the DNS process does not end"))
    }
}

/// Ends the process that can be found at `socket`, whatever it is; none is fine.
pub async fn end(env: &Env, socket: &Path) -> io::Result<()> {
    let program = Program { command: Vec::new(), socket: socket.to_owned() };
    if let Some(found) = program.find(env).await? {
        found.process.kill(env).await?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
