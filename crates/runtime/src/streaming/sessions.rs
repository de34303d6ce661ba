//! One client's exec or attach from the upgraded connection to its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use serde_json::json;
use shim::protocol::Request;
use shim::wire;
use streams::remotecommand::multiplexed::{self, Wanted};
use streams::remotecommand::{End, Session, Size, Status, Streams};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use cri::v1::{AttachRequest, ExecRequest};

use super::descriptor::{Descriptor, UntilOver};
use super::{Purpose, Upgrade, port_forward};
use crate::container::{self, exec};
use crate::error::{Context, Error};
use crate::record::Phase;
use crate::state::Daemon;

/// Serves the connection for what its token was issued.
pub(super) async fn serve(daemon: &Arc<Daemon>, purpose: Purpose, upgrade: Upgrade) -> Result<(), Error> {
    match purpose {
        Purpose::Exec { container, request } => {
            let ExecRequest { stdin, stdout, stderr, tty, .. } = request;
            let streams = streams(daemon, upgrade, Wanted { stdin, stdout, stderr, tty }).await?;
            run_exec(daemon, &container, request, streams).await
        }
        Purpose::Attach { container, request } => {
            let AttachRequest { stdin, stdout, stderr, tty, .. } = request;
            let streams = streams(daemon, upgrade, Wanted { stdin, stdout, stderr, tty }).await?;
            run_attach(daemon, &container, request, streams).await
        }
        Purpose::PortForward { sandbox, ports } => match upgrade {
            Upgrade::WebSocket(upgrade) => {
                let channels = upgrade.channels().await.context(upgrading)?;
                port_forward::serve(daemon, &sandbox, &ports, channels).await
            }
            Upgrade::Spdy(upgrade) => {
                let connection = upgrade.connection(&daemon.env).await.context(upgrading)?;
                port_forward::serve_streams(daemon, &sandbox, connection).await;
                Ok(())
            }
        },
    }
}

fn upgrading() -> String {
    "upgrade the connection".to_owned()
}

/// The client's standard streams.
async fn streams(daemon: &Daemon, upgrade: Upgrade, wanted: Wanted) -> Result<Streams, Error> {
    match upgrade {
        Upgrade::WebSocket(upgrade) => upgrade.channels().await.map(Streams::WebSocket).context(upgrading),
        Upgrade::Spdy(upgrade) => {
            let protocol = upgrade.protocol;
            let connection = upgrade.connection(&daemon.env).await.context(upgrading)?;
            let streams = multiplexed::Streams::gather(connection, protocol, wanted).await;
            streams.map(Streams::Multiplexed).context(upgrading)
        }
    }
}

/// `metav1.Status` as the error channel carries it. Upstream: `remotecommand.ServeExec`.
fn success() -> Status {
    let document = json!({"metadata": {}, "status": "Success"}).to_string().into_bytes();
    Status { document, message: String::new() }
}

fn exited(command: &[String], code: i32) -> Status {
    if code == 0 {
        return success();
    }
    let message = format!(
        "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
        command.join(" ")
    );
    let causes = json!([{"reason": "ExitCode", "message": code.to_string()}]);
    let status = json!({"metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
        "details": {"causes": causes}});
    Status { document: status.to_string().into_bytes(), message }
}

fn failure(what: &str, error: &Error) -> Status {
    let text = format!("{what}: {}", error.report());
    let message = format!("Internal error occurred: {text}");
    let status = json!({"metadata": {}, "status": "Failure", "message": message,
        "reason": "InternalError", "details": {"causes": [{"message": text}]}, "code": 500});
    Status { document: status.to_string().into_bytes(), message }
}

async fn run_exec(daemon: &Arc<Daemon>, id: &str, request: ExecRequest, streams: Streams) -> Result<(), Error> {
    let started = async {
        let (container, _) = container::running(daemon, id)?;
        exec::start(daemon, &container, &request.cmd, request.tty, request.stdin).await
    };
    let mut process = match started.await {
        Ok(process) => process,
        Err(error) => {
            let text = failure("error executing command in container", &error);
            streams.run(Session::default(), async { text }).await;
            return Err(error);
        }
    };
    let (over, watch) = watch::channel(None::<i32>);
    let mut session = Session::default();
    let _resizer = if let Some(terminal) = process.terminal.take() {
        Some(connect_terminal(daemon, &mut session, terminal, request.stdin, request.stdout, Some(watch.clone()))?)
    } else {
        let failed = || "connect the command's streams".to_owned();
        let open = |descriptor: Option<OwnedFd>| descriptor.map(Descriptor::new).transpose().context(failed);
        let output =
            |descriptor: Option<OwnedFd>, wanted: bool| -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>, Error> {
                let stream = open(descriptor)?.filter(|_| wanted);
                Ok(stream.map(|stream| Box::new(UntilOver::new(stream, watch.clone())) as _))
            };
        session.stdin = open(process.stdin.take())?.map(|stream| Box::new(stream) as _);
        session.stdout = output(process.stdout.take(), request.stdout)?;
        session.stderr = output(process.stderr.take(), request.stderr)?;
        None
    };
    let mut status = watch.clone();
    let command = request.cmd.clone();
    let status = async move {
        match status.wait_for(Option::is_some).await {
            Ok(code) => exited(&command, code.unwrap_or(0)),
            Err(_) => failure("error executing command in container", &Error::ShimGone),
        }
    };
    let run = streams.run(session, status);
    tokio::pin!(run);
    let end = tokio::select! {
        ended = process.ended() => {
            match ended {
                Ok(code) => {
                    over.send_replace(Some(code));
                }
                Err(_) => drop(over),
            }
            run.await
        }
        end = &mut run => end,
    };
    if end == End::Disconnected {
        process.kill().await;
    }
    Ok(())
}

/// Aborts the task that follows the terminal's size with the session.
struct Resizer(tokio::task::JoinHandle<()>);

impl Drop for Resizer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn connect_terminal(
    daemon: &Daemon,
    session: &mut Session,
    terminal: OwnedFd,
    stdin: bool,
    stdout: bool,
    over: Option<watch::Receiver<Option<i32>>>,
) -> Result<Resizer, Error> {
    let failed = || "connect the terminal".to_owned();
    let terminal = Descriptor::new(terminal).context(failed)?;
    let (resize, mut sizes) = mpsc::unbounded_channel::<Size>();
    session.resize = Some(resize);
    let resized = terminal.duplicate().context(failed)?;
    let resizer = daemon.env.spawn(async move {
        while let Some(size) = sizes.recv().await {
            let _ = resized.resize(size.height, size.width);
        }
    });
    if stdin {
        session.stdin = Some(Box::new(terminal.duplicate().context(failed)?));
    }
    if stdout && let Some(over) = over {
        session.stdout = Some(Box::new(UntilOver::new(terminal, over)));
    }
    Ok(Resizer(resizer))
}

async fn run_attach(daemon: &Arc<Daemon>, id: &str, request: AttachRequest, streams: Streams) -> Result<(), Error> {
    let what = "error attaching to container";
    let mut session = Session::default();
    let attached = async {
        let (container, sandbox) = container::running(daemon, id)?;
        let shim = sandbox.shim()?;
        let failed = || "attach to the container".to_owned();
        // Without anybody who wants it, output is not copied; a container without a terminal has two streams.
        let mut ends = Vec::new();
        let wants_output = request.stdout || request.stderr;
        if wants_output {
            let (read, write) = wire::pipe().context(failed)?;
            ends.push(write);
            session.stdout = Some(Box::new(Descriptor::new(read).context(failed)?));
            if !container.config.tty {
                let (read, write) = wire::pipe().context(failed)?;
                ends.push(write);
                session.stderr = Some(Box::new(Descriptor::new(read).context(failed)?));
            }
        }
        let borrowed: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
        let stdin = shim.attach(&container.id, &borrowed).await?;
        Ok::<_, Error>((container, shim, stdin))
    };
    let (container, shim, stdin) = match attached.await {
        Ok(attached) => attached,
        Err(error) => {
            let text = failure(what, &error);
            streams.run(Session::default(), async { text }).await;
            return Err(error);
        }
    };
    if !request.stdout {
        // It was asked to be copied together with stderr, and is read to be thrown away.
        session.stdout = session.stdout.take().map(|stream| Box::new(Discarded(stream)) as _);
    }
    if !request.stderr {
        session.stderr = session.stderr.take().map(|stream| Box::new(Discarded(stream)) as _);
    }
    let mut resizer = None;
    let mut closes_input = false;
    if let Some(stdin) = stdin {
        if container.config.tty {
            resizer = Some(connect_terminal(daemon, &mut session, stdin, request.stdin, false, None)?);
        } else if request.stdin {
            let stream = Descriptor::new(stdin).context(|| "connect the container's input".to_owned())?;
            session.stdin = Some(Box::new(stream));
            closes_input = container.config.stdin_once;
        }
    }
    let mut phase = container.phase.subscribe();
    let status = async move {
        // Its output ends with it; without output it is waited for.
        let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
        success()
    };
    if closes_input && let Some(stdin) = session.stdin.take() {
        let (daemon, shim, id) = (daemon.clone(), shim.clone(), container.id.clone());
        let close = move || {
            daemon.env.spawn(async move {
                let _ = shim.ask("close the input", Request::CloseStdin { container: id }).await;
            });
        };
        session.stdin = Some(Box::new(OnDrop { stream: stdin, then: Some(Box::new(close)) }));
    }
    streams.run(session, status).await;
    drop(resizer);
    Ok(())
}

/// Reads everything and passes on nothing but the end.
struct Discarded(Box<dyn AsyncRead + Send + Unpin>);

impl AsyncRead for Discarded {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let mut chunk = [0; 4096];
        loop {
            let mut buffer = tokio::io::ReadBuf::new(&mut chunk);
            std::task::ready!(std::pin::Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return std::task::Poll::Ready(Ok(()));
            }
        }
    }
}

/// A stream whose end, whichever way it comes, has a consequence: the shim holds the other copy of the container's input.
struct OnDrop {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    then: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then();
        }
    }
}

impl AsyncWrite for OnDrop {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
