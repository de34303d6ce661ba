//! The path from `start` to the page and back to nothing, on an emulated machine, with the figures.

use std::time::Duration;

use anyhow::{Result, bail};

use super::kernel::Kernel;
use super::machine::Boot;
use super::root::Root;
use crate::root;

const SCRIPT: &str = include_str!("path.sh");
/// Emulated, everything takes many times as long.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs it, and fails where any of its steps does.
pub fn run(kernel: &Kernel, oxikube: &std::path::Path, memory: u32, cpus: u32) -> Result<()> {
    crate::peers::build(&root(), &["kubectl"])?;
    let mut tree = Root::new(kernel)?;
    tree.program(oxikube, "bin/oxikube")?;
    tree.program(&testkit::peers::path("kubectl"), "bin/kubectl")?;
    tree.add(&testkit::example::visits(), "visits")?;
    for named in testkit::example::visits_images()? {
        let archive = testkit::image::oci_layout(&[(named.reference, &named.image)]);
        tree.write(&format!("images/{}.tar", named.file), &archive)?;
    }
    let boot = Boot { memory, cpus, ..Boot::new(tree.finish()?, SCRIPT) };
    let mut machine = boot.start(kernel)?;
    match machine.run_to_the_end(LIMIT, |line| println!("{line}"))? {
        0 => Ok(()),
        code => bail!("the path failed ({code}) with {memory} MiB:\n{}", machine.last_words()),
    }
}
