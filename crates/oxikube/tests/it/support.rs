//! What these tests share.

use std::time::Duration;

use testkit::machine::Machine;

/// Long enough for anything on a busy machine of two cores.
pub const SOON: Duration = Duration::from_secs(60);

/// A machine whose cluster runs.
pub fn started(name: &str) -> Machine {
    let machine = Machine::new(name, env!("CARGO_BIN_EXE_oxikube"));
    machine.oxikube("start").ok();
    machine
}

/// Loads the images of the example.
pub fn load_images(machine: &Machine) {
    for named in testkit::example::visits_images().unwrap() {
        let path = machine.folder().join(format!("{}.tar", named.file));
        std::fs::write(&path, testkit::image::oci_layout(&[(named.reference, &named.image)])).unwrap();
        let said = machine.oxikube(&format!("image load {}", path.display())).ok();
        assert!(said.contains(named.reference), "{said}");
    }
}

/// The value of a jsonpath expression.
pub fn jsonpath(machine: &Machine, what: &str, path: &str) -> String {
    let output = format!("jsonpath={path}");
    let mut args: Vec<&str> = vec!["get"];
    args.extend(what.split_whitespace());
    args.extend(["-o", &output]);
    machine.kubectl_args(&args).ok()
}
