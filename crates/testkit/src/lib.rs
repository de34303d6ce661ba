//! What tests of several crates need: images made on the spot, a registry to pull them from.
//!
//! A dev-dependency only. Nothing here touches the network but on loopback or where a test put it.

pub mod example;
pub mod image;
pub mod machine;
pub mod peers;
pub mod registry;
