//! The runtime as a CRI client sees it: real sandboxes, shims and containers, each test in a scope of its own.

mod lifecycle;
mod support;
