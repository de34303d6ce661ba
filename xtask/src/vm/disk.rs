//! A disk whose power can go: an NBD server in memory that keeps apart what was written and what was flushed.
//!
//! Of what was written since the last flush any part may be there after a cut, in any order, torn at sectors, as a real disk with a
//! cache has it. A cut can also be told to happen at the n-th write from now, which hits what no clock would.

mod wire;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};
use fastrand::Rng;
use parking_lot::Mutex;

use crate::images::debian::said;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The disk, which outlives the machines it is in.
pub struct Disk {
    state: Arc<Mutex<State>>,
    folder: tempfile::TempDir,
}

/// What the disk holds.
struct State {
    size: u64,
    /// As the machine sees it.
    seen: Pages,
    /// As it is after a cut, but for what is unflushed.
    durable: Pages,
    unflushed: Vec<Write>,
    /// The cut comes with this many writes and flushes, and is told here.
    countdown: Option<(u64, Sender<()>)>,
    /// The power is gone: nothing is answered.
    dead: bool,
    /// Kept open, as a machine without power hears of no error.
    silent: Vec<UnixStream>,
    counts: Counts,
    /// Forgets what it was told to flush: what stands on it must be found broken.
    lies: bool,
}

/// What the disk was asked to do since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub writes: u64,
    pub flushes: u64,
    /// Unflushed writes that cuts lost or tore.
    pub lost: u64,
}

struct Write {
    offset: u64,
    bytes: Vec<u8>,
}

/// Sparse, and cheap to copy.
#[derive(Clone, Default)]
struct Pages(HashMap<u64, Arc<[u8; PAGE]>>);

impl Pages {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let part = (PAGE - within).min(bytes.len() - done);
            let page = self.0.entry(at / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let part = (PAGE - within).min(out.len() - done);
            match self.0.get(&(at / PAGE as u64)) {
                Some(page) => out[done..done + part].copy_from_slice(&page[within..within + part]),
                None => out[done..done + part].fill(0),
            }
            done += part;
        }
    }
}

impl State {
    fn write(&mut self, offset: u64, bytes: Vec<u8>, through: bool) {
        self.counts.writes += 1;
        self.seen.write(offset, &bytes);
        if through && !self.lies {
            // What lies below must not come back over it.
            let end = offset + bytes.len() as u64;
            let (below, rest): (Vec<Write>, Vec<Write>) =
                self.unflushed.drain(..).partition(|w| w.offset < end && offset < w.offset + w.bytes.len() as u64);
            self.unflushed = rest;
            below.iter().for_each(|write| self.durable.write(write.offset, &write.bytes));
            self.durable.write(offset, &bytes);
        } else {
            self.unflushed.push(Write { offset, bytes });
        }
    }

    fn flush(&mut self) {
        self.counts.flushes += 1;
        if self.lies {
            return;
        }
        for write in self.unflushed.drain(..) {
            self.durable.write(write.offset, &write.bytes);
        }
    }

    /// Whether the power is gone; counts what comes towards it.
    fn is_dead(&mut self, counts: bool) -> bool {
        if counts && let Some((left, _)) = &mut self.countdown {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.dead = true;
                if let Some((_, tell)) = self.countdown.take() {
                    // Nobody may be waiting any more.
                    let _ = tell.send(());
                }
            }
        }
        self.dead
    }
}

impl Disk {
    /// An empty ext4 of so many bytes.
    pub fn formatted(size: u64) -> Result<Disk> {
        let folder = tempfile::tempdir().context("making a folder for the disk")?;
        let path = folder.path().join("image");
        let mut file = File::create_new(&path).context("making the disk's image")?;
        file.set_len(size).context("making the disk's image")?;
        let mut make = Command::new("mke2fs");
        said(make.args(["-q", "-F", "-t", "ext4"]).arg(&path), "making the disk's file system")?;
        file = File::open(&path).context("opening the disk's image")?;
        let pages = load(&mut file).context("reading the disk's image")?;
        std::fs::remove_file(path).context("removing the disk's image")?;
        let state = State {
            size,
            seen: pages.clone(),
            durable: pages,
            unflushed: Vec::new(),
            countdown: None,
            dead: false,
            silent: Vec::new(),
            counts: Counts::default(),
            lies: false,
        };
        let disk = Disk { state: Arc::new(Mutex::new(state)), folder };
        let listener = UnixListener::bind(disk.socket()).context("listening for who uses the disk")?;
        let state = disk.state.clone();
        // Lasts as long as the program: a disk is used to its end.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || {
                    if let Err(error) = wire::serve(stream, &state)
                        && error.kind() != io::ErrorKind::UnexpectedEof
                        && error.kind() != io::ErrorKind::ConnectionReset
                        && error.kind() != io::ErrorKind::BrokenPipe
                    {
                        eprintln!("the disk: {error}");
                    }
                });
            }
        });
        Ok(disk)
    }

    /// From now on it says that it flushed, and does not.
    pub fn lie(&self) {
        self.state.lock().lies = true;
    }

    /// Where it is served.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Lets the power go with the n-th write or flush from now, and says when.
    pub fn cut_after(&self, commands: u64) -> Receiver<()> {
        let (tx, rx) = channel();
        self.state.lock().countdown = Some((commands.max(1), tx));
        rx
    }

    /// The power is gone, and back: only now is it settled what of the unflushed writes had reached the disk.
    pub fn cut(&self, rng: &mut Rng) {
        let mut state = self.state.lock();
        state.countdown = None;
        state.dead = false;
        state.silent.clear();
        let unflushed = std::mem::take(&mut state.unflushed);
        // All but a few; few; any; any, torn: each finds other faults.
        let (chance, torn) = [(0.95, false), (0.05, false), (0.5, false), (0.5, true)][rng.usize(0..4)];
        for write in &unflushed {
            let whole = rng.f64() < chance;
            if whole && !torn {
                state.durable.write(write.offset, &write.bytes);
                continue;
            }
            state.counts.lost += 1;
            if torn {
                for (n, sector) in write.bytes.chunks(SECTOR).enumerate().filter(|_| rng.bool()) {
                    state.durable.write(write.offset + (n * SECTOR) as u64, sector);
                }
            }
        }
        state.seen = state.durable.clone();
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }
}

/// What of a sparse file isn't zero.
fn load(file: &mut File) -> io::Result<Pages> {
    let mut pages = Pages::default();
    let mut page = [0; PAGE];
    let size = file.metadata()?.len();
    let mut at = 0;
    while at < size {
        let Ok(data) = rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(at)) else { break };
        at = data / PAGE as u64 * PAGE as u64;
        let end = rustix::fs::seek(&*file, rustix::fs::SeekFrom::Hole(data))?;
        file.seek(SeekFrom::Start(at))?;
        while at < end {
            file.read_exact(&mut page)?;
            if page.iter().any(|byte| *byte != 0) {
                pages.0.insert(at / PAGE as u64, Arc::new(page));
            }
            at += PAGE as u64;
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            size: 1 << 20,
            seen: Pages::default(),
            durable: Pages::default(),
            unflushed: Vec::new(),
            countdown: None,
            dead: false,
            silent: Vec::new(),
            counts: Counts::default(),
            lies: false,
        }
    }

    fn read(pages: &Pages, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![9; length];
        pages.read(offset, &mut out);
        out
    }

    #[test]
    fn only_what_was_flushed_is_sure() {
        let mut state = state();
        state.write(4090, vec![1; 12], false);
        assert_eq!(read(&state.seen, 4089, 14), [&[0][..], &[1; 12], &[0]].concat());
        assert_eq!(read(&state.durable, 4090, 12), [0; 12]);
        state.flush();
        assert_eq!(read(&state.durable, 4090, 12), [1; 12]);
    }

    #[test]
    fn what_was_written_through_stays_on_top() {
        let mut state = state();
        state.write(0, vec![1; 1024], false);
        state.write(8192, vec![3; 512], false);
        state.write(512, vec![2; 512], true);
        assert_eq!(read(&state.durable, 0, 1024), [[1; 512], [2; 512]].concat());
        assert_eq!(state.unflushed.len(), 1, "what lies elsewhere is as it was");
        state.flush();
        assert_eq!(read(&state.durable, 0, 1024), [[1; 512], [2; 512]].concat());
    }

    #[test]
    fn the_power_goes_with_the_write_it_was_told() {
        let mut state = state();
        let (tx, rx) = channel();
        state.countdown = Some((2, tx));
        assert!(!state.is_dead(true));
        assert!(!state.is_dead(false), "reads don't count");
        assert!(state.is_dead(true) && state.is_dead(false));
        assert!(rx.try_recv().is_ok());
    }
}
