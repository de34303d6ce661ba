//! The store through its public trait.

mod basics;
