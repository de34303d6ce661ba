//! The shim by itself, for tests of this crate; the shipped binary runs the same function.

fn main() {
    std::process::exit(shim::run());
}
