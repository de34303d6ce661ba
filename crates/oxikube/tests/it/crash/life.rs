//! One life of a cluster, from `start` to `delete`, in which something may die once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use env::Env;
use testkit::image::{Image, Layer, Packing, busybox_layer};
use testkit::machine::{Machine, Said};
use testkit::registry::Registry;

use super::Footprint;
use super::footprint::processes;
use crate::life::traces::traces;
use crate::support::{SOON, jsonpath};

/// What a cluster is that nothing happened to.
#[derive(Debug)]
pub struct Expected {
    /// With the steady pod.
    steady: Footprint,
    /// With the pulled one too.
    both: Footprint,
}

/// Which of the two starts, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    First,
    Second,
}

pub struct Life {
    machine: Machine,
    half: Half,
    /// What the programs of each half are told, until one of them died.
    armed: Vec<(Half, String)>,
    died: bool,
    pulled: String,
    archive: PathBuf,
    _registry: Registry,
    _runtime: tokio::runtime::Runtime,
}

impl Life {
    /// Begins on a machine of its own; the programs of that half are told of these failpoints.
    pub fn new(name: &str, half: Half, failpoints: &str) -> Life {
        let machine = Machine::new(name, env!("CARGO_BIN_EXE_oxikube"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let start = || runtime.block_on(Registry::start(&Env::system()));
        let registry = machine.namespace().run(start).unwrap().unwrap();
        let pulled = registry.put("pulled:1", image("pulled"));
        let archive = machine.folder().join("steady.tar");
        std::fs::write(&archive, testkit::image::oci_layout(&[("crash.test/steady:1", image("steady"))])).unwrap();
        Life {
            machine,
            half: Half::First,
            armed: vec![(half, failpoints.to_owned())],
            died: false,
            pulled,
            archive,
            _registry: registry,
            _runtime: runtime,
        }
    }

    /// One that dies nowhere, and the files in its machine's folder with the failpoints that each half passes.
    pub fn traced(name: &str) -> (Life, [(Half, PathBuf); 2]) {
        let mut life = Life::new(name, Half::First, "");
        let files = [Half::First, Half::Second].map(|half| (half, life.machine.folder().join(format!("{half:?}.tar"))));
        life.armed = files.iter().map(|(half, file)| (*half, format!("trace={}", file.display()))).collect();
        (life, files)
    }

    pub fn died(&self) -> bool {
        self.died
    }

    /// All of it. What is normal is compared with what a life without a death had.
    pub fn live(&mut self, expected: Option<&Expected>) -> Expected {
        let nothing = self.traces();
        self.start();
        let load = format!("image load {}", self.archive.display());
        self.again(|life| life.oxikube(&load));
        self.create("steady", "crash.test/steady:1", "Never");
        self.is_ready("steady");
        let steady = self.footprint(expected.map(|expected| &expected.steady));

        let image = self.pulled.clone();
        self.create("pulled", &image, "Always");
        self.is_ready("pulled");
        let both = self.footprint(expected.map(|expected| &expected.both));
        self.once("steady");
        self.once("pulled");

        self.again(|life| life.machine.kubectl("delete pod pulled --ignore-not-found --wait=false"));
        self.again(|life| life.machine.kubectl("wait --for=delete pod/pulled --timeout=60s"));
        self.footprint(Some(&steady));
        self.once("steady");

        self.again_without_start(|life| life.oxikube("stop"));
        // A daemon of the first half may have died without anybody asking.
        self.half = Half::Second;
        self.start();
        self.is_ready("steady");
        self.once("steady");
        self.again_without_start(|life| {
            let said = life.oxikube("delete --yes");
            // Whoever died had done all but say so.
            let done = life.died && said.err.contains("there is no cluster");
            if done { Said { code: Some(0), ..said } } else { said }
        });
        let left: Vec<_> = self.traces().difference(&nothing).cloned().collect();
        assert!(left.is_empty(), "left behind: {left:#?}");
        Expected { steady, both }
    }

    /// Everything on the machine but what is the test's own and kubectl's.
    fn traces(&self) -> BTreeSet<String> {
        let mut traces = traces(&self.machine);
        let others = |trace: &String| trace.ends_with(".tar") || trace.contains("/.kube");
        traces.retain(|trace| !others(trace));
        traces
    }

    fn oxikube(&mut self, args: &str) -> Said {
        let mut command = self.machine.oxikube_command(args);
        if let Some((_, armed)) = self.armed.iter().find(|(half, _)| *half == self.half) {
            command.env("OXIKUBE_FAILPOINTS", armed);
        }
        self.machine.run(command)
    }

    fn start(&mut self) {
        self.again_without_start(|life| life.oxikube("start"));
    }

    /// Something may die meanwhile; then it is done once more, after a start.
    #[track_caller]
    fn again(&mut self, work: impl Fn(&mut Life) -> Said) {
        let said = work(self);
        if said.code == Some(0) {
            return;
        }
        self.note_death(&said);
        self.start();
        work(self).ok();
    }

    /// The same for what needs no daemon.
    #[track_caller]
    fn again_without_start(&mut self, work: impl Fn(&mut Life) -> Said) {
        let said = work(self);
        if said.code != Some(0) {
            self.note_death(&said);
            work(self).ok();
        }
    }

    /// Only once may anything fail, and only because something died: the command itself or the daemon.
    #[track_caller]
    fn note_death(&mut self, said: &Said) {
        assert!(!self.died && !self.armed.is_empty(), "it failed though nothing died: {}{}", said.out, said.err);
        self.died = true;
        self.armed.clear();
        let killed = said.code.is_none();
        let dead = killed || self.machine.oxikube("status").code != Some(0);
        assert!(dead, "it failed though all is alive: {}{}", said.out, said.err);
    }

    fn create(&mut self, name: &str, image: &str, pull: &str) {
        let token = format!("{}-{name}", self.machine.name());
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: main, image: '{image}', imagePullPolicy: {pull}, command: [sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 1000 & wait $!; done', {token}], ports: [{{containerPort: 80}}], volumeMounts: [{{name: memory, mountPath: /memory}}]}}]\n  volumes: [{{name: memory, emptyDir: {{medium: Memory}}}}]\n"
        );
        // Whether the one that died had made it is not known.
        self.again(|life| {
            let said = life.machine.kubectl_with("create -f -", &manifest);
            let there = life.died && said.err.contains("AlreadyExists");
            if there { Said { code: Some(0), ..said } } else { said }
        });
    }

    fn is_ready(&mut self, name: &str) {
        let args = format!("wait --for=condition=Ready pod/{name} --timeout=60s");
        self.again(|life| life.machine.kubectl(&args));
    }

    /// The pod's container has one process, and was restarted by no more than ended it.
    fn once(&self, name: &str) {
        let restarts = jsonpath(&self.machine, &format!("pod {name}"), "{.status.containerStatuses[0].restartCount}");
        let token = format!("-{name}");
        // A shell that starts something is two of its name for a moment.
        self.machine.eventually_or(&format!("one process of {name}"), SOON, || {
            match processes(&self.machine, &token) {
                1 => Ok(()),
                other => Err(other.to_string()),
            }
        });
        // A failed start ends what it began, as a stop does.
        let ends = usize::from(self.half == Half::Second) + usize::from(self.died);
        assert!(
            restarts.parse::<usize>().is_ok_and(|restarts| restarts <= ends),
            "{name} was restarted {restarts} times"
        );
    }

    /// What is there, once it is as expected.
    fn footprint(&mut self, expected: Option<&Footprint>) -> Footprint {
        let Some(expected) = expected else {
            return settled(&self.machine);
        };
        let env = Env::system();
        let deadline = env.monotonic() + SOON;
        loop {
            let now = Footprint::of(&self.machine);
            if now == *expected {
                return now;
            }
            // A death that nobody asked about yet: the last steps of a deletion are nobody's request.
            if !self.died && self.machine.oxikube("status").code != Some(0) {
                self.died = true;
                self.armed.clear();
                self.start();
            }
            assert!(env.monotonic() < deadline, "{now:?} instead of {expected:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What is there once that stays the same for a while: nothing else says when the last of it is done.
fn settled(machine: &Machine) -> Footprint {
    let env = Env::system();
    let (mut last, mut since) = (Footprint::of(machine), env.monotonic());
    machine.eventually("a steady footprint", SOON, || {
        let now = Footprint::of(machine);
        if now != last {
            (last, since) = (now.clone(), env.monotonic());
        }
        (since.elapsed() > Duration::from_secs(2)).then_some(now)
    })
}

/// Busybox and a layer of its own.
fn image(word: &str) -> &'static Image {
    static IMAGES: [OnceLock<Image>; 2] = [OnceLock::new(), OnceLock::new()];
    IMAGES[usize::from(word == "pulled")].get_or_init(|| {
        let layer = Layer::new().file("word", 0o644, format!("{word}\n"));
        let base = Image::new().layer(busybox_layer().unwrap(), Packing::Gzip);
        base.layer(layer, Packing::Gzip).env(["PATH=/bin"])
    })
}
