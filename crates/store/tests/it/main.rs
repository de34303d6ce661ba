//! The store through its public trait.

mod basics;
mod concurrency;
mod crash;
mod failure;
mod model;
