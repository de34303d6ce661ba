//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A shim per pod runs this program. Loaded at a fixed address it needs no relocations, which would make each of them write to
    // (and so own) more than three megabytes.
    println!("cargo:rustc-link-arg-bin=oxikube=-no-pie");
}
