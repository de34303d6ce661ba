//! Services on a real kernel: a node, its pods and an outsider are network namespaces that end with their test.

mod balance;
mod model;
mod policies;
mod running;
mod world;
