//! The store on its own.

use anyhow::{Result, ensure};

use super::Victim;
use super::writes::{Writes, word};
use crate::vm;
use crate::vm::kernel::Kernel;
use crate::vm::root::{Root, RootImage};

#[derive(Default)]
pub struct Store {
    writes: Writes,
    compacted: u64,
    /// How long opening took after each cut, in milliseconds.
    opened: Vec<u64>,
}

pub fn root(kernel: &Kernel) -> Result<RootImage> {
    let mut root = Root::new(kernel)?;
    root.add(&vm::guest_program()?, "bin/xtask")?;
    root.finish()
}

impl Victim for Store {
    fn name(&self) -> &str {
        "store"
    }

    fn memory(&self) -> u32 {
        256
    }

    fn command(&mut self, _: usize) -> String {
        self.writes.forget_found();
        "xtask guest store /data/store".into()
    }

    fn heard(&mut self, line: &str) -> Result<bool> {
        if self.writes.heard(line)? {
            return Ok(false);
        }
        match line.split(' ').next() {
            Some("opened") => {
                let (revision, compacted) = (word(line, 1)?, word(line, 2)?);
                ensure!(revision >= self.writes.newest, "at {revision}, after {} was acknowledged", self.writes.newest);
                ensure!(compacted >= self.compacted, "compacted to {compacted}, after {}", self.compacted);
                self.opened.push(word(line, 3)?);
                Ok(false)
            }
            Some("compacted") => {
                self.compacted = word(line, 1)?;
                Ok(false)
            }
            Some("ready") => self.writes.verify().map(|()| true),
            _ => {
                println!("store: {line}");
                Ok(false)
            }
        }
    }

    fn commands(&self) -> u64 {
        2000
    }

    fn commands_of_start(&self) -> u64 {
        60
    }

    fn summary(&self) -> String {
        let longest = self.opened.iter().max().copied().unwrap_or_default();
        format!("{} writes acknowledged, the store opened in {longest} ms at the most", self.writes.acknowledged())
    }
}
