//! Programs at a terminal, as a person runs them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use env::Env;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::machine::{Machine, Said};

/// Rows and columns of every terminal here.
pub const SIZE: (u16, u16) = (37, 111);

/// A program whose three standard streams are one terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Screen>,
    reader: JoinHandle<()>,
}

/// What was shown so far, and whether anything can follow.
#[derive(Default)]
struct Screen {
    shown: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Terminal {
    /// Starts `command` on the machine, at a terminal of its own.
    pub fn start(machine: &Machine, mut command: Command) -> io::Result<Terminal> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::termios::tcsetwinsize(&slave, Winsize { ws_row: SIZE.0, ws_col: SIZE.1, ws_xpixel: 0, ws_ypixel: 0 })?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let screen = Arc::new(Screen::default());
        let keyboard = File::from(master);
        let (source, shown) = (keyboard.try_clone()?, screen.clone());
        let reader = std::thread::Builder::new().name("terminal".into()).spawn(move || shown.fill(source))?;
        // Last, as nothing may fail between a child and who waits for it.
        let child = machine.spawn(command);
        Ok(Terminal { child, keyboard, screen, reader })
    }

    /// Types `text` as it is; a line ends with `\r`, as from a keyboard.
    pub fn keys(&mut self, text: &str) -> io::Result<()> {
        self.keyboard.write_all(text.as_bytes())
    }

    /// Waits until `text` was shown.
    ///
    /// # Panics
    /// With all that was shown, after `limit` or once nothing can follow.
    #[track_caller]
    pub fn until(&self, text: &str, limit: Duration) {
        let env = Env::system();
        let deadline = env.monotonic() + limit;
        let mut shown = self.screen.shown.lock();
        loop {
            let is = String::from_utf8_lossy(&shown.0).into_owned();
            if is.contains(text) {
                return;
            }
            let left = deadline.saturating_duration_since(env.monotonic());
            assert!(!shown.1 && !left.is_zero(), "{text:?} is not shown, but {is:?}");
            self.screen.changed.wait_for(&mut shown, left);
        }
    }

    /// Whether `text` was shown by now.
    pub fn shows(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.screen.shown.lock().0).contains(text)
    }

    /// Ends a program that goes on for ever.
    pub fn kill(mut self) -> io::Result<Said> {
        self.child.kill()?;
        self.end()
    }

    /// Waits for the program's end and tells what it showed, as its standard output.
    pub fn end(mut self) -> io::Result<Said> {
        let status = self.child.wait()?;
        // The reader ends with the last who has the terminal open.
        self.reader.join().map_err(|_| io::Error::other("reading the terminal"))?;
        let shown = std::mem::take(&mut self.screen.shown.lock().0);
        Ok(Said { code: status.code(), out: String::from_utf8_lossy(&shown).into_owned(), err: String::new() })
    }
}

impl Screen {
    fn fill(&self, mut source: File) {
        let mut buffer = [0; 4096];
        // Without anybody at the other side, a terminal fails with EIO.
        while let Ok(read @ 1..) = source.read(&mut buffer) {
            self.shown.lock().0.extend_from_slice(&buffer[..read]);
            self.changed.notify_all();
        }
        self.shown.lock().1 = true;
        self.changed.notify_all();
    }
}
