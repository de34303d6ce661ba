//! One run of an emulated machine.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use env::Env;

use super::kernel::Kernel;
use super::root::RootImage;

/// What to boot.
pub struct Boot {
    pub root: RootImage,
    /// In MiB.
    pub memory: u32,
    pub cpus: u32,
    /// Where the disk at `/data` is served; memory when `None`.
    pub disk: Option<PathBuf>,
    /// A shell script.
    pub command: String,
}

impl Boot {
    /// With 1 GiB of memory and two processors.
    pub fn new(root: RootImage, command: &str) -> Boot {
        Boot { root, memory: 1024, cpus: 2, disk: None, command: command.to_owned() }
    }

    /// Turns it on.
    pub fn start(self, kernel: &Kernel) -> Result<Machine> {
        let folder = tempfile::tempdir().context("making a folder for the machine")?;
        let first = folder.path().join("first");
        std::fs::write(&first, kernel.first_root(&self.command)?).context("writing the first root")?;
        let console = folder.path().join("console");
        let port = folder.path().join("port");
        let listener = UnixListener::bind(&port).context("listening for what the machine says")?;

        let mut qemu = Command::new("qemu-system-x86_64");
        // A busy machine is too late for the test of the timer.
        // Always emulated: KVM in a machine that is virtual itself may be there and not work, and the same everywhere is worth more.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-m", &self.memory.to_string(), "-smp", &self.cpus.to_string()])
            .args(["-display", "none", "-monitor", "none", "-net", "none", "-no-reboot"])
            .args(["-serial", &format!("file:{}", console.display())])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(&first)
            .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check"])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
            .args(["-chardev", &format!("socket,id=out,path={}", port.display())])
            .args(["-device", "virtserialport,chardev=out,name=out"])
            .args([
                "-blockdev",
                &format!("driver=file,node-name=f,filename={},read-only=on,locking=off", self.root.path().display()),
            ])
            .args([
                "-blockdev",
                "driver=raw,node-name=root,file=f,read-only=on",
                "-device",
                "virtio-blk-pci,drive=root",
            ]);
        if let Some(socket) = &self.disk {
            qemu.args([
                "-blockdev",
                &format!("driver=nbd,node-name=data,server.type=unix,server.path={}", socket.display()),
            ])
            .args(["-device", "virtio-blk-pci,drive=data,write-cache=on"]);
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(folder.path().join("stderr"))?);
        let child = Killed(qemu.spawn().context("starting qemu")?);

        let (tx, rx) = channel();
        // Ends with the machine, or when nobody wants its lines.
        std::thread::spawn(move || {
            let Ok((stream, _)) = listener.accept() else { return };
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            // A line that breaks off was not said.
            while reader.read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n') {
                if tx.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(Machine { child, lines: rx, folder, _root: self.root })
    }
}

/// A machine that runs. Dropping it is a power cut.
pub struct Machine {
    child: Killed,
    lines: Receiver<String>,
    folder: tempfile::TempDir,
    _root: RootImage,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a machine does next.
#[derive(Debug, PartialEq)]
pub enum Said {
    Line(String),
    /// The command ended so.
    Exit(i32),
    /// Nothing for as long as was waited.
    Nothing,
}

impl Machine {
    /// The next line that the command prints.
    pub fn next(&mut self, limit: Duration) -> Result<Said> {
        let deadline = Env::system().monotonic() + limit;
        loop {
            // The end of qemu closes no socket that it never opened.
            let left = deadline.saturating_duration_since(Env::system().monotonic());
            match self.lines.recv_timeout(left.min(Duration::from_millis(500))) {
                Ok(line) => {
                    return Ok(match line.strip_prefix("vm-exit ").and_then(|code| code.parse().ok()) {
                        Some(code) => Said::Exit(code),
                        None => Said::Line(line),
                    });
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(Said::Nothing),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(status) = self.child.0.try_wait().context("looking at qemu")? {
                        bail!("the machine ended ({status}) without a word:\n{}", self.last_words());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the machine ended:\n{}", self.last_words()),
            }
        }
    }

    /// Hands every line to `each` until the command ends; its exit code.
    pub fn run_to_the_end(&mut self, limit: Duration, mut each: impl FnMut(&str)) -> Result<i32> {
        let deadline = Env::system().monotonic() + limit;
        loop {
            match self.next(deadline.saturating_duration_since(Env::system().monotonic()))? {
                Said::Line(line) => each(&line),
                Said::Exit(code) => return Ok(code),
                Said::Nothing => bail!("the machine took longer than {} s:\n{}", limit.as_secs(), self.last_words()),
            }
        }
    }

    /// Takes its power away; what it had said until then can still be read.
    pub fn cut(mut self) -> Result<Vec<String>> {
        self.child.0.kill().context("killing qemu")?;
        self.child.0.wait().context("waiting for qemu")?;
        Ok(self.lines.iter().collect())
    }

    /// What the kernel and qemu said last.
    pub fn last_words(&self) -> String {
        let text = |name: &str| std::fs::read(self.folder.path().join(name)).unwrap_or_default();
        let tail = |name: &str| {
            let text = String::from_utf8_lossy(&text(name)).into_owned();
            let lines: Vec<String> = text.lines().rev().take(40).map(str::to_owned).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        [tail("console"), tail("stderr")].join("\n")
    }
}
