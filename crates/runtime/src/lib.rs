//! The embedded CRI runtime: images, sandboxes, containers.
