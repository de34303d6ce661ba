//! A whole cluster.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::Victim;
use super::writes::Writes;
use crate::vm;
use crate::vm::kernel::Kernel;
use crate::vm::root::{Root, RootImage};

#[derive(Default)]
pub struct Cluster {
    writes: Writes,
    /// Images that were loaded, and must be there.
    loaded: BTreeSet<String>,
    /// Those the machine says it has.
    found: BTreeSet<String>,
    /// How long each start took, in seconds.
    started: Vec<f64>,
}

pub fn root(kernel: &Kernel, oxikube: &Path) -> Result<RootImage> {
    let mut root = Root::new(kernel)?;
    root.program(oxikube, "bin/oxikube")?;
    root.program(&vm::guest_program()?, "bin/xtask")?;
    root.finish()
}

const SCRIPT: &str = include_str!("cluster.sh");

impl Victim for Cluster {
    fn name(&self) -> &str {
        "cluster"
    }

    fn memory(&self) -> u32 {
        1024
    }

    fn command(&mut self, boot: usize) -> String {
        self.writes.forget_found();
        self.found.clear();
        format!("REVISION={} ROUND={boot}\n{SCRIPT}", self.writes.newest)
    }

    fn heard(&mut self, line: &str) -> Result<bool> {
        if self.writes.heard(line)? {
            return Ok(false);
        }
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        match what {
            "started" => self.started.push(rest.parse()?),
            "image" => drop(self.found.insert(rest.to_owned())),
            "loaded" => drop(self.loaded.insert(rest.to_owned())),
            "left" => bail!("{rest} is nobody's"),
            "ready" => {
                let lost: Vec<_> = self.loaded.difference(&self.found).filter(|name| *name != "base").collect();
                ensure!(lost.is_empty(), "images were loaded and are not there: {lost:?}");
                self.writes.verify()?;
                return Ok(true);
            }
            _ => println!("cluster: {line}"),
        }
        Ok(false)
    }

    fn commands(&self) -> u64 {
        1500
    }

    fn commands_of_start(&self) -> u64 {
        400
    }

    fn summary(&self) -> String {
        let longest = self.started.iter().copied().fold(0.0, f64::max);
        let (writes, images) = (self.writes.acknowledged(), self.loaded.len());
        format!("{writes} writes acknowledged, {images} images loaded, a start took {longest} s at the most")
    }
}
