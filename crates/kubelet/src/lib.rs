//! Runs the pods bound to this node.

pub mod environment;
pub mod expansion;
pub mod fields;
pub mod logs;
pub mod volumes;
