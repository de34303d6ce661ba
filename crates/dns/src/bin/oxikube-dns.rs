//! The DNS process by itself, for tests of this crate; the shipped binary runs the same function.

fn main() {
    std::process::exit(dns::run(std::env::args_os().skip(1)));
}
