//! The one binary: parses argv, builds components, runs them until shutdown.

fn main() {}
