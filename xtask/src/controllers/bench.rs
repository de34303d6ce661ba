//! `cargo xtask bench controllers`.
