//! The runtime as a CRI client sees it: real sandboxes, shims and containers, each test in a scope of its own.

mod cost;
mod exec;
mod lifecycle;
mod resources;
mod restart;
mod sandbox;
mod security;
mod streams;
mod support;
