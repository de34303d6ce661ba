//! The embedded CRI runtime: images, sandboxes, containers.

pub mod image;
pub mod network;
