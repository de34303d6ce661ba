//! 1 GiB through the real kubectl, each way.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::traffic;

use super::{load_images, new_machine};

const MIB: usize = 1024;

pub(super) fn run() -> Result<Value> {
    let machine = new_machine("streams");
    machine.oxikube("start").ok();
    load_images(&machine)?;
    machine.kubectl_with("create -f -", traffic::POD).ok();
    machine.kubectl("wait --for=condition=Ready pod/traffic --timeout=60s").ok();
    let mut ways = Vec::new();
    for websockets in [true, false] {
        for went in traffic::carry(&machine, MIB, websockets)? {
            ensure!(went.unharmed, "{} harmed what it carried", went.way);
            let seconds = went.took.as_secs_f64();
            let rate = (MIB as f64 / seconds).round();
            ways.push(json!({"way": went.way, "s": seconds, "mib_per_s": rate, "daemon_grew_by_kib": went.grown}));
        }
    }
    Ok(json!({"mib": MIB, "ways": ways}))
}
