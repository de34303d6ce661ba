//! How the test shim is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bin=oxikube-shim=-no-pie");
}
