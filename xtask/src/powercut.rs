//! `cargo xtask powercut`: the power of an emulated machine goes at random writes to its disk; what was acknowledged outside of it is
//! there afterwards.

mod cluster;
mod store;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use env::Env;
use fastrand::Rng;

use crate::vm::disk::Disk;
use crate::vm::kernel::Kernel;
use crate::vm::machine::{Boot, Machine, Said};
use crate::vm::root::RootImage;
use crate::{number, vm};

pub use writes::SLOTS;

/// What `cargo xtask` says of it.
pub const USAGE: &str =
    "  powercut          cuts the power of an emulated machine while it writes, and looks what is there afterwards
    --only store|cluster          only the store itself, or only a whole cluster
    --cuts N  --seed N            (20; random, and printed)
    --lying-disk                  flushes do nothing: this must find losses
    --binary F                    the oxikube to run (default: a development build)
";

/// Something that can be cut off: what it runs, and what must be true of what it says.
trait Victim {
    fn name(&self) -> &str;
    fn memory(&self) -> u32;
    /// The script of this boot.
    fn command(&mut self, boot: usize) -> String;
    /// A line it said; true once everything was checked, and it only writes from now on. A breach is an error.
    fn heard(&mut self, line: &str) -> Result<bool>;
    /// About how many writes and flushes the disk sees while it writes for a while.
    fn commands(&self) -> u64;
    /// The same, from its start until it is ready.
    fn commands_of_start(&self) -> u64;
    /// What it did, in the end.
    fn summary(&self) -> String;
}

/// How long it may take until all is checked.
const READY: Duration = Duration::from_secs(240);
/// What the clock does when writes don't.
const WRITING: Duration = Duration::from_secs(20);
/// What was acknowledged before the cut may still be on its way out.
const LAST_LINES: Duration = Duration::from_millis(200);

struct Options {
    store: bool,
    cluster: bool,
    cuts: usize,
    seed: u64,
    binary: Option<PathBuf>,
    lying_disk: bool,
}

pub fn run(args: &[&str]) -> Result<()> {
    let options = parse(args)?;
    println!("seed {}", options.seed);
    let kernel = Kernel::prepared()?;
    if options.store {
        let mut victim = store::Store::default();
        cuts(&kernel, store::root(&kernel)?, &mut victim, &options)?;
    }
    if options.cluster {
        let binary = vm::binary(options.binary.as_deref())?;
        let mut victim = cluster::Cluster::default();
        cuts(&kernel, cluster::root(&kernel, &binary)?, &mut victim, &options)?;
    }
    Ok(())
}

fn parse(args: &[&str]) -> Result<Options> {
    let seed = Env::system().random_below(1 << 32);
    let mut options = Options { store: true, cluster: true, cuts: 20, seed, binary: None, lying_disk: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().copied().with_context(|| format!("{arg} needs a value"));
        match *arg {
            "--only" => match value()? {
                "store" => options.cluster = false,
                "cluster" => options.store = false,
                other => bail!("--only is store or cluster, not {other:?}"),
            },
            "--cuts" => options.cuts = number(arg, value()?)?,
            "--seed" => options.seed = value()?.parse().context("a seed is a number")?,
            "--lying-disk" => options.lying_disk = true,
            "--binary" => options.binary = Some(value()?.into()),
            other => bail!("no option {other:?}\n{USAGE}"),
        }
    }
    Ok(options)
}

fn cuts(kernel: &Kernel, root: RootImage, victim: &mut dyn Victim, options: &Options) -> Result<()> {
    let &Options { cuts, seed, lying_disk, .. } = options;
    let mut rng = Rng::with_seed(seed);
    let disk = Disk::formatted(2 << 30)?;
    if lying_disk {
        disk.lie();
    }
    let begin = Env::system().monotonic();
    for boot in 0..=cuts {
        let last = boot == cuts;
        let boots = Boot {
            memory: victim.memory(),
            disk: Some(disk.socket()),
            ..Boot::new(root.clone(), &victim.command(boot))
        };
        // Now and then it is cut off while it starts, from the very first time on; what follows then starts on the remains.
        let early = !last && boot % 4 == 0 && victim.commands_of_start() > 0;
        let early = early.then(|| disk.cut_after(rng.u64(1..=victim.commands_of_start())));
        let mut machine = boots.start(kernel)?;
        let context = format!("{} after cut {boot} (seed {seed})", victim.name());
        let ready = match rehearse(&mut machine, victim, early.as_ref()) {
            Ok(ready) => ready,
            Err(error) => return Err(error.context(format!("{context}\n{}", machine.last_words()))),
        };
        let before = disk.counts();
        if last {
            break;
        }
        let mut heard = 0;
        if ready {
            let after = rng.u64(1..=victim.commands());
            let gone = disk.cut_after(after);
            let deadline = Env::system().monotonic() + WRITING;
            while gone.try_recv().is_err() && Env::system().monotonic() < deadline {
                match machine.next(Duration::from_millis(20)).context(context.clone())? {
                    Said::Line(line) => {
                        victim.heard(&line)?;
                        heard += 1;
                    }
                    Said::Exit(code) => bail!("{} ended ({code}) in boot {boot}", victim.name()),
                    Said::Nothing => {}
                }
            }
        }
        std::thread::sleep(LAST_LINES);
        for line in machine.cut()? {
            victim.heard(&line)?;
            heard += 1;
        }
        disk.cut(&mut rng);
        let now = disk.counts();
        println!(
            "{}: cut {} {}: {} writes and {} flushes later, {heard} lines later; {} writes lost or torn",
            victim.name(),
            boot + 1,
            if ready { "while it wrote" } else { "while it started" },
            now.writes - before.writes,
            now.flushes - before.flushes,
            now.lost - before.lost,
        );
    }
    println!(
        "{}: {cuts} cuts in {:.0} s, nothing lost: {}",
        victim.name(),
        begin.elapsed().as_secs_f64(),
        victim.summary()
    );
    Ok(())
}

/// Listens until everything is checked; false if the power went before.
fn rehearse(
    machine: &mut Machine,
    victim: &mut dyn Victim,
    early: Option<&std::sync::mpsc::Receiver<()>>,
) -> Result<bool> {
    let deadline = Env::system().monotonic() + READY;
    loop {
        if early.is_some_and(|gone| gone.try_recv().is_ok()) {
            return Ok(false);
        }
        match machine.next(Duration::from_millis(100))? {
            Said::Line(line) => {
                if victim.heard(&line)? {
                    return Ok(true);
                }
            }
            Said::Exit(code) => bail!("{} ended ({code})", victim.name()),
            Said::Nothing if Env::system().monotonic() > deadline => {
                bail!("{} was not ready within {} s", victim.name(), READY.as_secs())
            }
            Said::Nothing => {}
        }
    }
}
