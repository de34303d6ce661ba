//! Much data, unharmed, and a daemon that doesn't grow by it.

use testkit::traffic;

use crate::support::{load_images, started};

/// `cargo xtask bench streams` sends 1 GiB.
const MIB: usize = 64;
/// What the daemon may take for streams in flight, and whatever else it does meanwhile.
const GROWS_BY: u64 = 48 * 1024;

#[test]
fn much_goes_through_unharmed() {
    let machine = started("much");
    load_images(&machine);
    machine.kubectl_with("create -f -", traffic::POD).ok();
    machine.kubectl("wait --for=condition=Ready pod/traffic --timeout=60s").ok();
    let mib = std::env::var("OXIKUBE_STREAM_MIB").map_or(MIB, |mib| mib.parse().unwrap());
    for websockets in [true, false] {
        for went in traffic::carry(&machine, mib, websockets).unwrap() {
            let rate = mib as f64 / went.took.as_secs_f64();
            println!("{}: {mib} MiB in {:.1?}, {rate:.0} MiB/s, grown by {} KiB", went.way, went.took, went.grown);
            assert!(went.unharmed && went.grown < GROWS_BY, "{went:?}");
        }
    }
}
