//! What tests of several crates need: images made on the spot, a registry to pull them from, machines of their own,
//! terminals, drivers of devices, and nodes that are only said to be there.
//!
//! A dev-dependency only. Nothing here touches the network but on loopback or where a test put it.

pub mod device_driver;
pub mod example;
pub mod image;
pub mod machine;
pub mod metrics;
pub mod nodes;
pub mod parity;
pub mod peers;
pub mod placements;
pub mod registry;
pub mod terminal;
pub mod traffic;
