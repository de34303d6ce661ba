//! The shim's loop: one thread that waits for signals, daemons, helpers and output, and never for anything else.

mod requests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use linux::cgroup::Hierarchies;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags};

use crate::container::Container;
use crate::helper::Outcome;
use crate::protocol::{Answer, Call, Exec, Message, Start};
use crate::wire;

/// A daemon that takes no messages loses its connection when this many wait; it learns everything again when it reconnects.
const MAX_WAITING: usize = 4096;

pub(crate) struct Server {
    hierarchies: Option<Hierarchies>,
    signals: SignalFd,
    listener: OwnedFd,
    connections: Vec<Connection>,
    next_connection: u64,
    containers: Vec<Container>,
    /// Processes added to containers, by the daemon's name for them.
    execs: HashMap<String, i32>,
    helpers: Vec<Helper>,
    /// Ends of processes that no helper has told about yet.
    unclaimed: HashMap<i32, i32>,
    pause: Option<i32>,
    done: bool,
}

struct Connection {
    id: u64,
    socket: OwnedFd,
    /// Whether it said hello and gets events.
    subscribed: bool,
    waiting: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    broken: bool,
}

/// A helper at work.
struct Helper {
    pid: i32,
    result: OwnedFd,
    text: Vec<u8>,
    connection: u64,
    seq: u64,
    work: Work,
}

enum Work {
    Start(Box<StartWork>),
    Exec {
        exec: Box<Exec>,
        console: Option<Console>,
    },
    Pause,
    /// A signal sent by the program that made the container.
    Signal,
    /// The container is taken away by the program that made it.
    Forget(Box<Container>),
}

struct StartWork {
    start: Start,
    stdin: Option<OwnedFd>,
    outputs: Vec<OwnedFd>,
    console: Option<Console>,
}

/// A socket to which a terminal is sent.
struct Console {
    listener: OwnedFd,
    path: PathBuf,
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

enum Source {
    Signals,
    Listener,
    Connection(u64),
    Helper(i32),
    Output { container: usize, output: usize },
    Attached { container: usize },
}

impl Server {
    /// A server for the daemons that connect to `listener`.
    pub(crate) fn new(listener: OwnedFd) -> io::Result<Server> {
        wire::set_nonblocking(&listener)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        Ok(Server {
            hierarchies: Hierarchies::detect().ok(),
            signals: SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            listener,
            connections: Vec::new(),
            next_connection: 0,
            containers: Vec::new(),
            execs: HashMap::new(),
            helpers: Vec::new(),
            unclaimed: HashMap::new(),
            pause: None,
            done: false,
        })
    }

    /// Serves until a daemon asks it to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.done {
            for (source, flags) in self.wait()? {
                self.handle(source, flags);
            }
            self.connections.retain(|connection| !connection.broken);
        }
        // The last answer may not have been sent.
        for connection in &mut self.connections {
            connection.flush();
        }
        Ok(())
    }

    /// Waits for something to happen and tells what did.
    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        for connection in &self.connections {
            let out = if connection.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            polled.push(PollFd::new(&connection.socket, PollFlags::IN | out));
            sources.push(Source::Connection(connection.id));
        }
        for helper in &self.helpers {
            polled.push(PollFd::new(&helper.result, PollFlags::IN));
            sources.push(Source::Helper(helper.pid));
        }
        for (index, container) in self.containers.iter().enumerate() {
            if container.readable() {
                // From the last to the first, so that an output that ends does not move one that is still to be read.
                for (output, stream) in container.outputs.iter().enumerate().rev() {
                    polled.push(PollFd::new(&stream.descriptor, PollFlags::IN));
                    sources.push(Source::Output { container: index, output });
                }
            } else {
                for attached in container.attached.iter().filter_map(|attached| attached.waits_for()) {
                    polled.push(PollFd::new(attached, PollFlags::OUT));
                    sources.push(Source::Attached { container: index });
                }
            }
        }
        loop {
            match rustix::event::poll(&mut polled, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        let mut happened: Vec<_> = sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect();
        // Output first, as requests and ended processes may change which containers there are.
        happened.sort_by_key(|(source, _)| match source {
            Source::Output { .. } | Source::Attached { .. } => 0,
            Source::Helper(_) => 1,
            Source::Signals => 2,
            Source::Connection(_) | Source::Listener => 3,
        });
        Ok(happened)
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Signals => self.reap(),
            Source::Listener => {
                if let Ok(socket) = wire::accept(&self.listener) {
                    self.next_connection += 1;
                    self.connections.push(Connection {
                        id: self.next_connection,
                        socket,
                        subscribed: false,
                        waiting: VecDeque::new(),
                        broken: false,
                    });
                }
            }
            Source::Connection(id) => {
                if flags.contains(PollFlags::OUT)
                    && let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id)
                {
                    connection.flush();
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.read_calls(id);
                }
            }
            Source::Helper(pid) => self.read_helper(pid),
            Source::Output { container, output } => {
                self.containers[container].pump(output);
            }
            Source::Attached { container } => {
                self.containers[container].attached.retain_mut(|attached| attached.flush())
            }
        }
    }

    fn read_calls(&mut self, id: u64) {
        loop {
            let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else { return };
            match wire::receive(&connection.socket) {
                Ok(Some((packet, descriptors))) => match serde_json::from_slice::<Call>(&packet) {
                    Ok(call) => self.call(id, call, descriptors),
                    Err(error) => {
                        // Something newer than this shim: say so under its number, if it has one.
                        let seq = serde_json::from_slice::<serde_json::Value>(&packet).ok();
                        let seq = seq.and_then(|call| call.get("seq")?.as_u64()).unwrap_or(0);
                        self.answer(id, seq, Answer::Error(format!("unknown request: {error}")), None);
                    }
                },
                Ok(None) => connection.broken = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => connection.broken = true,
            }
            if self.connections.iter().any(|connection| connection.id == id && connection.broken) {
                return;
            }
        }
    }

    fn answer(&mut self, connection: u64, seq: u64, answer: Answer, descriptor: Option<OwnedFd>) {
        let packet = serde_json::to_vec(&Message::Answer { seq, answer }).unwrap_or_default();
        if let Some(connection) = self.connections.iter_mut().find(|other| other.id == connection) {
            connection.send(packet, descriptor);
        }
    }

    fn announce(&mut self, message: &Message) {
        let packet = serde_json::to_vec(message).unwrap_or_default();
        for connection in self.connections.iter_mut().filter(|connection| connection.subscribed) {
            connection.send(packet.clone(), None);
        }
    }

    /// Collects every process that ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => self.process_ended(pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.process_ended(pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    fn process_ended(&mut self, pid: i32, code: i32) {
        let running = |container: &&mut Container| container.pid == pid && container.exit.is_none();
        if let Some(container) = self.containers.iter_mut().find(running) {
            let exit = container.ended(code);
            let message = Message::Exited { container: container.id.clone(), exit };
            self.announce(&message);
        } else if let Some(exec) = self.execs.iter().find(|(_, process)| **process == pid).map(|(id, _)| id.clone()) {
            self.execs.remove(&exec);
            self.announce(&Message::ExecExited { exec, code });
        } else if self.pause == Some(pid) {
            self.pause = None;
            self.announce(&Message::PauseExited);
        } else if !self.helpers.is_empty() {
            self.unclaimed.insert(pid, code);
        }
    }

    fn read_helper(&mut self, pid: i32) {
        let Some(index) = self.helpers.iter().position(|helper| helper.pid == pid) else { return };
        let mut chunk = [0; 4096];
        match rustix::io::read(&self.helpers[index].result, &mut chunk) {
            Ok(0) => {
                let helper = self.helpers.remove(index);
                let outcome = serde_json::from_slice(&helper.text).unwrap_or_else(|_| Outcome {
                    error: Some("the process that creates containers died".to_owned()),
                    ..Outcome::default()
                });
                self.helper_done(helper, outcome);
                if self.helpers.is_empty() {
                    self.unclaimed.clear();
                }
            }
            Ok(size) => self.helpers[index].text.extend_from_slice(&chunk[..size]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => {
                self.helpers.remove(index);
            }
        }
    }
}

impl Connection {
    fn send(&mut self, packet: Vec<u8>, descriptor: Option<OwnedFd>) {
        self.waiting.push_back((packet, descriptor));
        self.flush();
        if self.waiting.len() > MAX_WAITING {
            self.broken = true;
        }
    }

    fn flush(&mut self) {
        while let Some((packet, descriptor)) = self.waiting.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptor.iter().map(AsFd::as_fd).collect();
            match wire::send(&self.socket, packet, &descriptors) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }
}
