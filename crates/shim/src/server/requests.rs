//! What each request does.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Console, Helper, Server, StartWork, Work};
use crate::container::{Attached, Container, Output, duplicate};
use crate::helper::{self, Outcome, Streams};
use crate::log::{Log, Stream, now};
use crate::protocol::{Answer, Call, Exec, FORMAT, Hello, Request, Signal, Start, Started};
use crate::wire;

impl Server {
    /// Does what `call` asks; answers now, or when a helper is done.
    pub(super) fn call(&mut self, connection: u64, call: Call, descriptors: Vec<OwnedFd>) {
        let seq = call.seq;
        let mut sent = None;
        let result = match call.request {
            Request::Hello { .. } => Ok(Some(self.hello(connection))),
            Request::Pause(pause) => {
                let forked = helper::spawn(|_| helper::pause(&pause));
                self.forked(connection, seq, forked, Work::Pause)
            }
            Request::Start(start) => self.start(connection, seq, *start),
            Request::Exec(exec) => self.exec(connection, seq, exec, descriptors),
            Request::Signal(signal) => self.signal(connection, seq, &signal),
            Request::Attach { container } => self.attach(&container, descriptors).map(|stdin| {
                sent = stdin;
                Some(Answer::Done)
            }),
            Request::CloseStdin { container } => self.container(&container).map(|container| {
                container.stdin = None;
                Some(Answer::Done)
            }),
            Request::ReopenLog { container } => self.container(&container).and_then(|container| {
                container.reopen_log().map_err(|error| format!("reopen the log: {error}"))?;
                Ok(Some(Answer::Done))
            }),
            Request::Forget { container } => self.forget(connection, seq, &container),
            Request::Shutdown => {
                if let Some(pid) = self.pause {
                    let _ = kill(pid, libc::SIGKILL);
                }
                self.done = true;
                Ok(Some(Answer::Done))
            }
        };
        match result {
            Ok(Some(answer)) => self.answer(connection, seq, answer, sent),
            Ok(None) => {}
            Err(error) => self.answer(connection, seq, Answer::Error(error), None),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, String> {
        self.containers
            .iter_mut()
            .find(|container| container.id == id)
            .ok_or_else(|| format!("container {id:?} not found"))
    }

    fn hello(&mut self, id: u64) -> Answer {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.subscribed = true;
        }
        Answer::Hello(Hello {
            format: FORMAT,
            pid: std::process::id() as i32,
            pause: self.pause,
            containers: self.containers.iter().map(Container::state).collect(),
        })
    }

    fn forked(
        &mut self,
        connection: u64,
        seq: u64,
        forked: io::Result<(i32, OwnedFd)>,
        work: Work,
    ) -> Result<Option<Answer>, String> {
        let (pid, result) = forked.map_err(|error| format!("fork: {error}"))?;
        self.helpers.push(Helper { pid, result, text: Vec::new(), connection, seq, work });
        Ok(None)
    }

    fn start(&mut self, connection: u64, seq: u64, start: Start) -> Result<Option<Answer>, String> {
        let starting =
            |helper: &Helper| matches!(&helper.work, Work::Start(work) if work.start.container == start.container);
        if self.containers.iter().any(|container| container.id == start.container) || self.helpers.iter().any(starting)
        {
            return Err(format!("container {:?} is started already", start.container));
        }
        let failed = |error: io::Error| format!("prepare the standard streams: {error}");
        if start.terminal {
            let console = console(&start.bundle.join("console.sock")).map_err(failed)?;
            let forked = helper::spawn(|outcome| helper::start(&start, None, Some(&console.path), outcome));
            let work = StartWork { start, stdin: None, outputs: Vec::new(), console: Some(console) };
            return self.forked(connection, seq, forked, Work::Start(Box::new(work)));
        }
        let (stdin, stdin_end) = if start.stdin {
            let (read, write) = wire::pipe().map_err(failed)?;
            wire::set_nonblocking(&write).map_err(failed)?;
            (read, Some(write))
        } else {
            (null().map_err(failed)?, None)
        };
        let (stdout_end, stdout) = wire::pipe().map_err(failed)?;
        let (stderr_end, stderr) = wire::pipe().map_err(failed)?;
        for end in [&stdout_end, &stderr_end] {
            wire::set_nonblocking(end).map_err(failed)?;
        }
        let streams = Streams { stdin, stdout, stderr };
        let forked = helper::spawn(|outcome| helper::start(&start, Some(streams), None, outcome));
        let work = StartWork { start, stdin: stdin_end, outputs: vec![stdout_end, stderr_end], console: None };
        self.forked(connection, seq, forked, Work::Start(Box::new(work)))
    }

    fn exec(
        &mut self,
        connection: u64,
        seq: u64,
        exec: Box<Exec>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Option<Answer>, String> {
        let container = self.container(&exec.container)?;
        if container.exit.is_some() {
            return Err(format!("container {:?} is not running", exec.container));
        }
        let (state_root, program) = (container.state_root.clone(), container.program.clone());
        let made = (state_root.as_path(), program.as_deref());
        if exec.terminal {
            let console = console(&exec.process.with_extension("sock")).map_err(|error| format!("console: {error}"))?;
            let forked = helper::spawn(|outcome| helper::exec(&exec, made, None, Some(&console.path), outcome));
            return self.forked(connection, seq, forked, Work::Exec { exec, console: Some(console) });
        }
        let [stdin, stdout, stderr] =
            <[OwnedFd; 3]>::try_from(descriptors).map_err(|_| "three descriptors are needed".to_owned())?;
        let streams = Streams { stdin, stdout, stderr };
        let forked = helper::spawn(|outcome| helper::exec(&exec, made, Some(streams), None, outcome));
        self.forked(connection, seq, forked, Work::Exec { exec, console: None })
    }

    fn signal(&mut self, connection: u64, seq: u64, signal: &Signal) -> Result<Option<Answer>, String> {
        let number = if signal.all { libc::SIGKILL } else { signal.signal };
        let pid = match &signal.exec {
            // A process that ended is no error: that is what a signal is for.
            Some(exec) => self.execs.get(exec).copied(),
            None => {
                let container = self.container(&signal.container)?;
                if signal.all {
                    container.kill_all().map_err(|error| format!("kill: {error}"))?;
                }
                if let Some(made_by) = container.made_by("kill", seq).filter(|_| container.exit.is_none()) {
                    let id = container.id.clone();
                    let forked = helper::spawn(|_| helper::kill(&made_by, &id, number));
                    return self.forked(connection, seq, forked, Work::Signal);
                }
                container.exit.is_none().then_some(container.pid)
            }
        };
        if let Some(pid) = pid {
            kill(pid, number).map_err(|error| format!("signal {number}: {error}"))?;
        }
        Ok(Some(Answer::Done))
    }

    fn attach(&mut self, id: &str, descriptors: Vec<OwnedFd>) -> Result<Option<OwnedFd>, String> {
        let container = self.container(id)?;
        if container.exit.is_some() {
            return Err(format!("container {id:?} is not running"));
        }
        let failed = |error: io::Error| format!("attach: {error}");
        let stdin = container.stdin.as_ref().map(duplicate).transpose().map_err(failed)?;
        let mut descriptors = descriptors.into_iter();
        if let Some(stdout) = descriptors.next() {
            let stderr = descriptors.next();
            for descriptor in [Some(&stdout), stderr.as_ref()].into_iter().flatten() {
                wire::set_nonblocking(descriptor).map_err(failed)?;
            }
            container.attached.push(Attached::new(stdout, stderr));
        }
        Ok(stdin)
    }

    fn forget(&mut self, connection: u64, seq: u64, id: &str) -> Result<Option<Answer>, String> {
        let Some(index) = self.containers.iter().position(|container| container.id == id) else {
            return Ok(Some(Answer::Done));
        };
        if self.containers[index].exit.is_none() {
            return Err(format!("container {id:?} is running"));
        }
        let container = self.containers.remove(index);
        if let Some(made_by) = container.made_by("delete", seq) {
            let forked = helper::spawn(|_| helper::delete(&made_by, id));
            return self.forked(connection, seq, forked, Work::Forget(Box::new(container)));
        }
        container.remove_state();
        Ok(Some(Answer::Done))
    }

    /// A helper ended: answers who asked for it.
    pub(super) fn helper_done(&mut self, helper: Helper, outcome: Outcome) {
        let (connection, seq) = (helper.connection, helper.seq);
        self.remove_exec_leftovers(&helper.work);
        let started = |pid| Started { pid, started_at: now(), warnings: outcome.warnings };
        let (started, work) = match (helper.work, outcome.pid, outcome.error) {
            (Work::Forget(container), _, error) => {
                if let Some(error) = error {
                    eprintln!("forgetting {}: {error}", container.id);
                }
                container.remove_state();
                return self.answer(connection, seq, Answer::Done, None);
            }
            (Work::Signal, _, None) => return self.answer(connection, seq, Answer::Done, None),
            (work, Some(pid), None) => (started(pid), work),
            (_, _, error) => {
                let error = error.unwrap_or_else(|| "no process was started".to_owned());
                return self.answer(connection, seq, Answer::Error(error), None);
            }
        };
        let pid = started.pid;
        let result = match work {
            Work::Pause => {
                self.pause = Some(pid);
                Ok(None)
            }
            Work::Start(work) => self.started(*work, &started).map(|()| None),
            Work::Exec { exec, console } => {
                let terminal = console.map(|console| wire::receive_terminal(&console.listener)).transpose();
                if terminal.is_ok() {
                    self.execs.insert(exec.id, pid);
                }
                terminal
            }
            Work::Signal | Work::Forget(_) => Ok(None),
        };
        match result {
            Ok(descriptor) => self.answer(connection, seq, Answer::Started(started), descriptor),
            Err(error) => {
                let _ = kill(pid, libc::SIGKILL);
                self.answer(connection, seq, Answer::Error(error.to_string()), None);
            }
        }
        // It may have ended before its helper did.
        if let Some(code) = self.unclaimed.remove(&pid) {
            self.process_ended(pid, code);
        }
    }

    fn started(&mut self, work: StartWork, started: &Started) -> io::Result<()> {
        let group = self.hierarchies.as_ref().and_then(|all| all.group(&work.start.cgroup).ok());
        let log = match work.start.log.as_deref().map(Log::open).transpose() {
            Ok(log) => log,
            Err(error) => {
                eprintln!("opening the log of {}: {error}", work.start.container);
                None
            }
        };
        let mut container = Container::new(work.start, started.pid, started.started_at, group, log);
        if let Some(console) = &work.console {
            let terminal = wire::receive_terminal(&console.listener)?;
            wire::set_nonblocking(&terminal)?;
            container.stdin = Some(duplicate(&terminal)?);
            container.outputs.push(Output::new(terminal, Stream::Stdout));
        } else {
            container.stdin = work.stdin;
            let streams = work.outputs.into_iter().zip([Stream::Stdout, Stream::Stderr]);
            container.outputs.extend(streams.map(|(descriptor, stream)| Output::new(descriptor, stream)));
        }
        self.containers.push(container);
        Ok(())
    }

    /// When the last process for a container was added, what that left on disk goes.
    fn remove_exec_leftovers(&self, work: &Work) {
        let Work::Exec { exec, .. } = work else { return };
        let same = |helper: &Helper| matches!(&helper.work, Work::Exec { exec: other, .. } if other.container == exec.container);
        if !self.helpers.iter().any(same)
            && let Some(container) = self.containers.iter().find(|container| container.id == exec.container)
        {
            container.remove_exec_leftovers();
        }
    }
}

fn console(path: &Path) -> io::Result<Console> {
    let _ = std::fs::remove_file(path);
    Ok(Console { listener: wire::listen_for_terminal(path)?, path: PathBuf::from(path) })
}

fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // Real-time signals have no name in the signal enumeration, so the number goes to the kernel as it is.
    linux::process::signal(pid, signal)
}
