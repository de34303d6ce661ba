//! A container as its shim sees it: a process, its streams, its log and who listens.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use linux::cgroup::Group;

use crate::helper::MadeBy;
use crate::log::{Lines, Log, Stream, now, stamp};
use crate::protocol::{ContainerState, Exit, ExitRecord, Start};

/// How much is read from a stream at a time.
const CHUNK: usize = 16 * 1024;

pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) started_at: i64,
    pub(crate) exit: Option<Exit>,
    pub(crate) state_root: PathBuf,
    pub(crate) bundle: PathBuf,
    /// The OCI runtime's program that made it, if one did.
    pub(crate) program: Option<PathBuf>,
    exit_file: PathBuf,
    group: Option<Group>,
    kill_rest: bool,
    pub(crate) outputs: Vec<Output>,
    log: Option<Log>,
    /// Where its input can be written to.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) attached: Vec<Attached>,
}

/// One of the container's output streams.
pub(crate) struct Output {
    pub(crate) descriptor: OwnedFd,
    stream: Stream,
    lines: Lines,
}

impl Output {
    pub(crate) fn new(descriptor: OwnedFd, stream: Stream) -> Output {
        Output { descriptor, stream, lines: Lines::new(stream) }
    }
}

/// Somebody who gets a copy of the output.
pub(crate) struct Attached {
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    /// What it has not taken yet; while there is some, the container's output is not read.
    pub(crate) pending: Option<(Stream, Vec<u8>)>,
}

impl Attached {
    pub(crate) fn new(stdout: OwnedFd, stderr: Option<OwnedFd>) -> Attached {
        Attached { stdout, stderr, pending: None }
    }

    /// The descriptor that has to take more.
    pub(crate) fn waits_for(&self) -> Option<&OwnedFd> {
        let (stream, _) = self.pending.as_ref()?;
        self.descriptor(*stream)
    }

    fn descriptor(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => Some(&self.stdout),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    /// Writes what it takes and keeps the rest; false when it is gone.
    fn offer(&mut self, stream: Stream, mut data: &[u8]) -> bool {
        let Some(descriptor) = self.descriptor(stream) else { return true };
        while !data.is_empty() {
            match rustix::io::write(descriptor, data) {
                Ok(written) => data = &data[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.pending = Some((stream, data.to_vec()));
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Offers again what is pending.
    pub(crate) fn flush(&mut self) -> bool {
        match self.pending.take() {
            Some((stream, data)) => self.offer(stream, &data),
            None => true,
        }
    }
}

impl Container {
    pub(crate) fn new(start: Start, pid: i32, started_at: i64, group: Option<Group>, log: Option<Log>) -> Container {
        Container {
            id: start.container,
            pid,
            started_at,
            exit: None,
            state_root: start.state_root,
            bundle: start.bundle,
            program: start.program,
            exit_file: start.exit_file,
            group,
            kill_rest: start.kill_rest,
            outputs: Vec::new(),
            log,
            stdin: None,
            attached: Vec::new(),
        }
    }

    pub(crate) fn state(&self) -> ContainerState {
        ContainerState { id: self.id.clone(), pid: self.pid, started_at: self.started_at, exit: self.exit.clone() }
    }

    pub(crate) fn reopen_log(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), Log::reopen)
    }

    /// Whether its output may be read now.
    pub(crate) fn readable(&self) -> bool {
        self.attached.iter().all(|attached| attached.pending.is_none())
    }

    /// Kills everything in the container's group.
    pub(crate) fn kill_all(&self) -> io::Result<()> {
        match &self.group {
            Some(group) => group.kill(),
            None => Ok(()),
        }
    }

    /// Passes on one chunk of the output at `index`; false when there is none now. At the stream's end the output is dropped.
    pub(crate) fn pump(&mut self, index: usize) -> bool {
        let mut chunk = [0; CHUNK];
        let output = &mut self.outputs[index];
        let size = match rustix::io::read(&output.descriptor, &mut chunk) {
            Ok(size) => size,
            Err(rustix::io::Errno::INTR) => return true,
            Err(rustix::io::Errno::AGAIN) => return false,
            // A terminal whose other side is closed answers EIO.
            Err(_) => 0,
        };
        let stream = output.stream;
        let time = stamp(now());
        let lines = match size {
            0 => output.lines.finish(&time),
            _ => output.lines.take(&chunk[..size], &time),
        };
        if let Some(log) = &mut self.log
            && !lines.is_empty()
        {
            log.write(&lines);
        }
        self.attached.retain_mut(|attached| attached.offer(stream, &chunk[..size]));
        if size == 0 {
            self.outputs.remove(index);
            if self.outputs.is_empty() {
                self.attached.clear();
            }
        }
        size > 0
    }

    /// The first process ended: passes on what it wrote, kills what it left, records the end.
    pub(crate) fn ended(&mut self, code: i32) -> Exit {
        let oom_killed = self.group.as_ref().is_some_and(|group| group.oom_kills() > 0);
        if self.kill_rest {
            let _ = self.kill_all();
        }
        let mut index = 0;
        while index < self.outputs.len() {
            let before = self.outputs.len();
            while self.outputs.len() == before && self.readable() && self.pump(index) {}
            if self.outputs.len() == before {
                index += 1;
            }
        }
        self.stdin = None;
        let exit = Exit { code, finished_at: now(), oom_killed };
        if let Err(error) = ExitRecord::save(&exit, &self.exit_file) {
            eprintln!("recording the end of {}: {error}", self.id);
        }
        self.exit = Some(exit.clone());
        exit
    }

    /// How to ask the program that made it for something, if one did; `verb` and `seq` name the call.
    pub(crate) fn made_by(&self, verb: &str, seq: u64) -> Option<MadeBy> {
        let path = self.program.clone()?;
        let log = self.bundle.join(format!("{verb}-{seq}.log"));
        Some(MadeBy { path, state_root: self.state_root.clone(), log })
    }

    /// Removes what was kept of it on disk.
    pub(crate) fn remove_state(&self) {
        match std::fs::remove_dir_all(self.state_root.join(&self.id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("removing the state of {}: {error}", self.id)
            }
            _ => {}
        }
    }

    /// Removes sockets that libcontainer leaves behind for each process it adds.
    pub(crate) fn remove_exec_leftovers(&self) {
        let Ok(entries) = std::fs::read_dir(self.state_root.join(&self.id)) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with("tenant-") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// A copy of `descriptor` for somebody else.
pub(crate) fn duplicate(descriptor: &OwnedFd) -> io::Result<OwnedFd> {
    descriptor.as_fd().try_clone_to_owned()
}
