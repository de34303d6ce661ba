//! The runtime as a CRI client sees it: real sandboxes, shims and containers, each test in a scope of its own. `runtimes`
//! lists all cases and runs them with the embedded runtime and with runc.

mod cost;
mod exec;
mod images;
mod lifecycle;
mod resources;
mod restart;
mod runtimes;
mod sandbox;
mod security;
mod streams;
mod support;
