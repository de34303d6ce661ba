//! `kill -9` at every step of start, load, pull, unpack, pod creation and deletion, stop and delete: what was begun is finished by whoever
//! comes next, nothing is left behind, nothing is there twice.
//!
//! The steps are the failpoints that one life of a cluster passes, as a life that dies nowhere says them: a new one is covered by itself.

mod footprint;
mod life;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parking_lot::Mutex;

use footprint::Footprint;
use life::{Expected, Half, Life};

/// So many deaths when not all are asked for.
const SAMPLE: usize = 8;
/// At a time: whoever waits for a probe or a grace period leaves the machine to the other.
const AT_ONCE: usize = 2;

/// Failpoints that a life like ours doesn't pass. The crates' own tests die at them.
const ELSEWHERE: &[&str] = &[
    // Only after an hour, and when a file is full.
    "store.compact.piece",
    // The life has no claims; the kubelet's tests fail here.
    "provisioner.folder-made",
    "provisioner.folder-removed",
];

/// Where to die.
#[derive(Clone, Debug)]
struct Death {
    half: Half,
    failpoint: String,
    /// The how manyth time that one process passes it.
    time: u32,
}

#[test]
fn dying_at_some_steps_loses_nothing() {
    let env = env::Env::system();
    let given = std::env::var("OXIKUBE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| env.random_below(1 << 32));
    println!("OXIKUBE_TEST_SEED={seed}");
    let env = env::Env::seeded(seed, env.now());
    let (mut deaths, expected) = deaths("lives", &env);
    let mut sample = Vec::new();
    while sample.len() < SAMPLE && !deaths.is_empty() {
        sample.push(deaths.swap_remove(env.random_below(deaths.len() as u64) as usize));
    }
    die(sample, &expected);
}

#[test]
#[ignore = "takes about 20 minutes; run every night"]
fn dying_at_every_step_loses_nothing() {
    let (deaths, expected) = deaths("lives-all", &env::Env::system());
    println!("{} deaths", deaths.len());
    die(deaths, &expected);
}

/// Every failpoint is one that the life passes, so that it is died at, or is named above.
#[test]
fn every_failpoint_is_died_at() {
    let (deaths, _) = deaths("passes", &env::Env::system());
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut missing = named_in(crates);
    missing.retain(|name| !ELSEWHERE.contains(&name.as_str()) && deaths.iter().all(|death| death.failpoint != *name));
    assert!(missing.is_empty(), "no death at {missing:?}");
}

/// One life that dies nowhere: all the deaths there can be, at the first pass of a failpoint and at a later one; and what is normal.
fn deaths(name: &str, env: &env::Env) -> (Vec<Death>, Expected) {
    let (mut life, passed) = Life::traced(name);
    let expected = life.live(None);
    let mut deaths = Vec::new();
    for (half, passed) in passed {
        // By process, then the most by name.
        let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
        for line in std::fs::read_to_string(passed).unwrap().lines() {
            let (process, name) = line.split_once(' ').unwrap();
            *counts.entry((name.to_owned(), process.to_owned())).or_default() += 1;
        }
        let mut most: BTreeMap<String, u32> = BTreeMap::new();
        for ((name, _), count) in counts {
            most.entry(name).and_modify(|most| *most = count.max(*most)).or_insert(count);
        }
        for (failpoint, count) in most {
            let later = (count > 1).then(|| 2 + env.random_below(u64::from(count) - 1) as u32);
            let times = [Some(1), later].into_iter().flatten();
            deaths.extend(times.map(|time| Death { half, failpoint: failpoint.clone(), time }));
        }
    }
    (deaths, expected)
}

fn die(deaths: Vec<Death>, expected: &Expected) {
    let queue = Mutex::new(deaths.into_iter().enumerate().collect::<Vec<_>>());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((n, death)) = queue.lock().pop() else { return };
                    let Death { half, failpoint, time } = &death;
                    let once = AssertUnwindSafe(|| {
                        let mut life = Life::new(&format!("dies{n}"), *half, &format!("{failpoint}=kill@{time}"));
                        life.live(Some(expected));
                        life.died()
                    });
                    match catch_unwind(once) {
                        Ok(true) => println!("{death:?}: fine"),
                        // How often the later ones are passed differs.
                        Ok(false) if *time > 1 => println!("{death:?}: nothing died"),
                        Ok(false) => failed.lock().push(format!("{death:?}: nothing died")),
                        Err(_) => failed.lock().push(format!("{death:?}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The failpoints in the sources below `folder`.
fn named_in(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            // Tests make up their own.
            if name != "tests" && name != "env" {
                found.extend(named_in(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for call in [".failpoint(\"", ".crashpoint(\""] {
                let calls = text.split(call).skip(1);
                found.extend(calls.filter_map(|call| call.split_once('"').map(|(name, _)| name.to_owned())));
            }
        }
    }
    found
}
