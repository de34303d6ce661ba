//! The generic registry: every kind's reads and writes.

mod cache;
mod options;
